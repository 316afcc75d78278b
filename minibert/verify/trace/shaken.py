"""Float32 as another program would have it: every argument moved by up to a unit in its last place.

What an implementation loses depends on chance: on the order of its sums, on which products it
fuses, on its exp. One run is one throw of the dice, and may be lucky. Shaken runs are more throws,
and ill-conditioned arithmetic shows in them as what it is.

Source of the method: Vignes, "A stochastic arithmetic for reliable scientific computation",
Mathematics and Computers in Simulation 35 (1993).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from minibert.backend import Array, Backend

FUNCTIONS = ("matmul", "sum", "mean", "exp", "tanh", "erf", "log", "log1p", "sum_rows")
"""What a layer computes with, beside + − × ÷ √, which IEEE 754 fixes."""

UNIT = 2.0**-23
"""The last place of a float32 between 1 and 2."""


def shaken(xp: Backend, seed: int) -> Backend:
    """A plain backend on the host whose functions get float32 arguments that were moved at random.

    The same seed and the same calls give the same bytes.
    """
    noise = np.random.Philox(key=[seed, 0])
    shaking = copy.copy(xp)

    def move(x: Any) -> Any:
        if getattr(x, "dtype", None) != np.float32:
            return x
        bytes_ = noise.random_raw(-(-x.size // 8)).astype("<u8", copy=False).view(np.int8)
        return x + x * (bytes_[: x.size].reshape(x.shape) * np.float32(UNIT / 128))

    def moving(function: Callable[..., Array]) -> Callable[..., Array]:
        return lambda *args, **options: function(*map(move, args), **options)

    vars(shaking).update({name: moving(getattr(xp, name)) for name in FUNCTIONS})
    return shaking
