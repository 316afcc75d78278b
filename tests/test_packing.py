"""Packing: nothing is lost, nothing is moved, and a cut never shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from minibert.errors import InputError
from minibert.packing import PackedBatch, pack, pack_sequences, split, unpack

Case = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


@st.composite
def padded(draw: st.DrawFn) -> Case:
    """ids, mask, types (B, S) with padding anywhere, and a real token in every row."""
    B, S = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    rows = st.lists(st.booleans(), min_size=S, max_size=S).filter(any)
    mask = np.array(draw(st.lists(rows, min_size=B, max_size=B)), np.int64)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.integers(1, 50, (B, S)), mask, rng.integers(0, 2, (B, S))


@st.composite
def packed(draw: st.DrawFn) -> PackedBatch:
    lengths = draw(st.lists(st.integers(1, 20), min_size=1, max_size=12))
    ids = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    return pack_sequences(ids, labels=np.arange(len(lengths)) * 10)


@given(padded())
def test_unpack_undoes_pack(case: Case) -> None:
    ids, mask, types = case
    batch = pack(ids, mask, types)
    S = ids.shape[1]
    np.testing.assert_array_equal(unpack(np, batch.input_ids, batch, S), ids * mask)
    np.testing.assert_array_equal(unpack(np, batch.token_type_ids, batch, S), types * mask)
    columns = unpack(np, batch.position_ids, batch, S)
    np.testing.assert_array_equal(columns, np.arange(S) * mask)


@given(padded())
def test_the_parts_of_a_packed_batch_fit_together(case: Case) -> None:
    ids, mask, types = case
    batch = pack(ids, mask, types)
    lengths = mask.sum(axis=1)
    assert batch.num_sequences == len(ids)
    assert batch.num_tokens == mask.sum() == len(batch.input_ids)
    assert batch.offsets == (0, *np.cumsum(lengths))
    np.testing.assert_array_equal(batch.sequence_ids, np.nonzero(mask)[0])
    np.testing.assert_array_equal(batch.first_rows, np.cumsum(lengths) - lengths)


@given(packed(), st.data())
def test_some_tokens_of_a_batch_stay_with_their_sequences(
    batch: PackedBatch, data: st.DataObject
) -> None:
    keep = data.draw(st.lists(st.booleans(), min_size=batch.num_tokens, max_size=batch.num_tokens))
    rows = np.flatnonzero(keep)
    some = replace(batch, token_labels=batch.input_ids + 1).only(rows)
    assert some.num_sequences == batch.num_sequences
    assert some.offsets[-1] == len(rows)
    np.testing.assert_array_equal(some.sequence_ids, batch.sequence_ids[rows])
    np.testing.assert_array_equal(some.input_ids, batch.input_ids[rows])
    np.testing.assert_array_equal(some.token_labels, some.input_ids + 1)
    np.testing.assert_array_equal(some.position_ids, batch.position_ids[rows])
    np.testing.assert_array_equal(some.token_type_ids, batch.token_type_ids[rows])
    np.testing.assert_array_equal(some.labels, batch.labels)
    first = batch.only(batch.first_rows)
    np.testing.assert_array_equal(first.first_rows, np.arange(batch.num_sequences))


@given(packed(), st.integers(1, 15))
def test_a_split_covers_every_sequence_once_in_order(batch: PackedBatch, shards: int) -> None:
    parts = split(batch, shards)
    assert 1 <= len(parts) <= shards
    assert all(part.num_sequences for part in parts)
    assert batch.labels is not None
    for name in ("input_ids", "token_type_ids", "position_ids", "labels"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(batch, name))


@given(packed(), st.integers(1, 15))
def test_every_shard_knows_its_place(batch: PackedBatch, shards: int) -> None:
    token = sequence = 0
    for part in split(batch, shards):
        assert (part.first_token, part.first_sequence) == (token, sequence)
        lengths = np.diff(batch.offsets)[sequence : sequence + part.num_sequences]
        assert part.offsets == (0, *np.cumsum(lengths))
        token, sequence = token + part.num_tokens, sequence + part.num_sequences


@given(packed(), st.integers(1, 15))
def test_shards_have_about_the_same_number_of_tokens(batch: PackedBatch, shards: int) -> None:
    """Each boundary is within half a sequence of where a perfect cut would be."""
    longest = max(np.diff(batch.offsets))
    for part in split(batch, shards):
        assert part.num_tokens <= batch.num_tokens / shards + longest


def test_a_shard_of_a_shard_knows_its_place_in_the_whole() -> None:
    batch = pack_sequences([np.zeros(n) for n in (3, 5, 4, 2, 7)])
    first, second = split(split(batch, 2)[1], 2)
    assert (first.first_token, first.first_sequence) == (12, 3)
    assert (second.first_token, second.first_sequence) == (14, 4)


def test_sequences_and_their_padded_form_pack_alike() -> None:
    ids = np.array([[7, 8, 9], [5, 0, 0], [3, 4, 0]])
    sequences = pack_sequences([row[row > 0] for row in ids], labels=[1, 0, 1])
    rows = pack(ids, ids > 0, labels=[1, 0, 1])
    for name in vars(rows):
        np.testing.assert_array_equal(getattr(sequences, name), getattr(rows, name))


def test_token_types_follow_their_sequences() -> None:
    batch = pack_sequences([np.array([4, 5]), np.array([6])], [np.array([0, 1]), np.array([1])])
    np.testing.assert_array_equal(batch.token_type_ids, [0, 1, 1])
    np.testing.assert_array_equal(batch.position_ids, [0, 1, 0])


def test_everything_is_real_by_default() -> None:
    batch = pack([[5, 6], [7, 8]])
    assert batch.offsets == (0, 2, 4)
    np.testing.assert_array_equal(batch.token_type_ids, 0)
    assert batch.labels is None


def test_unpack_makes_room_for_the_last_token() -> None:
    batch = pack([[1, 2, 3, 4]], [[0, 1, 1, 0]])
    assert unpack(np, np.ones((2, 5)), batch).shape == (1, 3, 5)
    assert unpack(np, np.ones((2, 5)), batch, 4).shape == (1, 4, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1, 2], [3]],), "input_ids: rows of different lengths"),
        (([1, 2],), r"input_ids must have shape \(batch, length\)"),
        ((np.zeros((2, 0), int),), "at least one token"),
        ((np.zeros((0, 2), int),), "at least one token"),
        (([[1.0, 2.0]],), "input_ids must hold integers, got float64"),
        (([["a", "b"]],), "input_ids must hold integers"),
        (([[1, 2]], [[1, 1, 1]]), r"attention_mask has shape \(1, 3\), but input_ids has \(1, 2\)"),
        (([[1, 2]], [[0, 2]]), "attention_mask must hold 0 and 1 only"),
        (([[1, 2]], [[0, -10000]]), "attention_mask must hold 0 and 1 only"),
        (([[1, 2], [3, 4]], [[1, 0], [0, 0]]), "row 1 has no real token; remove the row"),
        (([[1, 2]], None, [[0]]), "token_type_ids has shape"),
        (([[1, 2]], None, [[0.5, 1]]), "token_type_ids must hold integers"),
    ],
)
def test_bad_input_is_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pack(*arguments)
