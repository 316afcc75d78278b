"""BertForMultipleChoice: which of C continuations is the right one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from minibert.backend import Array, Backend
from minibert.layers.losses import CrossEntropyCache, cross_entropy_backward, cross_entropy_forward
from minibert.models.encoder import head_site
from minibert.models.labels import class_labels
from minibert.models.pooled import (
    POOLER,
    PooledCache,
    PooledModel,
    pooled_backward,
    pooled_forward,
)
from minibert.models.shards import GradientSum, HeadResult, Run, Weights
from minibert.packing import PackedBatch


class MultipleChoiceCache(NamedTuple):
    pooled: PooledCache
    loss: CrossEntropyCache | None


class BertForMultipleChoice(PooledModel):
    """logits (B, C): each choice is a sequence by itself, scored by a classifier of one output.

    input_ids (B, C, S), labels (B,) the number of the right choice. The loss is the cross-entropy
    over the C choices.
    """

    head = POOLER | {"classifier.weight": "1H", "classifier.bias": "1"}

    def _checked_labels(self, batch: PackedBatch) -> tuple[PackedBatch, int]:
        labels, count = class_labels(batch.labels, batch.num_examples, batch.group)
        return replace(batch, labels=labels), count

    def _head_forward(
        self, xp: Backend, w: Weights, x: Array, shard: PackedBatch, count: Any, run: Run | None
    ) -> HeadResult:
        site, p = head_site(self.config), self.config.head_dropout
        scores, pooled = pooled_forward(xp, w.head, x, shard, run, site, p)
        logits = scores.reshape(shard.num_examples, shard.group)
        loss, loss_cache = None, None
        if shard.labels is not None:
            labels = xp.to_device(shard.labels)
            loss, loss_cache = cross_entropy_forward(xp, logits, labels, count)
        return HeadResult({"logits": logits}, MultipleChoiceCache(pooled, loss_cache), loss)

    def _head_backward(self, xp: Backend, dy: Array, cache: Any, gradients: GradientSum) -> Array:
        dlogits = cross_entropy_backward(xp, dy, cache.loss)
        dx, head = pooled_backward(xp, dlogits.reshape(-1, 1), cache.pooled)
        gradients.add(gradients.weights.head, head)
        return dx
