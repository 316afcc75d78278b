"""Batches: every example once an epoch, a function of (seed, epoch), within the budget."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.data.features import BatchOrder, Features, by_length
from minibert.errors import InputError

lengths_of = st.lists(st.integers(1, 30), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.int64)
)
orders = st.builds(
    BatchOrder,
    lengths=lengths_of,
    seed=st.integers(0, 2**63 - 1),
    batch_size=st.integers(1, 9),
    max_tokens=st.none() | st.integers(30, 90),
    window=st.integers(1, 4),
)


@given(orders, st.integers(0, 5))
def test_every_example_comes_once_an_epoch_and_no_batch_is_too_large(order, epoch):
    batches = order.epoch(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(order.lengths)))
    assert all(len(batch) for batch in batches)
    for batch in batches:
        if order.max_tokens is None:
            assert len(batch) <= order.batch_size
        else:
            assert order.lengths[batch].sum() <= order.max_tokens


@given(orders, st.integers(0, 5))
def test_the_order_is_a_function_of_seed_and_epoch(order, epoch):
    again = dataclasses.replace(order)
    again.epoch(epoch + 1)  # no hidden state
    for a, b in zip(order.epoch(epoch), again.epoch(epoch), strict=True):
        assert a.tolist() == b.tolist()


@given(orders, st.integers(0, 5))
def test_batches_are_counted_without_a_look_at_them(order, epoch):
    assert order.count(epoch) == len(order.epoch(epoch))


@pytest.mark.parametrize(
    ("epochs", "max_tokens", "steps"),
    [(3.0, None, 21), (1.5, None, 11), (0.01, None, 1), (2.0, 12, 10), (1.3, 12, 7)],
)
def test_steps_are_those_of_the_epochs(epochs, max_tokens, steps):
    """Seven batches of 8, or five of 12 tokens; a part of an epoch is rounded up."""
    order = BatchOrder(np.ones(50, np.int64), 1, 8, max_tokens)
    assert order.steps(epochs) == steps
    ((batches, all_steps),) = order.parts(9)
    assert all_steps == 9
    assert [b.tolist() for b in batches] == [b.tolist() for b in order.epoch(0)]


def test_epochs_and_seeds_differ():
    order = BatchOrder(np.ones(50, np.int64), seed=1)
    first = np.concatenate(order.epoch(0)).tolist()
    assert np.concatenate(order.epoch(1)).tolist() != first
    assert np.concatenate(dataclasses.replace(order, seed=2).epoch(0)).tolist() != first


def test_only_the_last_batch_is_short():
    sizes = [len(batch) for batch in BatchOrder(np.ones(50, np.int64), 1, 8).epoch(0)]
    assert sizes == [8, 8, 8, 8, 8, 8, 2]


def test_token_batches_are_full():
    """A batch ends only where the next example would not fit."""
    lengths = np.random.default_rng(0).integers(1, 20, 200)
    order = BatchOrder(lengths, seed=3, max_tokens=64)
    full = 0
    for batch, after in itertools.chain(*(itertools.pairwise(order.epoch(e)) for e in range(5))):
        assert lengths[batch].sum() <= 64 < lengths[batch].sum() + lengths[after[0]]
        full += lengths[batch].sum() == 64
    assert full > 0


@pytest.mark.parametrize("max_tokens", [None, 160])
def test_windows_put_equal_lengths_together_but_not_in_order(max_tokens):
    lengths = np.random.default_rng(0).integers(1, 100, 400)
    batch_of = dict.fromkeys(("plain", "windows"))
    for name, window in (("plain", 1), ("windows", 20)):
        order = BatchOrder(np.minimum(lengths, 64), 1, 8, max_tokens, window)
        batch_of[name] = [order.lengths[batch] for batch in order.epoch(0)]
    spread = {name: np.mean([np.ptp(b) for b in batches]) for name, batches in batch_of.items()}
    assert spread["windows"] < spread["plain"] / 3
    means = [batch.mean() for batch in batch_of["windows"]]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)


def test_a_budget_below_the_longest_example_is_refused():
    with pytest.raises(InputError, match=r"batch of 8 tokens cannot hold .* of 9: raise --max_tok"):
        BatchOrder(np.array([3, 9]), 0, max_tokens=8)


@given(lengths_of, st.integers(1, 90), st.none() | st.integers(1, 9))
def test_evaluation_goes_by_length_and_holds_the_budget(lengths, budget, most):
    batches = list(by_length(lengths, budget, most))
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert lengths[order].tolist() == sorted(lengths.tolist(), reverse=True)
    assert all(lengths[batch].sum() <= budget or len(batch) == 1 for batch in batches)
    assert most is None or all(len(batch) <= most for batch in batches)


def test_no_examples_make_no_batches():
    empty = np.zeros(0, np.int64)
    assert list(by_length(empty, 5)) == BatchOrder(empty, 0, max_tokens=5).epoch(0) == []


@pytest.fixture
def features():
    ids = [np.array(row, np.int32) for row in ([2, 7, 3], [2, 3], [2, 8, 9, 3])]
    return Features(ids, [np.zeros_like(row) for row in ids], np.array([1, 0, 1]))


def test_a_batch_holds_the_chosen_examples_in_that_order(features):
    assert len(features) == 3
    assert features.lengths.tolist() == [3, 2, 4]
    batch = features.batch([2, 0])
    assert batch.input_ids.tolist() == [2, 8, 9, 3, 2, 7, 3]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.labels.tolist() == [1, 1]
    assert dataclasses.replace(features, labels=None).batch([0]).labels is None


def test_the_fingerprint_sees_every_change(features):
    longer = [*features.ids[:2], np.array([2, 8, 9, 9], np.int32)]
    cut = [np.array([2, 7], np.int32), np.array([3, 2, 3], np.int32), features.ids[2]]
    types = [np.zeros_like(row) for row in cut]
    others = [
        Features(longer, features.type_ids, features.labels),
        Features(features.ids, [t + 1 for t in features.type_ids], features.labels),
        Features(features.ids, features.type_ids, np.array([1, 1, 1])),
        Features(features.ids, features.type_ids),
        Features(cut, types, features.labels),  # the same tokens, cut elsewhere
    ]
    prints = {part.fingerprint() for part in [features, *others]}
    assert len(prints) == 6
    assert dataclasses.replace(features).fingerprint() == features.fingerprint()
