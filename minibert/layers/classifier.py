"""Classifier: dropout and a linear layer, on pooled sequences or on tokens."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, twinned
from minibert.layers.dropout import DropoutCache, DropoutKey, dropout_backward, dropout_forward
from minibert.layers.linear import LinearCache, linear_backward, linear_forward


class ClassifierCache(NamedTuple):
    dropout: DropoutCache
    linear: LinearCache


@twinned
def classifier_forward(
    xp: Backend, x: Array, W: Array, b: Array, p: float, key: DropoutKey | None
) -> tuple[Array, ClassifierCache]:
    """logits = dropout(x) Wᵀ + b.  x (R, H), W (K, H), b (K,) → logits (R, K)."""
    dropped, dropout = dropout_forward(xp, x, p, key)
    logits, linear = linear_forward(xp, dropped, W, b)
    return logits, ClassifierCache(dropout, linear)


@twinned
def classifier_backward(
    xp: Backend, dy: Array, cache: ClassifierCache
) -> tuple[Array, Array, Array]:
    """dy (R, K) → dx (R, H), dW (K, H), db (K,)."""
    ddropped, dW, db = linear_backward(xp, dy, cache.linear)
    return dropout_backward(xp, ddropped, cache.dropout), dW, db
