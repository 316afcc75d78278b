"""Somebody's tensors against a trace: which one is out first."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.checkpoint.safetensors_io import open_safetensors
from minibert.errors import InputError
from minibert.io.json_io import read_json_object
from minibert.verify.budget import UNIT, error_of, parts_of, section_of, thinned_part, worst_part
from minibert.verify.names import (
    Target,
    by_shape,
    fitting_transposition,
    known_names,
    readings,
    resolve,
)
from minibert.verify.trace.format import Entry, Trace, checksum

Arrays = Mapping[str, NDArray[Any]]

THINNED = "thinned"
"""A row's note: of a tensor of which a trace holds a part."""

LARGE = 1e140
"""From here on the sum of the squares of a large tensor overflows in float64."""


@dataclass(frozen=True)
class Row:
    """One tensor: what was found."""

    order: int
    name: str  # the trace's
    error: float  # relative L2; NaN where the tensor holds NaN or infinity
    budget: float
    note: str = ""
    formula: str = ""  # of an activation or a gradient

    @property
    def passed(self) -> bool:
        return self.error <= self.budget  # False for NaN


@dataclass(frozen=True)
class Comparison:
    """All rows in the order of execution."""

    dtype: str  # whose budgets apply
    rows: tuple[Row, ...]
    settled: Mapping[str, Any] = field(repr=False)  # what was compared, by the trace's names
    stored: str = ""  # a wider dtype, which holds this one's numbers alone

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    @property
    def first_out(self) -> Row | None:
        """What to look at first: a NaN or infinity, else the first tensor out of its budget."""
        out = [row for row in self.rows if not row.passed]
        return next((row for row in out if math.isnan(row.error)), out[0] if out else None)


UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError, AttributeError, KeyError,
)  # fmt: skip
"""What NumPy raises for a file that is no archive, is cut short, or holds objects."""


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], str]:
    """The tensors of a .safetensors or .npz file, and the coarsest floating dtype among them."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; name a .safetensors or .npz file")
    if path.suffix == ".safetensors":
        stored = open_safetensors(path)
        names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
        kinds = [names[tensor.dtype] for tensor in stored.values() if tensor.dtype in names]
        return {name: tensor.read() for name, tensor in stored.items()}, coarsest(kinds)
    try:
        with open(path, "rb") as whole, np.load(whole, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UNREADABLE:
        raise InputError(
            f"{path}: not a whole .safetensors or .npz file of numbers: write it again"
        ) from None
    return arrays, coarsest([str(array.dtype) for array in arrays.values()])


def coarsest(dtypes: list[str]) -> str:
    """Of floating dtypes the one with the fewest bits: its budgets apply to all."""
    return max((d for d in dtypes if d in UNIT), key=UNIT.__getitem__, default="float64")


def read_mapping(path: Path) -> dict[str, str | None]:
    """A JSON object from your names to the trace's; null leaves a tensor out."""
    mapping = read_json_object(path)
    for name, target in mapping.items():
        if target is not None and not isinstance(target, str):
            raise InputError(f"{path}: {name}: got {target!r}, want a name of the trace, or null")
    return mapping


def compare(
    mine: Arrays,
    trace: Trace,
    *,
    dtype: str | None = None,
    mapping: Mapping[str, str | None] | None = None,
) -> Comparison:
    """Each tensor of `mine` against the trace's.

    dtype: whose budgets apply (default: the coarsest dtype in `mine`). mapping: see
    `read_mapping`. Raises InputError for unknown names, for shapes and dtypes that do not fit.
    """
    if not mine:
        raise InputError("there is no tensor to compare")
    dtype = dtype or coarsest([str(array.dtype) for array in mine.values()])
    settled = _settled(mine, trace, mapping or {})
    rows = [
        compare_one(name, settled[name], trace, dtype) for name in trace.entries if name in settled
    ]
    return Comparison(dtype, tuple(rows), settled)


def as_stored(comparison: Comparison) -> Comparison:
    """With float32's budgets where float64 holds float32's numbers alone: they were widened.

    Unchanged where these pass: then there is no mistake to look for but the dtype.
    """
    if comparison.dtype != "float64" or not all_fit(comparison, "float32"):
        return comparison
    factor = UNIT["float32"] / UNIT["float64"]
    rows = tuple(replace(row, budget=factor * row.budget) for row in comparison.rows)
    single = replace(comparison, dtype="float32", rows=rows, stored="float64")
    return comparison if single.passed else single


def all_fit(comparison: Comparison, dtype: str) -> bool:
    """Whether rounding to `dtype` leaves every number that was given as it is."""
    arrays = [array for mine in comparison.settled.values() for array in arrays_of(mine)]
    return all(_fits(array, dtype) for array in arrays if array.dtype.kind == "f")


def arrays_of(mine: Any) -> list[NDArray[Any]]:
    """A tensor of `Comparison.settled`: one array, or those of a flat buffer's parameters."""
    return list(mine.values()) if isinstance(mine, dict) else [mine]


def _fits(array: Any, dtype: str) -> bool:
    with np.errstate(over="ignore"):
        if dtype == "bfloat16":
            single = array.astype(np.float32)
            return bool((single == array).all()) and not (single.view(np.uint32) & 0xFFFF).any()
        return bool((array.astype(dtype) == array).all())


