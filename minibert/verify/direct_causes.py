"""Causes that need no simulation: they show in the numbers themselves."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minibert.verify.budget import UNIT, error_of, section_of
from minibert.verify.compare import Comparison, Row, all_fit
from minibert.verify.trace.format import Trace


def given(comparison: Comparison, trace: Trace, first: Row) -> str | None:
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


def rounded(comparison: Comparison) -> str | None:
    """Wide numbers that hold only what a narrower dtype holds: computed in that one."""
    for name in reversed(UNIT):
        narrower = UNIT[name] > UNIT[comparison.dtype]
        if narrower and all_fit(comparison, name) and _within(comparison, name):
            return f"computed in {name}: compare with --dtype {name}"
    return None


def _within(comparison: Comparison, dtype: str, share: float = 1.0) -> bool:
    factor = share * UNIT[dtype] / UNIT[comparison.dtype]
    return all(row.error <= factor * row.budget for row in comparison.rows)


def of_lower_precision(comparison: Comparison, first: Row) -> str | None:
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


# ---- Gradients with a factor ----

MANY = 8
"""Numbers that must all have the factor."""


class Scaled(NamedTuple):
    """All gradients have one factor."""

    factor: float
    cause: str

    @property
    def is_plain(self) -> bool:
        """Whether somebody may have meant it: 2, 3, … A guess that has 2/9 is no accident."""
        return self.factor > 1 and self.factor.is_integer()


def scaled(comparison: Comparison, trace: Trace) -> Scaled | None:
    """All gradients, or those of all parameters, are the right ones times one factor."""
    out = [row for row in comparison.rows if not row.passed]
    if any(section_of(row.name) != "gradient" for row in out):
        return None
    if sum(comparison.settled[row.name].size for row in out) < MANY:
        return None
    factor = _factor(out[0].name, comparison, trace)
    if not all(_has(factor, row, comparison, trace) for row in out):
        return None
    right = [row.name for row in comparison.rows if row.passed and _has_gradient(row.name, trace)]
    parameters = {f"gradient/{name}" for name in trace.layout.shapes}
    if not parameters.isdisjoint(right):
        return None
    whose = "every parameter's gradient" if right else "every gradient"
    return Scaled(factor, f"{whose} is multiplied by {factor:.4g}{_reason(factor)}")


def _factor(name: str, comparison: Comparison, trace: Trace) -> float:
    """The k that makes k·golden nearest to what was given; a whole one, or 1/n, if that is near."""
    mine, golden = _as_stored(name, comparison, trace)
    k = float(mine @ golden) / (float(golden @ golden) or 1.0)
    whole = float(round(k)) if abs(k) >= 1 else 1.0 / round(1.0 / k) if k else 0.0
    return whole if abs(k - whole) <= 1e-3 * abs(k) else k


def _has(factor: float, row: Row, comparison: Comparison, trace: Trace) -> bool:
    mine, golden = _as_stored(row.name, comparison, trace)
    scale = abs(factor) * trace.entries[row.name].scale
    return error_of(mine, factor * golden, scale) <= row.budget


def _as_stored(name: str, comparison: Comparison, trace: Trace) -> tuple[Any, Any]:
    stride, mine = trace.entries[name].stride, comparison.settled[name]
    return mine.reshape(-1)[::stride].astype(np.float64), trace.read(name).reshape(-1)


def _has_gradient(name: str, trace: Trace) -> bool:
    """Whether it is a gradient, and not zero."""
    if section_of(name) != "gradient" or trace.entries[name].scale:
        return False
    return bool(trace.read(name).any())


def _reason(factor: float) -> str:
    if factor < 0:
        return ""
    if factor < 1:
        return " (clipped, or divided by more than the loss is)"
    if not factor.is_integer():
        return ""
    times = "twice" if factor == 2 else f"{factor:g} times"
    left = ", or a loss scale is left in" if math.log2(factor).is_integer() else ""
    return f" (accumulated {times}{left})"
