"""How well a known mistake explains somebody's tensors."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from minibert.verify import evidence
from minibert.verify.budget import FACTOR, UNIT, error_of, parts_of, section_of, worst_part
from minibert.verify.compare import Comparison, Row
from minibert.verify.hypotheses import Guess
from minibert.verify.names import settle
from minibert.verify.trace.format import Trace
from minibert.verify.trace.tensors import Tensor, computed

SLACK = 8.0
"""Budgets are those of the right model; a mistake may make rounding errors grow."""

ROUNDING = 0.05
"""The largest relative error that rounding may explain: up to it the guess's own is measured."""

NEARLY = 16.0
"""How much nearer a guess must come that is right but for a constant."""

LUCK = 5.0
"""A right program's error ÷ the largest measured: PyTorch's was at most 4.4 (`budget.FACTOR`)."""


class Fit(NamedTuple):
    """How well a guess explains what was given."""

    out: Row | None  # the first tensor that it does not explain
    share: float  # the largest share of its budget that the error of a tensor takes
    explained: int  # tensors that are out in the comparison, and not with the guess
    bits: float  # what they tell
    off: bool = False  # it explains all, but leaves more than rounding does
    near: bool = False  # every tensor that is out is so by far less with the guess


def fit_of(guess: Guess, comparison: Comparison, trace: Trace) -> Fit:
    fit = _fit_within(guess, comparison, trace, {})
    if not fit.off and (fit.out is None or not fit.out.error < ROUNDING):
        return fit
    return _fit_within(guess, comparison, trace, _lost(guess, comparison, trace))


def _fit_within(
    guess: Guess, comparison: Comparison, trace: Trace, lost: Mapping[str, float]
) -> Fit:
    """lost: what the guess itself loses in the dtype, where that is more than a budget allows."""
    left = {row.name: row for row in comparison.rows if row.name in _computed(comparison)}
    largest, explained, bits, beyond = 0.0, 0, 0.0, 0.0
    missed, near = list[Row](), False
    sixteen = _of_sixteen_bits(comparison)
    better = 8 if sixteen else 2  # than no guess, or one that changes nothing
    with np.errstate(all="ignore"):
        for name, tensor in _named(guess, left):
            row = left.pop(name)
            mine = comparison.settled[name]
            error = min(
                _error(mine, tensor._replace(name=name, value=form), trace)
                for form in guess.forms(tensor)
            )
            budget = max(row.budget, min(FACTOR * lost.get(name, 0.0), ROUNDING) / SLACK)
            bound = SLACK * budget
            if not row.passed:
                bound = min(bound, row.error / better)
            if not error <= bound:
                missed.append(replace(row, error=error, budget=bound))
                if row.passed or not error <= row.error / NEARLY:
                    break
            largest = max(largest, error / budget if error else 0.0)
            explained += not row.passed and not missed
            bits += evidence.bits(row, mine, error, comparison.dtype)
            if not missed:
                beyond = max(beyond, _beyond(row, mine, error, lost.get(name, 0.0)))
        else:
            near = not left
    out = min([*missed, *left.values()], key=lambda row: row.order, default=None)
    sure = not sixteen and beyond >= evidence.needed(len(comparison.rows))
    return Fit(out, largest, explained, bits, out is None and (largest > 1.0 or sure), near)


def _beyond(row: Row, mine: Any, error: float, lost: float) -> float:
    """The bits of an error that is more than luck: within the budget, but no rounding.

    (Not of training, where one number may come of rounding alone and the error is that of a part.)
    """
    rounding = max(row.budget / FACTOR, lost)
    if row.name.startswith("training/") or not error > LUCK * rounding:
        return 0.0
    return evidence.told(mine, error / rounding)


def _named(guess: Guess, wanted: Container[str]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under those of its names that are wanted.

    A dropout that is off in a guess is another name of what it lets through.
    """
    for tensor in computed(guess.setup):
        section, own = section_of(tensor.name), guess.names.get(tensor.name, tensor.name)
        for name in (own, *(f"{section}/{alias}" for alias in tensor.aliases)):
            if name in wanted:
                yield name, tensor


def _lost(guess: Guess, comparison: Comparison, trace: Trace) -> dict[str, float]:
    """Each tensor's error of the guess in float32 against float64, scaled to the dtype.

    A mistake may make rounding errors grow: a score loses its last digits where 10000 is added.
    """
    double, single = (guess.setup.replace(dtype=dtype) for dtype in ("float64", "float32"))
    needed, scale = _computed(comparison), UNIT[comparison.dtype] / UNIT["float32"]
    with np.errstate(all="ignore"):
        return {
            right.name: scale * _error(_parts(rounded, trace), right, trace)
            for right, rounded in zip(computed(double), computed(single), strict=True)
            if right.name in needed and right.value.shape == trace.entries[right.name].shape
        }


def _parts(tensor: Tensor, trace: Trace) -> Any:
    """A tensor of a guess as `Comparison.settled` has somebody's."""
    entry = trace.entries[tensor.name]
    if not tensor.name.startswith("training/"):
        return settle(tensor.name, tensor.value, entry, trace.mask)
    return parts_of(tensor.value[:: entry.stride], trace.places_in(tensor.name))


def _computed(comparison: Comparison) -> set[str]:
    given = ("input/", "weight/")
    return {row.name for row in comparison.rows if not row.name.startswith(given)}


def _error(mine: Any, tensor: Tensor, trace: Trace) -> float:
    """Of somebody's tensor against what a guess makes of it."""
    entry = trace.entries[tensor.name]
    if tensor.value.shape != entry.shape:
        return math.inf  # the guess has fewer layers, or other heads
    if isinstance(mine, dict):
        return worst_part(mine, tensor.value[:: entry.stride], trace.places_in(tensor.name))[0]
    return error_of(mine, settle(tensor.name, tensor.value, entry, trace.mask), tensor.scale)


def _of_sixteen_bits(comparison: Comparison) -> bool:
    """Whose budgets are so wide that one mistake may pass for another."""
    return UNIT[comparison.dtype] > UNIT["float32"]
