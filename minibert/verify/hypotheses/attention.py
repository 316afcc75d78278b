"""Mistakes in attention: the scale, the heads, the axis of the softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minibert.backend import Array, Backend
from minibert.layers.attention import AttentionCache
from minibert.layers.softmax import SoftmaxCache, softmax_backward, softmax_forward
from minibert.verify.hypotheses.base import (
    PLAIN,
    Guess,
    Layer,
    around,
    changed_arguments,
    changed_result,
    padding_masked,
    replaced,
    with_padding,
)
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import Tensor


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


def scale_of_weight(setup: Setup, _: str) -> Iterator[Guess]:
    """x·Wᵀ/√D + b: the scale was put into the query's weight, and the bias forgotten."""
    H, root = setup.config.hidden_size, math.sqrt(setup.config.head_size)

    def stretched(b_qkv: Array) -> Array:
        b_qkv = b_qkv.copy()
        b_qkv[:H] *= root
        return b_qkv

    def forms(tensor: Tensor) -> list[Any]:
        """A query may be handed in before the division, or behind it."""
        section, _, name = tensor.name.rpartition("/")
        if not name.endswith("attention.self.query"):
            return [tensor.value]
        factor = root if section.endswith("gradient") else 1 / root
        return [tensor.value, factor * tensor.value]

    layer = "multi_head_attention"
    functions = changed_arguments(layer, lambda xp, x, W, b, *rest: (x, W, stretched(b), *rest))
    functions |= changed_result(layer, lambda xp, d, *_: (*d[:2], stretched(d[2]), *d[3:]))
    cause = "the query is divided by √(head size) before its bias is added"
    yield Guess(cause, replaced(setup, **functions), forms)


def number_of_heads(setup: Setup, _: str) -> Iterator[Guess]:
    """Other heads of the same weights: no shape tells, but those of scores and probabilities."""
    right, H = setup.config.num_attention_heads, setup.config.hidden_size
    for wrong in (1, 2, 4, 8, 12, 16):
        if wrong != right and H % wrong == 0:
            config = setup.config.replace(num_attention_heads=wrong)
            cause = f"num_attention_heads is {wrong}, not {right}"
            yield Guess(cause, setup.replace(config=config))


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


def reshaped(setup: Setup, _: str) -> Iterator[Guess]:
    """Padded rows (B, S, H) made (B, N, S, D) by a reshape alone, without a transposition."""
    padded = padding_masked(setup)
    for cause, split, join in (
        ("heads are split and joined by a reshape, without a transposition", True, True),
        ("heads are split by a reshape, without a transposition", True, False),
        ("the heads' contexts are joined by a reshape, without a transposition", False, True),
    ):
        yield Guess(cause, replaced(padded, **_attention(split, join)))


def _attention(split_reshapes: bool, join_reshapes: bool) -> dict[str, Layer]:
    """Attention over padded rows, all of one length, in which heads may be made by a reshape."""

    def heads(x: Array, B: int, N: int, reshape: bool) -> Array:
        """(B·S, H) → (B, N, S, D)."""
        S, H = len(x) // B, x.shape[1]
        if reshape:
            return x.reshape(B, N, S, H // N)
        return x.reshape(B, S, N, H // N).swapaxes(1, 2)

    def joined(x: Array, reshape: bool) -> Array:
        """(B, N, S, D) → (B·S, H)."""
        B, N, S, D = x.shape
        return (x if reshape else x.swapaxes(1, 2)).reshape(B * S, N * D)

    def split(qkv: Array, B: int, N: int) -> list[Array]:
        return [heads(part, B, N, split_reshapes) for part in np.split(qkv, 3, axis=1)]

    def forward(
        xp: Backend, qkv: Array, offsets: Any, N: int, p: float, key: Any
    ) -> tuple[Array, AttentionCache]:
        q, k, v = split(qkv, len(offsets) - 1, N)
        P, cache = softmax_forward(xp, xp.matmul(q, k.swapaxes(-1, -2)) / math.sqrt(q.shape[-1]))
        context = joined(xp.matmul(P, v), join_reshapes)
        return context, AttentionCache(qkv, [cache], offsets, N, p, None)

    def backward(xp: Backend, dcontext: Array, cache: AttentionCache) -> Array:
        B, N = len(cache.offsets) - 1, cache.num_heads
        q, k, v = split(cache.qkv, B, N)
        (probs,) = cache.probs
        dheads = heads(dcontext, B, N, join_reshapes)
        dv = xp.matmul(probs.y.swapaxes(-1, -2), dheads)
        dP = xp.matmul(dheads, v.swapaxes(-1, -2))
        dS = softmax_backward(xp, dP, probs) / math.sqrt(q.shape[-1])
        dqkv = xp.matmul(dS, k), xp.matmul(dS.swapaxes(-1, -2), q), dv
        return xp.concatenate([joined(part, split_reshapes) for part in dqkv], axis=1)

    return {"attention_forward": forward, "attention_backward": backward}


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
    """Over the queries, not over the keys: a mask of keys is then a shift that softmax cannot see.

    Nothing is left of it but rounding, or of a large one the scores' place, where they are lost.
    """
    cause = "softmax runs over the queries, not over the keys"
    yield Guess(cause, replaced(setup, **_over_queries(lambda x: x)))
    if setup.mask.all():
        return
    padded, keep = with_padding(setup), setup.mask[:, None, None, :] == 1
    for added in (-1e4, -1e9):
        yield Guess(cause, replaced(padded, **_over_queries(partial(np.add, added * ~keep))))

    def alike(scores: Array) -> Array:
        return np.where(keep, scores, 0.0)

    yield Guess(cause, replaced(padded, **_over_queries(alike)))  # −1e38 swallows the scores
    yield Guess(cause, replaced(padded, **_over_queries(alike, keep)))  # or takes their place


def _over_queries(change: Callable[[Array], Array], slope: Any = 1.0) -> dict[str, Layer]:
    """Of change(scores), a function of the derivative `slope`."""

    def forward(xp: Backend, x: Array) -> tuple[Array, SoftmaxCache]:
        turned = change(x).astype(x.dtype).swapaxes(-1, -2)
        y = PLAIN["softmax_forward"](xp, turned)[0].swapaxes(-1, -2)
        return y, SoftmaxCache(y)

    def backward(xp: Backend, dy: Array, cache: SoftmaxCache) -> Array:
        y = cache.y
        dx = y * (dy - xp.sum(dy * y, axis=-2, keepdims=True))
        return (dx * slope).astype(dx.dtype)

    return {"softmax_forward": forward, "softmax_backward": backward}


ALL = (scale, scale_of_weight, number_of_heads, heads, reshaped, exchanged, softmax_axis)
