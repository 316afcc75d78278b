"""Mistakes in attention's mask: padding that is attended to, tokens that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minibert.backend import Array, Backend
from minibert.layers.softmax import SoftmaxCache
from minibert.verify.hypotheses.base import (
    PLAIN,
    Guess,
    replaced,
    scores_changed,
    with_padding,
)
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import Tensor

INVERTED = "the attention mask is inverted (1 for padding)"


def added(setup: Setup, _: str) -> Iterator[Guess]:
    """Something else than −∞ (−10000, the least float) that is added to padding's scores alone."""
    if setup.mask.all():
        return
    yield Guess("the attention mask is not applied: padding is attended to", with_padding(setup))
    keep = setup.mask[:, None, None, :]
    shifts = {
        INVERTED: -1e4 * keep,
        "the attention mask is added with the wrong sign": 1e4 * (1 - keep),
        "the attention mask is added as 0 and 1 (or −1 and 0), not as −∞ and 0": 1.0 * keep,
        "1 minus the attention mask is added, neither negative nor large": 1.0 - keep,
        "the attention mask adds −10 for padding, which is not enough": 10.0 * (keep - 1.0),
    }
    for cause, shift in shifts.items():
        yield _masked(setup, cause, partial(np.add, shift))


def of_one_row(setup: Setup, _: str) -> Iterator[Guess]:
    """A row's mask that is broadcast over the batch."""
    masks = setup.mask
    for words, row in {"the last row's": masks[-1], "the first row's": masks[0]}.items():
        alike = words != "the first row's" and (row == masks[0]).all()
        if not alike and not (masks == row).all():
            shift = np.where(row == 1, 0.0, -np.inf)[None, None, None, :]
            cause = f"{words} attention mask is used for all rows"
            yield _masked(setup, cause, partial(np.add, shift))


def inverted(setup: Setup, _: str) -> Iterator[Guess]:
    """The scores of tokens are −∞, so that nothing is left of them."""
    if setup.mask.all():
        return
    keep = setup.mask[:, None, None, :] == 1

    def change(scores: Array) -> Array:
        return np.where(keep, -1e9, scores)

    yield _masked(setup, INVERTED, change)  # added
    yield _masked(setup, INVERTED, change, ~keep)  # filled in, so that nothing flows back


def of_queries(setup: Setup, _: str) -> Iterator[Guess]:
    """(B, 1, S, 1) for (B, 1, 1, S): every key is seen, and a row of padding sees them all alike.

    (Added as −10000 it is a shift that softmax cannot see: the mask is then not applied at all.)
    """
    if setup.mask.all():
        return
    keep = setup.mask[:, None, :, None] == 1

    def change(scores: Array) -> Array:
        return np.where(keep, scores, -1e9)

    cause = "the attention mask is applied to the queries, not to the keys"
    yield _masked(setup, cause, change)  # added, and so large that it swallows the score
    yield _masked(setup, cause, change, keep)  # filled in


def multiplied(setup: Setup, _: str) -> Iterator[Guess]:
    """A mask that is a factor: a score of 0 is not a probability of 0."""
    if not setup.mask.all():
        keep = setup.mask[:, None, None, :].astype(setup.dtype)
        cause = "scores are multiplied by the mask, not set to −∞"
        yield _masked(setup, cause, lambda scores: scores * keep, keep)


class _LateCache(NamedTuple):
    y: Array  # what meets the values, as in any cache of a softmax
    softmax: SoftmaxCache


def late(setup: Setup, _: str) -> Iterator[Guess]:
    """A mask on the probabilities: a row sums to less than 1."""
    if setup.mask.all():
        return
    keep = setup.mask[:, None, None, :].astype(setup.dtype)

    def forward(xp: Backend, x: Array) -> Any:
        y, softmax = PLAIN["softmax_forward"](xp, x)
        kept = (y * keep).astype(y.dtype)
        return kept, _LateCache(kept, softmax)

    def backward(xp: Backend, dy: Array, cache: _LateCache) -> Array:
        dx: Array = PLAIN["softmax_backward"](xp, (dy * keep).astype(dy.dtype), cache.softmax)
        return dx

    guess = replaced(with_padding(setup), softmax_forward=forward, softmax_backward=backward)
    yield Guess("the mask is multiplied onto the probabilities, after the softmax", guess)


def causal(setup: Setup, _: str) -> Iterator[Guess]:
    """A decoder's mask."""

    def change(scores: Array) -> Array:
        return np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf)

    guess = replaced(setup, **scores_changed(change))
    yield Guess("attention is causal: a token attends to itself and those before it alone", guess)


def _masked(setup: Setup, cause: str, change: Callable[[Array], Array], slope: Any = 1.0) -> Guess:
    """A guess whose softmax gets `change(scores)`, of the derivative `slope`.

    Scores may be handed in as they are, or as softmax gets them.
    """

    def backward(xp: Backend, dy: Array, cache: SoftmaxCache) -> Array:
        dx = PLAIN["softmax_backward"](xp, dy, cache)
        return (dx * slope).astype(dx.dtype)

    def forms(tensor: Tensor) -> list[Array]:
        is_score = tensor.name.startswith("activation/") and tensor.name.endswith(".scores")
        return [tensor.value, *([change(tensor.value)] if is_score else [])]

    functions = {**scores_changed(change), "softmax_backward": backward}
    return Guess(cause, replaced(with_padding(setup), **functions), forms)


ALL = (added, of_one_row, inverted, of_queries, multiplied, late, causal)
