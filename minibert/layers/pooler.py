"""Pooler: a tanh layer on the first token, [CLS], of each sequence."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, Ints, twinned
from minibert.layers.linear import LinearCache, linear_backward, linear_forward


class PoolerCache(NamedTuple):
    first: Ints  # (B,) the rows of the first tokens
    shape: tuple[int, ...]  # of x
    linear: LinearCache
    y: Array  # (B, H): tanh′ is written in tanh itself


@twinned
def pooler_forward(
    xp: Backend, x: Array, W: Array, b: Array, first: Ints
) -> tuple[Array, PoolerCache]:
    """y = tanh(x[first] Wᵀ + b).

    x (T, H), W (H, H), b (H,), first (B,) the row of each sequence's first token → y (B, H).
    """
    z, linear = linear_forward(xp, xp.take(x, first, axis=0), W, b)
    y = xp.tanh(z)
    return y, PoolerCache(first, x.shape, linear, y)


@twinned
def pooler_backward(xp: Backend, dy: Array, cache: PoolerCache) -> tuple[Array, Array, Array]:
    """tanh′ = 1 − tanh², so dz = dy·(1 − y²). dy (B, H) → dx (T, H), dW, db.

    Only first tokens were looked at: dx is zero in every other row.
    """
    dz = dy * (1.0 - cache.y * cache.y)
    dfirst, dW, db = linear_backward(xp, dz, cache.linear)
    dx = xp.zeros(cache.shape, dtype=dy.dtype)
    dx[cache.first] = dfirst
    return dx, dW, db
