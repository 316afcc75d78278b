"""Training arguments: Hugging Face's names and meanings, with help, from flags or a JSON file.

A field of a dataclass here is a flag of the scripts: `--learning_rate 3e-5`. What run_glue.py and
transformers' TrainingArguments have too bears the same name and means the same; defaults are those
of BERT fine-tuning (Devlin et al., appendix A.3) where Hugging Face's suit no one.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from minibert.backend import PRECISIONS
from minibert.errors import InputError
from minibert.io.command_line import Parser
from minibert.io.json_io import read_json_object
from minibert.optim import RULES, SCHEDULES

Arguments = TypeVar("Arguments")


def option(
    default: Any,
    help: str | None,
    choices: Sequence[str] | None = None,
    *,
    shown: str | None = None,
    metavar: str | None = None,
    group: str | None = None,
    also: Sequence[str] = (),
) -> Any:
    """A dataclass field that is a flag.

    In the help, which leaves out a flag whose `help` is None: `shown` says what the default is,
    where that is more than its value; `metavar` stands for the value; `group` is the title of the
    field's group, its class's unless given. `also`: other names for it, which the help leaves out.
    """
    metadata = {"help": help, "choices": choices, "shown": shown, "metavar": metavar}
    return field(default=default, metadata=metadata | {"group": group, "also": also})


@dataclass
class TrainingArguments:
    """How to train. Every field is a flag of the same name."""

    output_dir: str = option(
        "outputs/finetuned", "where model, checkpoints and log are written", metavar="DIR"
    )
    overwrite_output_dir: bool = option(False, "replace a model that is there already")
    resume_from_checkpoint: str | None = option(
        None, "a checkpoint directory, or 'last' for the newest one in output_dir", metavar="DIR"
    )
    # How long
    num_train_epochs: float = option(
        3.0, "times to go through the training data", shown="3; the movie reviews: 1"
    )
    max_steps: int = option(
        -1, "stop after that many steps instead", shown="-1: after num_train_epochs"
    )
    # Batches
    per_device_train_batch_size: int = option(
        32, "examples in a batch", also=["per_gpu_train_batch_size"]
    )
    max_tokens_per_batch: int | None = option(None, "cut batches by tokens instead of examples")
    gradient_accumulation_steps: int = option(1, "parts of one step of that many times the batch")
    gradient_checkpointing: bool = option(
        False, "keep less of the forward and compute it again: slower, in less memory",
        also=["activation_checkpointing"],
    )  # fmt: skip
    group_by_length: bool = option(False, "sort by length within windows of length_window batches")
    length_window: int = option(50, "batches in a window of group_by_length")
    eval_tokens_per_batch: int = option(4096, "tokens in a batch of evaluation")
    per_device_eval_batch_size: int | None = option(
        None, "and at most that many examples", also=["per_gpu_eval_batch_size"]
    )
    # Optimizer
    learning_rate: float = option(
        5e-5, "the highest learning rate", shown="5e-05; the movie reviews: 2e-4"
    )
    lr_scheduler_type: str = option("linear", "the learning rate's course", tuple(SCHEDULES))
    warmup_ratio: float = option(0.1, "share of the steps in which the rate rises from 0")
    warmup_steps: int = option(0, "steps in which the rate rises; overrides warmup_ratio")
    optim: str = option("adamw_torch", "update rule", tuple(RULES))
    weight_decay: float = option(0.01, "decay of weight matrices and embeddings")
    adam_beta1: float = option(0.9, "decay of the first moment")
    adam_beta2: float = option(0.999, "decay of the second moment")
    adam_epsilon: float = option(1e-8, "added to the root of the second moment")
    momentum: float = option(0.9, "of optim sgd")
    max_grad_norm: float = option(1.0, "clip the gradient to this global norm; 0: never")
    # When to evaluate and save
    eval_strategy: str = option(
        "epoch", "when to evaluate", ("epoch", "steps", "no"), also=["evaluation_strategy"]
    )
    eval_steps: int = option(100, "steps between evaluations, with eval_strategy steps")
    save_strategy: str = option("epoch", "when to write a checkpoint", ("epoch", "steps", "no"))
    save_steps: int = option(100, "steps between checkpoints, with save_strategy steps")
    save_total_limit: int = option(2, "checkpoints to keep; the best and the last always stay")
    load_best_model_at_end: bool = option(True, "end with the best checkpoint, not the last")
    metric_for_best_model: str | None = option(
        None, "a metric's name, or loss", shown="the task's", metavar="NAME"
    )
    greater_is_better: bool | None = option(
        None,
        "whether a high metric is a good one",
        shown="true, except for losses, mse and perplexity",
    )
    early_stopping_patience: int | None = option(
        None, "stop after that many evaluations without gain"
    )
    # Machine
    backend: str = option("auto", "where to compute", ("auto", "numpy", "cupy"))
    dtype: str = option("float32", "of parameters and activations", ("float32", "float64"))
    precision: str = option(
        "fp32", "of float32's products on a GPU; fp16 with loss scaling", PRECISIONS
    )
    threads: int | None = option(None, "CPU threads", shown="all cores")
    seed: int = option(42, "of new weights, data order and dropout")
    # Report
    logging_steps: int = option(10, "steps between lines of the log")
    disable_tqdm: bool = option(False, "no progress bars")
    dry_run: bool = option(False, "do one step, print memory and time estimates, write nothing")

    def __post_init__(self) -> None:
        positive = (
            "per_device_train_batch_size", "gradient_accumulation_steps", "length_window",
            "eval_tokens_per_batch", "eval_steps", "save_steps", "save_total_limit",
            "logging_steps", "learning_rate", "num_train_epochs",
        )  # fmt: skip
        for name in positive:
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"--{name} must be positive, got {getattr(self, name)}")
        for name in (
            "max_tokens_per_batch", "per_device_eval_batch_size", "threads",
            "early_stopping_patience",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be at least 1, got {value}")
        if self.precision == "fp16" and self.optim == "lamb":
            raise InputError("--optim lamb cannot skip a step, as fp16 wants: use --precision bf16")
        if not 0 <= self.warmup_ratio <= 1:
            raise InputError(f"--warmup_ratio must be between 0 and 1, got {self.warmup_ratio}")
        if self.warmup_steps < 0 or not self.max_grad_norm >= 0 or not 0 <= self.seed < 2**63:
            raise InputError("--warmup_steps, --max_grad_norm and --seed must not be negative")
        if self.max_steps == 0 or self.max_steps < -1:
            raise InputError(f"--max_steps must be positive, or -1 for none, got {self.max_steps}")


def parse(
    parser: Parser,
    kinds: Sequence[type[Any]],
    argv: Sequence[str] | None = None,
    recipe: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> list[Any]:
    """Flags for every field of the dataclasses `kinds`; one filled instance of each.

    As in transformers, --learning-rate is --learning_rate. `--config FILE.json` gives defaults for
    the flags: an object of the same names. `recipe` gives defaults that depend on what was said:
    named values → further values, by name.
    """
    parser.add_argument("--config", metavar="FILE", help="flags from a JSON object")
    for kind in kinds:
        hints, groups = typing.get_type_hints(kind), dict[str, Any]()
        for f in dataclasses.fields(kind):
            title = f.metadata["group"] or _group_title(kind)
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            _add_flag(groups[title], f, hints[f.name])
    flags = vars(parser.parse_args(argv))
    path = flags.pop("config")
    values = _read_config(Path(path), kinds, parser) if path else {}
    values |= {name: value for name, value in flags.items() if value is not None}
    values = dict(recipe(values) if recipe else {}) | values
    return [
        kind(**{f.name: values[f.name] for f in dataclasses.fields(kind) if f.name in values})
        for kind in kinds
    ]


def _group_title(kind: type[Any]) -> str:
    return (kind.__doc__ or kind.__name__).split(".")[0].strip().lower()


def _add_flag(group: Any, f: dataclasses.Field[Any], hint: Any) -> None:
    base, default = _base_type(hint), f.default
    shown, text = f.metadata["shown"], f.metadata["help"]
    if shown is None and default is not None:
        shown = str(default).lower() if base is bool else str(default)
    if text is not None:
        text = (f"{text} (default {shown})" if shown else text).replace("%", "%%")
    for name in _spelled(f.name, *f.metadata["also"]):
        shown_as = (text if name == f.name else None) or argparse.SUPPRESS
        group.add_argument(f"--{name}", dest=f.name, help=shown_as, **_values(f, base))
    if base is bool:  # --flag, --flag false and --no_flag all work
        for name in _spelled(f"no_{f.name}"):
            group.add_argument(
                f"--{name}", dest=f.name, action="store_false", default=None,
                help=argparse.SUPPRESS,
            )  # fmt: skip


def _spelled(*names: str) -> dict[str, None]:
    """The names, and each with dashes."""
    return dict.fromkeys([*names, *(name.replace("_", "-") for name in names)])


def _values(f: dataclasses.Field[Any], base: type) -> dict[str, Any]:
    """What argparse wants to know of a flag's values."""
    metavar, choices = f.metadata["metavar"], f.metadata["choices"]
    if base is bool:
        return {"nargs": "?", "const": True, "type": _boolean, "metavar": "BOOL"}
    if base is list:
        # Given twice, both count: argparse alone would forget the first without a word.
        return {"nargs": "+", "action": "extend", "metavar": metavar or "NAME"}
    letter = {int: "N", float: "X", str: "NAME"}[base]
    return {"type": base, "metavar": None if choices else metavar or letter, "choices": choices}


