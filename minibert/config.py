"""BertConfig: what a BERT is made of, under Hugging Face's names, validated."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minibert.errors import InputError
from minibert.io.numbers import counted

# "gelu" is x·Φ(x) with the true erf, "gelu_new" its tanh form (constant 0.044715), as in Google's
# code. The aliases are other names of the same two functions in transformers/activations.py.
ACTIVATIONS = ("gelu", "gelu_new", "relu")
ACTIVATION_ALIASES = {
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_accurate": "gelu_new",
}
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

# Keys that are no fields because only one value of them is BERT as it is implemented here.
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("bert",),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "pruned_heads": ({}, None),
}
_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
_PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


@dataclass(frozen=True)
class BertConfig:
    """The shape of a BERT and of its head (transformers/models/bert/configuration_bert.py).

    `num_labels`, `id2label` and `label2id` are one fact in three forms: give any one of them and
    the others follow (0 labels: as many as are named, else HF's default of 2). Keys of a
    config.json that are no fields are kept aside, so that loading and saving loses nothing.

    Raises InputError for anything that minibert could not compute as transformers does.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None
    problem_type: str | None = None
    num_labels: int = 0
    id2label: Mapping[int, str] = field(default_factory=dict, hash=False)
    label2id: Mapping[str, int] = field(default_factory=dict, hash=False)
    architectures: tuple[str, ...] | None = None
    tie_word_embeddings: bool = True
    _extra: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        self._set("hidden_act", _activation(self.hidden_act))
        self._set("architectures", _architectures(self.architectures))
        _check_sizes(self)
        _check_numbers(self)
        names = _label_names(self.num_labels, self.id2label, self.label2id)
        self._set("num_labels", len(names))
        self._set("id2label", dict(enumerate(names)))
        self._set("label2id", {name: index for index, name in enumerate(names)})
        _check_choices(self)
        self._set("_extra", {"model_type": "bert", **self._extra})

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the one place where a frozen field is written

    @property
    def head_size(self) -> int:
        """D = H / N."""
        return self.hidden_size // self.num_attention_heads

    @property
    def head_dropout(self) -> float:
        """Dropout in front of a classifier."""
        p = self.classifier_dropout
        return self.hidden_dropout_prob if p is None else p

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BertConfig:
        """A config from the contents of a config.json (also one without `model_type`)."""
        fields = {key: value for key, value in values.items() if key in _FIELDS}
        for name in ("id2label", "label2id"):
            if fields.get(name) is None:  # null is HF's way to say "not given"
                fields.pop(name, None)
        extra = {key: value for key, value in values.items() if key not in _FIELDS}
        return cls(**fields, _extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds: JSON types only, `id2label` with string keys."""
        values = {name: getattr(self, name) for name in _FIELDS}
        del values["num_labels"]  # transformers derives it from id2label and never stores it
        values["id2label"] = {str(index): name for index, name in self.id2label.items()}
        values["label2id"] = dict(self.label2id)
        values["architectures"] = None if self.architectures is None else list(self.architectures)
        return {**self._extra, **values}

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> BertConfig:
        """The config.json of a local model directory; CheckpointError when there is none."""
        from minibert.io.json_io import read_json_object

        path = Path(directory) / "config.json"
        values = read_json_object(path)
        try:
            return cls.from_dict(values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def save(self, directory: str | Path) -> None:
        """Write config.json, atomically, into a directory that exists."""
        from minibert.io.files import atomic_write

        text = json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
        atomic_write(Path(directory) / "config.json", text)

    def replace(self, **changes: Any) -> BertConfig:
        """A copy with `changes`; new labels, or another number of them, drop the old ones."""
        for name in changes:
            if name not in _FIELDS:
                raise InputError(f"BertConfig has no field {name!r}; it has {', '.join(_FIELDS)}")
        labels = {"num_labels": 0, "id2label": {}, "label2id": {}}
        if changes.get("num_labels", self.num_labels) != self.num_labels or (
            changes.keys() & {"id2label", "label2id"}
        ):
            changes = labels | changes
        return dataclasses.replace(self, **changes)


_FIELDS = tuple(f.name for f in dataclasses.fields(BertConfig) if f.name != "_extra")


def _activation(name: object) -> str:
    resolved = ACTIVATION_ALIASES.get(name, name) if isinstance(name, str) else name
    if resolved not in ACTIVATIONS:
        supported = ", ".join(ACTIVATIONS + tuple(ACTIVATION_ALIASES))
        raise InputError(f"hidden_act: got {name!r}, wanted one of {supported}")
    return str(resolved)


def _architectures(names: object) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"architectures: got {names!r}, wanted a list of class names "
            'such as ["BertForSequenceClassification"], or null'
        )
    return tuple(names)


def _check_sizes(config: BertConfig) -> None:
    for name in _SIZES:
        value = getattr(config, name)
        if type(value) is not int or value < 1:
            raise InputError(f"{name}: got {value!r}, wanted a whole number of at least 1")
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"hidden_size: got {config.hidden_size}, wanted a multiple of num_attention_heads "
            f"({config.num_attention_heads}): every head takes an equal share"
        )
    pad = config.pad_token_id
    if pad is not None and (type(pad) is not int or not 0 <= pad < config.vocab_size):
        raise InputError(
            f"pad_token_id: got {pad!r}, wanted a token id from 0 to {config.vocab_size - 1}, "
            "or null for none"
        )


def _check_numbers(config: BertConfig) -> None:
    for name in _PROBABILITIES:
        value = getattr(config, name)
        if value is None and name == "classifier_dropout":
            continue  # the head then uses hidden_dropout_prob
        if not _is_number(value) or not 0 <= value < 1:
            raise InputError(f"{name}: got {value!r}, wanted a probability, 0 <= p < 1")
    eps, sigma = config.layer_norm_eps, config.initializer_range
    if not _is_number(eps) or not 0 < eps < math.inf:
        raise InputError(f"layer_norm_eps: got {eps!r}, wanted a number above 0, such as 1e-12")
    if not _is_number(sigma) or not 0 <= sigma < math.inf:
        raise InputError(
            f"initializer_range: got {sigma!r}, wanted a standard deviation, such as 0.02"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_choices(config: BertConfig) -> None:
    for name, allowed in _FIXED.items():
        value = config._extra.get(name, allowed[0])
        if value not in allowed:
            raise InputError(
                f"{name}: got {value!r}, wanted {allowed[0]!r}: minibert implements the original "
                "BERT encoder only; choose a model of that kind"
            )
    if type(config.tie_word_embeddings) is not bool:
        raise InputError(f"tie_word_embeddings: got {config.tie_word_embeddings!r}, wanted a bool")
    kind = config.problem_type
    if kind is not None and kind not in PROBLEM_TYPES:
        raise InputError(
            f"problem_type: got {kind!r}, wanted one of {', '.join(PROBLEM_TYPES)}, or null"
        )
    if kind == "single_label_classification" and config.num_labels == 1:
        raise InputError(
            "problem_type: got single_label_classification with 1 label, wanted 2 or more labels; "
            "for one number per text use problem_type regression"
        )


def _label_names(count: object, id2label: object, label2id: object) -> list[str]:
    """Label names in the order of their ids, from whichever of the three forms was given."""
    if type(count) is not int or count < 0:
        raise InputError(f"num_labels: got {count!r}, wanted a whole number of at least 1")
    by_id = _label_map("id2label", id2label, flip=False)
    by_name = _label_map("label2id", label2id, flip=True)
    if by_id and by_name and by_id != by_name:
        raise InputError(
            f"label2id: got {label2id!r}, wanted the inverse of id2label ({id2label!r}); "
            "leave one of them out and it is derived"
        )
    names = by_id or by_name or {index: f"LABEL_{index}" for index in range(count or 2)}
    if count and count != len(names):
        raise InputError(
            f"num_labels: got {count}, but id2label names {counted(len(names), 'label')}; "
            "leave num_labels out"
        )
    return [names[index] for index in range(len(names))]


def _label_map(field_name: str, given: object, *, flip: bool) -> dict[int, str]:
    """{id: name} of a map in either direction; JSON makes its keys strings, so ids are parsed."""
    example = '{"NEGATIVE": 0, "POSITIVE": 1}' if flip else '{"0": "NEGATIVE", "1": "POSITIVE"}'
    wanted = f"wanted ids 0 to K-1, each with its own name, such as {example}"
    if not isinstance(given, Mapping):
        raise InputError(f"{field_name}: got {given!r}, {wanted}")
    pairs = [(value, key) if flip else (key, value) for key, value in given.items()]
    try:
        names = {int(index): str(name) for index, name in pairs if name is not None}
    except (TypeError, ValueError) as error:
        raise InputError(f"{field_name}: got {given!r}, {wanted}") from error
    if sorted(names) != list(range(len(pairs))) or len(set(names.values())) != len(pairs):
        raise InputError(f"{field_name}: got {given!r}, {wanted}")
    return names
