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


def kept_rows(xp: Backend, key: Any, p: float, shape: tuple[int, int]) -> Kept:
    """The decisions for x of this shape, as layers/dropout.py places them.

    Where the key has chosen rows, the bits are those of all rows up to the last of them.
    """
    return kept_in_layer(xp, key, p, shape, 1, None, 0.0)[0][0]


def kept_squares(xp: Backend, key: Any, p: float, squares: tuple[Ints, int]) -> Kept:
    """The decisions for attention, as layers/attention.py places them.

    squares: kernels/squares.cuh's table (6, G), and how many decisions the largest sequence has.
    """
    return kept_in_layer(xp, None, 0.0, (0, 0), 1, key, p, squares)[1]


def kept_in_layer(
    xp: Backend, key: Any, p: float, shape: tuple[int, int], sites: int, square_key: Any,
    square_p: float, squares: tuple[Ints, int] | None = None,
) -> tuple[list[Kept], Kept]:  # fmt: skip
    """Those of rows, for each of `sites` sites from the key's on, and of squares; in one launch."""
    rows, of_rows = _rows(xp, key, p, shape, sites)
    in_squares, of_squares = _squares(xp, square_key, square_p, squares)
    drawn = key if rows.bits is not None else square_key
    if of_rows.threads or of_squares.threads:
        launch(
            xp.module, "keep_decisions", "keep_bits", of_rows.threads + of_squares.threads,
            *of_rows.arguments, *of_squares.arguments, drawn.seed, drawn.step,
        )  # fmt: skip
    if rows.bits is None:
        return [ALL] * sites, in_squares
    return [rows._replace(bits=bits) for bits in rows.bits], in_squares


class _Drawn(NamedTuple):
    threads: int
    arguments: tuple[Any, ...]  # of kernels/keep_decisions.cu, keep_bits


def _rows(
    xp: Backend, key: Any, p: float, shape: tuple[int, int], sites: int
) -> tuple[Kept, _Drawn]:
    if key is None or p == 0:
        return ALL, _Drawn(0, (None, 0, 0, 0, 0, 0))
    rows, width = shape
    if key.rows is not None:
        rows = max(key.rows) + 1
    first, (threshold, scale) = key.first_row * width, dropout_threshold(p)
    words = -(-(first % 16 + rows * width) // 16)
    bits = xp.empty((sites, words), dtype="uint16")
    arguments = bits, key.site, first, threshold, sites, words
    return Kept(bits, first % 16, scale), _Drawn(bits.size, arguments)


def _squares(
    xp: Backend, key: Any, p: float, squares: tuple[Ints, int] | None
) -> tuple[Kept, _Drawn]:
    if key is None or p == 0 or squares is None:
        return ALL, _Drawn(0, (None, None, None, 0, 0, 0, 0, 0))
    table, most = squares
    threshold, scale = dropout_threshold(p)
    bits = xp.empty((table.shape[1], -(-most // 16)), dtype="uint16")
    stream = key.first_row + 1
    arguments = bits, table[0], table[2], key.site, stream, threshold, *bits.shape
    return Kept(bits, 0, scale), _Drawn(bits.size, arguments)
