"""What goes into a shard's forward and backward, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from minibert.backend import Array, Backend
from minibert.layers.dropout import DropoutKey
from minibert.models.encoder import EncoderCache, EncoderWeights
from minibert.parallel import Turn
from minibert.parameters import accumulate


@dataclass
class ModelOutput:
    """What a model returns; a field that does not apply, or was not asked for, is None.

    Arrays belong to the model's backend, in Hugging Face's padded shapes, zero at padding.
    """

    loss: Array | None = None  # ()
    logits: Array | None = None  # (B, K), or a row a token: (B, S, K); masked LM: see there
    start_logits: Array | None = None  # (B, S)
    end_logits: Array | None = None  # (B, S)
    prediction_logits: Array | None = None  # (B, S, V); in training (M, V), as in masked LM
    seq_relationship_logits: Array | None = None  # (B, 2)
    sentence_embedding: Array | None = None  # (B, H)
    last_hidden_state: Array | None = None  # (B, S, H)
    pooler_output: Array | None = None  # (B, H)
    hidden_states: tuple[Array, ...] | None = None  # L + 1 of (B, S, H)
    attentions: tuple[Array, ...] | None = None  # L of (B, N, S, S)


class Run(NamedTuple):
    """One training step of one run: what dropout masks depend on, besides the place."""

    seed: int
    step: int

    def key(self, first_row: int) -> DropoutKey:
        """The key at the first site, for a shard whose rows begin at `first_row`."""
        return DropoutKey(self.seed, self.step, 0, first_row)


class Weights(NamedTuple):
    """A model's parameters, or their gradients, as the layers take them."""

    encoder: EncoderWeights
    head: Any  # the model's own NamedTuple


class GradientSum:
    """The common gradients, to which each shard adds its own when it is its turn.

    While one shard adds its last piece another may add its first, so no two pieces may share an
    array: both would write it at once, and one of the sums be lost. A tied decoder's gradient
    therefore waits in `dword`, and is added in one piece with that of the look-up.
    """

    def __init__(self, xp: Backend, weights: Weights, turn: Turn) -> None:
        self.weights = weights
        self.dword: Array | None = None  # (V, H)
        self._xp, self._turn = xp, turn

    def add(self, targets: tuple[Any, ...], gradients: tuple[Any, ...]) -> None:
        """targets += gradients, two tuples alike; every shard adds the same pieces in one order."""
        with self._turn.next_piece():
            accumulate(self._xp, targets, gradients)


class HeadResult(NamedTuple):
    """What a head's forward gives for one shard, packed."""

    rows: dict[str, Array]  # fields of ModelOutput with a row for each sequence or example
    cache: Any  # for the head's backward
    loss: Array | None = None  # this shard's part of the batch's loss
    token_rows: dict[str, Array] = {}  # noqa: RUF012  fields with a row for each token


class ShardResult(NamedTuple):
    """What one shard's forward gives, packed."""

    head: HeadResult
    last_hidden: Array  # (T, H), or the rows of it that the head reads
    encoder: EncoderCache | None
