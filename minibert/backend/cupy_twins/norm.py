"""Bias + dropout + residual + layer norm: twins of `layers/add_norm.py`, `layer_norm.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

from minibert.backend.base import Array, Backend, Ints
from minibert.backend.cupy_twins.columns import gamma_and_beta
from minibert.backend.cupy_twins.dropout import ALL, Kept, kept_rows
from minibert.backend.kernels import WARP, launch


class NormCache(NamedTuple):
    xhat: Array  # (R, H) the normalised rows
    rstd: Array  # (R,)
    gamma: Array  # (H,) a reference
    kept: Kept
    rows: Ints | None = None  # (R,) those of `kept` that are these; None: all
    slots: Ints | None = None  # (T,) given where the residual, and its gradient, have all T rows


def normalise(
    xp: Backend, x: Array, bias: Array | None, residual: Array | None, gamma: Array, beta: Array,
    eps: float, kept: Kept, rows: Ints | None = None, slots: Ints | None = None,
    stored: bool = False,
) -> tuple[Array, Array, NormCache]:  # fmt: skip
    """y = LN(dropout(x + bias) + residual), x (R, H) stored → y as float32 and, if `stored`, as x.

    `rows` (R,): those of `kept` that are x's, where these are not all. With `slots` (T,) they are
    also those of the residual, which has all T: see `Chosen`.
    """
    (R, H), storage = x.shape, x.dtype
    y, xhat = xp.empty((R, H), dtype="float32"), xp.empty((R, H), dtype="float32")
    rstd = xp.empty(R, dtype="float32")
    rounded = xp.empty((R, H), dtype=storage) if stored and storage != "float32" else None
    launch(
        xp.module, "norm", "add_norm_forward", WARP * R, x, bias, residual,
        None if slots is None else rows, *kept, rows, gamma, beta, eps,
        y, rounded, xhat, rstd, R, H, storage=storage,
    )  # fmt: skip
    return y, y if rounded is None else rounded, NormCache(xhat, rstd, gamma, kept, rows, slots)


def normalise_backward(
    xp: Backend, dy: Array, cache: NormCache, storage: Any = "float32", after: Kept = ALL,
    apart: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """dz, the residual's gradient in float32, and dx, stored: one array if they are alike, unless
    they must lie `apart`.

    `after`: the dropout behind the norm. The sums for γ and β are `gamma_and_beta`'s.
    """
    (R, H), kept = dy.shape, cache.kept
    places = R if cache.slots is None else len(cache.slots)
    dz = xp.empty((places, H), dtype="float32")
    alike = kept.bits is None and storage == "float32" and cache.slots is None
    dx = None if alike and not apart else xp.empty((R, H), dtype=storage)
    first, scale = (kept if after.bits is None else after)[1:]  # one of the two, at most, drops
    launch(
        xp.module, "norm", "add_norm_backward", WARP * places, dy, after.bits, cache.xhat,
        cache.rstd, cache.gamma, kept.bits, first, scale,
        cache.rows, cache.slots, dz, dx, places, H, storage=storage,
    )  # fmt: skip
    return dz, dz if dx is None else dx


def add_norm_forward(
    xp: Backend,
    x: Array,
    residual: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    p: float,
    key: Any,
) -> tuple[Array, NormCache]:
    kept = kept_rows(xp, key, p, x.shape)
    rows = None if key is None or key.rows is None else xp.asarray(key.rows)
    y, _, cache = normalise(xp, x, None, residual, gamma, beta, eps, kept, rows)
    return y, cache


def add_norm_backward(
    xp: Backend, dy: Array, cache: NormCache
) -> tuple[Array, Array, Array, Array]:
    dz, dx = normalise_backward(xp, dy, cache)
    return dx, dz, *gamma_and_beta(xp, dy, cache.xhat)


def layer_norm_forward(
    xp: Backend, x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, NormCache]:
    y, _, cache = normalise(xp, x, None, None, gamma, beta, eps, ALL)
    return y, cache


def layer_norm_backward(xp: Backend, dy: Array, cache: NormCache) -> tuple[Array, Array, Array]:
    dx, _ = normalise_backward(xp, dy, cache)
    return dx, *gamma_and_beta(xp, dy, cache.xhat)
