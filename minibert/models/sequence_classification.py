"""BertForSequenceClassification: one label, several labels or a number for each sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from minibert.backend import Array, Backend
from minibert.errors import InputError
from minibert.layers.losses import LOSSES
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


class SequenceClassificationCache(NamedTuple):
    pooled: PooledCache
    problem: str
    loss: Any  # the loss's own cache; None without labels


class BertForSequenceClassification(PooledModel):
    """logits (B, K) = classifier(dropout(pooler(encoder))).

    `config.problem_type`, or else the labels, choose the loss, as in Hugging Face's model:
    regression (mean squared error; K = 1, or K targets), single_label_classification
    (cross-entropy, integer labels (B,)), multi_label_classification (binary cross-entropy with
    logits, 0/1 labels (B, K)).
    """

    head = POOLER | {"classifier.weight": "KH", "classifier.bias": "K"}

    def problem_type(self, labels: Any) -> str:
        """The configured problem, or what Hugging Face infers from the labels."""
        if self.config.problem_type is not None:
            return self.config.problem_type
        if self.config.num_labels == 1:
            return "regression"
        integers = np.asarray(labels).dtype.kind in "iub"
        return "single_label_classification" if integers else "multi_label_classification"

    def _checked_labels(self, batch: PackedBatch) -> tuple[PackedBatch, int]:
        labels, B, K = np.asarray(batch.labels), batch.num_sequences, self.config.num_labels
        problem = self.problem_type(labels)
        if problem == "single_label_classification":
            labels, count = class_labels(labels, B, K)
            return replace(batch, labels=labels), count
        if labels.size != B * K:
            raise InputError(f"{problem}: labels have shape {labels.shape}, want ({B}, {K})")
        labels = labels.reshape(B, K).astype(self.parameters.dtype)
        if not np.isfinite(labels).all():
            raise InputError(f"{problem}: labels hold NaN or infinity")
        return replace(batch, labels=labels), labels.size

    def _head_forward(
        self, xp: Backend, w: Weights, x: Array, shard: PackedBatch, count: Any, run: Run | None
    ) -> HeadResult:
        site, p = head_site(self.config), self.config.head_dropout
        logits, pooled = pooled_forward(xp, w.head, x, shard, run, site, p)
        loss, problem, loss_cache = None, "", None
        if shard.labels is not None:
            problem = self.problem_type(shard.labels)
            labels = xp.to_device(shard.labels)
            loss, loss_cache = LOSSES[problem].forward(xp, logits, labels, count)
        cache = SequenceClassificationCache(pooled, problem, loss_cache)
        return HeadResult({"logits": logits}, cache, loss)

    def _head_backward(self, xp: Backend, dy: Array, cache: Any, gradients: GradientSum) -> Array:
        dlogits = LOSSES[cache.problem].backward(xp, dy, cache.loss)
        dx, head = pooled_backward(xp, dlogits, cache.pooled)
        gradients.add(gradients.weights.head, head)
        return dx
