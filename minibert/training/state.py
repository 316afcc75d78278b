"""Checkpoints of a training run: everything that a run needs to go on as if it had never stopped.

A checkpoint is a directory `checkpoint-STEP`: a model in Hugging Face's layout, and beside it
`optimizer.safetensors` (both moments, in the order of the flat buffer) and `trainer_state.json`.
It appears under its name when it is whole.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minibert.checkpoint import load_checkpoint
from minibert.checkpoint.safetensors_io import open_safetensors, write_safetensors
from minibert.errors import CheckpointError, InputError
from minibert.io.files import new_directory, refuse_unwritable, remove_directory
from minibert.io.json_io import read_json_object
from minibert.io.os_errors import in_words
from minibert.io.progress import say
from minibert.io.scratch import PREFIX
from minibert.models import BertPreTrainedModel
from minibert.optim import LossScale, Optimizer
from minibert.training.arguments import TrainingArguments

STATE, MOMENTS, LOG = "trainer_state.json", "optimizer.safetensors", "log.jsonl"
ANOTHER = "resume from another checkpoint, or begin anew"
MACHINE = ("backend", "threads", "precision")  # where a run computes
LATER = ("embeddings_from_counts", "initializer_range")  # older checkpoints do not say them
OPTIONAL = ("loss_sum", "loss_steps", "epoch")  # nor these
_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass
class TrainingState:
    """Where a run stands."""

    step: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0  # of the steps since the log's last line, …
    loss_steps: int = 0  # … and how many they are
    epoch: float = 0.0  # how often the training data were gone through, to four places


def save(
    directory: Path,
    model: BertPreTrainedModel,
    tokenizer: Any,
    optimizer: Optimizer,
    state: TrainingState,
    identity: dict[str, Any],
    loss_scale: LossScale | None = None,
) -> None:
    """Write a checkpoint whole, or not at all. `identity`: what a resumed run must share."""
    moments = optimizer.state_dict()
    with new_directory(directory) as staging:
        model.save_pretrained(staging, tokenizer=tokenizer)
        arrays = {name: np.asarray(model.xp.to_host(moments[name])) for name in ("m", "v")}
        if loss_scale is not None:
            arrays["loss_scale"] = np.asarray(model.xp.to_host(loss_scale.state()))
        write_safetensors(staging / MOMENTS, arrays)
        content = asdict(state) | {"optimizer_step": moments["step"], "identity": identity}
        (staging / STATE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load(
    directory: Path,
    model: BertPreTrainedModel,
    optimizer: Optimizer,
    identity: dict[str, Any],
    loss_scale: LossScale | None = None,
) -> TrainingState:
    """Put a checkpoint back into `model`, `optimizer` and `loss_scale`.

    Raises CheckpointError where something is missing or damaged, or where the run that wrote it
    differs from this one in what decides its numbers.
    """
    content = _content(directory / STATE)
    state = _state(directory / STATE, content)
    _check_identity(directory, content.get("identity"), identity)
    load_weights(directory, model)
    found = open_safetensors(directory / MOMENTS)
    if not {"m", "v"} <= found.keys():
        raise CheckpointError(f"{directory / MOMENTS}: wants the tensors m and v, got {[*found]}")
    optimizer.load_state_dict(
        {"step": content.get("optimizer_step"), "m": found["m"].read(), "v": found["v"].read()}
    )
    if loss_scale is not None and "loss_scale" in found:
        loss_scale.load_state(found["loss_scale"].read())
    return state


def _content(path: Path) -> dict[str, Any]:
    try:
        content = read_json_object(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {ANOTHER}") from error
    for name, (wanted, is_right) in _WANTED.items():
        if name in content and not is_right(content[name]):
            got = reprlib.repr(content[name])
            raise CheckpointError(f"{path}: got {name} {got}, wanted {wanted}; {ANOTHER}")
    return content


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_log(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, dict) and _is_count(entry.get("step")) for entry in value
    )


_WANTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "step": ("a number", _is_count),
    "best_metric": ("a number or null", lambda v: v is None or type(v) in (int, float)),
    "best_step": ("a number or null", lambda v: v is None or _is_count(v)),
    "evaluations_without_gain": ("a number", _is_count),
    "log": ("a list of entries with their steps", _is_log),
    "loss_sum": ("a number", lambda v: type(v) is float),
    "loss_steps": ("a number", _is_count),
    "epoch": ("a number", lambda v: type(v) is float),
}


def _state(path: Path, content: dict[str, Any]) -> TrainingState:
    fields = TrainingState.__annotations__
    names = [name for name in fields if name in content or name not in OPTIONAL]
    try:
        return TrainingState(**{name: content[name] for name in names})
    except KeyError as error:
        raise CheckpointError(f"{path}: lacks {error}") from None


def load_weights(directory: Path, model: BertPreTrainedModel) -> None:
    """The parameters of a checkpoint, into the model's own buffer."""
    arrays, report = load_checkpoint(directory, model.shapes(model.config))
    if report.missing:
        raise CheckpointError(f"{directory}: the weights lack {', '.join(report.missing)}")
    _ = model.parameters.flat
    for name, target in model.parameters.items():
        target[...] = model.xp.to_device(arrays[name], str(target.dtype))


def checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a directory, by step."""
    found = []
    if output_dir.is_dir():
        for path in output_dir.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and (path / STATE).is_file():
                found.append((int(match[1]), path))
    return sorted(found)


def claim_output(output_dir: Path, args: TrainingArguments) -> None:
    """Before anything takes time: a place for the run, and the checkpoint that it goes on from.

    Raises InputError where there is none, or where a new run would mix its files with others.
    """
    resume = args.resume_from_checkpoint
    if not args.dry_run and (output_dir.is_dir() or not output_dir.exists()):
        refuse_unwritable(output_dir, "--output_dir")  # first: it also mends what a kill left there
    refuse_overwriting(output_dir, bool(args.overwrite_output_dir or resume or args.dry_run))
    if resume and not args.dry_run:
        find(output_dir, resume)


@contextmanager
def saving(what: Path) -> Iterator[None]:
    """An OSError in the block says what of an output directory it wrote, and how to go on."""
    try:
        yield
    except OSError as error:
        found = checkpoints(what) or checkpoints(what.parent)
        before = "What was saved before is whole" if found else "No checkpoint was saved before"
        flag = "--resume_from_checkpoint last" if found else "--overwrite_output_dir"
        raise OSError(
            f"{what} could not be saved: {in_words(error)}. {before}: make room, then go on with "
            f"the same command and {flag}"
        ) from error


def start_afresh(output_dir: Path, overwrite: bool) -> None:
    """Make `output_dir`, without an earlier run's checkpoints and log: `last` would find them.

    Raises InputError where there are checkpoints and `overwrite` is not given.
    """
    found = checkpoints(output_dir)
    if found and not overwrite:
        raise InputError(
            f"--output_dir {output_dir} holds the checkpoints of an earlier run: resume it, set "
            "--overwrite_output_dir, or choose another one"
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    for _, path in found:
        remove_directory(path)
    (output_dir / LOG).unlink(missing_ok=True)


def refuse_overwriting(output_dir: Path, overwrite: bool) -> None:
    """InputError where a new run would mix its files with what is in `output_dir`."""
    if output_dir.exists() and not output_dir.is_dir():
        raise InputError(f"--output_dir {output_dir} is a file; choose another --output_dir")
    if not overwrite and output_dir.is_dir() and any(map(_is_content, output_dir.iterdir())):
        resume = "--resume_from_checkpoint last to go on, " * bool(checkpoints(output_dir))
        raise InputError(
            f"--output_dir {output_dir} is not empty: add --overwrite_output_dir to replace what "
            f"is there, {resume}or choose another --output_dir"
        )


def _is_content(path: Path) -> bool:
    """What a killed run left unfinished is none."""
    return not path.name.startswith(PREFIX)


def rotate(output_dir: Path, limit: int, keep: Container[int | None]) -> None:
    """Remove the oldest checkpoints until `limit` are left; those of the steps `keep` stay."""
    found = checkpoints(output_dir)
    expendable = [path for step, path in found if step not in keep]
    for path in expendable[: max(0, len(found) - limit)]:
        remove_directory(path)


def find(output_dir: Path, wanted: str) -> Path:
    """The checkpoint that `--resume_from_checkpoint` names."""
    if wanted == "last":
        found = checkpoints(output_dir)
        if not found:
            raise CheckpointError(
                f"--output_dir {output_dir} holds no checkpoint-… to resume from: to begin anew, "
                "replace --resume_from_checkpoint by --overwrite_output_dir"
            )
        return found[-1][1]
    path = Path(wanted)
    if not (path / STATE).is_file():
        raise CheckpointError(
            f"{path} is no training checkpoint (it has no {STATE}); name a checkpoint-… directory, "
            "or 'last'"
        )
    return path


def _check_identity(directory: Path, then: Any, now: dict[str, Any]) -> None:
    then = then if isinstance(then, dict) else {}
    moved = "backend" in then and then["backend"] != now["backend"]
    if moved:  # bytes cannot be the same: what they depend on besides may change as well
        say(f"resuming on {now['backend']} what {then['backend']} began: other roundings from here")
    names = [name for name in now if not (moved and name in MACHINE)]
    names = [name for name in names if name in then or name not in LATER]
    changed = [name for name in names if then.get(name) != now[name]]
    if changed:
        what = "; ".join(f"{name}: then {then.get(name)!r}, now {now[name]!r}" for name in changed)
        ended = (directory.parent / "config.json").is_file()
        model = f"--model_name_or_path {directory.parent if ended else directory}"
        longer = "max_steps" in changed or "num_train_epochs" in changed
        hint = f"; a longer run is begun from the model: {model}" if longer else ""
        raise CheckpointError(
            f"{directory} was written by a different run ({what}). Resume with the same data and "
            f"flags, or start anew in another --output_dir{hint}"
        )
