"""BertForNextSentencePrediction: whether the second segment follows the first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from minibert.backend import Array, Backend
from minibert.layers.losses import CrossEntropyCache, cross_entropy_backward, cross_entropy_forward
from minibert.models.labels import class_labels
from minibert.models.pooled import (
    POOLER,
    PooledCache,
    PooledModel,
    PooledWeights,
    pooled_backward,
    pooled_forward,
)
from minibert.models.shards import GradientSum, HeadResult, Run, Weights
from minibert.packing import PackedBatch

NEXT_SENTENCE = POOLER | {"cls.seq_relationship.weight": "2H", "cls.seq_relationship.bias": "2"}


class NextSentenceCache(NamedTuple):
    pooled: PooledCache
    loss: CrossEntropyCache | None


def next_sentence_forward(
    xp: Backend, w: PooledWeights, x: Array, shard: PackedBatch, count: int
) -> tuple[Array, Array | None, NextSentenceCache]:
    """x (T, H) → logits (B, 2), and the loss where there are labels. No dropout in this head."""
    logits, pooled = pooled_forward(xp, w, x, shard, None, 0, 0.0)
    loss, cache = None, None
    if shard.labels is not None:
        loss, cache = cross_entropy_forward(xp, logits, xp.to_device(shard.labels), count)
    return logits, loss, NextSentenceCache(pooled, cache)


def next_sentence_backward(
    xp: Backend, dy: Array, cache: NextSentenceCache
) -> tuple[Array, PooledWeights]:
    """dy () → dx (T, H), dw."""
    assert cache.loss is not None
    return pooled_backward(xp, cross_entropy_backward(xp, dy, cache.loss), cache.pooled)


class BertForNextSentencePrediction(PooledModel):
    """logits (B, 2); labels (B,): 0 the second segment is the next one, 1 it is a random one."""

    head = NEXT_SENTENCE

    def _checked_labels(self, batch: PackedBatch) -> tuple[PackedBatch, int]:
        labels, count = class_labels(batch.labels, batch.num_sequences, 2)
        return replace(batch, labels=labels), count

    def _head_forward(
        self, xp: Backend, w: Weights, x: Array, shard: PackedBatch, count: Any, run: Run | None
    ) -> HeadResult:
        logits, loss, cache = next_sentence_forward(xp, w.head, x, shard, count)
        return HeadResult({"logits": logits}, cache, loss)

    def _head_backward(self, xp: Backend, dy: Array, cache: Any, gradients: GradientSum) -> Array:
        dx, head = next_sentence_backward(xp, dy, cache)
        gradients.add(gradients.weights.head, head)
        return dx
