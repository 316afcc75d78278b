"""Examples of documents, held to the rule told step by step in plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.data import segments
from minibert.data.draws import Purpose, draws
from minibert.data.segments import FullSequences, SentencePairs, cut_pair, hold_out, too_long
from minibert.data.token_store import TokenStore
from minibert.errors import InputError


def store_of(documents: list[list[int]]) -> TokenStore:
    """Documents as the lengths of their sentences; every token has an id of its own."""
    lengths = [length for document in documents for length in document]
    return TokenStore(
        Path(),
        np.arange(sum(lengths), dtype=np.uint16),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([[0], np.cumsum([len(document) for document in documents])]).astype(
            np.int64
        ),
        "",
        {},
    )


def home(store: TokenStore, token: int) -> int:
    """The document of a token of `store_of`."""
    return store.document_of(int(np.searchsorted(store.sentences, token, "right")) - 1)


corpora = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=9), min_size=2, max_size=6)
chosen_of = st.sets(st.integers(0, 5), min_size=2)


def parts_of(documents: list[list[int]], chosen: set[int]) -> tuple[TokenStore, Any]:
    """The store, and at least two of its documents."""
    numbers = sorted(number for number in chosen if number < len(documents))
    return store_of(documents), np.array(numbers if len(numbers) > 1 else range(len(documents)))


# ---- Pairs ----


def pairs_by_hand(
    rule: SentencePairs, seed: int, epoch: int
) -> Iterator[tuple[int, Any, Any, int]]:
    """create_instances_from_document as its authors tell it: a chunk grows sentence by sentence.

    → (first sentence, A, B before they are cut, label) of each example.
    """
    store, chosen = rule.store, rule.documents.tolist()
    for number in chosen:
        first, last = store.documents[number : number + 2].tolist()
        u = draws(seed, epoch, Purpose.LENGTH, 0, 4, number)
        target = rule.length - 3
        if u[0] < rule.short_seq_prob:
            target = 2 + int(u[1] * (target - 1))
        i, chunk, length = first, [], 0
        while i < last:
            chunk.append(i)
            length += len(store.tokens(i, i + 1))
            if i == last - 1 or length >= target:
                u = draws(seed, epoch, Purpose.PAIR, 0, 4, chunk[0])
                a_end = 1 if len(chunk) == 1 else 1 + int(u[0] * (len(chunk) - 1))
                a = [t for s in chunk[:a_end] for t in store.tokens(s, s + 1).tolist()]
                b: list[int] = []
                is_random = len(chunk) == 1 or u[1] < 0.5
                if is_random:
                    others = [other for other in chosen if other != number]
                    begin, end = store.documents[others[int(u[2] * len(others))] :][:2].tolist()
                    s = begin + int(u[3] * (end - begin))
                    while s < end and (not b or len(b) < target - len(a)):
                        b += store.tokens(s, s + 1).tolist()
                        s += 1
                    i -= len(chunk) - a_end
                else:
                    b = [t for s in chunk[a_end:] for t in store.tokens(s, s + 1).tolist()]
                yield chunk[0], a, b, int(is_random)
                chunk, length = [], 0
            i += 1


def cut_by_hand(a: list[int], b: list[int], room: int, front: list[bool]) -> tuple[Any, Any]:
    """Token by token. What goes is decided in the order A, B: as many of each as have to."""
    sizes, drops = [len(a), len(b)], [0, 0]
    while sum(sizes) > room:
        longer = 0 if sizes[0] > sizes[1] else 1
        sizes[longer] -= 1
        drops[longer] += 1
    for x, part in ((a, front[: drops[0]]), (b, front[drops[0] : sum(drops)])):
        for at_front in part:
            x.pop(0 if at_front else -1)
    return a, b


@given(corpora, chosen_of, st.integers(5, 30), st.sampled_from([0.0, 0.1, 1.0]), st.integers(0, 99))
def test_an_epoch_of_pairs_is_the_rule_s(documents, chosen, length, short, seed):
    store, numbers = parts_of(documents, chosen)
    rule = SentencePairs(store, numbers, length, short)
    wanted = list(pairs_by_hand(rule, seed, 3))
    assert np.concatenate(list(rule.starts(seed, 3))).tolist() == [start for start, *_ in wanted]
    for start, a, b, label in reversed(wanted):  # any order: an example needs no other
        surplus = max(0, len(a) + len(b) - rule.room)
        front = draws(seed, 3, Purpose.CUT, start, surplus) < 0.5
        example = rule.example(seed, 3, start)
        got = tuple(part.tolist() for part in example.segments)
        assert got == cut_by_hand(a, b, rule.room, front.tolist())
        assert example.label == label
        assert all(got)


@given(corpora, st.integers(5, 30), st.integers(0, 99))
def test_labels_say_what_the_segments_are(documents, length, seed):
    """0: B follows A; 1: B is of another document; no segment goes over a document's end."""
    store = store_of(documents)
    rule = SentencePairs(store, np.arange(len(documents)), length)
    for start in np.concatenate(list(rule.starts(seed, 0))).tolist():
        (a, b), label = rule.example(seed, 0, start)
        homes = [{home(store, t) for t in part} for part in (a.tolist(), b.tolist())]
        assert [len(home) for home in homes] == [1, 1]
        assert (homes[0] != homes[1]) == bool(label)
        if label == 0:
            assert b[0] > a[-1]
        assert len(a) + len(b) <= length - 3


