"""Whose tensor is this? A user's names as those of a trace, and a user's shapes as its shapes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.checkpoint.renaming import RENAMES
from minibert.errors import InputError
from minibert.verify.trace.format import Entry, Trace


class Target(NamedTuple):
    """The tensor of a trace that a name means; of a flat buffer perhaps one parameter."""

    name: str
    parameter: str = ""


def by_shape(target: Target, value: NDArray[Any], trace: Trace) -> Target:
    """The target, but the sum's gradient for the position embeddings' of each token.

    Positions that are looked up once for all rows, (1, S, H), receive the sum over the rows; those
    that are looked up for each row what the sum of the embeddings receives.
    """
    entry = trace.entries[target.name]
    if entry.axes != "columns" or _settle_columns(value, entry.shape, trace.mask) is not None:
        return target
    return Target(f"{target.name.rpartition('/')[0]}/bert.embeddings.sum")


NEAR = 0.7
"""Of two names: as alike as a typo leaves them (difflib's ratio)."""


def resolve(name: str, trace: Trace, known: Mapping[str, str], mapped: str = "") -> Target:
    """What `name` means; `known` is `known_names(trace)`; mapped: whose name in a mapping file.

    InputError for a name that is unknown, with the nearest match if one is near.
    """
    if name in known:
        return Target(known[name])
    buffer, _, parameter = _split_training(name)
    if buffer in trace.entries and parameter in trace.layout.shapes:
        return Target(buffer, parameter)
    nearest = get_close_matches(name, known, n=1, cutoff=NEAR)
    hint = f"the nearest name that {trace.path.name} has is {nearest[0]!r}" if nearest else (
        f"{trace.path.name}, which lists all names, has none like it"
    )  # fmt: skip
    if mapped:
        raise InputError(f"the mapping file makes {mapped!r} an unknown tensor {name!r}: {hint}")
    raise InputError(
        f"unknown tensor {name!r}: {hint}; rename it, or say what it is in a mapping file (--map)"
    )


def _split_training(name: str) -> tuple[str, str, str]:
    """Of training/RULE/step_N/m/PARAMETER the buffer, "/" and the parameter."""
    parts = name.split("/")
    return "/".join(parts[:4]), "/", "/".join(parts[4:])


def known_names(trace: Trace) -> dict[str, str]:
    """Every name that is understood → the trace's.

    Beside the trace's own: transformers' names of modules (for what they return) and of
    parameters, with `.grad` for gradients, with or without the prefix `bert.`, and Google's names
    of a layer norm's parameters. A section's own names win over those borrowed from another.
    """
    known = {name: name for name in trace.entries}
    for name, entry in trace.entries.items():
        section, _, body = name.rpartition("/")
        prefix = "dropout/" if section.startswith("dropout/") else ""
        for other in _spellings(body, entry):
            known.setdefault(f"{section}/{other}", name)
            if section.endswith("gradient"):
                known.setdefault(f"{prefix}{other}.grad", name)
            elif not section.startswith("training"):
                known.setdefault(f"{prefix}{other}", name)
    return known


def _spellings(body: str, entry: Entry) -> list[str]:
    names = [body, *entry.aliases]
    names += [
        name.removesuffix(ours) + theirs
        for name in names
        for theirs, ours in RENAMES
        if name.endswith(ours)
    ]
    return names + [name.removeprefix("bert.") for name in names]


# ---- Shapes ----


def settle(name: str, value: NDArray[Any], entry: Entry, mask: NDArray[Any]) -> NDArray[Any]:
    """The first of `readings`."""
    return readings(name, value, entry, mask)[0]


def readings(
    name: str, value: NDArray[Any], entry: Entry, mask: NDArray[Any]
) -> list[NDArray[Any]]:
    """A user's array in the trace's shape, zero at padding, in each way that it may be read.

    Understood: padded (B, S, …), also with a longer S; packed (T, …); flattened (B·S, …); heads
    apart, packed (T, N, D), or (B, N, S, D) or (B, S, N, D), which may look alike; for pairs
    (B·N, S, S). mask: (B, S).
    InputError for anything else, with the transposition that would fit.
    """
    shape, value = entry.shape, np.asarray(value)
    if entry.axes == "tokens":
        found = [_settle_tokens(way, shape, mask) for way in _heads_together(value, shape, mask)]
    elif entry.axes == "pairs":
        found = [_settle_pairs(value, shape, mask)]
    elif entry.axes == "columns":
        found = [_settle_columns(value, shape, mask)]
    else:
        found = [value.reshape(shape) if _squeezed(value.shape) == _squeezed(shape) else None]
    settled = [array for array in found if array is not None]
    if not settled:
        raise InputError(f"{name} has shape {value.shape}, want {_wanted(shape, entry, mask)}"
                         f"{fitting_transposition(value.shape, shape)}")  # fmt: skip
    return settled


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _heads_together(
    value: NDArray[Any], shape: tuple[int, ...], mask: NDArray[Any]
) -> list[NDArray[Any]]:
    """Of heads apart the ways to (B, S, N·D) or, packed, (T, N·D); anything else as it is."""
    if value.ndim == len(shape) == 3 and value.shape[1] * value.shape[2] == shape[2]:
        together = value.reshape(-1, shape[2])
        return [together] if value.shape[1] > 1 else [value, together]  # one head, or one column
    if value.ndim != 4 or len(shape) != 3 or value.shape[0] != shape[0]:
        return [value]
    (B, S), N = mask.shape, shape[2] // max(value.shape[3], 1)
    turned = [value.swapaxes(1, 2)] if value.shape[1] == N and value.shape[2] >= S else []
    ways = turned + ([value] if value.shape[2] == N and value.shape[1] >= S else [])
    return [way.reshape(B, way.shape[1], -1) for way in ways] or [value]


def _settle_tokens(
    value: NDArray[Any], shape: tuple[int, ...], mask: NDArray[Any]
) -> NDArray[Any] | None:
    (B, S), rest, real = mask.shape, shape[2:], mask.astype(bool)
    if value.shape == (int(real.sum()), *rest):
        settled = np.zeros(shape, value.dtype)
        settled[real] = value
        return settled
    if value.shape == (B * S, *rest):
        value = value.reshape(shape)
    if value.shape == (S, *rest):  # positions: one row for all
        value = value[None]
    if value.ndim == len(shape) and value.shape[0] in (1, B) and value.shape[2:] == rest:
        if value.shape[1] < S:
            return None
        value = np.broadcast_to(value[:, :S], shape)
        return np.where(real.reshape(B, S, *[1] * len(rest)), value, 0)
    return None


def _settle_pairs(
    value: NDArray[Any], shape: tuple[int, ...], mask: NDArray[Any]
) -> NDArray[Any] | None:
    B, N, S, _ = shape
    if value.ndim == 3 and value.shape[0] == B * N:
        value = value.reshape(B, N, *value.shape[1:])
    if value.ndim != 4 or value.shape[:2] != (B, N) or min(value.shape[2:]) < S:
        return None
    real = mask.astype(bool)
    pairs = real[:, None, :, None] & real[:, None, None, :]
    return np.where(pairs, value[:, :, :S, :S], 0)


def _settle_columns(
    value: NDArray[Any], shape: tuple[int, ...], mask: NDArray[Any]
) -> NDArray[Any] | None:
    (S, *rest), used = shape, mask.max(axis=0) == 1
    if value.ndim == 3 and value.shape[0] == 1 and value.shape[1] >= S:
        value = value[0, :S]
    return np.where(used.reshape(-1, 1), value, 0) if value.shape == (S, *rest) else None


def _wanted(shape: tuple[int, ...], entry: Entry, mask: NDArray[Any]) -> str:
    packed = f" or, packed, {(int(mask.sum()), *shape[2:])}" if entry.axes == "tokens" else ""
    return f"{shape}{packed}"


def fitting_transposition(got: tuple[int, ...], want: tuple[int, ...]) -> str:
    """What an error about a shape adds, where the axes are only in another order."""
    for axes in itertools.permutations(range(len(got))):
        if tuple(got[axis] for axis in axes) == want:
            return f": transpose{axes} would fit"
    return ""
