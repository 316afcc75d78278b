"""Sentences that are too long for an example, broken into parts so that nothing of them is lost.

Text without full stops (a transcript, Thai, a list) is a few giant sentences: whole, an example
would hold the beginning of each, and next to nothing could follow it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

WHOLE = 120  # pieces: a sentence of so many stays whole, for examples of 128 tokens hold it
PART = 60  # pieces of a part, at most: two of them are a pair
IDEAL = 54  # and about as many are aimed at, so that words may stay whole

Ints = NDArray[np.int64]


def parts(
    ids: NDArray[Any], lengths: Ints, continues: NDArray[np.bool_]
) -> tuple[Ints, NDArray[np.intp]]:
    """The lengths of the parts of all sentences (P,), and how many parts each has (S,).

    ids: (T,) pieces of the sentences, one after the other; lengths: (S,) how many each has;
    continues: (V,) of the vocabulary, true for what begins with ##. A sentence of more than WHOLE
    is broken at the beginning of words into parts of nearly equal length, none over PART; a word
    that is longer itself, anywhere. All others have one part.
    """
    is_long = lengths > WHOLE
    counts = np.ones(len(lengths), np.intp)
    if not is_long.any():
        return lengths, counts
    ends = np.cumsum(lengths)[is_long].tolist()
    spans = zip(ends, lengths[is_long].tolist(), strict=True)
    found = [_parts(continues[ids[end - length : end]]) for end, length in spans]
    counts[is_long] = [len(part) for part in found]
    result = np.repeat(lengths, counts)
    result[np.repeat(is_long, counts)] = np.concatenate(found)
    return result, counts


def _parts(continues: NDArray[np.bool_]) -> Ints:
    """The lengths of the parts of one sentence, of whose pieces (n,) that says which continue."""
    begins = ~continues
    begins[0] = True
    words = np.diff(np.flatnonzero(begins), append=len(begins))
    places = np.flatnonzero(begins | np.repeat(words > PART, words)).tolist()
    cuts, number = [0], -(-len(begins) // IDEAL)
    while (rest := len(begins) - cuts[-1]) > PART:
        number = max(number, -(-rest // PART))
        cuts.append(_cut(places, cuts[-1], rest // number))
        number -= 1
    return np.diff(cuts, append=len(begins))


def _cut(places: list[int], start: int, share: int) -> int:
    """Where the part ends that begins at `start`, one of the places where one may begin.

    That is the place nearest to its share, but none further than a part may reach. There always is
    one: a word that is longer than a part may end anywhere.
    """
    i = bisect_right(places, start + share)
    before = places[i - 1]
    if i == len(places) or places[i] > start + PART:
        return before
    is_nearer = places[i] - start - share < start + share - before
    return places[i] if is_nearer or before == start else before
