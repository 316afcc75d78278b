"""Attention one sequence at a time, in reused buffers: twin of `layers/attention.py`.

A sequence's scores (N, n, n) fit in the L2 cache where a batch's do not. The heads are read and
written in place, as strided views of the packed (T, 3H) array: the products take them with their
strides, and nothing is transposed or copied.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minibert.backend.base import Array, Backend, dropout_threshold
from minibert.backend.buffers import empty, empty_like
from minibert.backend.numpy_twins.blocks import BLOCK


class AttentionCache(NamedTuple):
    qkv: Array  # (T, 3H)
    context: Array  # (T, H) the output: Σⱼ dpᵢⱼ·pᵢⱼ = dcontextᵢ · contextᵢ saves a pass over (n, n)
    probs: Array  # (Σ N·n²,) every sequence's probabilities before dropout, one after the other
    offsets: Any
    num_heads: int
    p: float
    key: Any


def _heads(rows: Array, num_heads: int) -> Array:
    """(n, N·D) → a view (N, n, D)."""
    n, H = rows.shape
    return rows.reshape(n, num_heads, H // num_heads).transpose(1, 0, 2)


def _qkv(rows: Array, num_heads: int) -> tuple[Array, Array, Array]:
    """(n, 3H) → three views (N, n, D)."""
    H = rows.shape[1] // 3
    q, k, v = (_heads(rows[:, i * H : (i + 1) * H], num_heads) for i in range(3))
    return q, k, v


def softmax(scores: Array) -> None:
    """Softmax over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores *= 1.0 / scores.sum(axis=-1, keepdims=True)


def _scaled(heads: Array) -> Array:
    """heads/√D, (N, n, D), in the memory layout of the rows."""
    N, n, D = heads.shape
    out = empty((n, N, D), heads.dtype).transpose(1, 0, 2)
    return np.multiply(heads, 1.0 / math.sqrt(D), out=out)


def _keep(xp: Backend, key: Any, start: int, shape: tuple[int, ...], threshold: int) -> Array:
    """A sequence's decisions, bool (N, n, n); see `layers/attention.py`."""
    place = (key.seed, key.site, key.step, key.first_row + start + 1)
    if math.prod(shape) <= BLOCK:
        return xp.keep_decisions(*place, 0, math.prod(shape), threshold).reshape(shape)
    keep = empty(math.prod(shape), np.bool_)
    for first in range(0, keep.size, BLOCK):
        part = keep[first : first + BLOCK]
        part[...] = xp.keep_decisions(*place, first, part.size, threshold)
    return keep.reshape(shape)


def _scratch(offsets: Any, num_heads: int, dtype: Any) -> Array:
    """Room for the scores of the longest sequence."""
    longest = max((b - a for a, b in pairwise(offsets)), default=0)
    return empty(num_heads * longest * longest, dtype)


def attention_forward(
    xp: Backend, qkv: Array, offsets: Any, num_heads: int, p: float, key: Any
) -> tuple[Array, AttentionCache]:
    T, H = qkv.shape[0], qkv.shape[1] // 3
    context = empty((T, H), qkv.dtype)
    spans = list(pairwise(offsets))
    probs = empty(sum(num_heads * (b - a) ** 2 for a, b in spans), qkv.dtype)
    key = key if p > 0 else None
    buffer = _scratch(offsets, num_heads, qkv.dtype) if key is not None else None
    place = 0
    for start, stop in spans:
        n = stop - start
        shape, size = (num_heads, n, n), num_heads * n * n
        P = probs[place : place + size].reshape(shape)
        place += size
        dropped = P if buffer is None else buffer[:size].reshape(shape)
        _one_forward(xp, qkv[start:stop], context[start:stop], P, dropped, start, p, key)
    return context, AttentionCache(qkv, context, probs, offsets, num_heads, p, key)


def _one_forward(
    xp: Backend,
    qkv: Array,
    context: Array,
    P: Array,
    dropped: Array,
    start: int,
    p: float,
    key: Any,
) -> None:
    """One sequence: fills context (n, H) and P (N, n, n)."""
    num_heads = len(P)
    q, k, v = _qkv(qkv, num_heads)
    np.matmul(_scaled(q), k.transpose(0, 2, 1), out=P)
    softmax(P)
    if key is not None:
        threshold, scale = dropout_threshold(p)
        np.multiply(P, _keep(xp, key, start, P.shape, threshold), out=dropped)
    np.matmul(dropped, v, out=_heads(context, num_heads))
    if key is not None:
        context *= scale  # of n·H numbers here instead of N·n² there


def attention_backward(xp: Backend, dcontext: Array, cache: AttentionCache) -> Array:
    qkv, context, probs, offsets, num_heads, p, key = cache
    dqkv = empty_like(qkv)
    buffer = _scratch(offsets, num_heads, qkv.dtype)
    dscores = empty_like(buffer)
    place = 0
    for start, stop in pairwise(offsets):
        rows, n = slice(start, stop), stop - start
        shape, size = (num_heads, n, n), num_heads * n * n
        P = probs[place : place + size].reshape(shape)
        place += size
        keep = None
        if key is not None:
            threshold, scale = dropout_threshold(p)
            keep = _keep(xp, key, start, shape, threshold)
        dO = dcontext[rows]
        if keep is not None:
            dO = np.multiply(dO, scale, out=empty_like(dO))
        room = buffer[:size].reshape(shape), dscores[:size].reshape(shape)
        delta = np.einsum("ihd,ihd->hi", *(
            a[rows].reshape(n, num_heads, -1) for a in (dcontext, context)
        ))  # fmt: skip
        _one_backward(qkv[rows], dqkv[rows], P, keep, dO, delta, *room)
    return dqkv


def _one_backward(
    qkv: Array,
    dqkv: Array,
    P: Array,
    keep: Array | None,
    dO: Array,
    delta: Array,
    dropped: Array,
    dS: Array,
) -> None:
    """One sequence: fills dqkv (n, 3H). dO holds the dropout's factor; dropped, dS are scratch."""
    num_heads = len(P)
    q, k, v = _qkv(qkv, num_heads)
    dq, dk, dv = _qkv(dqkv, num_heads)
    dO = _heads(dO, num_heads)
    np.matmul(dO, v.transpose(0, 2, 1), out=dS)
    if keep is None:
        dropped = P
    else:
        np.multiply(P, keep, out=dropped)
        dS *= keep
    np.matmul(dropped.transpose(0, 2, 1), dO, out=dv)
    dS -= delta[:, :, None]
    dS *= P
    np.matmul(dS, _scaled(k), out=dq)
    np.matmul(dS.transpose(0, 2, 1), _scaled(q), out=dk)


def attention_forward_only(
    xp: Backend, qkv: Array, offsets: Any, num_heads: int, p: float, key: Any
) -> tuple[Array, None]:
    context = empty((qkv.shape[0], qkv.shape[1] // 3), qkv.dtype)
    buffer = _scratch(offsets, num_heads, qkv.dtype)
    for start, stop in pairwise(offsets):
        n = stop - start
        P = buffer[: num_heads * n * n].reshape(num_heads, n, n)
        _one_forward(xp, qkv[start:stop], context[start:stop], P, P, start, p, None)
    return context, None
