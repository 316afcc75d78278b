"""LAMB: Adam whose step in each tensor is as long as the tensor's weights; for large batches.

You et al. 2020, "Large Batch Optimization for Deep Learning", arXiv 1904.00962, algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from minibert.backend import Array
from minibert.optim.blocks import BLOCK, blocks, spread
from minibert.optim.clipping import sum_of_squares
from minibert.optim.rules import Hyper, adam_direction, update_moments
from minibert.parallel import Workers


class Part(NamedTuple):
    """A block of a tensor."""

    place: slice
    tensor: int  # its number
    decays: bool


def parts_of(tensors: Sequence[int], decayed: int, size: int, host: bool) -> list[Part]:
    """The tensors that begin at these places, each in blocks that stay in the cache."""
    bounds = sorted({0, *tensors, decayed, size})
    block = BLOCK if host else max(size, 1)
    return [
        Part(place, tensor, start < decayed)
        for tensor, (start, stop) in enumerate(pairwise(bounds))
        for place in blocks(start, stop, block)
    ]


def lamb_step(
    xp: Any,
    parts: Sequence[Part],
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    h: Hyper,
    scratch: Sequence[Array],
    workers: Workers,
) -> None:
    """One step on whole buffers (P,); scratch (2, widest part) of each worker.

    r = m̂ / (√v̂ + eps) + wd·p
    p ← p - lr · (‖p‖ / ‖r‖) · r   with the norms of each decayed tensor

    As in the authors' code, tensors that do not decay (biases and layer norms, which may be zero)
    have the ratio 1, and so has a tensor in which either norm is 0. r is computed twice: keeping
    it would take another buffer.
    """

    def rows(part: Part, worker: int) -> Array:
        return scratch[worker][:, : part.place.stop - part.place.start]

    def direction(part: Part, worker: int) -> Array:
        at, hyper = part.place, h if part.decays else undecayed
        return adam_direction(xp, p[at], m[at], v[at], hyper, rows(part, worker))

    def measure(part: Part, worker: int) -> tuple[Any, Any]:
        at = part.place
        update_moments(xp, g[at], m[at], v[at], h, h.scale, rows(part, worker)[0])
        if not part.decays:
            return 0.0, 0.0
        return sum_of_squares(xp, p[at]), sum_of_squares(xp, direction(part, worker))

    def descend(part: Part, worker: int) -> None:
        r = direction(part, worker)
        xp.multiply(r, ratios[part.tensor] * h.lr, out=r)
        xp.subtract(p[part.place], r, out=p[part.place])

    undecayed = h._replace(weight_decay=0.0)
    squares: dict[int, tuple[Any, Any]] = {}
    for part, (pp, rr) in zip(parts, spread(workers, parts, measure), strict=True):
        before = squares.get(part.tensor, (0.0, 0.0))
        squares[part.tensor] = before[0] + pp, before[1] + rr
    ratios = {tensor: _ratio(xp, *both) for tensor, both in squares.items()}
    spread(workers, parts, descend)


def _ratio(xp: Any, pp: Any, rr: Any) -> Any:
    """√(pp / rr); 1 where either is 0. Floats, or 0-d arrays on a GPU, which are not read back."""
    if isinstance(pp, float):
        return math.sqrt(pp / rr) if pp > 0 and rr > 0 else 1.0
    both = (pp > 0) & (rr > 0)
    return xp.sqrt(xp.where(both, pp, 1) / xp.where(both, rr, 1))
