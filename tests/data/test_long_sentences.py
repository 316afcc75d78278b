"""Long sentences in parts: nothing lost, no part too long, words whole unless they are too long."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.data.long_sentences import IDEAL, PART, WHOLE, parts

WORD, MORE = 0, 1  # a vocabulary of two pieces: the second begins with ##
CONTINUES = np.array([False, True])

sentence = st.lists(st.integers(1, 9) | st.integers(1, 200), max_size=60)  # the words' lengths


def pieces(words: list[int]) -> list[int]:
    return [piece for n in words for piece in [WORD] + [MORE] * (n - 1)]


def parts_of(sentences: list[list[int]]) -> list[list[int]]:
    """The lengths of the parts of each sentence, whose words have so many pieces."""
    ids = np.array([piece for words in sentences for piece in pieces(words)], np.uint16)
    lengths, counts = parts(ids, np.array([sum(words) for words in sentences]), CONTINUES)
    assert counts.sum() == len(lengths)
    rest = iter(lengths.tolist())
    return [list(itertools.islice(rest, n)) for n in counts.tolist()]


@given(st.lists(sentence, max_size=5))
def test_nothing_is_lost_and_no_part_is_too_long(sentences: list[list[int]]) -> None:
    for words, found in zip(sentences, parts_of(sentences), strict=True):
        assert sum(found) == sum(words)
        if sum(words) <= WHOLE:
            assert found == [sum(words)]
            continue
        assert min(found) > 0
        assert max(found) <= PART
        begins = list(itertools.accumulate(words))
        inside = {place for end, n in zip(begins, words, strict=True) if n > PART
                  for place in range(end - n, end)}  # fmt: skip
        assert set(itertools.accumulate(found)) <= {*begins, *inside}


def test_of_ordinary_words_the_parts_are_nearly_equal() -> None:
    rng = np.random.default_rng(0)
    for size in (80, 100, 200, 1000):  # words
        words = rng.integers(1, 6, size).tolist()
        (found,) = parts_of([words])
        assert len(found) == -(-sum(words) // IDEAL)
        assert max(found) - min(found) <= 10


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([1] * 120, [120]),
        ([1] * 121, [40, 40, 41]),
        ([2] * 90, [44, 44, 46, 46]),
        ([200], [50, 50, 50, 50]),
        ([70, 70], [46, 47, 47]),
        ([40, 40, 40, 40], [40, 40, 40, 40]),
        ([60, 60, 1], [60, 60, 1]),
    ],
)
def test_parts(words: list[int], wanted: list[int]) -> None:
    assert parts_of([[3], words, [5, 1]]) == [[3], wanted, [6]]
