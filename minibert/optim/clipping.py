"""Gradients added up, their global norm, and the scale that clips it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minibert.backend import Array
from minibert.errors import InputError
from minibert.optim.blocks import BLOCK, blocks, on_host, spread
from minibert.parallel import Workers

ROW = 1024  # elements of a sum of squares that are added in the array's own dtype


def sum_into(xp: Any, target: Array, others: Sequence[Array], workers: Workers) -> float | Array:
    """Add each of `others` to `target`, in their order; return the global norm of the sum.

    All arrays are (P,) of one dtype. Each block is summed and measured while it is in the cache.
    Returns a float on the CPU, the same for any number of threads: squares are added up in the
    arrays' dtype within a row of 1024, in float64 and in order over the rows. On a GPU returns a
    0-d array of the arrays' dtype, without waiting for it.
    """
    for other in others:
        if other.shape != target.shape or other.dtype != target.dtype:
            raise InputError(
                f"cannot add {other.dtype} {other.shape} to {target.dtype} {target.shape}"
            )

    def add(part: slice) -> Array:
        block = target[part]
        for other in others:
            xp.add(block, other[part], out=block)
        return block

    def add_and_square(part: slice, _worker: int) -> float:
        return _sum_of_squares(xp, add(part))

    if not on_host(target):
        whole = add(slice(None))
        return xp.sqrt(xp.dot(whole, whole))
    return math.sqrt(sum(spread(workers, blocks(0, target.size, BLOCK), add_and_square)))


def _sum_of_squares(xp: Any, block: Array) -> float:
    """Σ block² in rows: BLAS splits a long dot product over its threads, and the split shows."""
    rows = block[: block.size // ROW * ROW].reshape(-1, ROW)
    rest = block[rows.size :]
    return float(xp.vecdot(rows, rows).sum(dtype="float64")) + float(xp.vecdot(rest, rest))


def global_norm(xp: Any, flat: Array, workers: Workers) -> float | Array:
    """√Σ flat², for `flat` (P,); what it returns, and how exactly, stands at `sum_into`."""
    return sum_into(xp, flat, (), workers)


def clip_scale(norm: float | Array, max_norm: float) -> float | Array:
    """min(1, max_norm / (norm + 1e-6)): the `scale` that clips a gradient of this global norm.

    The formula of torch.nn.utils.clip_grad_norm_. `norm` is a float or a 0-d array on a GPU, and
    so is the result. A NaN stays NaN.
    """
    if not max_norm > 0:
        raise InputError(f"max_norm must be positive, got {max_norm}: without clipping, scale is 1")
    scale = max_norm / (norm + 1e-6)
    return min(scale, 1.0) if isinstance(scale, float) else scale.clip(None, 1.0)
