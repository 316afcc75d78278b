"""Select: some rows out of many."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, Ints, twinned


class SelectCache(NamedTuple):
    rows: Ints  # (M,)
    shape: tuple[int, ...]  # of x


@twinned
def select_forward(xp: Backend, x: Array, rows: Ints) -> tuple[Array, SelectCache]:
    """y = x[rows].  x (T, H), rows (M,), no row twice → y (M, H)."""
    return xp.take(x, rows, axis=0), SelectCache(rows, x.shape)


@twinned
def select_backward(xp: Backend, dy: Array, cache: SelectCache) -> Array:
    """dy (M, H) → dx (T, H): a row that was not looked at has no influence, so its dx is zero."""
    dx = xp.zeros(cache.shape, dtype=dy.dtype)
    dx[cache.rows] = dy
    return dx
