"""Normalise: every row to length 1."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, twinned

EPS = 1e-12  # as in PyTorch's functional.normalize: a zero row stays zero


class NormalizeCache(NamedTuple):
    y: Array  # (R, H)
    scale: Array  # (R, 1): 1/‖x‖, or 1/EPS
    long: Array  # (R, 1) bool: ‖x‖ > EPS


@twinned
def normalize_forward(xp: Backend, x: Array) -> tuple[Array, NormalizeCache]:
    """y = x/max(‖x‖, EPS), row by row.  x (R, H) → y (R, H)."""
    norm = xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True))
    long = norm.real > EPS
    scale = 1.0 / xp.where(long, norm, EPS)
    y = x * scale
    return y, NormalizeCache(y, scale, long)


@twinned
def normalize_backward(xp: Backend, dy: Array, cache: NormalizeCache) -> Array:
    """dy (R, H) → dx (R, H).  δ(x/‖x‖) = (δx − y·(y·δx))/‖x‖, δx without its part along y.

    (δ‖x‖ = y·δx.) A projection is its own transpose: dx = (dy − y·(y·dy))/‖x‖. A row shorter than
    EPS is divided by a constant: dx = dy/EPS.
    """
    y, scale, long = cache
    along = xp.sum(y * dy, axis=-1, keepdims=True) * long
    return (dy - y * along) * scale
