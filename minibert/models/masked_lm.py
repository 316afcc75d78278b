"""BertForMaskedLM: which token stood where [MASK] stands."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minibert.backend import Array, Backend
from minibert.config import BertConfig
from minibert.layers.losses import (
    IGNORE_INDEX,
    CrossEntropyCache,
    cross_entropy_backward,
    cross_entropy_forward,
)
from minibert.layers.masked_lm_head import (
    MaskedLMHeadCache,
    masked_lm_head_backward,
    masked_lm_head_forward,
)
from minibert.layers.select import SelectCache, select_backward, select_forward
from minibert.models.shards import GradientSum, HeadResult, Run, Weights
from minibert.models.token_labels import TokenLabelledModel
from minibert.packing import IntArray, PackedBatch


class MaskedLMWeights(NamedTuple):
    """The head's own parameters; its decoder is the word table."""

    W: Array  # (H, H)
    b: Array  # (H,)
    gamma: Array  # (H,)
    beta: Array  # (H,)
    bias: Array  # (V,)


MASKED_LM = {
    "cls.predictions.transform.dense.weight": "HH",
    "cls.predictions.transform.dense.bias": "H",
    "cls.predictions.transform.LayerNorm.weight": "H",
    "cls.predictions.transform.LayerNorm.bias": "H",
    "cls.predictions.bias": "V",
}


class MaskedLMCache(NamedTuple):
    select: SelectCache | None  # None: all tokens were predicted
    head: MaskedLMHeadCache
    loss: CrossEntropyCache | None


def masked_lm_forward(
    xp: Backend,
    w: MaskedLMWeights,
    word: Array,
    x: Array,
    shard: PackedBatch,
    count: int,
    config: BertConfig,
) -> tuple[Array, Array | None, MaskedLMCache]:
    """x (T, H), word (V, H) → logits, the loss where there are labels, the cache.

    With labels only their positions enter the product with the vocabulary, logits (M, V), unless
    `shard.every_token`; without labels all tokens do, logits (T, V).
    """
    labels, select = shard.token_labels, None
    if labels is not None and not shard.every_token:
        rows = np.flatnonzero(labels != IGNORE_INDEX)
        x, select = select_forward(xp, x, xp.to_device(rows))
        labels = labels[rows]
    logits, head = masked_lm_head_forward(xp, x, *w, word, config.hidden_act, config.layer_norm_eps)
    loss, loss_cache = None, None
    if labels is not None:
        loss, loss_cache = cross_entropy_forward(xp, logits, xp.to_device(labels), count)
    return logits, loss, MaskedLMCache(select, head, loss_cache)


def masked_lm_backward(
    xp: Backend, dy: Array, cache: MaskedLMCache
) -> tuple[Array, MaskedLMWeights, Array]:
    """dy () → dx (T, H), dw, and the decoder's part of the word table's gradient (V, H)."""
    assert cache.loss is not None
    dlogits = cross_entropy_backward(xp, dy, cache.loss)
    dx, *dw, dword = masked_lm_head_backward(xp, dlogits, cache.head)
    if cache.select is not None:
        dx = select_backward(xp, dx, cache.select)
    return dx, MaskedLMWeights(*dw), dword


def labelled_rows(shard: PackedBatch) -> IntArray | None:
    """(R,) each sequence's first token and the labelled ones; without labels None, all tokens.

    (The first token is there for the next-sentence head, and so that there is always a row.)
    """
    if shard.token_labels is None:
        return None
    read = shard.token_labels != IGNORE_INDEX
    read[shard.first_rows] = True
    return np.flatnonzero(read)


class BertForMaskedLM(TokenLabelledModel):
    """logits (B, S, V); labels (B, S), −100 where nothing is to be predicted.

    In training only the labelled positions are predicted, and `logits` (M, V) has their rows.
    """

    Head = MaskedLMWeights
    head = MASKED_LM
    token_outputs = ("logits",)

    @property
    def num_classes(self) -> int:
        """The vocabulary's size."""
        return self.config.vocab_size

    def rows_read(self, shard: PackedBatch) -> IntArray | None:
        return labelled_rows(shard)

    def _head_forward(
        self, xp: Backend, w: Weights, x: Array, shard: PackedBatch, count: Any, run: Run | None
    ) -> HeadResult:
        word = w.encoder.embeddings.word
        logits, loss, cache = masked_lm_forward(xp, w.head, word, x, shard, count, self.config)
        rows = {"logits": logits}
        if cache.select is None:
            return HeadResult({}, cache, loss, token_rows=rows)
        return HeadResult(rows, cache, loss)

    def _head_backward(self, xp: Backend, dy: Array, cache: Any, gradients: GradientSum) -> Array:
        dx, head, dword = masked_lm_backward(xp, dy, cache)
        gradients.add(gradients.weights.head, head)
        gradients.dword = dword
        return dx
