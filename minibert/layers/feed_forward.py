"""Position-wise feed-forward network: expand, activate, contract."""

from __future__ import annotations

from typing import Any, NamedTuple

from minibert.backend import Array, Backend, twinned
from minibert.layers.activations import ACTIVATIONS
from minibert.layers.linear import LinearCache, linear_backward, linear_forward


class FeedForwardCache(NamedTuple):
    expand: LinearCache
    activate: Any  # the activation's own cache
    contract: LinearCache
    activation: str


@twinned
def feed_forward_forward(
    xp: Backend, x: Array, W_in: Array, b_in: Array, W_out: Array, b_out: Array, activation: str
) -> tuple[Array, FeedForwardCache]:
    """y = act(x W_inᵀ + b_in) W_outᵀ + b_out.

    x (T, H), W_in (F, H), W_out (H, F) → y (T, H). Source: arXiv 1706.03762, section 3.3.
    """
    h, expand = linear_forward(xp, x, W_in, b_in)
    a, activate = ACTIVATIONS[activation].forward(xp, h)
    y, contract = linear_forward(xp, a, W_out, b_out)
    return y, FeedForwardCache(expand, activate, contract, activation)


@twinned
def feed_forward_backward(
    xp: Backend, dy: Array, cache: FeedForwardCache
) -> tuple[Array, Array, Array, Array, Array]:
    """The three steps in reverse; dy (T, H) → dx, dW_in, db_in, dW_out, db_out."""
    da, dW_out, db_out = linear_backward(xp, dy, cache.contract)
    dh = ACTIVATIONS[cache.activation].backward(xp, da, cache.activate)
    dx, dW_in, db_in = linear_backward(xp, dh, cache.expand)
    return dx, dW_in, db_in, dW_out, db_out
