"""BertForSentenceEmbedding: one vector for each text, to be compared by their cosine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from minibert.backend import Array, Backend
from minibert.checkpoint.sentence_transformers import (
    SentenceSettings,
    read_sentence_settings,
    write_sentence_settings,
)
from minibert.errors import InputError
from minibert.layers.normalize import NormalizeCache, normalize_backward, normalize_forward
from minibert.layers.pair_losses import (
    contrastive_backward,
    contrastive_forward,
    cosine_regression_backward,
    cosine_regression_forward,
)
from minibert.layers.pooling import POOLINGS
from minibert.models.base import BertPreTrainedModel
from minibert.models.shards import GradientSum, HeadResult, Run, ShardResult, Weights
from minibert.packing import IntArray, PackedBatch
from minibert.parallel import Turns

SCALE = 20.0  # of the cosines in the contrastive loss; sentence-transformers' choice


class NoWeights(NamedTuple):
    """The head has no parameters."""


class SentenceEmbeddingCache(NamedTuple):
    pooling: Any  # the pooling's own cache
    normalize: NormalizeCache | None


class BertForSentenceEmbedding(BertPreTrainedModel):
    """sentence_embedding (B, H): the tokens' mean, maximum or [CLS], scaled to length 1.

    It is trained on pairs, input_ids (B, 2, S). With labels (B,) between −1 and 1 the loss is the
    squared error of the pair's cosine; without labels each first text should find its second one
    among all those of the batch (in-batch contrast). Embeddings of pairs are (2B, H), each pair's
    two below each other.
    """

    architecture = "BertModel"
    Head = NoWeights
    head = {}  # noqa: RUF012
    settings = SentenceSettings()
    """The recipe: pooling, and whether to normalise."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_directory: str | Path,
        *,
        settings: SentenceSettings | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        **arguments: Any,
    ) -> Self:
        """As all models, with the recipe of a sentence-transformers directory.

        `settings` replaces it; `pooling` ("mean", "max", "cls") and `normalize` (to length 1)
        change it. A directory without a recipe gets the mean at length 1.
        """
        from minibert.hub import resolve_model

        directory = resolve_model(str(name_or_directory))
        model = super().from_pretrained(directory, **arguments)
        own = settings or read_sentence_settings(directory) or cls.settings
        model.settings = replace(
            own,
            pooling=own.pooling if pooling is None else pooling,
            normalize=own.normalize if normalize is None else normalize,
        )
        return model

    def _write_extras(self, stage: Path) -> None:
        write_sentence_settings(stage, self.settings, self.config.hidden_size)

    def has_targets(self, batch: Any) -> bool:
        """Whether the texts come in pairs."""
        return bool(batch.group == 2)

    def _checked_labels(self, batch: PackedBatch) -> tuple[PackedBatch, int]:
        if batch.labels is None:
            return batch, batch.num_examples
        labels = np.asarray(batch.labels)
        if labels.size != batch.num_examples or labels.dtype.kind not in "iuf":
            raise InputError(
                f"labels have shape {labels.shape} and dtype {labels.dtype}, want "
                f"({batch.num_examples},) numbers: the wanted cosine of each pair"
            )
        labels = labels.reshape(-1).astype(self.parameters.dtype)
        if not (np.abs(labels) <= 1).all():
            raise InputError("labels are wanted cosines, between -1 and 1: scale them")
        return replace(batch, labels=labels), batch.num_examples

    def rows_read(self, shard: PackedBatch) -> IntArray | None:
        return shard.first_rows if self.settings.pooling == "cls" else None

    def _head_forward(
        self, xp: Backend, w: Weights, x: Array, shard: PackedBatch, count: Any, run: Run | None
    ) -> HeadResult:
        y, pooling = POOLINGS[self.settings.pooling].forward(xp, x, shard.offsets)
        normalize = None
        if self.settings.normalize:
            y, normalize = normalize_forward(xp, y)
        return HeadResult({"sentence_embedding": y}, SentenceEmbeddingCache(pooling, normalize))

    def _head_backward(self, xp: Backend, dy: Array, cache: Any, gradients: GradientSum) -> Array:
        """dy (B, H) → dx (T, H): the loss is that of all pairs together, see `_train_shards`."""
        if cache.normalize is not None:
            dy = normalize_backward(xp, dy, cache.normalize)
        return POOLINGS[self.settings.pooling].backward(xp, dy, cache.pooling)

    def batch_loss(
        self, xp: Backend, heads: list[HeadResult], batch: PackedBatch, count: Any
    ) -> tuple[Array | None, Any]:
        """The loss of all pairs together: in-batch contrast compares each with all the others."""
        if not self.has_targets(batch):
            return None, None
        y = xp.concatenate([head.rows["sentence_embedding"] for head in heads])
        if batch.labels is None:
            return contrastive_forward(xp, y, SCALE)
        return cosine_regression_forward(xp, y, xp.to_device(batch.labels), count)

    def _train_shards(
        self,
        weights: Weights,
        into: Weights,
        batch: PackedBatch,
        parts: list[PackedBatch],
        count: Any,
        run: Run | None,
    ) -> tuple[list[ShardResult], Array]:
        """All shards forward, the loss of the whole, all shards backward.

        So every shard's caches are kept at once: more shards take no less memory here.
        """
        xp, turns = self.xp, Turns()
        results = self.workers.map(
            lambda part: self.forward_shard(
                xp, weights, part, count, run, checkpointing=self.gradient_checkpointing
            ),
            parts,
        )
        loss, cache = self.batch_loss(xp, [r.head for r in results], batch, count)
        backward = contrastive_backward if batch.labels is None else cosine_regression_backward
        dy = backward(xp, self._upstream(), cache)

        def train(number: int) -> None:
            start = parts[number].first_sequence - batch.first_sequence
            rows = dy[start : start + parts[number].num_sequences]
            with turns.of(number) as mine:
                self.backward_shard(xp, rows, results[number], GradientSum(xp, into, mine))

        self.workers.map(train, range(len(parts)))
        return results, loss
