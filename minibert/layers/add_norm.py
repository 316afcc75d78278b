"""Add & Norm: dropout, residual connection and layer norm, after each sub-layer."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, twinned
from minibert.layers.dropout import DropoutCache, DropoutKey, dropout_backward, dropout_forward
from minibert.layers.layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward


class AddNormCache(NamedTuple):
    dropout: DropoutCache
    norm: LayerNormCache


@twinned
def add_norm_forward(
    xp: Backend,
    x: Array,
    residual: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    p: float,
    key: DropoutKey | None,
) -> tuple[Array, AddNormCache]:
    """y = LN(dropout(x) + residual): the order of the original BERT ("post-LN").

    x (T, H): a sub-layer's result, residual (T, H): its input; gamma, beta (H,) → y (T, H).
    """
    dropped, dropout = dropout_forward(xp, x, p, key)
    y, norm = layer_norm_forward(xp, dropped + residual, gamma, beta, eps)
    return y, AddNormCache(dropout, norm)


@twinned
def add_norm_backward(
    xp: Backend, dy: Array, cache: AddNormCache
) -> tuple[Array, Array, Array, Array]:
    """A sum hands its gradient to both terms; dy (T, H) → dx, dresidual, dgamma, dbeta."""
    dresidual, dgamma, dbeta = layer_norm_backward(xp, dy, cache.norm)
    dx = dropout_backward(xp, dresidual, cache.dropout)
    return dx, dresidual, dgamma, dbeta
