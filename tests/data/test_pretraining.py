"""Batches of pretraining: whole examples, the same for one address, new ones in every epoch."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_corpus

from minibert.data import pretraining
from minibert.data.masking import Masking
from minibert.data.pretraining import Address, Phase, PretrainingData, plan
from minibert.data.segments import SentencePairs
from minibert.data.token_store import TokenStore
from minibert.errors import InputError
from minibert.packing import PackedBatch

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return toy_corpus.make_store(tmp_path_factory.mktemp("toy"))


def same(a: PackedBatch, b: PackedBatch) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("input_ids", "token_type_ids", "offsets", "labels", "token_labels")
    )


@pytest.mark.parametrize("next_sentence", [True, False])
def test_examples_are_framed(next_sentence: bool, store: TokenStore) -> None:
    data = toy_corpus.data(store, next_sentence=next_sentence)
    features = data.sample(5, 40)
    assert len(features) == 40
    assert (features.labels is not None) == next_sentence
    assert features.token_labels is not None
    for ids, types, labels in zip(
        features.ids, features.type_ids, features.token_labels, strict=True
    ):
        original = np.where(labels == -100, ids, labels)
        ends = np.flatnonzero(original == SEP)
        assert (original[0], ends[-1]) == (CLS, len(ids) - 1)
        assert len(ids) == len(types) <= 24
        if next_sentence:
            assert len(ends) == 2
            assert types.tolist() == [0] * (ends[0] + 1) + [1] * (ends[1] - ends[0])
        else:
            assert not types.any()


def test_a_batch_is_a_function_of_its_address(store: TokenStore) -> None:
    """Whatever was made before, and however examples are shared out among batches."""
    data = toy_corpus.data(store)
    epoch = data.order(5, 4, None, 1).epoch(2)
    batches = [data.batch(address) for address in epoch]
    again = toy_corpus.data(store)
    fresh = again.order(5, 4, None, 1).epoch(2)
    assert len(fresh) == len(batches)
    for number in reversed(range(len(fresh))):
        assert same(again.batch(fresh[number]), batches[number])
    singles = again.order(5, 1, None, 1).epoch(2)
    first = [again.batch(singles[i]).input_ids for i in range(4)]
    assert np.concatenate(first).tolist() == batches[0].input_ids.tolist()


def test_epochs_and_seeds_differ(store: TokenStore) -> None:
    data = toy_corpus.data(store)
    ids = [
        data.batch(data.order(seed, 8, None, 1).epoch(epoch)[0]).input_ids.tolist()
        for seed, epoch in ((5, 0), (5, 1), (6, 0))
    ]
    assert len({tuple(row) for row in ids}) == 3
    start = np.array([3])
    masks = [data.batch(Address(5, epoch, 0, start)).token_labels for epoch in range(8)]
    assert len({tuple((row != -100).tolist()) for row in masks if row is not None}) > 4


@pytest.mark.parametrize("next_sentence", [True, False])
def test_pairs_are_cut_anew_in_every_epoch_and_full_sequences_are_not(
    next_sentence: bool, store: TokenStore
) -> None:
    """What the README says; masks are new either way."""
    data = toy_corpus.data(store, next_sentence=next_sentence)
    texts, masks = [], []
    for epoch in (0, 1):
        starts = np.sort(plan(data.phases[0].rule, 5, epoch))
        made = data.features(Address(5, epoch, 0, starts))
        assert made.token_labels is not None
        pairs = zip(made.ids, made.token_labels, strict=True)
        texts.append([np.where(found == -100, ids, found).tolist() for ids, found in pairs])
        masks.append([found.tolist() for found in made.token_labels])
    assert (texts[0] == texts[1]) == (not next_sentence)
    assert masks[0] != masks[1]


def test_an_epoch_holds_each_example_once(store: TokenStore) -> None:
    data = toy_corpus.data(store)
    rule = data.phases[0].rule
    epoch = data.order(5, 7, None, 1).epoch(1)
    starts = np.concatenate([address.starts for address in epoch])
    wanted = np.concatenate(list(rule.starts(5, 1)))
    assert sorted(starts.tolist()) == wanted.tolist() != starts.tolist()
    assert {len(address.starts) for address in list(epoch)[:-1]} == {7}
    with pytest.raises(IndexError):
        epoch[len(epoch)]
    assert plan(rule, 5, 1).tolist() == starts.tolist()


def test_phases_follow_each_other_in_the_middle_of_an_epoch(store: TokenStore) -> None:
    short, long = (toy_corpus.data(store, length).phases[0].rule for length in (12, 40))
    data = PretrainingData(Masking.by(toy_corpus.tokenizer()), (Phase(short, 100), Phase(long)))
    order = data.order(5, 4, None, 1)
    whole = len(toy_corpus.data(store, 12).order(5, 4, None, 1).epoch(0))
    assert 50 < whole < 100
    epochs = [order.epoch(e) for e in range(4)]
    assert [epoch[0].phase for epoch in epochs] == [0, 0, 1, 1]
    assert [len(epoch) for epoch in epochs[:2]] == [whole, 100 - whole]
    lengths = [int(np.diff(data.batch(epoch[0]).offsets).max()) for epoch in epochs]
    assert max(lengths[:2]) <= 12 < min(lengths[2:])
    assert [data.tokens(epoch[0]) for epoch in epochs] == [48, 48, 160, 160]
    assert [order.share(e) for e in range(4)] == [1.0, (100 - whole) / order._whole(1, 0), 1.0, 1.0]
    exact = replace(data, phases=(Phase(short, whole), Phase(long)))
    assert [exact.order(5, 4, None, 1).epoch(e)[0].phase for e in range(2)] == [0, 1]
    assert exact.order(5, 4, None, 1).share(0) == 1.0


@pytest.mark.parametrize("next_sentence", [True, False])
def test_steps_are_so_many_times_the_first_epoch(next_sentence, store, monkeypatch) -> None:
    """Rounded up; no epoch is planned for it, and no later one even counted."""
    data = toy_corpus.data(store, next_sentence=next_sentence)
    counts = [len(data.order(5, 4, None, 1).epoch(epoch)) for epoch in range(3)]
    whole = counts[0]
    seen = list[int]()
    kind, plain = type(data.phases[0].rule), type(data.phases[0].rule).starts
    monkeypatch.setattr(kind, "starts", lambda self, s, e: seen.append(e) or plain(self, s, e))
    monkeypatch.setattr(pretraining, "plan", lambda *_: pytest.fail("planned"))
    order = data.order(5, 4, None, 1)
    assert [order.steps(epochs) for epochs in (40, 2.5, 0.001)] == [
        40 * whole, math.ceil(2.5 * whole), 1
    ]  # fmt: skip
    assert seen == [0]
    assert [order.count(epoch) for epoch in (2, 1)] == counts[:0:-1]
    assert seen == ([0, 2, 1] if next_sentence else [0])  # full sequences keep their cuts


def test_an_epoch_is_counted_without_being_shuffled(store, monkeypatch) -> None:
    """In both phases, and in the epoch that the first one ends in."""
    short, long = (toy_corpus.data(store, length).phases[0].rule for length in (12, 40))
    data = PretrainingData(Masking.by(toy_corpus.tokenizer()), (Phase(short, 100), Phase(long)))
    lengths = [len(data.order(5, 4, None, 1).epoch(e)) for e in range(4)]
    monkeypatch.setattr(pretraining, "plan", lambda *_: pytest.fail("planned"))
    order = data.order(5, 4, None, 1)
    assert [order.count(e) for e in (3, 0, 2, 1)] == [lengths[e] for e in (3, 0, 2, 1)]


def test_the_parts_of_a_run_are_its_phases(store: TokenStore) -> None:
    """Each with whole batches of its own length, as if the run began with it."""
    short, long = (toy_corpus.data(store, length).phases[0].rule for length in (12, 40))
    data = PretrainingData(Masking.by(toy_corpus.tokenizer()), (Phase(short, 100), Phase(long)))
    parts = data.order(5, 4, None, 1).parts(130)
    assert [(part[0].phase, steps) for part, steps in parts] == [(0, 100), (1, 30)]
    assert [data.tokens(part[0]) for part, _ in parts] == [48, 160]
    alone = toy_corpus.data(store, 12).order(5, 4, None, 1)
    assert len(parts[0][0]) == len(alone.epoch(0))
    ((part, steps),) = alone.parts(7)
    assert (len(part), steps) == (len(alone.epoch(0)), 7)


def test_a_batch_with_nothing_to_find_has_no_such_labels(store: TokenStore) -> None:
    """Whole words longer than the number of tokens to find."""
    data = toy_corpus.data(store, whole_words=True, max_predictions=1)
    starts = np.concatenate(list(data.phases[0].rule.starts(5, 0)))
    batches = [data.batch(Address(5, 0, 0, np.array([start]))) for start in starts]
    assert all(b.token_labels is None or (b.token_labels != -100).any() for b in batches)


def test_the_fingerprint_sees_what_decides_the_examples(store: TokenStore) -> None:
    data = toy_corpus.data(store)
    rule = data.phases[0].rule
    assert isinstance(rule, SentencePairs)
    others = [
        toy_corpus.data(store, 25),
        toy_corpus.data(store, probability=0.2),
        toy_corpus.data(store, whole_words=True),
        toy_corpus.data(store, next_sentence=False),
        replace(data, phases=(Phase(rule, 5), Phase(rule))),
        replace(data, phases=(Phase(replace(rule, short_seq_prob=0.2)),)),
        replace(data, phases=(Phase(replace(rule, documents=np.arange(3))),)),
        replace(data, phases=(Phase(replace(rule, store=replace(store, sha256="0"))),)),
    ]
    prints = [each.fingerprint() for each in (data, *others)]
    assert len(set(prints)) == len(prints)
    assert toy_corpus.data(store).fingerprint() == prints[0]


def test_batches_by_tokens_or_length_are_refused(store: TokenStore) -> None:
    for max_tokens, window in ((512, 1), (None, 50)):
        with pytest.raises(InputError, match="set --per_device_train_batch_size"):
            toy_corpus.data(store).order(5, 4, max_tokens, window)


def test_memory_does_not_hold_the_plan(store: TokenStore, tmp_path: Path) -> None:
    """It lies in a file that has no name any more."""
    base = plan(toy_corpus.data(store).phases[0].rule, 0, 0)
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
