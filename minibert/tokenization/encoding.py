"""What a text becomes: its pieces, and what is put before a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NONE = -1  # stands in `word_ids` and `sequence_ids` where transformers has None: special tokens


class Encoding(NamedTuple):
    """One text, or one pair of texts, ready for the model."""

    ids: NDArray[np.int32]  # (S,) [CLS] a [SEP], or [CLS] a [SEP] b [SEP]
    type_ids: NDArray[np.int32]  # (S,) 0 up to the first [SEP], 1 after it
    truncated: bool


class Pieces(NamedTuple):
    """One text as n pieces, with no special tokens put around it.

    A text given as a list of words has offsets into each word, and its words' numbers in the list.
    """

    ids: NDArray[np.int32]  # (n,)
    offsets: NDArray[np.int32]  # (n, 2) piece i is text[start:end], in characters of the text
    word_ids: NDArray[np.int32]  # (n,) from 0; a punctuation mark is a word

    def part(self, start: int, stop: int) -> Pieces:
        """Pieces start … stop − 1."""
        return Pieces(*(array[start:stop] for array in self))


class AlignedEncoding(NamedTuple):
    """An Encoding, or one window of it, whose tokens know where in the text they stand."""

    ids: NDArray[np.int32]  # (S,) as in Encoding
    type_ids: NDArray[np.int32]  # (S,)
    truncated: bool  # this is not the whole text
    offsets: NDArray[np.int32]  # (S, 2) as in Pieces; (0, 0) for special tokens
    word_ids: NDArray[np.int32]  # (S,) as in Pieces, in either text from 0; NONE for special tokens
    sequence_ids: NDArray[np.int32]  # (S,) 0 in the text, 1 in its pair; NONE for special tokens
    example: int  # the number of the text


def framed(
    segments: Sequence[Pieces], cls_id: int, sep_id: int, truncated: bool, example: int
) -> AlignedEncoding:
    """[CLS] a [SEP], or [CLS] a [SEP] b [SEP]."""
    size = 1 + sum(len(pieces.ids) + 1 for pieces in segments)
    ids, type_ids = np.full(size, sep_id, np.int32), np.zeros(size, np.int32)
    offsets = np.zeros((size, 2), np.int32)
    word_ids, sequence_ids = np.full((2, size), NONE, np.int32)
    ids[0], start = cls_id, 1
    for number, pieces in enumerate(segments):
        stop = start + len(pieces.ids)
        for whole, part in zip((ids, offsets, word_ids), pieces, strict=True):
            whole[start:stop] = part
        sequence_ids[start:stop] = number
        type_ids[start : stop + 1] = number
        start = stop + 1
    return AlignedEncoding(ids, type_ids, truncated, offsets, word_ids, sequence_ids, example)
