"""How large an error is allowed: measured in float32, not guessed.

The budget of a tensor is the most that several honest float32 computations of it lose against
float64 (`verify/float32.py`), times a factor.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.parameters import Layout

FACTOR = 16.0
"""Budget ÷ the largest error seen. PyTorch's was at most 4.4 times that, of 56,000 tensors."""

TRAINED = 4.0
"""More for training: Adam divides a gradient by its own size, also one that is mostly rounding."""

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Half a unit in the last place of 1: budgets scale with it."""


def error_of(mine: NDArray[Any], golden: NDArray[Any], scale: float = 0.0) -> float:
    """‖mine − golden‖/‖golden‖; of integers and masks the share that differs.

    `scale` takes the place of ‖golden‖ where that is smaller: of a tensor that is zero in exact
    arithmetic only rounding is left, and it is measured against what was summed.
    """
    if golden.dtype.kind in "biu":
        return float(np.mean(mine != golden)) if golden.size else 0.0
    golden = golden.astype(np.float64, copy=False)
    difference = _distance(mine.reshape(-1), golden.reshape(-1))
    size = max(float(np.linalg.norm(golden.reshape(-1))), scale)
    return difference / size if size else (math.inf if difference else 0.0)


BLOCK = 1 << 20  # elements: a temporary array of these, not one of a whole vocabulary's table


def _distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """‖a − b‖ of vectors."""
    norms = [
        float(np.linalg.norm(a[at : at + BLOCK] - b[at : at + BLOCK]))
        for at in range(0, len(b), BLOCK)
    ]
    return norms[0] if len(norms) == 1 else math.hypot(*norms)


Places = Mapping[str, tuple[int, tuple[int, ...]]]
"""Where the parameters lie in a flat buffer: name → start, shape."""


def trained_places(layout: Layout, blind: Collection[str]) -> Places:
    """The parameters whose training can be compared: without those that have no gradient.

    Softmax sees no shift, so a bias that shifts all it is given, as a key's does, has none; what
    Adam makes of that is rounding, divided by itself. `blind` has their names.
    """
    return {
        name: (start, layout.shapes[name])
        for name, start in layout.starts.items()
        if name not in blind
    }


def parts_of(flat: Any, places: Places) -> dict[str, Any]:
    """A flat buffer as named parts."""
    return {
        name: flat[start : start + math.prod(shape)].reshape(shape)
        for name, (start, shape) in places.items()
    }


def thinned_places(places: Places, stride: int) -> Places:
    """Where the parameters lie in a flat buffer of which each `stride`-th element is kept."""
    starts = {name: (start, start + math.prod(shape)) for name, (start, shape) in places.items()}
    return {
        name: (-(-start // stride), (-(-stop // stride) - -(-start // stride),))
        for name, (start, stop) in starts.items()
    }


def thinned_part(value: NDArray[Any], start: int, stride: int) -> NDArray[Any]:
    """Of a parameter that begins at `start` of a flat buffer what thinning the buffer keeps."""
    return value if stride == 1 else value.reshape(-1)[-start % stride :: stride]


def worst_part(mine: Mapping[str, Any], golden: NDArray[Any], places: Places) -> tuple[float, str]:
    """The largest error of the parts that `mine` has, and its name.

    Each is measured against its own norm or, where that is smaller, its share of the whole's.
    """
    share = float(np.linalg.norm(golden)) / max(golden.size, 1) ** 0.5
    errors = (
        (error_of(mine[name], part, share * part.size**0.5), name)
        for name, part in parts_of(golden, places).items()
        if name in mine
    )
    return max(errors, default=(0.0, ""))


def section_of(name: str) -> str:
    """The pass that a tensor belongs to: "activation", "dropout/gradient", "training/adam"."""
    return name.rsplit("/", 2 if name.startswith("training/") else 1)[0]


def budget_of(name: str, error: float) -> float:
    """The float32 budget of a tensor of which float32 runs lose `error`: two digits, rounded up."""
    factor = FACTOR * (TRAINED if name.startswith("training/") else 1.0)
    return round_up(factor * max(UNIT["float32"], error))


def round_up(value: float) -> float:
    """The next number of two significant digits."""
    digits = 1 - math.floor(math.log10(value))
    return float(f"{math.ceil(value * 10**digits)}e{-digits}")
