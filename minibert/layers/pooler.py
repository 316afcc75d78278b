"""Pooler: a tanh layer on the first token, [CLS], of each sequence."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, Ints, twinned
from minibert.layers.linear import LinearCache, linear_backward, linear_forward
from minibert.layers.select import SelectCache, select_backward, select_forward


class PoolerCache(NamedTuple):
    select: SelectCache | None  # None: x is the first tokens alone
    linear: LinearCache
    y: Array  # (B, H): tanh′ is written in tanh itself


@twinned
def pooler_forward(
    xp: Backend, x: Array, W: Array, b: Array, first: Ints
) -> tuple[Array, PoolerCache]:
    """y = tanh(x[first] Wᵀ + b).

    x (T, H), W (H, H), b (H,), first (B,) the row of each sequence's first token, ascending → y
    (B, H).
    """
    cls, select = (x, None) if len(first) == len(x) else select_forward(xp, x, first)
    z, linear = linear_forward(xp, cls, W, b)
    y = xp.tanh(z)
    return y, PoolerCache(select, linear, y)


@twinned
def pooler_backward(xp: Backend, dy: Array, cache: PoolerCache) -> tuple[Array, Array, Array]:
    """tanh′ = 1 − tanh², so dz = dy·(1 − y²). dy (B, H) → dx (T, H), dW, db."""
    dz = dy * (1.0 - cache.y * cache.y)
    dx, dW, db = linear_backward(xp, dz, cache.linear)
    return dx if cache.select is None else select_backward(xp, dx, cache.select), dW, db
