"""BertForSequenceClassification: one label, several labels or a number for each sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from minibert.backend import Array, Backend
from minibert.errors import InputError
from minibert.layers.classifier import ClassifierCache, classifier_backward, classifier_forward
from minibert.layers.losses import IGNORE_INDEX, LOSSES
from minibert.layers.pooler import PoolerCache, pooler_backward, pooler_forward
from minibert.models.base import BertPreTrainedModel, GradientSum, Run, ShardResult, Weights
from minibert.models.bert import POOLER
from minibert.models.encoder import (
    EncoderCache,
    encoder_backward,
    encoder_forward,
    head_site,
    tokens,
)
from minibert.packing import PackedBatch


class SequenceClassificationWeights(NamedTuple):
    W_pooler: Array  # (H, H)
    b_pooler: Array  # (H,)
    W: Array  # (K, H)
    b: Array  # (K,)


class SequenceClassificationCache(NamedTuple):
    encoder: EncoderCache
    pooler: PoolerCache
    classifier: ClassifierCache
    problem: str
    loss: Any  # the loss's own cache; None without labels


class BertForSequenceClassification(BertPreTrainedModel):
    """logits (B, K) = classifier(dropout(pooler(encoder))).

    `config.problem_type`, or else the labels, choose the loss, as in Hugging Face's model:
    regression (mean squared error; K = 1, or K targets), single_label_classification
    (cross-entropy, integer labels (B,)), multi_label_classification (binary cross-entropy with
    logits, 0/1 labels (B, K)).
    """

    Head = SequenceClassificationWeights
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
            labels = _class_labels(labels, B, K)
            return replace(batch, labels=labels), int((labels != IGNORE_INDEX).sum())
        if labels.size != B * K:
            raise InputError(f"{problem}: labels have shape {labels.shape}, want ({B}, {K})")
        labels = labels.reshape(B, K).astype(self.parameters.dtype)
        if not np.isfinite(labels).all():
            raise InputError(f"{problem}: labels hold NaN or infinity")
        return replace(batch, labels=labels), labels.size

    def _forward_shard(
        self,
        xp: Backend,
        w: Weights,
        shard: PackedBatch,
        count: int,
        run: Run | None,
        hidden_states: list[Array] | None,
    ) -> ShardResult:
        key = None if run is None else run.key(shard.first_token)
        x, encoder = encoder_forward(
            xp, w.encoder, tokens(xp, shard), self.config, key, hidden_states
        )
        W_pooler, b_pooler, W, b = w.head
        pooled, pooler = pooler_forward(xp, x, W_pooler, b_pooler, xp.to_device(shard.first_rows))
        head_key = None if run is None else run.key(shard.first_sequence).at(head_site(self.config))
        logits, classifier = classifier_forward(xp, pooled, W, b, self.dropout_prob, head_key)
        loss, problem, loss_cache = None, "", None
        if shard.labels is not None:
            problem = self.problem_type(shard.labels)
            labels = xp.to_device(shard.labels)
            loss, loss_cache = LOSSES[problem].forward(xp, logits, labels, count)
        cache = SequenceClassificationCache(encoder, pooler, classifier, problem, loss_cache)
        return ShardResult({"logits": logits}, x, cache, loss)

    def _backward_shard(self, xp: Backend, cache: Any, gradients: GradientSum) -> None:
        dlogits = LOSSES[cache.problem].backward(xp, xp.ones((), self.parameters.dtype), cache.loss)
        dpooled, dW, db = classifier_backward(xp, dlogits, cache.classifier)
        dx, dW_pooler, db_pooler = pooler_backward(xp, dpooled, cache.pooler)
        head = SequenceClassificationWeights(dW_pooler, db_pooler, dW, db)
        gradients.add(gradients.weights.head, head)
        encoder_backward(xp, dx, cache.encoder, gradients.weights.encoder, gradients.add)

    @property
    def dropout_prob(self) -> float:
        """Dropout in front of the classifier."""
        p = self.config.classifier_dropout
        return self.config.hidden_dropout_prob if p is None else p


def _class_labels(labels: Any, B: int, K: int) -> Any:
    """Class numbers (B,) int64, checked: 0 … K − 1, or −100 for a sequence that has none."""
    if labels.size != B or labels.dtype.kind not in "iub":
        raise InputError(
            f"single_label_classification: labels have shape {labels.shape} and dtype "
            f"{labels.dtype}, want ({B},) integers"
        )
    labels = labels.reshape(B).astype(np.int64)
    bad = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= K))
    if bad.any():
        raise InputError(
            f"label {labels[bad][0]} is out of range: the model has num_labels = {K} (0 … {K - 1})"
        )
    if (labels == IGNORE_INDEX).all():
        raise InputError("every label is -100 (ignored): there is nothing to learn from")
    return labels