def compare_one(name: str, mine: Any, trace: Trace, dtype: str) -> Row:
    """One tensor, in the trace's shape, against the trace's."""
    entry, golden = trace.entries[name], trace.read(name)
    budget = entry.budget(dtype) if golden.dtype.kind == "f" else 0.0
    formula = entry.formula if section_of(name).endswith(("activation", "gradient")) else ""
    if found := _not_finite(mine):
        return Row(entry.order, name, math.nan, budget, found, formula)
    if isinstance(mine, dict):
        error, worst = worst_part(mine, golden, trace.places_in(name))
        return Row(entry.order, name, error, budget, f"worst: {worst}" if worst else "")
    if entry.stride == 1:
        error, note = error_of(mine, golden, entry.scale), ""
    else:
        error, note = _thinned_error(mine, golden, entry), THINNED
    return Row(entry.order, name, error, budget, note, formula)


def _settled(mine: Arrays, trace: Trace, mapping: Mapping[str, str | None]) -> dict[str, Any]:
    """The trace's names → arrays in the trace's shapes, or {parameter: array} of flat buffers."""
    known, mask = known_names(trace), trace.mask
    _check_mapping(mapping, trace, known)
    settled: dict[str, Any] = {}
    for given, value in mine.items():
        name = mapping.get(given, given)
        if name is None:
            continue
        target = by_shape(resolve(name, trace, known), value, trace)
        entry = trace.entries[target.name]
        _check_kind(given, value, target.name, trace)
        label = _taken(given, "/".join(filter(None, target)), mapping)
        if target.parameter:
            parameter, start = target.parameter, trace.layout.starts[target.parameter]
            _check_shape(label, value, trace.layout.shapes[parameter])
            parts = settled.setdefault(target.name, {})
            parts[parameter] = thinned_part(value, start, entry.stride)
        elif target.name.startswith("training/"):
            _check_shape(label, value, entry.shape)
            settled[target.name] = parts_of(value[:: entry.stride], trace.places_in(target.name))
        else:
            ways = readings(label, value, entry, mask)
            new = ways[0] if len(ways) == 1 else _nearest(ways, trace, target.name)
            settled[target.name] = _worse(settled.get(target.name), new, trace, target.name)
    return settled


def _check_mapping(
    mapping: Mapping[str, str | None], trace: Trace, known: Mapping[str, str]
) -> None:
    """InputError for a target that is unknown, or that two names have."""
    owners: dict[Target, str] = {}
    for given, name in mapping.items():
        if name is None:
            continue
        target = resolve(name, trace, known, mapped=given)
        other = owners.setdefault(target, given)
        if other != given:
            raise InputError(
                f"the mapping file makes both {other!r} and {given!r} {name!r}: map one of them "
                "to null, which leaves it out"
            )


def _taken(given: str, name: str, mapping: Mapping[str, str | None]) -> str:
    """A user's name for a tensor, and what it was taken for where that is not plain."""
    plain = name.endswith(given) and given not in mapping
    return given if plain else f"{given} (taken for {name})"


def _nearest(ways: list[NDArray[Any]], trace: Trace, name: str) -> NDArray[Any]:
    """Of the ways to read an array that fits in two, the one that is meant."""
    return min(ways, key=lambda array: compare_one(name, array, trace, "float64").error)


def _worse(old: Any, new: NDArray[Any], trace: Trace, name: str) -> NDArray[Any]:
    """Of two tensors that should both be the trace's (a module's and its parent's), the worse."""
    if old is None:
        return new
    scores = [compare_one(name, array, trace, "float64").error for array in (old, new)]
    return old if not scores[1] > scores[0] else new


def _check_kind(name: str, value: Any, target: str, trace: Trace) -> None:
    """What was computed has a point; an input may be whole numbers, or bools for a mask."""
    given = target.startswith(("input/", "dropout/keep/"))
    if value.dtype.kind in ("biuf" if given else "f"):
        return
    kinds = "whole numbers or a floating dtype" if given else "a floating dtype"
    raise InputError(
        f"{name} is {value.dtype}, want {kinds} (as {trace.path.name}'s {target}): hand in the "
        "numbers that your program computes with"
    )


def _check_shape(name: str, value: Any, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise InputError(f"{name} has shape {value.shape}, want {shape}"
                         f"{fitting_transposition(value.shape, shape)}")  # fmt: skip


def _not_finite(mine: Any) -> str:
    """Where the first number stands that is NaN, infinite, or too large to be squared."""
    for name, array in mine.items() if isinstance(mine, dict) else [("", mine)]:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            return f"holds {array[where]} at {name}{list(where)}"
        if array.dtype.kind == "f" and array.size and _largest(array) > LARGE:
            where = tuple(int(i) for i in np.argwhere(np.abs(array) > LARGE)[0])
            place = f"{name}{list(where)}"
            return f"holds {array[where]:.1e} at {place}: so large that its square overflows"
    return ""


def _largest(array: NDArray[Any]) -> float:
    """max |array|, without a temporary array."""
    return max(float(array.max()), -float(array.min()))


def _thinned_error(mine: NDArray[Any], golden: NDArray[Any], entry: Entry) -> float:
    """The largest of three: of the elements that are stored, of the norm, of the checksum.

    The checksum adds up over all elements with weights below 1: its error is measured against the
    norm, as a rounding error of a sum of that many terms of either sign would be.
    """
    flat = mine.reshape(-1).astype(np.float64)
    size = max(entry.norm or 0.0, entry.scale) or 1.0
    share = size * (golden.size / max(flat.size, 1)) ** 0.5
    errors = (
        float(np.linalg.norm(flat[:: entry.stride] - golden)) / max(np.linalg.norm(golden), share),
        abs(float(np.linalg.norm(flat)) - (entry.norm or 0.0)) / size,
        abs(checksum(flat) - (entry.checksum or 0.0)) / size,
    )
    return float(max(errors))
