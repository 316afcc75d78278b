"""What a pipeline can be told: which options it has, and what each may be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minibert.errors import InputError
from minibert.tokenization.truncation import Truncation, strategy_of

CPU, GPU = ("cpu", "-1"), ("cuda", "cuda:0", "0")
HARMLESS = frozenset(
    {"binary_output", "framework", "num_workers", "trust_remote_code", "use_fast"}
    | {"return_attention_mask", "return_token_type_ids"}  # of the tokenizer
)
"""Options of transformers that say nothing here: they are taken, and have no effect."""
ABSENT = {
    "device_map": 'a model lies on one device; pass device="cuda" or "cpu"',
    "token": "the hub's token is read from HF_TOKEN",
    "pipeline_class": "call the class's from_pretrained",
    "add_special_tokens": "a text always stands between [CLS] and [SEP]",
    "grouped_entities": 'pass aggregation_strategy="simple"',
    "return_all_scores": "pass top_k=None",
    "topk": "pass top_k",
    "feature_extractor": "texts have a tokenizer",
    "image_processor": "texts have a tokenizer",
    "video_processor": "texts have a tokenizer",
    "processor": "texts have a tokenizer",
}
"""Options of transformers that cannot be had, unless as by default, and what to do instead."""


@dataclass
class Notes:
    """What became of a call's texts: counted portion by portion, and said once, at its end."""

    texts: int = 0
    cut: int = 0  # unasked
    limit: int = 0  # tokens to which they were cut
    unread: int = 0  # questions of which nothing could be read
    problem: InputError | None = None  # what is wrong with the first of these

    def add(self, texts: int, cut: int, limit: int) -> None:
        """So many texts more."""
        self.texts, self.cut, self.limit = self.texts + texts, self.cut + cut, limit


@dataclass(frozen=True)
class Reading:
    """How texts are read: the options that every pipeline has, under transformers' names."""

    truncation: Truncation | None = None
    """True: cut texts that are too long. False: refuse them. None: cut them, with a warning."""

    max_length: int | None = None
    """Tokens of a text, if fewer than the pipeline's own limit."""

    padding: object = None
    """Without effect: nothing is ever padded."""

    batch_size: int | None = None
    """Texts of a batch; None: as many as 4096 tokens hold."""

    notes: Notes = field(default_factory=Notes, init=False, compare=False)

    def __post_init__(self) -> None:
        strategy_of(self.strategy)
        for name in ("max_length", "batch_size"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name))

    @property
    def strategy(self) -> Truncation:
        """How texts that are too long are cut."""
        return True if self.truncation is None else self.truncation

    def note(self, texts: int, cut: int, limit: int) -> None:
        """So many texts more, some of them cut; who names truncation or max_length wants that."""
        asked = self.truncation is not None or self.max_length is not None
        self.notes.add(texts, 0 if asked else cut, limit)


AS_USUAL = Reading()  # whose notes nobody reads


def keywords(function: Callable[..., Any]) -> list[str]:
    """The names of the arguments that are passed by name alone."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def of_ours(owner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Without transformers' options that say nothing here; InputError for what cannot be had."""
    for name, value in given.items():
        default = name == "add_special_tokens"  # the others are off
        if name in ABSENT and value is not None and value is not default:
            raise InputError(f"{owner} has no {name}: {ABSENT[name]}")
    return {name: value for name, value in given.items() if name not in HARMLESS | ABSENT.keys()}


def as_usual(options: Mapping[str, Any], *functions: Callable[..., Any]) -> dict[str, Any]:
    """Without options that are None, which says "as usual", unless None says something of its own.

    `functions` have the options as arguments: those that may be None are annotated so.
    """
    known = {name: p for f in functions for name, p in inspect.signature(f).parameters.items()}

    def means_none(name: str) -> bool:
        written = str(known[name].annotation) if name in known else "None"
        return written == "Any" or "None" in written

    return {name: v for name, v in options.items() if v is not None or means_none(name)}


def check_known(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """InputError for the first name in `given` that is not in `known`; `owner` begins the line."""
    known = list(known)
    for name in given:
        if name not in known:
            raise InputError(f"{owner} has no option {name!r}; it has {', '.join(known)}")


def as_mapping(name: str, value: object) -> Mapping[str, Any]:
    """Options in a dict; None: there are none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{name}: got {value!r:.80}, wanted a dict of options")
    return value


def check_whole(name: str, value: object, least: int = 1) -> None:
    """InputError unless `value` is a whole number of at least `least`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:  # type: ignore[operator]  # a whole number, if we come here
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")


def dtype_of(dtype: object) -> str:
    """The name of a dtype: torch's, too; "auto" is float32."""
    name = str(dtype).removeprefix("torch.")
    return "float32" if name == "auto" else name


def backend_of(device: object, backend: Any = "auto") -> Any:
    """The backend of a device by transformers' names, of which None leaves `backend` as it is."""
    if device is None:
        return backend
    if backend != "auto":
        raise InputError(f"got device={device!r} and backend={backend!r}: pass one of the two")
    if str(device) in CPU:
        return "numpy"
    if str(device) in GPU:
        return "cupy"
    raise InputError(
        f'device: got {device!r}, wanted "cpu" (or -1) or "cuda" (or 0), which is the first GPU; '
        "CUDA_VISIBLE_DEVICES=1 makes another one the first"
    )
