"""A backend whose results have the same bytes on every machine.

IEEE 754 fixes +, −, ×, ÷ and √ to the last bit. What differs between machines is the order in which
a BLAS or a vector unit adds, and the last bits of exp, tanh and log. Here sums and products run in
the order in which they are written, without fused operations, and exp, tanh, log and log1p are made
of the five operations above. It is slow, and meant for tiny models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.backend.base import Array, Ints
from minibert.backend.erf import erf
from minibert.backend.numpy_backend import NumpyBackend

Floats = NDArray[np.float64]

# ln 2 in two parts; the first ends in 32 zero bits, so that k·LN2_HIGH is exact for small k.
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
SQRT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")


class OrderedBackend(NumpyBackend):
    """NumPy with everything that a machine may round in its own way replaced."""

    def __init__(self, *, reference: bool = True) -> None:
        super().__init__(reference=True)  # twins are for speed

    def sum(self, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
        """x₀ + x₁ + x₂ + … along one axis (or all of them, flattened)."""
        if axis is None:
            return self.sum(x.reshape(-1), axis=0)
        first, *rest = np.moveaxis(x, axis, 0)
        total = first.copy()
        for part in rest:
            total = total + part
        return np.expand_dims(total, axis) if keepdims else total

    def mean(self, x: Array, axis: int, keepdims: bool = False) -> Array:
        return self.sum(x, axis, keepdims) / x.dtype.type(x.shape[axis])

    def matmul(self, a: Array, b: Array) -> Array:
        """Σₖ a_ik·b_kj in the order of k, each product and each sum rounded."""
        total = a[..., :, :1] * b[..., :1, :]
        for k in range(1, a.shape[-1]):
            total = total + a[..., :, k : k + 1] * b[..., k : k + 1, :]
        return total

    def sum_rows(self, ids: Ints, rows: Array) -> tuple[Ints, Array]:
        unique, places = np.unique(ids, return_inverse=True)
        sums = np.zeros((len(unique), *rows.shape[1:]), rows.dtype)
        for place, row in zip(places, rows, strict=True):
            sums[place] = sums[place] + row
        return unique, sums

    def exp(self, x: Array) -> Array:
        return _in_float64(exp, x)

    def tanh(self, x: Array) -> Array:
        return _in_float64(tanh, x)

    def log(self, x: Array) -> Array:
        return _in_float64(log, x)

    def log1p(self, x: Array) -> Array:
        return _in_float64(log1p, x)

    def erf(self, x: Array) -> Array:
        return _in_float64(lambda z: erf(z, exp), x)


def _in_float64(function: Callable[[Floats], Floats], x: Array) -> Array:
    return function(x.astype(np.float64)).astype(x.dtype)


def exp(x: Floats) -> Floats:
    """eˣ = 2ᵏ·(1 + (eʳ − 1)) with x = k·ln 2 + r; within 1.5 units in the last place."""
    k, small = _reduced(x)
    y: Floats = np.ldexp(1.0 + small, k)
    return y


def tanh(x: Floats) -> Floats:
    """sign(x)·E/(E + 2) with E = e^(2|x|) − 1, which keeps its digits where x is small."""
    k, small = _reduced(np.minimum(2.0 * np.abs(x), 44.0))  # beyond, the result is 1
    power = np.ldexp(1.0, k)
    E = power * small + (power - 1.0)
    y: Floats = np.copysign(E / (E + 2.0), x)
    return y


def _reduced(x: Floats) -> tuple[Any, Floats]:
    """k and eʳ − 1, for x = k·ln 2 + r and |r| ≤ ln(2)/2: fourteen terms of its Taylor series."""
    x = np.maximum(x, -750.0)  # below, the result is 0
    k = np.rint(x / (LN2_HIGH + LN2_LOW))
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    series = np.ones_like(r)
    for n in range(15, 1, -1):
        series = 1.0 + r / n * series
    return k.astype(np.int64), r * series


def log(x: Floats) -> Floats:
    """ln x = e·ln 2 + 2·artanh(s) with x = m·2ᵉ, √½ ≤ m < √2 and s = (m − 1)/(m + 1)."""
    m, e = np.frexp(x)
    small = m < SQRT_HALF
    m, e = np.where(small, 2.0 * m, m), np.where(small, e - 1, e).astype(np.float64)
    return e * LN2_HIGH + (2.0 * _artanh((m - 1.0) / (m + 1.0)) + e * LN2_LOW)


def log1p(x: Floats) -> Floats:
    """ln(1 + x) = 2·artanh(x/(2 + x)), for 0 ≤ x ≤ 1."""
    return 2.0 * _artanh(x / (2.0 + x))


def _artanh(s: Floats) -> Floats:
    """s + s³/3 + s⁵/5 + …, for |s| ≤ 1/3: sixteen terms."""
    square, series = s * s, np.zeros_like(s)
    for n in range(33, 0, -2):
        series = series * square + 1.0 / n
    return s * series
