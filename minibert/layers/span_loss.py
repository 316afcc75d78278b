"""Span loss: where in its sequence an answer starts, and where it ends."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, Ints, twinned
from minibert.layers.losses import CrossEntropyCache, cross_entropy_backward, cross_entropy_forward

NEVER = -1e30  # the logit of a column after a sequence's end: its exp is 0


class SpanLossCache(NamedTuple):
    sequence: Ints  # (T,)
    position: Ints  # (T,)
    parts: tuple[CrossEntropyCache, CrossEntropyCache]  # of start and end


@twinned
def span_loss_forward(
    xp: Backend,
    logits: Array,
    sequence: Ints,
    position: Ints,
    length: int,
    labels: Ints,
    counts: tuple[int, int],
) -> tuple[Array, SpanLossCache]:
    """loss = (CE(start) + CE(end))/2: each a softmax over the tokens of one sequence.

    logits (T, 2): every token's score as start and as end; token t stands at position[t] < `length`
    of sequence[t]. labels (B, 2): the positions of start and end, −100 for none. `counts`: how many
    labels of either kind the whole batch has.
    Source: Devlin et al., arXiv 1810.04805, section 4.2; the mean of the two as in google-research/
    bert run_squad.py. There is no padding here: transformers' model lets padding columns take part
    in the softmax (its issue 25752).
    """
    losses, caches = [], []
    for side in (0, 1):
        padded = xp.full((len(labels), length), NEVER, dtype=logits.dtype)
        padded[sequence, position] = logits[:, side]
        loss, cache = cross_entropy_forward(xp, padded, labels[:, side], counts[side])
        losses.append(loss)
        caches.append(cache)
    return 0.5 * (losses[0] + losses[1]), SpanLossCache(sequence, position, (caches[0], caches[1]))


@twinned
def span_loss_backward(xp: Backend, dy: Array, cache: SpanLossCache) -> Array:
    """dy () → dlogits (T, 2): each side's cross-entropy gradient, taken back from its columns."""
    sides = [cross_entropy_backward(xp, 0.5 * dy, part) for part in cache.parts]  # (B, length)
    return xp.stack([side[cache.sequence, cache.position] for side in sides], axis=1)
