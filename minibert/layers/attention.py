"""Scaled dot-product attention over packed sequences, all heads at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from minibert.backend import Array, Backend, twinned
from minibert.backend.base import dropout_threshold
from minibert.layers.dropout import DropoutKey
from minibert.layers.softmax import SoftmaxCache, softmax_backward, softmax_forward


class AttentionCache(NamedTuple):
    qkv: Array  # (T, 3H)
    probs: list[SoftmaxCache]  # (G, N, n, n) for each run of G sequences of one length, n
    offsets: Sequence[int]
    num_heads: int
    p: float
    key: DropoutKey | None  # the masks are computed again


@twinned
def attention_forward(
    xp: Backend,
    qkv: Array,
    offsets: Sequence[int],
    num_heads: int,
    p: float,
    key: DropoutKey | None,
) -> tuple[Array, AttentionCache]:
    """context = dropout(softmax(q kᵀ/√D)) v, for each sequence and each head by itself.

    qkv (T, 3H): each row is a token's query, key and value, each N heads of D features side by
    side. Sequence b is the rows offsets[b] : offsets[b + 1]. → context (T, H), heads side by side.

    A token attends to the tokens of its own sequence, and there are no others: no mask is needed.
    The dropout mask of a sequence is the decisions 0, 1, … of stream (place of its first token in
    the whole batch) + 1, in the order (head, query, key).

    Source: Vaswani et al., arXiv 1706.03762, section 3.2.1.
    """
    context = xp.empty_like(qkv[:, : qkv.shape[1] // 3])
    probs = []
    for rows, G in _runs(offsets):
        q, k, v = _split_heads(qkv[rows], G, num_heads)  # (G, N, n, D)
        scores = xp.matmul(q, k.swapaxes(-1, -2)) * (1.0 / math.sqrt(q.shape[-1]))
        P, cache = softmax_forward(xp, scores)  # (G, N, n, n)
        mask = _mask(xp, key, p, rows.start, P)
        context[rows] = _merge_heads(xp.matmul(P if mask is None else P * mask, v))
        probs.append(cache)
    return context, AttentionCache(qkv, probs, offsets, num_heads, p, key)


@twinned
def attention_backward(xp: Backend, dcontext: Array, cache: AttentionCache) -> Array:
    """dcontext (T, H) → dqkv (T, 3H).

    For one head of one sequence, with the mask M (holding its factor 1/(1 − p̂)):

        S = q kᵀ/√D,   P = softmax(S),   A = P ⊙ M,   context = A v

    Backwards, line by line:

        dv = Aᵀ dcontext,   dA = dcontext vᵀ        context = A v, a product in both
        dP = dA ⊙ M
        dS = softmax′(dP)                           layers/softmax.py
        dq = dS k/√D,       dk = dSᵀ q/√D           S_ij = qᵢ·kⱼ/√D
    """
    dqkv = xp.empty_like(cache.qkv)
    for (rows, G), probs in zip(_runs(cache.offsets), cache.probs, strict=True):
        q, k, v = _split_heads(cache.qkv[rows], G, cache.num_heads)
        (dcontext_heads,) = _split_heads(dcontext[rows], G, cache.num_heads, parts=1)
        mask = _mask(xp, cache.key, cache.p, rows.start, probs.y)
        A = probs.y if mask is None else probs.y * mask
        dv = xp.matmul(A.swapaxes(-1, -2), dcontext_heads)
        dA = xp.matmul(dcontext_heads, v.swapaxes(-1, -2))
        dS = softmax_backward(xp, dA if mask is None else dA * mask, probs)
        dS = dS * (1.0 / math.sqrt(q.shape[-1]))  # once, for dq and dk
        dq = xp.matmul(dS, k)
        dk = xp.matmul(dS.swapaxes(-1, -2), q)
        dqkv[rows] = xp.concatenate([_merge_heads(a) for a in (dq, dk, dv)], axis=1)
    return dqkv


def _runs(offsets: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Neighbouring sequences of equal length, which one product can serve: (their rows, G)."""
    first = 0
    for b in range(1, len(offsets)):
        n = offsets[b] - offsets[b - 1]
        if b + 1 == len(offsets) or offsets[b + 1] - offsets[b] != n:
            yield slice(offsets[first], offsets[b]), b - first
            first = b


def _split_heads(rows: Array, G: int, num_heads: int, parts: int = 3) -> list[Array]:
    """(G·n, parts·H) → `parts` views (G, N, n, D): the heads become a batch axis."""
    split = rows.reshape(G, rows.shape[0] // G, parts, num_heads, -1)
    return [split[:, :, part].swapaxes(1, 2) for part in range(parts)]


def _merge_heads(x: Array) -> Array:
    """(G, N, n, D) → (G·n, H)."""
    G, N, n, D = x.shape
    return x.swapaxes(1, 2).reshape(G * n, N * D)


def _mask(xp: Backend, key: DropoutKey | None, p: float, start: int, P: Array) -> Array | None:
    """What the probabilities P (G, N, n, n) are multiplied by, or None for nothing."""
    if key is None or p == 0:
        return None
    G, N, n, _ = P.shape
    threshold, scale = dropout_threshold(p)
    first = key.first_row + start + 1  # stream 0 belongs to dropout on rows
    streams = [first + g * n for g in range(G)]
    keep = [
        xp.keep_decisions(key.seed, key.site, key.step, stream, 0, N * n * n, threshold)
        for stream in streams
    ]
    return xp.stack(keep).reshape(P.shape).astype(P.real.dtype) * scale  # a bool is no float32
