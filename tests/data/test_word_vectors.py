"""Word vectors from counts: counted by hand, and held to NumPy's own SVD."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.data import word_vectors
from minibert.data.token_store import TokenStore
from minibert.data.word_vectors import cooccurrences, positive_information, truncated_svd


def store_of(documents: list[list[int]]) -> TokenStore:
    """Documents of one sentence each."""
    ends = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    ids = np.array([i for document in documents for i in document], np.uint16)
    return TokenStore(Path(), ids, ends, np.arange(len(ends)), "", {})


corpora = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=30), min_size=1, max_size=6)


@given(corpora, st.sets(st.integers(0, 5), min_size=1), st.integers(1, 40))
def test_counts_are_those_of_a_plain_loop(
    documents: list[list[int]], chosen: set[int], chunk: int
) -> None:
    """Pairs in one chosen document, the nearer the more, however the corpus is cut into chunks."""
    numbers = sorted(number for number in chosen if number < len(documents))
    want = np.zeros((12, 12))
    for number in numbers:
        pieces = documents[number]
        for i, word in enumerate(pieces):
            for j, context in enumerate(pieces):
                if 0 < abs(i - j) <= 8:
                    want[word, context] += (9 - abs(i - j)) / 8
    frequency = np.bincount([i for number in numbers for i in documents[number]], minlength=12)
    frequent = np.argsort(-frequency, kind="stable")[:5]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_vectors, "CHUNK", chunk)
        patch.setattr(word_vectors, "CONTEXTS", 5)
        counts = cooccurrences(store_of(documents), np.array(numbers, np.int64), 12)
    np.testing.assert_array_equal(counts, want[:, frequent])


def test_positive_information_is_the_formula() -> None:
    counts = np.array([[4, 0, 1], [0, 3, 2], [0, 0, 0], [9, 1, 7]], np.float32)
    words, contexts = counts.sum(1), counts.sum(0) ** 0.75
    want = np.zeros((4, 3))
    for w, c in zip(*np.nonzero(counts), strict=True):
        want[w, c] = max(0, np.log(counts[w, c] * contexts.sum() / (words[w] * contexts[c])))
    assert (want > 0).sum() > 3
    np.testing.assert_allclose(positive_information(counts), want, rtol=1e-5)


def test_the_svd_is_the_best_approximation() -> None:
    """Of a matrix whose singular values fall as those of text do."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((n, 90)))[0] for n in (140, 110))
    M = ((U * 100 / np.arange(1, 91) ** 0.7) @ V.T).astype(np.float32)
    u, s = truncated_svd(M, 20, seed=3)
    best = np.linalg.svd(M)[1]
    np.testing.assert_allclose(s, best[:20], rtol=1e-4)
    np.testing.assert_allclose(np.abs((u * U[:, :20]).sum(0)), 1, atol=1e-3)
    lost = np.linalg.norm(M - u @ (u.T @ M))
    assert lost < 1.0001 * np.linalg.norm(best[20:])


def test_words_with_the_same_neighbours_have_the_same_vector() -> None:
    """Two synonyms, one other word, and two pieces that do not occur, in more columns than rank."""
    rng = np.random.default_rng(1)
    left, right = [1, 2, 3], [4, 5, 6]
    text = []
    for _ in range(400):
        side, word = (left, rng.choice([7, 8])) if rng.random() < 0.5 else (right, 9)
        text += [*rng.permutation(side).tolist(), int(word), *rng.permutation(side).tolist()]
    vectors = word_vectors.word_vectors(store_of([text]), np.array([0]), 12, 16, seed=0)
    assert vectors.shape == (12, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [0, *[1] * 9, 0, 0], atol=1e-6)
    assert vectors[7] @ vectors[8] > 0.98
    assert vectors[7] @ vectors[9] < 0.8


def test_an_empty_choice_gives_no_vectors() -> None:
    found = word_vectors.word_vectors(store_of([[1, 2]]), np.array([], np.int64), 4, 3, seed=0)
    np.testing.assert_array_equal(found, np.zeros((4, 3)))
