"""Why is it wrong? Each known mistake is made on purpose, and the result held beside what came out.

A cause is named only if it explains every tensor that was given, to within the error budget.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from minibert.verify.budget import FACTOR, UNIT, error_of, parts_of, section_of, worst_part
from minibert.verify.compare import Comparison, Row, all_fit, as_stored
from minibert.verify.hypotheses import HYPOTHESES, Guess
from minibert.verify.names import settle
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import Tensor, computed

SLACK = 8.0
"""Budgets are those of the right model; a mistake may make rounding errors grow."""

NEAR = 0.05
"""A relative error that rounding may explain; then the guess's own rounding is measured."""


ENOUGH = 64
"""Numbers that are out, in 16 bits."""

FEW = 3
"""Causes of which each may explain a part."""


class Diagnosis(NamedTuple):
    """The likely cause, or why there is none."""

    causes: tuple[str, ...]  # more than one: the tensors given cannot tell them apart
    tried: int
    partly: tuple[tuple[str, ...], str] | None = None  # (what explains the first, where that ends)
    too_few: str = ""  # the dtype, of whose numbers there are too few to tell mistakes apart

    def __str__(self) -> str:
        if self.causes:
            return "; or ".join(self.causes)
        if self.partly:
            causes, where = self.partly
            return f"{'; or '.join(causes)}; but from {where} on something else is wrong as well"
        if self.too_few:
            return f"unknown: too few numbers of {self.too_few} to tell: hand in more, or float32"
        return f"unknown: none of {self.tried} known mistakes gives these tensors"


def diagnose(comparison: Comparison, trace: Trace, setup: Setup) -> Diagnosis:
    """The known mistakes that give exactly these tensors. setup: `setup_of(trace)`."""
    first = comparison.first_out
    if first is None:
        return Diagnosis((), 0)
    if cause := _given(comparison, trace, first) or _rounded(comparison):
        return Diagnosis((cause,), 1)
    if _of_sixteen_bits(comparison) and _count(comparison) < ENOUGH:
        return Diagnosis((), 0, too_few=comparison.dtype)
    comparison = as_stored(comparison)
    first = comparison.first_out or first
    needed, tried = _needed(setup, comparison), 0
    partly: dict[tuple[int, str], list[str]] = {}  # where a guess ends → the causes that end there
    for section in _sections(first.name):
        found: dict[str, float] = {}
        for guess in _guesses(section, needed, first.name):
            tried += 1
            out, share = _fit(guess, comparison, trace)
            if out is None:
                found[guess.cause] = min(share, found.get(guess.cause, math.inf))
            elif out.order > first.order:
                partly.setdefault((out.order, out.name), []).append(guess.cause)
        if found:
            return Diagnosis(_best(found), tried)
    if cause := _of_lower_precision(comparison, first):
        return Diagnosis((cause,), tried)
    return Diagnosis((), tried, _furthest(partly))


def _furthest(partly: Mapping[tuple[int, str], list[str]]) -> tuple[tuple[str, ...], str] | None:
    """The causes that explain the most, and where that ends; of many none is likely."""
    if not partly:
        return None
    end = max(partly)
    causes = tuple(dict.fromkeys(partly[end]))
    return (causes, end[1]) if len(causes) <= FEW else None


def _of_sixteen_bits(comparison: Comparison) -> bool:
    """Whose budgets are so wide that one mistake may pass for another."""
    return UNIT[comparison.dtype] > UNIT["float32"]


def _count(comparison: Comparison) -> int:
    """How many numbers tensors that are out have."""
    out = [comparison.settled[row.name] for row in comparison.rows if not row.passed]
    arrays = [a for each in out for a in (each.values() if isinstance(each, dict) else [each])]
    return sum(array.size for array in arrays)


def _best(found: Mapping[str, float]) -> tuple[str, ...]:
    """The causes that fit about as well as the best: each with the largest share of its budget."""
    bound = max(1.0, SLACK / 2 * min(found.values()))
    return tuple(cause for cause, share in found.items() if share <= bound)


def _guesses(section: str, setup: Setup, first: str) -> Iterator[Guess]:
    for hypothesis in HYPOTHESES[section]:
        yield from hypothesis(setup, first)


def _sections(first: str) -> list[str]:
    """Where to look: first where it shows, then at what comes before that."""
    order = list(HYPOTHESES)
    here = (
        order.index(first.split("/", maxsplit=1)[0])
        if first.split("/", maxsplit=1)[0] in order
        else 0
    )
    return [order[here], *reversed(order[:here])]


