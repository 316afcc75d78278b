"""Dropout decisions as bits: a 32nd of the activations they stand beside, drawn once."""

from __future__ import annotations

from typing import Any, NamedTuple

from minibert.backend.base import Array, Backend, Ints, dropout_threshold
from minibert.backend.kernels import launch


class Kept(NamedTuple):
    """Which elements of an array stay, as the kernels take it."""

    bits: Array | None  # uint16, 16 decisions each; None: all stay
    first: int  # the bit of element 0
    scale: float  # 1/(1 − p̂)


ALL = Kept(None, 0, 1.0)


def kept_rows(
    xp: Backend, key: Any, p: float, shape: tuple[int, int], sites: int = 1
) -> list[Kept]:
    """The decisions for x of this shape, as layers/dropout.py places them.

    For each of `sites` sites, from the key's on: a layer's are drawn in one launch. Where the key
    has chosen rows, the bits are those of all rows up to the last of them.
    """
    if key is None or p == 0:
        return [ALL] * sites
    rows, width = shape
    if key.rows is not None:
        rows = max(key.rows) + 1
    first = key.first_row * width
    words = -(-(first % 16 + rows * width) // 16)
    drawn = _bits(xp, key, p, None, 0, first, sites, words)
    return [Kept(bits, first % 16, dropout_threshold(p)[1]) for bits in drawn]


def kept_squares(xp: Backend, key: Any, p: float, table: Ints, words: int) -> Kept:
    """The decisions for attention, as layers/attention.py places them.

    table (6, G): kernels/squares.cuh's. A row of at most `words` words for each sequence.
    """
    if key is None or p == 0:
        return ALL
    bits = _bits(xp, key, p, table, key.first_row + 1, 0, table.shape[1], words)
    return Kept(bits, 0, dropout_threshold(p)[1])


def _bits(
    xp: Backend, key: Any, p: float, table: Ints | None, stream: int, first: int, rows: int,
    words: int,
) -> Array:  # fmt: skip
    starts, counts = (None, None) if table is None else (table[0], table[2])
    bits = xp.empty((rows, words), dtype="uint16")
    launch(
        xp.module, "keep_decisions", "keep_bits", rows * words, bits, starts, counts,
        key.seed, key.site, key.step, stream, first, dropout_threshold(p)[0], rows, words,
    )  # fmt: skip
    return bits
