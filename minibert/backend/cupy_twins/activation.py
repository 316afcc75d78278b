"""Bias + activation: twin of `layers/activations.py` (gelu)."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend.base import Array, Backend
from minibert.backend.cupy_twins.columns import ColumnSums, chunks_of
from minibert.backend.kernels import launch

KINDS = {"gelu": 0, "gelu_new": 1, "relu": 2}  # as in kernels/activation.cu


class GeluCache(NamedTuple):
    slope: Array | None  # None for inference


def activate(xp: Backend, x: Array, bias: Array | None, kind: str, slope: Array | None) -> Array:
    """act(x + bias), x (T, F) and the result stored, bias (F,) float32.

    `slope` (T, F) stored, if given, is filled with the derivative; it may be x.
    """
    (T, F), y = x.shape, xp.empty(x.shape, dtype=x.dtype)
    launch(
        xp.module, "activation", "activation_forward", chunks_of(T) * F,
        x, bias, y, slope, KINDS[kind], T, F, storage=x.dtype,
    )  # fmt: skip
    return y


def activate_backward(
    xp: Backend, dy: Array, slope: Array, sums: ColumnSums | None = None, place: int = 0
) -> Array:
    """dx; its sum over the rows, which is the bias's gradient, goes into `sums` at `place`."""
    (T, F), dx = dy.shape, xp.empty(dy.shape, dtype=dy.dtype)
    partial, stride = (None, 0) if sums is None else (sums.partial, sums.partial.shape[1])
    launch(
        xp.module, "activation", "activation_backward", chunks_of(T) * F,
        dy, slope, dx, partial, stride, place, T, F, storage=dy.dtype,
    )  # fmt: skip
    return dx


def gelu_forward(xp: Backend, x: Array) -> tuple[Array, GeluCache]:
    slope = xp.empty(x.shape, dtype=x.dtype) if xp.keeps_caches else None
    return activate(xp, x, None, "gelu", slope), GeluCache(slope)


def gelu_backward(xp: Backend, dy: Array, cache: GeluCache) -> Array:
    return activate_backward(xp, dy, cache.slope)
