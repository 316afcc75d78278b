"""The global norm of a gradient, and the scale that clips it."""

from __future__ import annotations

import math
from typing import Any

from minibert.backend import Array
from minibert.errors import InputError
from minibert.optim.blocks import BLOCK, blocks, on_host, spread
from minibert.parallel import Workers

ROW = 1024  # elements of a sum of squares that are added in the array's own dtype


def global_norm(xp: Any, flat: Array, workers: Workers) -> float | Array:
    """√Σ flat², for `flat` (P,).

    Returns a float on the CPU, the same for any number of threads: squares are added up in the
    array's dtype within a row of 1024, in float64 and in order over the rows. On a GPU returns a
    0-d array of the array's dtype, without waiting for it.
    """
    if not on_host(flat):
        return xp.sqrt(xp.dot(flat, flat))

    def squares(part: slice, _worker: int) -> float:
        return float(sum_of_squares(xp, flat[part]))

    return math.sqrt(sum(spread(workers, blocks(0, flat.size, BLOCK), squares)))


def sum_of_squares(xp: Any, block: Array) -> float | Array:
    """Σ block² as a float, whatever BLAS does with a long dot product; a 0-d array on a GPU."""
    if not on_host(block):
        return xp.dot(block, block)
    rows = block[: block.size // ROW * ROW].reshape(-1, ROW)
    rest = block[rows.size :]
    return float(xp.vecdot(rows, rows).sum(dtype="float64")) + float(xp.vecdot(rest, rest))


def clip_scale(norm: float | Array, max_norm: float) -> float | Array:
    """min(1, max_norm / (norm + 1e-6)): the `scale` that clips a gradient of this global norm.

    The formula of torch.nn.utils.clip_grad_norm_. `norm` is a float or a 0-d array on a GPU, and
    so is the result. A NaN stays NaN.
    """
    if not max_norm > 0:
        raise InputError(f"max_norm must be positive, got {max_norm}: without clipping, scale is 1")
    scale = max_norm / (norm + 1e-6)
    return min(scale, 1.0) if isinstance(scale, float) else scale.clip(None, 1.0)
