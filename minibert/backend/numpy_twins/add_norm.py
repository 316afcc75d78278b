"""Dropout + residual + layer norm in one visit: twin of `layers/add_norm.py`, `layer_norm.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minibert.backend.base import Array, Backend, dropout_threshold
from minibert.backend.buffers import empty, empty_like
from minibert.backend.numpy_twins.blocks import block_rows, row_blocks
from minibert.backend.numpy_twins.dropout import keep_rows


class AddNormCache(NamedTuple):
    xhat: Array  # (T, H) the normalised rows
    rstd: Array  # (T, 1)
    gamma: Array  # (H,) a reference
    p: float
    key: Any  # the dropout mask is computed again in the backward


def _normalise(z: Array, y: Array, gamma: Array, beta: Array, eps: float) -> Array:
    """z ← its rows normalised, y ← gamma·z + beta; returns 1/σ, (rows, 1)."""
    ones = np.ones(z.shape[-1], z.dtype)
    z -= (z @ ones / z.shape[-1])[:, None]
    variance = np.einsum("ij,ij->i", z, z) / z.shape[-1]
    rstd = (1.0 / np.sqrt(variance + eps))[:, None]
    z *= rstd
    np.multiply(z, gamma, out=y)
    y += beta
    return rstd


def add_norm_forward(
    xp: Backend,
    x: Array,
    residual: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    p: float,
    key: Any,
) -> tuple[Array, AddNormCache]:
    T, H = x.shape
    y, xhat, rstd = empty_like(x), empty_like(x), empty((T, 1), x.dtype)
    dropping = key is not None and p > 0
    threshold, scale = dropout_threshold(p)
    for rows in row_blocks(T, H):
        z = xhat[rows]
        if dropping:
            np.multiply(x[rows], keep_rows(xp, key, rows, H, threshold), out=z)
            z *= scale
            z += residual[rows]
        else:
            np.add(x[rows], residual[rows], out=z)
        rstd[rows] = _normalise(z, y[rows], gamma, beta, eps)
    return y, AddNormCache(xhat, rstd, gamma, p, key if dropping else None)


def add_norm_backward(
    xp: Backend, dy: Array, cache: AddNormCache
) -> tuple[Array, Array, Array, Array]:
    xhat, rstd, gamma, p, key = cache
    T, H = dy.shape
    dz = empty_like(dy)
    dx = dz if key is None else empty_like(dy)
    dgamma, dbeta = np.zeros_like(gamma), np.zeros_like(gamma)
    buffer = empty((block_rows(T, H), H), dy.dtype)
    threshold, scale = dropout_threshold(p)
    for rows in row_blocks(T, H):
        dyb, xhatb, dzb = dy[rows], xhat[rows], dz[rows]
        product = np.multiply(dyb, xhatb, out=buffer[: len(dyb)])
        ones = np.ones(len(dyb), dy.dtype)
        dgamma += ones @ product
        dbeta += ones @ dyb
        along = (product @ gamma / H)[:, None]  # mean(dxhat · xhat)
        mean = (dyb @ gamma / H)[:, None]  # mean(dxhat)
        np.multiply(dyb, gamma, out=dzb)
        dzb -= mean
        dzb -= np.multiply(xhatb, along, out=product)
        dzb *= rstd[rows]
        if key is not None:
            np.multiply(dzb, keep_rows(xp, key, rows, H, threshold), out=dx[rows])
            dx[rows] *= scale
    return dx, dz, dgamma, dbeta


def layer_norm_forward(
    xp: Backend, x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, AddNormCache]:
    y, xhat, rstd = empty_like(x), empty_like(x), empty((len(x), 1), x.dtype)
    for rows in row_blocks(*x.shape):
        xhat[rows] = x[rows]
        rstd[rows] = _normalise(xhat[rows], y[rows], gamma, beta, eps)
    return y, AddNormCache(xhat, rstd, gamma, 0.0, None)


def layer_norm_backward(xp: Backend, dy: Array, cache: AddNormCache) -> tuple[Array, Array, Array]:
    dx, _, dgamma, dbeta = add_norm_backward(xp, dy, cache)
    return dx, dgamma, dbeta
