"""The rows that go on, where not all do: behind attention, the last layer has no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minibert.backend.base import Backend, Ints


class Chosen(NamedTuple):
    """Both ways between T rows and the R of them that go on.

    A kernel that reads or writes rows anyway takes one of them, and gathers or spreads on the way.
    """

    rows: Ints | None  # (R,) where each stands among all; None: all go on
    slots: Ints | None  # (T,) where each of all stands among them, or -1


EVERY = Chosen(None, None)


def choose(xp: Backend, rows: Sequence[int] | None, count: int) -> Chosen:
    """`rows` (R,), on the host, none twice, of `count`; in one copy to the device."""
    if rows is None:
        return EVERY
    R = len(rows)
    both = np.full(R + count, -1, np.int64)
    both[:R] = rows
    both[R:][both[:R]] = np.arange(R)
    device = xp.to_device(both)
    return Chosen(device[:R], device[R:])
