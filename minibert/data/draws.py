"""Random numbers with an address: the same for one address, whatever was drawn before."""

from __future__ import annotations

import threading
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_generators = threading.local()


class Purpose(IntEnum):
    """What numbers are drawn for; two purposes never share one."""

    LENGTH = 1  # how long the examples of a document may be
    PAIR = 2  # the segments of an example
    CUT = 3  # from which end what is too long is cut
    MASK = 4  # which tokens are masked, and by what
    HOLD_OUT = 5  # which documents are kept for validation


def draws(
    seed: int, epoch: int, purpose: Purpose, place: int, count: int, first: int = 0
) -> NDArray[np.float64]:
    """`count` numbers, uniform in [0, 1), from number 4·`first` of this address on.

    Philox4x64-10 with the key (seed, epoch) and the counter (first, place, 0, purpose): 4 numbers a
    counter, 53 bits each.
    """
    generator = getattr(_generators, "philox", None)
    if generator is None:
        generator = _generators.philox = np.random.Philox(key=0)
    generator.state = {  # a new generator would cost some hundred microseconds
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([first, place, 0, purpose], np.uint64),
            "key": np.array([seed, epoch], np.uint64),
        },
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    bits = generator.random_raw(count) >> np.uint64(11)
    return np.asarray(bits * 2.0**-53, np.float64)
