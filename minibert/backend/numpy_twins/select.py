"""Select into reused memory: twin of `layers/select.py`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minibert.backend.base import Array, Backend, Ints
from minibert.backend.buffers import empty


class SelectCache(NamedTuple):
    rows: Ints  # (M,)
    shape: tuple[int, ...]


def select_forward(xp: Backend, x: Array, rows: Ints) -> tuple[Array, SelectCache]:
    y = empty((len(rows), *x.shape[1:]), x.dtype)
    np.take(x, rows, axis=0, out=y, mode="clip")  # "raise" would go through a copy of y
    return y, SelectCache(rows, x.shape)


def select_backward(xp: Backend, dy: Array, cache: SelectCache) -> Array:
    dx = empty(cache.shape, dy.dtype)
    dx.fill(0)
    dx[cache.rows] = dy
    return dx
