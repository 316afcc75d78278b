"""What heads on the pooled [CLS] share: pooler, dropout, linear."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minibert.backend import Array, Backend
from minibert.layers.classifier import ClassifierCache, classifier_backward, classifier_forward
from minibert.layers.pooler import PoolerCache, pooler_backward, pooler_forward
from minibert.models.base import BertPreTrainedModel
from minibert.models.shards import Run
from minibert.packing import IntArray, PackedBatch

POOLER = {"bert.pooler.dense.weight": "HH", "bert.pooler.dense.bias": "H"}


class PooledWeights(NamedTuple):
    """A head's parameters; its gradients come in the same shape."""

    W_pooler: Array  # (H, H)
    b_pooler: Array  # (H,)
    W: Array  # (K, H)
    b: Array  # (K,)


class PooledModel(BertPreTrainedModel):
    """The base of models whose head reads nothing but each sequence's first token, [CLS]."""

    Head = PooledWeights

    def rows_read(self, shard: PackedBatch) -> IntArray:
        return shard.first_rows


class PooledCache(NamedTuple):
    pooler: PoolerCache
    classifier: ClassifierCache


def pooled_forward(
    xp: Backend,
    w: PooledWeights,
    x: Array,
    shard: PackedBatch,
    run: Run | None,
    site: int,
    p: float,
) -> tuple[Array, PooledCache]:
    """logits = dropout(pooler(x)) Wᵀ + b.  x (T, H) → logits (B, K).

    A sequence's dropout follows from its place in the whole batch.
    """
    B = shard.num_sequences
    # Where x has these rows alone, nobody reads their numbers.
    first = np.arange(B) if len(x) == B else xp.to_device(shard.first_rows)
    pooled, pooler = pooler_forward(xp, x, w.W_pooler, w.b_pooler, first)
    key = None if run is None else run.key(shard.first_sequence).at(site)
    logits, classifier = classifier_forward(xp, pooled, w.W, w.b, p, key)
    return logits, PooledCache(pooler, classifier)


def pooled_backward(xp: Backend, dy: Array, cache: PooledCache) -> tuple[Array, PooledWeights]:
    """The steps in reverse; dy (B, K) → dx (T, H), dw."""
    dpooled, dW, db = classifier_backward(xp, dy, cache.classifier)
    dx, dW_pooler, db_pooler = pooler_backward(xp, dpooled, cache.pooler)
    return dx, PooledWeights(dW_pooler, db_pooler, dW, db)
