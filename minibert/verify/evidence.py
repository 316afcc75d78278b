"""How much do the tensors tell? A cause is named only where chance does not explain that it fits.

Some 200 mistakes are tried, and rounding leaves each tensor some room: of one number of float32
there is nearly always a mistake that nobody made within reach.
"""

from __future__ import annotations

import math
from typing import Any

from minibert.verify.budget import UNIT
from minibert.verify.compare import Row, arrays_of

SURE = 10.0
"""Bits: the chance that any guess fits by accident is to stay below 1 in 2¹⁰."""


def bits(row: Row, mine: Any, error: float, dtype: str) -> float:
    """What it tells that a guess comes as near as `error` to a tensor that is out by `row.error`.

    Wrong guesses lie as far around as what was given is out. One is that near by chance with a
    probability of (error/row.error)ⁿ, if n numbers move on their own. Those of one tensor move
    together (rows of a batch, logits of one pooler): of N numbers about √N.
    """
    if row.passed:
        return 0.0
    seen, near = min(row.error, 1.0), max(error, UNIT[dtype])
    return told(mine, max(1.0, seen / near))


def told(mine: Any, ratio: float) -> float:
    """The bits of a tensor whose error is that many times what chance would make it."""
    return math.sqrt(sum(array.size for array in arrays_of(mine))) * math.log2(ratio)


def needed(rivals: int) -> float:
    """The bits that one of so many guesses must have to be believed."""
    return SURE + math.log2(max(rivals, 1))
