"""80/10/10, counts and whole words: the rules of google-research/bert."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toy_corpus
from hypothesis import given
from hypothesis import strategies as st

from minibert import BertTokenizer
from minibert.data.draws import Purpose, draws
from minibert.data.masking import Masking
from minibert.errors import InputError

TOKENIZER = toy_corpus.tokenizer()
V, CLS, SEP, MASK = 16, 2, 3, 4
CONTINUES = (14, 15)  # ##s, ##let

examples = st.lists(st.integers(5, V - 1), min_size=1, max_size=120).map(
    lambda ids: np.array([CLS, *ids[: len(ids) // 2], SEP, *ids[len(ids) // 2 :], SEP], np.int32)
)
maskings = st.builds(
    Masking.by,
    st.just(TOKENIZER),
    probability=st.floats(0.01, 0.9),
    max_predictions=st.none() | st.integers(1, 30),
    whole_words=st.booleans(),
)


def apply(masking: Masking, ids: Any, place: int) -> Any:
    return masking.apply(ids, draws(7, 0, Purpose.MASK, place, 2 * len(ids)))


@given(maskings, examples, st.integers(0, 2**40))
def test_counts_and_what_is_never_masked(masking: Masking, ids: Any, place: int) -> None:
    masked, labels = apply(masking, ids, place)
    asked = labels != -100
    wanted = max(1, round(masking.probability * len(ids)))
    if masking.max_predictions is not None:
        wanted = min(wanted, masking.max_predictions)
    candidates = int((ids >= 5).sum())
    if masking.continues is None:
        assert asked.sum() == min(wanted, candidates)
    else:
        assert asked.sum() <= wanted
    assert not asked[np.isin(ids, (CLS, SEP))].any()
    assert (labels[asked] == ids[asked]).all()
    assert (masked[~asked] == ids[~asked]).all()
    assert ((masked >= 0) & (masked < V)).all()


@given(examples, st.integers(0, 2**40), st.floats(0.1, 0.9))
def test_whole_words_and_none_that_would_have_fitted_is_left(
    ids: Any, place: int, p: float
) -> None:
    labels = apply(Masking.by(TOKENIZER, p, whole_words=True), ids, place).labels
    words: list[list[int]] = []
    for i in range(1, len(ids) - 1):
        if ids[i] == SEP:
            continue
        if ids[i] in CONTINUES and ids[i - 1] not in (CLS, SEP):
            words[-1].append(i)
        else:
            words.append([i])
    chosen = [(labels[word] != -100).all() for word in words]
    assert chosen == [(labels[word] != -100).any() for word in words]
    room = max(1, round(p * len(ids))) - int((labels != -100).sum())
    assert all(len(word) > room for word, yes in zip(words, chosen, strict=True) if not yes)


@pytest.mark.parametrize("whole_words", [False, True])
def test_shares(whole_words: bool) -> None:
    """Of 19 of 128 tokens, 80 % [MASK], 10 % the same, 10 % any token: within 4 deviations."""
    vocabulary = [*toy_corpus.VOCABULARY, *map(str, range(984))]
    masking = Masking.by(BertTokenizer.from_vocab(vocabulary), whole_words=whole_words)
    rng = np.random.default_rng(0)
    kinds, places, replacements, count = np.zeros(3), np.zeros(128), [], 0
    for place in range(2000):
        ids = np.array(
            [CLS, *rng.integers(16, 1000, 60), SEP, *rng.integers(16, 1000, 65), SEP], np.int32
        )
        masked, labels = apply(masking, ids, place)
        asked = labels != -100
        assert asked.sum() == 19  # round(0.15 · 128)
        new, old = masked[asked], ids[asked]
        kinds += [(new == MASK).sum(), (new == old).sum(), ((new != MASK) & (new != old)).sum()]
        replacements += new[(new != MASK) & (new != old)].tolist()
        places += asked
        count += 19
    shares = kinds / count
    for share, want in zip(shares, (0.8, 0.1, 0.1), strict=True):
        assert abs(share - want) < 4 * (want * (1 - want) / count) ** 0.5 + 0.1 / 1000
    assert 0.9 < np.mean(replacements) / 500 < 1.1  # of the whole vocabulary, special tokens too
    assert min(replacements) < 10
    assert max(replacements) > 990
    middle = places[(places > 0)]
    assert len(middle) == 125
    assert np.abs(middle / 2000 - 19 / 125).max() < 5 * (0.152 * 0.848 / 2000) ** 0.5


def test_two_places_differ_and_one_is_the_same_again() -> None:
    ids = np.array([CLS, *range(5, 14), SEP], np.int32)
    masking = Masking.by(TOKENIZER, 0.5)
    labels = [apply(masking, ids, place).labels.tolist() for place in (1, 2, 1)]
    assert labels[0] == labels[2] != labels[1]


def test_rounding_is_google_s() -> None:
    masking = Masking.by(TOKENIZER, max_predictions=20)
    assert [masking.number(n) for n in (1, 3, 10, 30, 128, 512)] == [1, 1, 2, 4, 19, 20]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probability": 0.0}, "mlm_probability must be between 0 and 1, got 0.0"),
        ({"max_predictions": 0}, "--max_predictions_per_seq must be at least 1, got 0"),
        ({"tokenizer": BertTokenizer.from_vocab(toy_corpus.VOCABULARY[:4])}, r"has no \[MASK\]"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Masking.by(**{"tokenizer": TOKENIZER} | options)
