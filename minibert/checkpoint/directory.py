"""Hugging Face model directories in and out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minibert.checkpoint.renaming import BUFFERS, ENCODER, TIED, our_names
from minibert.checkpoint.safetensors_io import (
    StoredTensor,
    open_safetensors,
    open_sharded,
    write_safetensors,
)
from minibert.errors import CheckpointError

if TYPE_CHECKING:
    from minibert.config import BertConfig
    from minibert.tokenization import BertTokenizer

Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]


@dataclass
class LoadReport:
    """What became of every tensor of the file and every parameter of the model."""

    loaded: list[str] = field(default_factory=list)  # our names
    renamed: list[tuple[str, str]] = field(default_factory=list)  # (name in the file, ours)
    missing: list[str] = field(default_factory=list)  # ours; the model initialises them
    unexpected: list[str] = field(default_factory=list)  # the file's names, not used
    ignored: list[str] = field(default_factory=list)  # the file's names, buffers and tied copies
    shape_mismatch: list[Mismatch] = field(default_factory=list)  # (ours, got, wanted)
    replaced: list[str] = field(default_factory=list)  # ours; trained for other labels, drawn anew

    @property
    def unused_layers(self) -> list[int]:
        """Encoder layers of the file that the model does not have."""
        found = (re.match(r"(?:bert\.)?encoder\.layer\.(\d+)\.", name) for name in self.unexpected)
        return sorted({int(match[1]) for match in found if match})

    def __str__(self) -> str:
        renamed = sum(not new.endswith(old) for old, new in self.renamed)
        notes = ["names without the bert. prefix"] * (len(self.renamed) > renamed)
        notes += [f"{renamed} of them renamed"] * (renamed > 0)
        lines = [f"loaded {len(self.loaded)} tensors" + (f" ({', '.join(notes)})" if notes else "")]
        if self.missing:
            lines.append(f"the head is new and untrained, the file has none: {_some(self.missing)}")
        for name, got, wanted in self.shape_mismatch:
            lines.append(
                f"the head is new and untrained: {name} is {got} in the file, {wanted} in the model"
            )
        if self.replaced:
            lines.append(
                "the head is new and untrained, the file's has other labels: "
                + _some(self.replaced)
            )
        if self.unexpected:
            lines.append(f"in the file and not used: {_some(self.unexpected)}")
        if self.ignored:
            lines.append(f"ignored, no parameters: {_some(self.ignored)}")
        if self.unused_layers:
            layers = ", ".join(map(str, self.unused_layers))
            lines.append(
                f"WARNING: the file's encoder layers {layers} are NOT USED: num_hidden_layers in "
                "config.json is smaller than the number of layers in the file"
            )
        return "\n".join(lines)


def load_checkpoint(
    directory: str | Path,
    expected: Mapping[str, tuple[int, ...]],
    *,
    ignore_mismatched_sizes: bool = False,
) -> tuple[dict[str, NDArray[Any]], LoadReport]:
    """The tensors of a model directory that a model expects, and what became of the others.

    expected: {our parameter name: shape}, always with the `bert.` prefix, Linear weights (out, in).
    Returns {our name: array} and the report. float32 and float64 arrays are read-only views of
    the mapped file; float16 and bfloat16 are widened to float32.

    The encoder must be whole: CheckpointError when one of its tensors is missing or has another
    shape, and when a head has another shape unless `ignore_mismatched_sizes`. A head or pooler that
    is not in the file is left to the model to initialise, and is reported as missing.
    """
    directory = Path(directory)
    stored = open_weights(directory)
    ours = our_names(directory, stored)
    report = LoadReport()
    _drop_buffers(stored, ours, expected, report)
    for name, shape in expected.items():
        if name not in ours:
            report.missing.append(name)
        elif stored[ours[name]].shape != tuple(shape):
            report.shape_mismatch.append((name, stored[ours[name]].shape, tuple(shape)))
        else:
            report.loaded.append(name)
    report.renamed = [(ours[name], name) for name in report.loaded if ours[name] != name]
    report.unexpected = [old for new, old in ours.items() if new not in expected]
    _check_missing(directory, report, ours)
    _check_shapes(directory, report, ignore_mismatched_sizes)
    return {name: _read_float(name, stored[ours[name]]) for name in report.loaded}, report


def open_weights(directory: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model directory under the file's names, none of them read yet."""
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: wanted a model directory, there is none at this path")
    whole, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if whole.exists():
        return open_safetensors(whole)
    if index.exists():
        return open_sharded(index)
    if (directory / "pytorch_model.bin").exists():
        raise CheckpointError(
            f"{directory}: got only pytorch_model.bin, a pickle, which could run any code and is "
            "never opened here; convert it once, where torch is installed:\n"
            f"  cd {shlex.quote(str(directory))} && "
            'python -c "import torch, safetensors.torch as s; '
            "t = torch.load('pytorch_model.bin', map_location='cpu', weights_only=True); "
            "s.save_file({k: v.clone().contiguous() for k, v in t.items()}, "
            "'model.safetensors', {'format': 'pt'})\""
        )
    raise CheckpointError(
        f"{directory}: wanted model.safetensors or model.safetensors.index.json, it holds neither; "
        "name a directory that save_pretrained wrote"
    )