def _needed(setup: Setup, comparison: Comparison) -> Setup:
    """The setup without the passes of which no tensor was given."""
    sections = {section_of(row.name).split("/")[0] for row in comparison.rows}
    if "dropout" not in sections:
        setup = setup.replace(dropout=None)
    if "training" not in sections or setup.recipe is None:
        return setup.replace(recipe=None)
    trained = [row.name.split("/") for row in comparison.rows if row.name.startswith("training/")]
    rules = tuple(rule for rule in setup.recipe.rules if any(rule == t[1] for t in trained))
    steps = tuple(s for s in setup.recipe.steps if any(f"step_{s}" == t[2] for t in trained))
    return setup.replace(recipe=replace(setup.recipe, rules=rules, steps=steps))


class Fit(NamedTuple):
    """How well a guess explains what was given."""

    out: Row | None  # the first tensor that it does not explain
    share: float  # the largest share of its budget that the error of a tensor takes


def _fit(guess: Guess, comparison: Comparison, trace: Trace) -> Fit:
    fit = _fit_within(guess, comparison, trace, {})
    if fit.out is None or not fit.out.error < NEAR:
        return fit
    return _fit_within(guess, comparison, trace, _lost(guess, comparison, trace))


def _fit_within(
    guess: Guess, comparison: Comparison, trace: Trace, lost: Mapping[str, float]
) -> Fit:
    """lost: what the guess itself loses in the dtype, where that is more than a budget allows."""
    left = {row.name: row for row in comparison.rows if row.name in _computed(comparison)}
    largest, share = 0.0, 8 if _of_sixteen_bits(comparison) else 2
    with np.errstate(all="ignore"):
        for name, tensor in _named(guess.setup, left):
            row = left.pop(name)
            error = min(
                _error(comparison.settled[name], tensor._replace(name=name, value=form), trace)
                for form in guess.forms(tensor)
            )
            budget = max(row.budget, min(FACTOR * lost.get(name, 0.0), NEAR) / SLACK)
            bound = SLACK * budget
            if not row.passed:
                bound = min(bound, row.error / share)  # or a guess that changes nothing would do
            if not error <= bound:
                left[name] = replace(row, error=error, budget=bound)
                break
            largest = max(largest, error / budget if error else 0.0)
    return Fit(min(left.values(), key=lambda row: row.order, default=None), largest)


def _named(setup: Setup, wanted: Container[str]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under those of its names that are wanted.

    A dropout that is off in a guess is another name of what it lets through.
    """
    for tensor in computed(setup):
        section = section_of(tensor.name)
        for name in (tensor.name, *(f"{section}/{alias}" for alias in tensor.aliases)):
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


# ---- Causes that need no simulation ----


def _given(comparison: Comparison, trace: Trace, first: Row) -> str | None:
    """An input or a weight that is not the trace's."""
    section, _, name = first.name.partition("/")
    if section == "input":
        return f"{name} is not the trace's"
    if section != "weight":
        return None
    mine, golden = comparison.settled[first.name], trace.read(first.name)
    if mine.ndim == 2 and mine.shape == mine.shape[::-1] and _same(mine, golden.T, first):
        return f"{name} is transposed"
    for other in trace.names():
        alike = other.startswith("weight/") and trace.entries[other].shape == mine.shape
        if alike and _same(mine, trace.read(other), first):
            return f"{name} is really {other.removeprefix('weight/')}"
    return f"{name} is not the trace's"


def _same(mine: Any, golden: Any, row: Row) -> bool:
    return error_of(mine, golden) <= row.budget


def _rounded(comparison: Comparison) -> str | None:
    """Wide numbers that hold only what a narrower dtype holds: computed in that one."""
    for name in reversed(UNIT):
        narrower = UNIT[name] > UNIT[comparison.dtype]
        if narrower and all_fit(comparison, name) and _within(comparison, name):
            return f"computed in {name}: compare with --dtype {name}"
    return None


def _within(comparison: Comparison, dtype: str, share: float = 1.0) -> bool:
    factor = share * UNIT[dtype] / UNIT[comparison.dtype]
    return all(row.error <= factor * row.budget for row in comparison.rows)


def _of_lower_precision(comparison: Comparison, first: Row) -> str | None:
    """float64 with errors as large as those of float32, no larger and no smaller.

    A quarter of the budget: it has room for a right port's bad luck, in which a wrong constant
    would hide.
    """
    worst = max(row.error for row in comparison.rows)
    visible = comparison.dtype == "float64" and worst > UNIT["float32"] / 16
    if visible and _within(comparison, "float32", 0.25):
        return (
            f"{first.name} is out by no more than float32 rounds: something may be computed in it, "
            "or a constant is off by that much"
        )
    return None
