"""Mistakes in attention: the scale, the heads, the mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minibert.backend import Array, Backend
from minibert.layers.attention import AttentionCache
from minibert.layers.softmax import SoftmaxCache, softmax_forward
from minibert.verify.hypotheses.base import PLAIN, Guess, around, replaced
from minibert.verify.trace.setup import Setup


def scale(setup: Setup, _: str) -> Iterator[Guess]:
    """Another factor than 1/√D."""
    H, D = setup.config.hidden_size, setup.config.head_size
    for words, factor in {
        "are not divided by √(head size)": math.sqrt(D),
        "are divided by √(hidden size), not √(head size)": math.sqrt(D / H),
        "are divided by the head size, not by its root": 1 / math.sqrt(D),
    }.items():

        def scaled(qkv: Array, factor: float = factor) -> Array:
            qkv = qkv.copy()
            qkv[:, :H] *= factor
            return qkv

        yield Guess(f"attention scores {words}", replaced(setup, **around("attention", scaled)))


def heads(setup: Setup, _: str) -> Iterator[Guess]:
    """Features dealt to the heads in another order: (D, N) for (N, D)."""
    N, D = setup.config.num_attention_heads, setup.config.head_size
    deal = np.arange(N * D).reshape(D, N).T.reshape(-1)  # head h gets the features h, h + N, …
    everything = np.concatenate([deal + part * N * D for part in range(3)])
    undo = np.argsort(deal)
    inner = PLAIN["attention_forward"], PLAIN["attention_backward"]

    def forward(xp: Backend, qkv: Array, *rest: Any) -> Any:
        context, cache = inner[0](xp, qkv[:, everything], *rest)
        return context[:, undo], cache

    def backward(xp: Backend, dcontext: Array, cache: Any) -> Array:
        return inner[1](xp, dcontext[:, deal], cache)[:, np.argsort(everything)]

    guess = replaced(setup, attention_forward=forward, attention_backward=backward)
    yield Guess(
        "features are dealt to the heads as (head size, heads), not (heads, head size)", guess
    )

    def not_back(xp: Backend, qkv: Array, *rest: Any) -> Any:
        context, cache = inner[0](xp, qkv, *rest)
        return context[:, undo], cache

    def not_back_backward(xp: Backend, dcontext: Array, cache: Any) -> Array:
        return inner[1](xp, dcontext[:, deal], cache)

    guess = replaced(setup, attention_forward=not_back, attention_backward=not_back_backward)
    yield Guess("the heads' contexts are put together as (head size, heads)", guess)


def exchanged(setup: Setup, _: str) -> Iterator[Guess]:
    """Right projections, taken for each other."""
    H = setup.config.hidden_size
    columns = np.arange(3 * H).reshape(3, H)
    for order, cause in {
        (1, 0, 2): "query and key are exchanged in the scores",
        (2, 1, 0): "query and value are exchanged in attention",
        (0, 2, 1): "key and value are exchanged in attention",
    }.items():
        taken = columns[list(order)].reshape(-1)  # its own inverse

        def swapped(qkv: Array, taken: Any = taken) -> Array:
            return qkv[:, taken]

        yield Guess(cause, replaced(setup, **around("attention", swapped)))


def softmax_axis(setup: Setup, _: str) -> Iterator[Guess]:
    """Over the queries, not over the keys."""

    def forward(xp: Backend, x: Array) -> tuple[Array, SoftmaxCache]:
        y = PLAIN["softmax_forward"](xp, x.swapaxes(-1, -2))[0].swapaxes(-1, -2)
        return y, SoftmaxCache(y)

    def backward(xp: Backend, dy: Array, cache: SoftmaxCache) -> Array:
        y = cache.y
        return y * (dy - xp.sum(dy * y, axis=-2, keepdims=True))

    guess = replaced(setup, softmax_forward=forward, softmax_backward=backward)
    yield Guess("softmax runs over the queries, not over the keys", guess)


def mask(setup: Setup, _: str) -> Iterator[Guess]:
    """Padding that is attended to, by other conventions of the mask."""
    if setup.mask.all():
        return
    everything = np.ones_like(setup.inputs["input_ids"])
    padded = setup.replace(inputs={**setup.inputs, "attention_mask": everything})
    yield Guess("the attention mask is not applied: padding is attended to", padded)
    keep = setup.mask[:, None, None, :]
    for cause, change in {
        "the attention mask is inverted (1 for padding)": lambda S: S + -10000.0 * keep,
        "the attention mask is added as 0 and 1, not as 0 and −∞": lambda S: S + 1.0 * keep,
        "scores are multiplied by the mask, not set to −∞": lambda S: S * keep,
    }.items():
        yield Guess(cause, replaced(padded, attention_forward=_masked(change)))


def _masked(change: Callable[[Array], Array]) -> Callable[..., Any]:
    """Attention over padded rows, all of one length, with the scores (B, N, S, S) changed."""

    def forward(
        xp: Backend, qkv: Array, offsets: Any, num_heads: int, p: float, key: Any
    ) -> tuple[Array, AttentionCache]:
        B, S = len(offsets) - 1, offsets[1]
        q, k, v = qkv.reshape(B, S, 3, num_heads, -1).transpose(2, 0, 3, 1, 4)
        scores = change(xp.matmul(q, k.swapaxes(-1, -2)) / math.sqrt(q.shape[-1]))
        P, cache = softmax_forward(xp, scores.astype(qkv.dtype))
        context = xp.matmul(P, v).transpose(0, 2, 1, 3).reshape(B * S, -1)
        return context, AttentionCache(qkv, [cache], offsets, num_heads, p, None)

    return forward


ALL = (scale, heads, exchanged, softmax_axis, mask)
