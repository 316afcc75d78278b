"""Attention in squares that strided products serve: twin of `layers/attention.py`.

Sequences of mixed lengths would be a product each, hundreds of launches. They are copied into
squares of one size S, or of two, zero behind their ends: the products also multiply zeros, which
at these sizes costs less than asking for many. All else is one launch whatever the sizes are.
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
"""Numbers that a second size of squares must save (32 MB): it is six more products to ask for."""


class Size(NamedTuple):
    """The squares of one size, which lie side by side."""

    G: int
    S: int
    rows_before: int  # sum of S, and of S², over the squares before them
    cells_before: int

    def rows(self, heads: Array, N: int) -> Array:
        """(G, N, S, D) of (N·ΣS, D): a view."""
        first, size, (rows, D) = N * self.rows_before, N * self.G * self.S, heads.shape
        part = heads if size == rows else heads[first : first + size]
        return part.reshape(self.G, N, self.S, D)

    def cells(self, squares: Array, N: int) -> Array:
        """(G, N, S, S) of (N·ΣS²,): a view."""
        first, size = N * self.cells_before, N * self.G * self.S**2
        part = squares if size == squares.size else squares[first : first + size]
        return part.reshape(self.G, N, self.S, self.S)


class Layout(NamedTuple):
    """Where the squares of a batch lie; see kernels/squares.cuh."""

    table: Ints  # (6, G)
    sizes: list[Size]
    N: int  # heads
    G: int  # sequences
    most: int  # the largest S
    rows: int  # ΣS
    cells: int  # ΣS²

    @property
    def decisions(self) -> tuple[Ints, int]:
        """What `kept_squares` wants to know."""
        return self.table, self.N * self.most**2


class AttentionCache(NamedTuple):
    layout: Layout
    heads: Array  # (3, N·ΣS, D) queries, keys, values, stored
    probs: Array  # (N·ΣS²,) before dropout, stored
    kept: Kept
    chosen: Chosen


@functools.lru_cache(maxsize=8)
def layout_of(xp: Backend, offsets: tuple[int, ...], num_heads: int) -> Layout:
    """(Cached: every layer of a step asks for the same.)"""
    lengths = [stop - start for start, stop in pairwise(offsets)]
    sizes = _sizes(lengths, num_heads)
    order = np.argsort([-size for size in sizes], kind="stable").astype(int)
    start, n, S = (np.array(x, np.int64)[order] for x in (offsets[:-1], lengths, sizes))
    rows, cells = S.cumsum(), (S**2).cumsum()
    table = np.stack([start, n, num_heads * n**2, S, rows - S, cells - S**2])
    first_of_each = np.flatnonzero(np.diff(S, prepend=-1))
    alike = np.diff(first_of_each, append=len(S))
    found = zip(alike, *table[3:, first_of_each], strict=True)
    return Layout(
        xp.to_device(table), [Size(*map(int, size)) for size in found], num_heads, len(S),
        max(sizes, default=0), sum(sizes), sum(size**2 for size in sizes),
    )  # fmt: skip


def _sizes(lengths: list[int], num_heads: int) -> list[int]:
    """S of every sequence: the longest's, or for the shorter ones a second one, where that saves
    much. Multiples of 8, as tensor cores like them.
    """
    rounded = [-(-n // 8) * 8 for n in lengths]
    most = max(rounded, default=0)
    second, saved = most, CELLS
    for i, S in enumerate(sorted(rounded), 1):  # i sequences that S is enough for
        if num_heads * i * (most**2 - S**2) > saved:
            second, saved = S, num_heads * i * (most**2 - S**2)
    return [second if second >= S else most for S in rounded]


def attend(
    xp: Backend, qkv: Array, bias: Array | None, layout: Layout, kept: Kept, chosen: Chosen = EVERY
) -> tuple[Array, AttentionCache]:
    """context (T, H), or its chosen rows, (R, H), of qkv + bias, (T, 3H), both stored."""
    heads = _split(xp, qkv, bias, layout, 3)
    merged, probs = _forward(xp, layout, heads, kept)
    R = len(qkv if chosen.rows is None else chosen.rows)
    context = _merge(xp, merged, R, layout, chosen.slots)
    return context, AttentionCache(layout, heads, probs, kept, chosen)


def attend_backward(xp: Backend, dcontext: Array, cache: AttentionCache) -> Array:
    """dqkv (T, 3H) of dcontext (T, H), or of its chosen rows, (R, H), both stored."""
    slots = cache.chosen.slots
    T = len(dcontext if slots is None else slots)
    dmerged = _split(xp, dcontext, None, cache.layout, 1, slots)
    return _merge(xp, _backward(xp, dmerged, cache), T, cache.layout)


def _forward(xp: Backend, layout: Layout, heads: Array, kept: Kept) -> tuple[Array, Array]:
    """The context (1, N·ΣS, D) and the probabilities (N·ΣS²,)."""
    (q, k, v), N, stored = heads, layout.N, heads.dtype
    scores = xp.empty(N * layout.cells, dtype="float32")
    for size in layout.sizes:
        transposed = size.rows(k, N).swapaxes(-1, -2)
        xp.matmul(size.rows(q, N), transposed, out=size.cells(scores, N))
    probs = scores if stored == "float32" else xp.empty(scores.shape, dtype=stored)
    dropped = None if kept.bits is None else xp.empty(scores.shape, dtype=stored)
    _softmax(xp, "softmax_forward", layout, q.shape[-1], (scores,), kept, probs, dropped)
    A, context = probs if dropped is None else dropped, xp.empty((1, *q.shape), dtype=stored)
    for size in layout.sizes:
        xp.matmul(size.cells(A, N), size.rows(v, N), out=size.rows(context[0], N))
    return context, probs


def _backward(xp: Backend, dcontext: Array, cache: AttentionCache) -> Array:
    """dheads (3, N·ΣS, D); layers/attention.py has the derivation, line by line."""
    layout, (q, k, v), probs, kept, _ = cache
    N, stored, dC = layout.N, probs.dtype, dcontext[0]
    dA = xp.empty(probs.shape, dtype="float32")
    for size in layout.sizes:
        transposed = size.rows(v, N).swapaxes(-1, -2)
        xp.matmul(size.rows(dC, N), transposed, out=size.cells(dA, N))
    dS = dA if stored == "float32" else xp.empty(dA.shape, dtype=stored)
    dropped = None if kept.bits is None else xp.empty(dA.shape, dtype=stored)
    _softmax(xp, "softmax_backward", layout, q.shape[-1], (dA, probs), kept, dS, dropped)
    A, dheads = probs if dropped is None else dropped, xp.empty(cache.heads.shape, dtype=stored)
    for size in layout.sizes:
        dq, dk, dv = (size.rows(part, N) for part in dheads)
        xp.matmul(size.cells(dS, N), size.rows(k, N), out=dq)
        xp.matmul(size.cells(dS, N).swapaxes(-1, -2), size.rows(q, N), out=dk)
        xp.matmul(size.cells(A, N).swapaxes(-1, -2), size.rows(dC, N), out=dv)
    return dheads


def _softmax(
    xp: Backend, kernel: str, layout: Layout, D: int, given: tuple[Array, ...], kept: Kept,
    result: Array, dropped: Array | None,
) -> None:  # fmt: skip
    G, most, N = layout.G, layout.most, layout.N
    words = 0 if kept.bits is None else kept.bits.shape[1]
    launch(
        xp.module, "softmax", kernel, WARP * G * N * most, *given, 1.0 / math.sqrt(D), kept.bits,
        words, kept.scale, layout.table, result, dropped, G, most, N, storage=result.dtype,
    )  # fmt: skip


def _split(
    xp: Backend, rows: Array, bias: Array | None, layout: Layout, parts: int,
    slots: Ints | None = None,
) -> Array:  # fmt: skip
    """Rows (T, parts·N·D) + bias → heads (parts, N·ΣS, D), zero behind the sequences' ends.

    `slots`: rows (R, …) are the chosen ones, and the others zero.
    """
    N, D = layout.N, rows.shape[1] // (parts * layout.N)
    heads = xp.empty((parts, N * layout.rows, D), dtype=rows.dtype)
    launch(
        xp.module, "heads", "split_heads", WARP * layout.G * layout.most, rows, bias, heads,
        layout.table, slots, parts, layout.G, layout.most, layout.rows, N, D, storage=rows.dtype,
    )  # fmt: skip
    return heads


def _merge(xp: Backend, heads: Array, R: int, layout: Layout, slots: Ints | None = None) -> Array:
    """The other way round: heads (parts, N·ΣS, D) → rows (R, parts·N·D), all or the chosen."""
    N, (parts, _, D) = layout.N, heads.shape
    rows = xp.empty((R, parts * N * D), dtype=heads.dtype)
    launch(
        xp.module, "heads", "merge_heads", WARP * layout.G * layout.most, heads, rows,
        layout.table, slots, parts, layout.G, layout.most, layout.rows, N, D, storage=rows.dtype,
    )  # fmt: skip
    return rows


def attention_forward(
    xp: Backend, qkv: Array, offsets: Sequence[int], num_heads: int, p: float, key: Any
) -> tuple[Array, AttentionCache]:
    layout = layout_of(xp, tuple(offsets), num_heads)
    return attend(xp, qkv, None, layout, kept_squares(xp, key, p, layout.decisions))


def attention_backward(xp: Backend, dcontext: Array, cache: AttentionCache) -> Array:
    return attend_backward(xp, dcontext, cache)
