"""Softmax over the last axis."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, twinned


class SoftmaxCache(NamedTuple):
    y: Array  # (…, n) the derivative is written in the result itself


@twinned
def softmax_forward(xp: Backend, x: Array) -> tuple[Array, SoftmaxCache]:
    """yᵢ = exp(xᵢ)/Σⱼ exp(xⱼ), over the last axis.  x (…, n) → y (…, n).

    Subtracting the row's maximum first leaves y as it is, and keeps exp from overflowing. (The
    maximum is that of the real parts, and a constant, so that the complex step passes through.)
    """
    e = xp.exp(x - xp.max(x.real, axis=-1, keepdims=True))
    y = e / xp.sum(e, axis=-1, keepdims=True)
    return y, SoftmaxCache(y)


@twinned
def softmax_backward(xp: Backend, dy: Array, cache: SoftmaxCache) -> Array:
    """dy (…, n) → dx (…, n).  ∂yᵢ/∂xⱼ = yᵢ·([i = j] − yⱼ), hence

    dxⱼ = Σᵢ dyᵢ·∂yᵢ/∂xⱼ = yⱼ·(dyⱼ − Σᵢ dyᵢ·yᵢ)
    """
    y = cache.y
    return y * (dy - xp.sum(dy * y, axis=-1, keepdims=True))