@given(corpora, st.integers(5, 30), st.integers(1, 7))
def test_planning_in_spans_changes_nothing(documents, length, span):
    rule = SentencePairs(store_of(documents), np.arange(len(documents)), length)
    full = FullSequences(rule.store, rule.documents, length)
    whole = [np.concatenate(list(r.starts(1, 0))).tolist() for r in (rule, full)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "SPAN", span)
        assert [np.concatenate(list(r.starts(1, 0))).tolist() for r in (rule, full)] == whole


def test_shares_of_random_and_short_pairs() -> None:
    """On long documents: half are random; a tenth of the documents has short targets."""
    rng = np.random.default_rng(0)
    store = store_of([rng.integers(5, 30, 40).tolist() for _ in range(70)])
    rule = SentencePairs(store, np.arange(70), 128)
    labels, short = [], 0
    for epoch in range(12):
        targets = rule._targets(0, epoch, np.arange(70))
        short += int((targets < 125).sum())
        for start in np.concatenate(list(rule.starts(0, epoch))).tolist():
            document = store.document_of(start)
            whole = start + 9 < store.documents[document + 1]  # not a last sentence by itself
            if whole and targets[document] == 125:
                labels.append(rule.example(0, epoch, start).label)
    n = len(labels)
    assert n > 4000
    assert abs(np.mean(labels) - 0.5) < 4 * 0.5 / n**0.5
    assert abs(short / 840 - 0.1) < 4 * (0.09 / 840) ** 0.5


def test_front_and_back_are_cut_alike() -> None:
    fronts = []
    for start in range(400):
        front = draws(0, 0, Purpose.CUT, start, 10) < 0.5
        a, b = cut_pair(np.arange(20), np.arange(5), 15, front)
        assert (len(a), len(b)) == (10, 5)
        fronts.append(int(a[0]))
    assert abs(np.mean(fronts) - 5) < 4 * (10 * 0.25 / 400) ** 0.5


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 50))
def test_the_longer_segment_is_cut(n: int, m: int, room: int) -> None:
    front = np.ones(max(0, n + m - room), bool)
    a, b = cut_pair(np.arange(n), np.arange(m), room, front)
    want = cut_by_hand(list(range(n)), list(range(m)), room, front.tolist())
    assert (a.tolist(), b.tolist()) == want


# ---- Full sequences ----


@given(corpora, chosen_of, st.integers(3, 30))
def test_full_sequences_hold_every_sentence_once_and_as_many_as_fit(documents, chosen, length):
    store, numbers = parts_of(documents, chosen)
    rule = FullSequences(store, numbers, length)
    starts = np.concatenate(list(rule.starts(0, 0))).tolist()
    ends = [rule._ends(start, start + 1)[0] for start in starts]
    inside = [s for a, b in segments.runs(store, numbers) for s in range(a, b)]
    assert [s for a, b in zip(starts, ends, strict=True) for s in range(a, b)] == inside
    for start, end in zip(starts, ends, strict=True):
        parts, label = rule.example(5, 1, start)
        assert label is None
        size = sum(map(len, parts)) + len(parts) - 1
        assert size <= rule.room
        if end - start > 1:
            tokens = [t for part in parts for t in part.tolist()]
            assert tokens == store.tokens(start, end).tolist()
        homes = [
            store.document_of(int(np.searchsorted(store.sentences, p[0], "right")) - 1)
            for p in parts
        ]
        assert homes == sorted(set(homes))
        if end in inside:  # one more would not fit
            new = store.document_of(end) != store.document_of(end - 1)
            assert size + new + len(store.tokens(end, end + 1)) > rule.room or end - start == 1


# ---- Small things ----


def test_sentences_that_do_not_fit_are_counted() -> None:
    rule = SentencePairs(store_of([[5, 9, 8], [3], [20, 7]]), np.array([0, 2]), 11)
    assert too_long(rule) == (2, (1 + 12) / 49)
    a, b = rule.example(0, 0, 4).segments
    assert len(a) + len(b) == 8


@given(st.integers(2, 30), st.integers(0, 9), st.integers(0, 2**62))
def test_documents_are_held_out_by_seed(number: int, count: int, seed: int) -> None:
    store = store_of([[1]] * number)
    if count >= number:
        with pytest.raises(InputError, match=f"got {count}, but the corpus has {number} documents"):
            hold_out(store, count, seed)
        return
    rest, held = hold_out(store, count, seed)
    assert len(held) == count
    assert sorted([*rest, *held]) == list(range(number))
    assert (np.diff(rest) > 0).all()
    assert (np.diff(held) > 0).all()


def test_what_cannot_be() -> None:
    store = store_of([[3, 4], [5]])
    with pytest.raises(InputError, match=r"two documents or more, got 1: add files.*--no_nsp"):
        SentencePairs(store, np.array([1]), 128)
    with pytest.raises(InputError, match="a pair needs at least 5 tokens, got 4"):
        SentencePairs(store, np.array([0, 1]), 4)
    with pytest.raises(InputError, match=r"short_seq_prob must be from 0 to 1, got 1\.5"):
        SentencePairs(store, np.array([0, 1]), 9, 1.5)
    with pytest.raises(InputError, match="max_seq_length must be at least 3, got 2"):
        FullSequences(store, np.array([1]), 2)
