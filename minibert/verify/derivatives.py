"""Numerical derivatives of a scalar function of one real number, at 0.

Three methods that know nothing of each other, nor of the backwards they judge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Scalar = Callable[[Any], Any]
"""t ↦ f(t): f is a layer's (or a model's) loss, moved by t along some direction."""


def complex_step(f: Scalar) -> float:
    """f′(0) = Im f(ih)/h, to O(h²), with h = 1e-20.

    Taylor: f(ih) = f(0) + ih·f′(0) − h²·f″(0)/2 − …, so the imaginary part is h·f′(0) up to
    h³ = 1e-60. No difference of close numbers is taken, hence no cancellation: the result is
    exact to rounding. f must be analytic, and is evaluated in complex128.

    Source: Squire & Trapp, "Using complex variables to estimate derivatives of real functions",
    SIAM Review 40 (1998).
    """
    h = 1e-20
    return float(f(1j * h).imag) / h


def central_difference(f: Scalar) -> float:
    """(8·(f(h) − f(−h)) − (f(2h) − f(−2h)))/(12h): 4th order, error h⁴·f⁽⁵⁾/30.

    h = 2e-3 balances that against rounding, ε·|f|/h. Source: Abramowitz & Stegun, 25.3.6.
    """
    h = 2e-3
    return float(8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def ridders(f: Scalar) -> float:
    """Central differences at h, h/1.6, h/1.6², … extrapolated to h = 0, in a Neville table.

    Stops where the table's own error estimate grows. Source: Ridders, Adv. Eng. Software 4 (1982).
    """
    shrink, h = 1.6, 0.04
    row: list[float] = []
    best, error = float("nan"), float("inf")
    for _ in range(9):
        previous, row = row, [float(f(h) - f(-h)) / (2 * h)]
        factor = 1.0
        for old in previous:
            factor *= shrink * shrink
            row.append((factor * row[-1] - old) / (factor - 1.0))
        for column in range(1, len(row)):
            estimate = max(
                abs(row[column] - row[column - 1]), abs(row[column] - previous[column - 1])
            )
            if estimate <= error:
                best, error = row[column], estimate
        if previous and abs(row[-1] - previous[-1]) >= 2 * error:
            break
        h /= shrink
    return best


class Method(NamedTuple):
    derivative: Callable[[Scalar], float]
    bound: float
    """Relative error that a correct backward stays under, in float64."""


METHODS = {
    "complex-step": Method(complex_step, 1e-13),
    "central-difference": Method(central_difference, 1e-9),
    "ridders": Method(ridders, 1e-9),
}
