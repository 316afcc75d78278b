"""GELU by a tanh: twin of `layers/activations.py` (gelu)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from minibert.backend.base import Array, Backend
from minibert.backend.buffers import empty, empty_like
from minibert.backend.numpy_twins.blocks import block_rows, row_blocks

# Φ(x) = (1 + tanh(x·P(x²)))/2 with P fitted on |x| ≤ 5.6, where atanh(2Φ(x) − 1) = x·P(x²), to
# minimise the error of x·Φ(x). With float32 coefficients and arithmetic the error of GELU is at
# most 5.6e-7, one float32 rounding of 1 + tanh near x = −5. At ±5.6 the tanh has reached ±1, so
# clipping there makes GELU exactly 0 on the far left and x on the far right.
P = (
    0.7978842258453369,
    0.03633428364992142,
    -3.312997432658449e-05,
    -5.5240165238501504e-05,
    3.969110821344657e-06,
    -1.3344649119062524e-07,
    1.8056182105041785e-09,
)
CLIP = 5.6


class GeluCache(NamedTuple):
    derivative: Array  # gelu′(x): computed while x is in cache; x itself is not needed again


def phi(x: Array, z: Array, y: Array, poly: Array) -> None:
    """y ← Φ(x), leaving z ← clip(x)²; poly is scratch. All: one block, (rows, F)."""
    np.clip(x, -CLIP, CLIP, out=y)
    np.multiply(y, y, out=z)
    np.multiply(z, P[-1], out=poly)
    for coefficient in P[-2:0:-1]:
        poly += coefficient
        poly *= z
    poly += P[0]
    y *= poly
    np.tanh(y, out=y)
    y += 1.0
    y *= 0.5


def gelu_forward(xp: Backend, x: Array) -> tuple[Array, GeluCache]:
    y, derivative = empty_like(x), empty_like(x)
    shape = (block_rows(len(x), x.shape[-1]), *x.shape[1:])
    z, Phi, poly = (empty(shape, x.dtype) for _ in range(3))
    for rows in row_blocks(len(x), x.shape[-1]):
        xb, d = x[rows], derivative[rows]
        zb, Phib = z[: len(xb)], Phi[: len(xb)]
        phi(xb, zb, Phib, poly[: len(xb)])
        np.multiply(xb, Phib, out=y[rows])
        zb *= -0.5  # gelu′ = Φ(x) + x·φ(x); the clip changes φ by less than 1e-7
        np.exp(zb, out=zb)
        zb *= 1 / math.sqrt(2 * math.pi)
        np.clip(xb, -CLIP, CLIP, out=d)
        d *= zb
        d += Phib
    return y, GeluCache(derivative)


def gelu_backward(xp: Backend, dy: Array, cache: GeluCache) -> Array:
    return np.multiply(dy, cache.derivative, out=empty_like(dy))


def gelu_forward_only(xp: Backend, x: Array) -> tuple[Array, None]:
    y = empty_like(x)
    shape = (block_rows(len(x), x.shape[-1]), *x.shape[1:])
    z, poly = empty(shape, x.dtype), empty(shape, x.dtype)
    for rows in row_blocks(len(x), x.shape[-1]):
        xb, yb = x[rows], y[rows]
        phi(xb, z[: len(xb)], yb, poly[: len(xb)])
        yb *= xb
    return y, None
