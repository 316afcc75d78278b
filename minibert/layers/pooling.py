"""Pooling: one vector for each sequence, the mean or the maximum over its tokens.

(Taking the first token, [CLS], is `layers/select.py`; the pooler, a layer with weights of its own,
is `layers/pooler.py`.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from minibert.backend import Array, Backend, Ints, twinned
from minibert.layers.select import select_backward, select_forward


class MeanPoolingCache(NamedTuple):
    sequence: Ints  # (T,) the number of each token's sequence
    weight: Array  # (B, 1): 1/n


@twinned
def mean_pooling_forward(
    xp: Backend, x: Array, offsets: Sequence[int]
) -> tuple[Array, MeanPoolingCache]:
    """y_b = Σₜ x_t/n over the n tokens of sequence b.

    x (T, H), sequence b is the rows offsets[b] : offsets[b + 1] → y (B, H). [CLS] and [SEP] count.
    Source: Reimers & Gurevych, Sentence-BERT, arXiv 1908.10084.
    """
    lengths = [stop - start for start, stop in pairwise(offsets)]
    sequence = xp.asarray([b for b, n in enumerate(lengths) for _ in range(n)])
    weight = xp.asarray([[1.0 / n] for n in lengths], dtype=x.real.dtype)
    y = xp.zeros((len(lengths), x.shape[1]), dtype=x.dtype)
    rows, sums = xp.sum_rows(sequence, x)
    y[rows] = sums
    return y * weight, MeanPoolingCache(sequence, weight)


@twinned
def mean_pooling_backward(xp: Backend, dy: Array, cache: MeanPoolingCache) -> Array:
    """∂y_b/∂x_t = 1/n for a token of sequence b. dy (B, H) → dx (T, H)."""
    return xp.take(dy * cache.weight, cache.sequence, axis=0)


class MaxPoolingCache(NamedTuple):
    winners: Ints  # (B, H): the row that has the maximum
    shape: tuple[int, ...]  # of x


@twinned
def max_pooling_forward(
    xp: Backend, x: Array, offsets: Sequence[int]
) -> tuple[Array, MaxPoolingCache]:
    """y_bh = max of x_th over the tokens of sequence b, for each feature by itself.

    x (T, H), offsets as in mean pooling → y (B, H). (The real parts are compared, so that the
    complex step passes through.)
    """
    winners = xp.stack(
        [start + xp.argmax(x[start:stop].real, axis=0) for start, stop in pairwise(offsets)]
    )
    return xp.take_along_axis(x, winners, axis=0), MaxPoolingCache(winners, x.shape)


@twinned
def max_pooling_backward(xp: Backend, dy: Array, cache: MaxPoolingCache) -> Array:
    """The maximum moves as its winner does, the first of several: dx is dy there, else 0."""
    dx = xp.zeros(cache.shape, dtype=dy.dtype)
    dx[cache.winners, xp.arange(dx.shape[1])] = dy  # each (winner, feature) stands there once
    return dx


class Pooling(NamedTuple):
    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., Array]


POOLINGS = {
    "cls": Pooling(
        lambda xp, x, offsets: select_forward(xp, x, xp.asarray(offsets[:-1])), select_backward
    ),
    "mean": Pooling(mean_pooling_forward, mean_pooling_backward),
    "max": Pooling(max_pooling_forward, max_pooling_backward),
}
