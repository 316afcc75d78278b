"""Attention's backward as fused kernels compute it (FlashAttention, PyTorch's and cuDNN's SDPA).

Softmax's derivative needs Σⱼ Pᵢⱼ·dPᵢⱼ of each row i. Since context = P v and dP = dcontext vᵀ, that
is also dcontextᵢ·contextᵢ, for which the probabilities need not be at hand. In exact arithmetic the
two are one; rounded, they lose different digits, and both are right.

Source: Dao et al., "FlashAttention", arXiv 2205.14135, appendix B.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minibert.backend import Array, Backend
from minibert.layers.attention import AttentionCache
from minibert.layers.softmax import SoftmaxCache
from minibert.verify.coverage import plain_functions

PLAIN = plain_functions()


def fused_attention() -> dict[str, Callable[..., Any]]:
    """Layer functions to take the place of the plain ones, see `Setup.functions`."""
    sums: list[Array] = []  # (G, N, n, 1) for each run of sequences of one length

    def attention(xp: Backend, dcontext: Array, cache: AttentionCache) -> Array:
        again = (cache.qkv, cache.offsets, cache.num_heads, cache.p, cache.key)
        context, _ = PLAIN["attention_forward"](xp, *again)
        products = (dcontext * context).reshape(len(context), cache.num_heads, -1)
        rows, start = xp.sum(products, axis=-1, keepdims=True), 0  # (T, N, 1)
        for probs in cache.probs:
            G, N, n, _ = probs.y.shape
            sums.append(rows[start : start + G * n].reshape(G, n, N, 1).swapaxes(1, 2))
            start += G * n
        result: Array = PLAIN["attention_backward"](xp, dcontext, cache)
        return result

    def softmax(xp: Backend, dy: Array, cache: SoftmaxCache) -> Array:
        return cache.y * (dy - sums.pop(0))

    return {"attention_backward": attention, "softmax_backward": softmax}