def save_checkpoint(
    directory: str | Path,
    config: BertConfig,
    tensors: Mapping[str, NDArray[Any]],
    *,
    tokenizer: BertTokenizer | None = None,
    card: str | None = None,
    extras: Callable[[Path], None] | None = None,
) -> None:
    """Write a model directory that `from_pretrained` and transformers load.

    tensors: {our name: float32 or float64 array}, the tied decoder left out. `extras` writes
    what else belongs into the directory that it is given. The directory's previous files are
    replaced only when all the new ones are complete on the disk.
    """
    from minibert.io.files import staged

    with staged(Path(directory)) as stage:
        write_safetensors(stage / "model.safetensors", tensors)
        values = config.to_dict()
        values.pop("torch_dtype", None)  # the older name of "dtype", and of what was loaded
        values["dtype"] = str(np.result_type(np.float32, *(t.dtype for t in tensors.values())))
        config.from_dict(values).save(stage)
        if tokenizer is not None:
            tokenizer.save_pretrained(stage)
        if card is not None:
            (stage / "README.md").write_text(card, encoding="utf-8")
        if extras is not None:
            extras(stage)


def _drop_buffers(
    stored: Mapping[str, StoredTensor],
    ours: dict[str, str],
    expected: Mapping[str, tuple[int, ...]],
    report: LoadReport,
) -> None:
    """Take the names that are no parameters of their own out of `ours`, into `report.ignored`."""
    report.ignored += [ours.pop(name) for name in BUFFERS if name in ours]
    for copy, original in TIED:
        if copy not in ours:
            continue
        if original not in ours:  # of the two names of one array, the file kept the other
            ours[original] = ours.pop(copy)
            continue
        # A model without this head never reads the table twice.
        if any(name.startswith("cls.predictions.") for name in expected):
            _check_tied(stored[ours[copy]], stored[ours[original]], copy, original)
        report.ignored.append(ours.pop(copy))


def _check_tied(copy: StoredTensor, original: StoredTensor, name: str, of: str) -> None:
    if copy.shape != original.shape or not np.array_equal(copy.read(), original.read()):
        raise CheckpointError(
            f"{copy.file}: {name} differs from {of}, and wanted is a tied decoder, in which they "
            "are one array; untied models cannot be loaded with their masked-language-model head"
        )


def _check_missing(directory: Path, report: LoadReport, ours: Mapping[str, str]) -> None:
    from difflib import get_close_matches

    missing = [name for name in report.missing if name.startswith(ENCODER)]
    if not missing:
        return
    nearest = get_close_matches(missing[0], ours, n=1, cutoff=0.0)
    raise CheckpointError(
        f"{directory}: the weights lack {_some(missing)}, and wanted is the whole encoder; the "
        f"nearest name in the file is {ours[nearest[0]] if nearest else 'none: it is empty'}. "
        "Check that config.json (num_hidden_layers, model_type) belongs to these weights"
    )


def _check_shapes(directory: Path, report: LoadReport, ignore_heads: bool) -> None:
    for name, got, wanted in report.shape_mismatch:
        where = f"{directory}: {name}: got shape {got} in the file, wanted {wanted}"
        if name.startswith(ENCODER):
            raise CheckpointError(f"{where}; config.json does not belong to these weights")
        if not ignore_heads:
            raise CheckpointError(
                f"{where}; correct config.json, or train a new head in its place "
                "(finetune.py --ignore_mismatched_sizes, in Python ignore_mismatched_sizes=True)"
            )


def _read_float(name: str, tensor: StoredTensor) -> NDArray[Any]:
    array = tensor.read()
    if not np.issubdtype(array.dtype, np.floating):
        raise CheckpointError(
            f"{tensor.file}: {name}: got dtype {tensor.dtype}, wanted floating point; "
            "convert the model to float32"
        )
    return array


def _some(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
