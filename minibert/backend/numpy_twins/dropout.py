"""Dropout in blocks that stay in cache: twin of `layers/dropout.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minibert.backend.base import Array, Backend, dropout_threshold
from minibert.backend.buffers import empty_like
from minibert.backend.numpy_twins.blocks import row_blocks

DENSE = 16  # a row is drawn as fast with so many others as by itself


class DropoutCache(NamedTuple):
    p: float
    key: Any


def keep_rows(xp: Backend, key: Any, rows: slice, width: int, threshold: int) -> Array:
    """The dropout decisions of these rows: bool (rows, width)."""

    def draw(first: int, count: int) -> Array:
        start, number = first * width, count * width
        keep = xp.keep_decisions(key.seed, key.site, key.step, 0, start, number, threshold)
        return keep.reshape(count, width)

    runs = key.runs(range(rows.start, rows.stop))
    if len(runs) == 1:
        return draw(*runs[0])
    first, stop = min(a for a, _ in runs), max(a + n for a, n in runs)
    if stop - first <= DENSE * (rows.stop - rows.start):
        among = draw(first, stop - first)
        return np.concatenate([among[a - first : a - first + n] for a, n in runs])
    return np.concatenate([draw(*run) for run in runs])


def dropout_forward(xp: Backend, x: Array, p: float, key: Any) -> tuple[Array, DropoutCache]:
    if key is None or p == 0:
        return x, DropoutCache(p, None)
    return _masked(xp, x, p, key), DropoutCache(p, key)


def dropout_backward(xp: Backend, dy: Array, cache: DropoutCache) -> Array:
    return dy if cache.key is None else _masked(xp, dy, *cache)


def _masked(xp: Backend, x: Array, p: float, key: Any) -> Array:
    y = empty_like(x)
    threshold, scale = dropout_threshold(p)
    for rows in row_blocks(*x.shape):
        part = y[rows]
        np.multiply(x[rows], keep_rows(xp, key, rows, x.shape[1], threshold), out=part)
        part *= scale
    return y