def _base_type(hint: Any) -> type:
    """`int | None` → int; `list[str]` → list, which holds texts always."""
    if isinstance(hint, types.UnionType):
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return typing.cast(type, typing.get_origin(hint) or hint)


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def _read_config(path: Path, kinds: Sequence[type[Any]], parser: Parser) -> dict[str, Any]:
    values: dict[str, Any] = {}
    hints = {name: hint for kind in kinds for name, hint in typing.get_type_hints(kind).items()}
    fields = {
        name: f
        for kind in kinds
        for f in dataclasses.fields(kind)
        for name in (f.name, *f.metadata["also"])
    }
    for name, value in read_json_object(path).items():
        if name not in fields:
            advice = parser.advice(name)
            about = f"{name}: {advice}" if advice else f"unknown name {name!r}"
            raise InputError(f"{path}: {about}; --help lists the flags")
        f = fields[name]
        values[f.name] = _checked(path, f, _base_type(hints[f.name]), value)
    return values


def _checked(path: Path, f: dataclasses.Field[Any], base: type, value: Any) -> Any:
    """A value from JSON, of the type that the flag would have given."""
    if value is None and f.default is None:
        return None
    if base is float and type(value) is int:
        value = float(value)
    if type(value) is not base:
        raise InputError(f"{path}: {f.name} must be of type {base.__name__}, got {value!r}")
    if isinstance(value, list) and not (value and all(isinstance(item, str) for item in value)):
        raise InputError(f"{path}: {f.name} must be a list of texts, got {value!r}")
    choices = f.metadata["choices"]
    if choices and value not in choices:
        raise InputError(f"{path}: {f.name} must be one of {', '.join(choices)}, got {value!r}")
    return value
