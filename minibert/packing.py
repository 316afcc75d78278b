"""Packed batches: the real tokens of every sequence one after the other, and no padding.

Users speak in padded (B, S) arrays with an attention mask; the model computes on (T, …) arrays of
real tokens. `pack` and `unpack` convert, `split` cuts a batch into shards for workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.errors import InputError

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class PackedBatch:
    """B sequences of T tokens in all, on the host."""

    input_ids: IntArray  # (T,)
    token_type_ids: IntArray  # (T,)
    position_ids: IntArray  # (T,): a token's column in the padded array
    offsets: tuple[int, ...]  # (B + 1,): sequence b is the rows offsets[b] : offsets[b + 1]
    labels: NDArray[Any] | None = None  # (B / group, …) a row an example
    token_labels: IntArray | None = None  # (T,), −100 for a token without one
    group: int = 1  # sequences that make one example, neighbours: the choices of a question
    terms: Any = None  # of the loss, known once a model has checked the labels
    every_token: bool = False  # all are computed to the end, even if the head would read only some
    first_token: int = 0  # the place of the first token, and of the first sequence, of this shard
    first_sequence: int = 0  # in the whole batch: dropout masks follow from them

    @property
    def num_tokens(self) -> int:
        return self.offsets[-1]

    @property
    def num_sequences(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_examples(self) -> int:
        return self.num_sequences // self.group

    @property
    def length(self) -> int:
        """S of the padded array: just enough columns for the last token."""
        return int(self.position_ids.max()) + 1

    @property
    def first_rows(self) -> IntArray:
        """(B,) the row of each sequence's first token, [CLS]."""
        return np.array(self.offsets[:-1], np.int64)

    def only(self, rows: IntArray) -> PackedBatch:
        """The same sequences with these of their tokens alone; rows (R,) ascending."""
        labels = self.token_labels
        return replace(
            self,
            input_ids=self.input_ids[rows],
            token_type_ids=self.token_type_ids[rows],
            position_ids=self.position_ids[rows],
            offsets=tuple(np.searchsorted(rows, self.offsets).tolist()),
            token_labels=None if labels is None else labels[rows],
        )

    @property
    def sequence_ids(self) -> IntArray:
        """(T,) the number of the sequence that each token belongs to."""
        return np.repeat(np.arange(self.num_sequences), np.diff(self.offsets))


def pack_sequences(
    input_ids: Sequence[NDArray[Any]],
    token_type_ids: Sequence[NDArray[Any]] | None = None,
    labels: Any = None,
    token_labels: Sequence[NDArray[Any]] | None = None,
    group: int = 1,
) -> PackedBatch:
    """Sequences of any lengths → one packed batch. Positions count from 0 in each."""
    lengths = [len(ids) for ids in input_ids]
    offsets = tuple(np.concatenate([[0], np.cumsum(lengths)]).tolist())
    ids = np.concatenate(input_ids).astype(np.int64)
    types = (
        np.zeros_like(ids)
        if token_type_ids is None
        else np.concatenate(token_type_ids).astype(np.int64)
    )
    positions = np.concatenate([np.arange(n) for n in lengths])
    return PackedBatch(
        ids,
        types,
        positions,
        offsets,
        None if labels is None else np.asarray(labels),
        None if token_labels is None else np.concatenate(token_labels).astype(np.int64),
        group,
    )


