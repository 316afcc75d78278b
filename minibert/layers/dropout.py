"""Dropout with masks that are never stored: a mask is a function of where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minibert.backend import Array, Backend, twinned
from minibert.backend.base import dropout_threshold


class DropoutKey(NamedTuple):
    """Names one mask. The bits follow from it by `Backend.keep_decisions`, on every device."""

    seed: int  # of the run
    step: int  # of training
    site: int  # which dropout in the network: 0 the embeddings, then three a layer, then the head
    first_row: int  # the place of this shard's first row in the whole batch
    rows: Sequence[int] | None = None  # where x is some rows of the shard: which, in x's order

    def at(self, site: int) -> DropoutKey:
        """The same run, step and rows at another site."""
        return self._replace(site=site)

    def of(self, rows: Sequence[int]) -> DropoutKey:
        """The same mask, of these rows of the shard alone; a list on the host."""
        return self._replace(rows=rows)

    def runs(self, rows: range) -> list[tuple[int, int]]:
        """Where these rows of x stand in the whole batch: (first place, count) of neighbours."""
        if self.rows is None:
            return [(self.first_row + rows.start, len(rows))]
        return [(self.first_row + self.rows[row], 1) for row in rows]


class DropoutCache(NamedTuple):
    p: float
    key: DropoutKey | None  # 4 integers instead of a mask: the backward computes it again


@twinned
def dropout_forward(
    xp: Backend, x: Array, p: float, key: DropoutKey | None
) -> tuple[Array, DropoutCache]:
    """y = x·m/(1 − p̂): each element is dropped with probability p, and E[y] = x.

    x (R, F). The mask m ∈ {0, 1} of row r, feature f is decision (first_row + r)·F + f of stream 0
    at this key, the same however the batch is cut into shards. p̂ is p rounded to 1/65536. Where x
    is some rows of a shard, row r is the one that `key.rows[r]` names there: it draws what it would
    among the others. `key=None` (evaluation) or p = 0: y is x.

    Source: Srivastava et al., JMLR 15 (2014), scaled in training ("inverted").
    """
    if key is None or p == 0:
        return x, DropoutCache(p, None)
    return _masked(xp, x, p, key), DropoutCache(p, key)


@twinned
def dropout_backward(xp: Backend, dy: Array, cache: DropoutCache) -> Array:
    """dx = dy·m/(1 − p̂): the forward is linear in x, with the same diagonal both ways."""
    if cache.key is None:
        return dy
    return _masked(xp, dy, cache.p, cache.key)


def _masked(xp: Backend, x: Array, p: float, key: DropoutKey) -> Array:
    rows, width = x.shape
    threshold, scale = dropout_threshold(p)
    decisions = [
        xp.keep_decisions(key.seed, key.site, key.step, 0, first * width, count * width, threshold)
        for first, count in key.runs(range(rows))
    ]
    keep = xp.concatenate(decisions)
    return x * keep.reshape(rows, width) * scale
