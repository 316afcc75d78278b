"""Normalise: every row to length 1."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, twinned

EPS = 1e-12  # as in PyTorch's functional.normalize: a zero row stays zero


class NormalizeCache(NamedTuple):
    y: Array  # (R, H)
    scale: Array  # (R, 1): 1/‖x‖


@twinned
def normalize_forward(xp: Backend, x: Array) -> tuple[Array, NormalizeCache]:
    """y = x/‖x‖, row by row.  x (R, H) → y (R, H)."""
    norm = xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True))
    scale = 1.0 / xp.where(norm.real > EPS, norm, EPS)
    y = x * scale
    return y, NormalizeCache(y, scale)


@twinned
def normalize_backward(xp: Backend, dy: Array, cache: NormalizeCache) -> Array:
    """δ(x/‖x‖) = (δx − y·(y·δx))/‖x‖: what is left of δx without its part along y.

    A projection is its own transpose: dx = (dy − y·(y·dy))/‖x‖. (A row shorter than EPS is divided
    by EPS; it is all but zero, and so is what the projection takes from dy.)
    """
    y, scale = cache
    return (dy - y * xp.sum(y * dy, axis=-1, keepdims=True)) * scale
