"""How two segments are cut to a maximal length, by the conventions of `tokenizers`."""

from __future__ import annotations

from typing import Literal

from minibert.errors import InputError

Truncation = bool | Literal["longest_first", "only_first", "only_second"]
STRATEGIES = ("longest_first", "only_first", "only_second")
_NO_LIMIT = 10**9  # transformers writes 10**30 for "no limit"


def cut(n1: int, n2: int, room: int, strategy: str) -> tuple[int, int]:
    """How much of two segments of n1 and n2 pieces to keep when only `room` pieces fit.

    longest_first takes a piece from the longer one until they fit (the second, if they are equal,
    keeps the odd piece), as `tokenizers` does in utils/truncation.rs. The other strategies take
    from one segment only, and not all of it.
    """
    if room < 0:
        raise InputError(
            "max_length: the special tokens alone need 2, and 3 around a pair of texts"
        )
    if strategy == "longest_first" or room == 0:
        shorter = min(n1, n2, room // 2)
        return (room - shorter, shorter) if n1 > n2 else (shorter, room - shorter)
    kept = room - n2 if strategy == "only_first" else room - n1
    if kept < 1:
        raise InputError(
            f"truncation: {strategy} cannot make {n1} and {n2} pieces fit into {room} and leave "
            'some of both; use truncation="longest_first" or a larger max_length'
        )
    return (kept, n2) if strategy == "only_first" else (n1, kept)


def windows(n: int, size: int, stride: int) -> list[tuple[int, int]]:
    """n pieces as windows (start, stop) of at most `size`, neighbours sharing `stride` pieces."""
    if n <= size:
        return [(0, n)]
    if not 0 <= stride < size:
        raise InputError(
            f"stride: got {stride}, wanted 0 to {size - 1}: a window has room for {size} pieces of "
            "the text; lower it, or raise max_length"
        )
    starts = range(0, n - stride, size - stride)
    return [(start, min(start + size, n)) for start in starts]


def strategy_of(truncation: object) -> str:
    """The name of a truncation strategy, "" for none."""
    if isinstance(truncation, bool):
        return "longest_first" if truncation else ""
    if truncation not in STRATEGIES:
        raise InputError(
            f"truncation: got {truncation!r}, wanted True, False or one of {', '.join(STRATEGIES)}"
        )
    return str(truncation)


def checked_length(value: object) -> int | None:
    """`value` as a max_length; None for "no limit"."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        raise InputError(f"max_length: got {value!r}, wanted a whole number of at least 1")
    return int(value) if value < _NO_LIMIT else None
