"""BertForPreTraining: masked language model and next sentence, on one encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from minibert.backend import Array, Backend
from minibert.errors import InputError
from minibert.models.base import BertPreTrainedModel
from minibert.models.labels import class_labels
from minibert.models.masked_lm import (
    MASKED_LM,
    MaskedLMCache,
    MaskedLMWeights,
    labelled_rows,
    masked_lm_backward,
    masked_lm_forward,
)
from minibert.models.next_sentence import (
    NEXT_SENTENCE,
    NextSentenceCache,
    next_sentence_backward,
    next_sentence_forward,
)
from minibert.models.pooled import PooledWeights
from minibert.models.shards import GradientSum, HeadResult, Run, Weights
from minibert.packing import IntArray, PackedBatch, pack
from minibert.parameters import Parameters


class PreTrainingWeights(NamedTuple):
    relation: PooledWeights
    masked: MaskedLMWeights


class PreTrainingCache(NamedTuple):
    masked: MaskedLMCache
    next_sentence: NextSentenceCache


class BertForPreTraining(BertPreTrainedModel):
    """prediction_logits (B, S, V) and seq_relationship_logits (B, 2).

    labels (B, S) as in BertForMaskedLM, next_sentence_label (B,): 0 next, 1 random. The loss is
    the sum of both means; with only one kind of labels (no next-sentence task), that one.
    """

    Head = PreTrainingWeights
    head = NEXT_SENTENCE | MASKED_LM
    token_outputs = ("prediction_logits",)

    @classmethod
    def bind_head(cls, parameters: Parameters) -> PreTrainingWeights:
        """The two heads' parameters, or their gradients."""
        relation = PooledWeights(*(parameters[name] for name in NEXT_SENTENCE))
        return PreTrainingWeights(relation, MaskedLMWeights(*(parameters[n] for n in MASKED_LM)))

    def pack(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        labels: Any = None,
        *,
        next_sentence_label: Any = None,
        **other_labels: Any,
    ) -> PackedBatch:
        """Padded arrays → a packed batch."""
        self._refuse(other_labels)
        return pack(input_ids, attention_mask, token_type_ids, next_sentence_label, labels)

    def has_targets(self, batch: Any) -> bool:
        """Whether there are labels of either kind."""
        return batch.labels is not None or batch.token_labels is not None

    def _checked_labels(self, batch: PackedBatch) -> tuple[PackedBatch, tuple[int, int]]:
        """A kind without any label in this batch adds nothing to the loss; not both, though."""
        counts = [0, 0]
        if batch.labels is not None:
            labels, counts[1] = class_labels(
                batch.labels, batch.num_sequences, 2, "next_sentence_label", may_be_empty=True
            )
            batch = replace(batch, labels=labels)
        if batch.token_labels is not None:
            V = self.config.vocab_size
            tokens, counts[0] = class_labels(
                batch.token_labels, batch.num_tokens, V, may_be_empty=counts[1] > 0
            )
            batch = replace(batch, token_labels=tokens)
        elif not counts[1]:
            raise InputError("next_sentence_label: every label is -100: nothing to learn from")
        return batch, (max(counts[0], 1), max(counts[1], 1))

    def rows_read(self, shard: PackedBatch) -> IntArray | None:
        return labelled_rows(shard)

    def _head_forward(
        self, xp: Backend, w: Weights, x: Array, shard: PackedBatch, count: Any, run: Run | None
    ) -> HeadResult:
        word, head = w.encoder.embeddings.word, w.head
        masked_count, relation_count = count or (0, 0)
        logits, masked_loss, masked = masked_lm_forward(
            xp, head.masked, word, x, shard, masked_count, self.config
        )
        relation, relation_loss, next_sentence = next_sentence_forward(
            xp, head.relation, x, shard, relation_count
        )
        losses = [loss for loss in (masked_loss, relation_loss) if loss is not None]
        loss = sum(losses[1:], losses[0]) if losses else None
        cache = PreTrainingCache(masked, next_sentence)
        rows, tokens = {"seq_relationship_logits": relation}, {"prediction_logits": logits}
        if masked.select is None:
            return HeadResult(rows, cache, loss, token_rows=tokens)
        return HeadResult(rows | tokens, cache, loss)

    def _head_backward(self, xp: Backend, dy: Array, cache: Any, gradients: GradientSum) -> Array:
        target, dx = gradients.weights.head, None
        if cache.next_sentence.loss is not None:
            dx, relation = next_sentence_backward(xp, dy, cache.next_sentence)
            gradients.add(target.relation, relation)
        if cache.masked.loss is not None:
            dx_masked, masked, dword = masked_lm_backward(xp, dy, cache.masked)
            gradients.add(target.masked, masked)
            gradients.dword = dword
            dx = dx_masked if dx is None else dx + dx_masked
        return dx
