"""Attention in squares that one strided product serves: twin of `layers/attention.py`.

Sequences of mixed lengths would be a product each, hundreds of launches. They are copied into
squares of one size S instead, zero behind their ends: the products also multiply zeros, which at
these sizes costs less than asking for many.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minibert.backend.base import Array, Backend, Ints
from minibert.backend.cupy_twins.chosen import EVERY, Chosen
from minibert.backend.cupy_twins.dropout import Kept, kept_squares
from minibert.backend.kernels import WARP, launch

CELLS = 1 << 23
"""Numbers in the squares of a batch (32 MB) up to which all have one size."""


class Group(NamedTuple):
    """Sequences whose squares have one size."""

    starts: Ints  # (G,) the first row of each
    lengths: Ints  # (G,)
    G: int
    S: int  # a multiple of 8, as tensor cores like it


class Squares(NamedTuple):
    """What the backward needs of one group."""

    group: Group
    heads: Array  # (3, G, N, S, D) queries, keys, values, stored
    probs: Array  # (G, N, S, S) before dropout, stored
    kept: Kept


class AttentionCache(NamedTuple):
    squares: list[Squares]
    num_heads: int
    chosen: Chosen


@functools.lru_cache(maxsize=8)
def groups_of(xp: Backend, offsets: tuple[int, ...], num_heads: int) -> list[Group]:
    """All sequences in one group, or, where that would take much memory for padding, those whose
    lengths lie between two powers of two. (Cached: every layer of a step asks for the same.)
    """
    spans = [(start, stop - start) for start, stop in pairwise(offsets)]
    longest = max((n for _, n in spans), default=0)
    together = len(spans) * num_heads * longest**2 <= CELLS
    by_size: dict[int, list[tuple[int, int]]] = {}
    for start, n in spans:
        by_size.setdefault(0 if together else (n - 1).bit_length(), []).append((start, n))
    groups = []
    for members in by_size.values():
        starts, lengths = xp.to_device(np.array(members, np.int64).T.copy())
        S = -(-max(n for _, n in members) // 8) * 8
        groups.append(Group(starts, lengths, len(members), S))
    return groups


def attend(
    xp: Backend, qkv: Array, bias: Array | None, offsets: Sequence[int], num_heads: int, p: float,
    key: Any, chosen: Chosen = EVERY,
) -> tuple[Array, AttentionCache]:  # fmt: skip
    """context (T, H), or its chosen rows, (R, H), of qkv + bias, (T, 3H), both stored."""
    R = len(qkv if chosen.rows is None else chosen.rows)
    context, squares = xp.empty((R, qkv.shape[1] // 3), dtype=qkv.dtype), []
    for group in groups_of(xp, tuple(offsets), num_heads):
        heads = _split(xp, qkv, bias, group, num_heads, 3)
        words = -(-num_heads * group.S**2 // 16)
        kept = kept_squares(xp, key, p, group.starts, group.G, words)
        merged, probs = _forward(xp, group, heads, kept)
        _merge(xp, merged[None], context, group, chosen.slots)
        squares.append(Squares(group, heads, probs, kept))
    return context, AttentionCache(squares, num_heads, chosen)


def attend_backward(xp: Backend, dcontext: Array, cache: AttentionCache) -> Array:
    """dqkv (T, 3H) of dcontext (T, H), or of its chosen rows, (R, H), both stored."""
    slots, (R, H) = cache.chosen.slots, dcontext.shape
    dqkv = xp.empty((R if slots is None else len(slots), 3 * H), dtype=dcontext.dtype)
    for squares in cache.squares:
        dheads = _split(xp, dcontext, None, squares.group, cache.num_heads, 1, slots)[0]
        _merge(xp, _backward(xp, dheads, squares), dqkv, squares.group)
    return dqkv


def _forward(xp: Backend, group: Group, heads: Array, kept: Kept) -> tuple[Array, Array]:
    """The context (G, N, S, D) and the probabilities (G, N, S, S)."""
    q, k, v = heads
    scores = xp.matmul(q, k.swapaxes(-1, -2), dtype="float32")
    probs = scores if q.dtype == "float32" else xp.empty(scores.shape, dtype=q.dtype)
    dropped = None if kept.bits is None else xp.empty(scores.shape, dtype=q.dtype)
    _softmax(xp, "softmax_forward", group, q.shape[-1], (scores,), kept, probs, dropped)
    return xp.matmul(probs if dropped is None else dropped, v), probs


def _backward(xp: Backend, dcontext: Array, squares: Squares) -> Array:
    """dheads (3, G, N, S, D); layers/attention.py has the derivation, line by line."""
    group, (q, k, v), probs, kept = squares
    dheads = xp.empty(squares.heads.shape, dtype=q.dtype)
    dA = xp.matmul(dcontext, v.swapaxes(-1, -2), dtype="float32")
    dS = dA if q.dtype == "float32" else xp.empty(dA.shape, dtype=q.dtype)
    dropped = None if kept.bits is None else xp.empty(dA.shape, dtype=q.dtype)
    _softmax(xp, "softmax_backward", group, q.shape[-1], (dA, probs), kept, dS, dropped)
    xp.matmul(dS, k, out=dheads[0])
    xp.matmul(dS.swapaxes(-1, -2), q, out=dheads[1])
    A = probs if dropped is None else dropped
    xp.matmul(A.swapaxes(-1, -2), dcontext, out=dheads[2])
    return dheads


def _softmax(
    xp: Backend, kernel: str, group: Group, D: int, given: tuple[Array, ...], kept: Kept,
    result: Array, dropped: Array | None,
) -> None:  # fmt: skip
    G, N, S, _ = result.shape
    words = 0 if kept.bits is None else kept.bits.shape[1]
    launch(
        xp.module, "softmax", kernel, WARP * G * N * S, *given, 1.0 / math.sqrt(D), kept.bits,
        words, kept.scale, group.lengths, result, dropped, G, N, S, storage=result.dtype,
    )  # fmt: skip


def _split(
    xp: Backend, rows: Array, bias: Array | None, group: Group, N: int, parts: int,
    slots: Ints | None = None,
) -> Array:  # fmt: skip
    """Rows (T, parts·N·D) + bias → heads (parts, G, N, S, D), zero behind the sequences' ends.

    `slots`: rows (R, …) are the chosen ones, and the others zero.
    """
    D = rows.shape[1] // (parts * N)
    heads = xp.empty((parts, group.G, N, group.S, D), dtype=rows.dtype)
    launch(
        xp.module, "heads", "split_heads", WARP * group.G * group.S, rows, bias, heads,
        group.starts, group.lengths, slots, *heads.shape, storage=rows.dtype,
    )  # fmt: skip
    return heads


def _merge(xp: Backend, heads: Array, rows: Array, group: Group, slots: Ints | None = None) -> None:
    """The other way round: fills the group's rows, or of them the chosen."""
    launch(
        xp.module, "heads", "merge_heads", WARP * group.G * group.S, heads, rows,
        group.starts, group.lengths, slots, *heads.shape, storage=rows.dtype,
    )  # fmt: skip


def attention_forward(
    xp: Backend, qkv: Array, offsets: Sequence[int], num_heads: int, p: float, key: Any
) -> tuple[Array, AttentionCache]:
    return attend(xp, qkv, None, offsets, num_heads, p, key)


def attention_backward(xp: Backend, dcontext: Array, cache: AttentionCache) -> Array:
    return attend_backward(xp, dcontext, cache)
