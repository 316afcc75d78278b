"""BertForQuestionAnswering: where in the text the answer starts and ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from minibert.backend import Array, Backend
from minibert.errors import InputError
from minibert.layers.linear import LinearCache, linear_backward, linear_forward
from minibert.layers.losses import IGNORE_INDEX
from minibert.layers.span_loss import SpanLossCache, span_loss_backward, span_loss_forward
from minibert.models.base import BertPreTrainedModel
from minibert.models.shards import GradientSum, HeadResult, Run, Weights
from minibert.packing import PackedBatch, pack


class QuestionAnsweringWeights(NamedTuple):
    W: Array  # (2, H): scores as start and as end
    b: Array  # (2,)


class QuestionAnsweringCache(NamedTuple):
    linear: LinearCache
    loss: SpanLossCache | None


class BertForQuestionAnswering(BertPreTrainedModel):
    """start_logits and end_logits (B, S), a linear layer on every token, without dropout.

    Labels are `start_positions` and `end_positions` (B,); a position outside the sequence is
    ignored. The loss is the mean of both sides' cross-entropies over the real tokens
    (transformers' includes padding columns in its softmax).
    """

    Head = QuestionAnsweringWeights
    head = {"qa_outputs.weight": "2H", "qa_outputs.bias": "2"}  # noqa: RUF012
    token_outputs = ("start_logits", "end_logits")

    def pack(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        *,
        start_positions: Any = None,
        end_positions: Any = None,
        **other_labels: Any,
    ) -> PackedBatch:
        """Padded arrays → a packed batch; `labels` may hold both positions, (B, 2)."""
        self._refuse(other_labels)
        if (start_positions is None) != (end_positions is None):
            raise InputError("start_positions and end_positions are wanted together")
        if start_positions is not None:
            sides = [np.asarray(side).reshape(-1) for side in (start_positions, end_positions)]
            labels = np.stack(sides, axis=1)
        return pack(input_ids, attention_mask, token_type_ids, labels)

    def _checked_labels(self, batch: PackedBatch) -> tuple[PackedBatch, tuple[int, int]]:
        labels, B = np.asarray(batch.labels), batch.num_sequences
        if labels.shape != (B, 2) or labels.dtype.kind not in "iu":
            raise InputError(
                f"start_positions and end_positions make labels of shape {labels.shape} and dtype "
                f"{labels.dtype}, want ({B}, 2) integers"
            )
        columns = np.full((B, batch.length), False)
        columns[batch.sequence_ids, batch.position_ids] = True  # where there is a token
        inside = (labels >= 0) & (labels < batch.length)
        inside &= columns[np.arange(B)[:, None], np.where(inside, labels, 0)]
        counts = inside.sum(axis=0)
        if not counts.all():
            raise InputError("no start or no end position lies in its sequence: nothing to learn")
        labels = np.where(inside, labels, IGNORE_INDEX)
        return replace(batch, labels=labels), (int(counts[0]), int(counts[1]))

    def _head_forward(
        self, xp: Backend, w: Weights, x: Array, shard: PackedBatch, count: Any, run: Run | None
    ) -> HeadResult:
        logits, linear = linear_forward(xp, x, *w.head)
        loss, loss_cache = None, None
        if shard.labels is not None:
            sequence, position = (xp.to_device(a) for a in (shard.sequence_ids, shard.position_ids))
            labels = xp.to_device(shard.labels)
            loss, loss_cache = span_loss_forward(
                xp, logits, sequence, position, shard.length, labels, count
            )
        rows = {"start_logits": logits[:, 0], "end_logits": logits[:, 1]}
        return HeadResult({}, QuestionAnsweringCache(linear, loss_cache), loss, token_rows=rows)

    def _head_backward(self, xp: Backend, dy: Array, cache: Any, gradients: GradientSum) -> Array:
        dlogits = span_loss_backward(xp, dy, cache.loss)
        dx, dW, db = linear_backward(xp, dlogits, cache.linear)
        gradients.add(gradients.weights.head, QuestionAnsweringWeights(dW, db))
        return dx