def pack(
    input_ids: Any,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    labels: Any = None,
    token_labels: Any = None,
) -> PackedBatch:
    """Padded (B, S) arrays, in Hugging Face's convention → a packed batch.

    An array (B, C, S) is B examples of C sequences. `labels` have a row an example,
    `token_labels` the shape of input_ids (what they say at padding is left out).

    `attention_mask` is 1 for real tokens and 0 for padding, wherever it stands (default: all 1);
    `token_type_ids` default to 0. A token's position is its column, as in Hugging Face's model.
    Every row needs at least one real token.
    """
    ids = _as_integers(input_ids, "input_ids")
    if ids.ndim not in (2, 3) or 0 in ids.shape:
        raise InputError(
            "input_ids must have shape (batch, length), or (batch, choices, length), with at least "
            f"one token, got {ids.shape}"
        )
    group = ids.shape[1] if ids.ndim == 3 else 1
    mask = _as_integers(attention_mask, "attention_mask", ids.shape, default=1)
    types = _as_integers(token_type_ids, "token_type_ids", ids.shape, default=0)
    if token_labels is not None:
        token_labels = _as_integers(token_labels, "labels", ids.shape)
    ids, mask, types = (a.reshape(-1, ids.shape[-1]) for a in (ids, mask, types))
    if not np.isin(mask, (0, 1)).all():
        raise InputError("attention_mask must hold 0 and 1 only (1 = a real token)")
    real = mask == 1
    lengths = real.sum(axis=1)
    if not lengths.all():
        row = int(np.argmin(lengths))
        raise InputError(f"attention_mask: row {row} has no real token; remove the row")
    return PackedBatch(
        input_ids=ids[real],
        token_type_ids=types[real],
        position_ids=np.broadcast_to(np.arange(ids.shape[1]), ids.shape)[real],
        offsets=tuple(np.concatenate([[0], np.cumsum(lengths)]).tolist()),
        labels=None if labels is None else np.asarray(labels),
        token_labels=None if token_labels is None else token_labels.reshape(ids.shape)[real],
        group=group,
    )


def unpack(xp: Any, x: Any, batch: PackedBatch, length: int | None = None) -> Any:
    """Packed rows (T, …) of array module `xp` → padded (B, S, …), zero where there is no token.

    S is `length`, or just enough for the last token.
    """
    columns = batch.position_ids
    length = batch.length if length is None else length
    padded = xp.zeros((batch.num_sequences, length, *x.shape[1:]), x.dtype)
    padded[xp.asarray(batch.sequence_ids), xp.asarray(columns)] = x
    return padded


def split(batch: PackedBatch, shards: int) -> list[PackedBatch]:
    """Cut a batch into at most `shards` parts of whole examples and about equal token counts.

    Each part knows its place, so dropout is the same whatever the cut.
    """
    bounds = np.array(batch.offsets[:: batch.group])  # of examples
    targets = batch.num_tokens * np.arange(1, shards) / shards
    # The boundary nearest to each target; np.unique drops shards that would be empty.
    cuts = np.searchsorted((bounds[1:] + bounds[:-1]) / 2, targets)
    firsts = np.unique(np.concatenate([[0], cuts, [batch.num_examples]])).tolist()
    return [_shard(batch, a, b) for a, b in pairwise(firsts)]


def _shard(batch: PackedBatch, first: int, last: int) -> PackedBatch:
    """Examples first … last − 1."""
    a, b = first * batch.group, last * batch.group
    start, stop = batch.offsets[a], batch.offsets[b]
    labels, token_labels = batch.labels, batch.token_labels
    return replace(
        batch,
        input_ids=batch.input_ids[start:stop],
        token_type_ids=batch.token_type_ids[start:stop],
        position_ids=batch.position_ids[start:stop],
        offsets=tuple(o - start for o in batch.offsets[a : b + 1]),
        labels=None if labels is None else labels[first:last],
        token_labels=None if token_labels is None else token_labels[start:stop],
        first_token=batch.first_token + start,
        first_sequence=batch.first_sequence + a,
    )


def _as_integers(
    value: Any, name: str, shape: tuple[int, ...] | None = None, default: int = 0
) -> IntArray:
    if value is None and shape is not None:
        return np.full(shape, default, np.int64)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name}: rows of different lengths; pad them first ({error})") from None
    if array.dtype == bool:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} must hold integers, got {array.dtype}")
    if shape is not None and array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}, but input_ids has {shape}")
    return array.astype(np.int64)
