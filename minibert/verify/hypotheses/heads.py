"""Mistakes behind the encoder: pooler and loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from minibert.backend import Array, Backend
from minibert.models import BertForQuestionAnswering
from minibert.verify.hypotheses.base import (
    PLAIN,
    Guess,
    Layer,
    changed_arguments,
    padding_masked,
    replaced,
)
from minibert.verify.trace.setup import Setup


def pooler(setup: Setup, _: str) -> Iterator[Guess]:
    """Another token, or no tanh."""
    if "bert.pooler.dense.weight" not in setup.weights:
        return

    def last(xp: Backend, x: Any, W: Any, b: Any, first: Any) -> tuple[Any, ...]:
        return x, W, b, xp.concatenate([first[1:], xp.asarray([len(x)])]) - 1

    moved = changed_arguments("pooler", last)
    yield Guess("the pooler takes the last token, not the first", replaced(setup, **moved))
    mean: dict[str, Layer] = {"pooler_forward": _mean_forward, "pooler_backward": _mean_backward}
    yield Guess("the pooler takes the mean of the tokens, not the first", replaced(setup, **mean))
    if not setup.mask.all():
        padded = padding_masked(setup)
        yield Guess("the pooler takes the last column, which may be padding, not the first token",
                    replaced(padded, **moved))  # fmt: skip
        yield Guess("the pooler takes the mean of a whole row, padding too, not the first token",
                    replaced(padded, **mean))  # fmt: skip

    def no_tanh(xp: Backend, *args: Any) -> Any:
        y, cache = PLAIN["pooler_forward"](xp, *args)
        return xp.arctanh(y), cache

    def no_tanh_backward(xp: Backend, dy: Any, cache: Any) -> Any:
        return PLAIN["pooler_backward"](xp, dy / (1.0 - cache.y * cache.y), cache)

    linear = replaced(setup, pooler_forward=no_tanh, pooler_backward=no_tanh_backward)
    yield Guess("the pooler lacks its tanh", linear)


class _MeanCache(NamedTuple):
    pooler: Any
    rows: Array  # (T,) the sequence of each token
    lengths: Array  # (B, 1)


def _mean_forward(xp: Backend, x: Array, W: Array, b: Array, first: Any) -> Any:
    ends = [*first[1:].tolist(), len(x)]
    lengths = xp.asarray(ends) - first
    means = [xp.mean(x[a:z], axis=0) for a, z in zip(first.tolist(), ends, strict=True)]
    y, cache = PLAIN["pooler_forward"](xp, xp.stack(means), W, b, xp.arange(len(means)))
    rows = xp.repeat(xp.arange(len(means)), lengths)
    return y, _MeanCache(cache, rows, lengths[:, None])


def _mean_backward(xp: Backend, dy: Array, cache: _MeanCache) -> Any:
    dmeans, dW, db = PLAIN["pooler_backward"](xp, dy, cache.pooler)
    return (dmeans / cache.lengths.astype(dmeans.dtype))[cache.rows], dW, db


def loss(setup: Setup, _: str) -> Iterator[Guess]:
    """Another divisor of the loss, and labels that should be ignored."""
    losses = ("cross_entropy", "mean_squared_error", "binary_cross_entropy")

    def everywhere(divisor: Any) -> Setup:
        functions: dict[str, Any] = {}
        for name in losses:
            functions |= changed_arguments(
                name, lambda xp, z, t, count: (z, t, divisor(z, t, count))
            )
        return replaced(setup, **functions)

    yield Guess("the loss is a sum, not a mean", everywhere(lambda z, t, count: 1))
    yield Guess(
        "the loss is divided by all rows, those labelled -100 too",
        everywhere(lambda z, t, count: z.shape[0]),
    )
    yield Guess(
        "the loss is divided by the number of logits",
        everywhere(lambda z, t, count: z.shape[0] * z.shape[-1]),
    )
    yield Guess("the loss is halved (½·mean)", everywhere(lambda z, t, count: 2 * count))
    counted = changed_arguments(
        "cross_entropy", lambda xp, z, t, count: (z, t.clip(0, None), z.shape[0])
    )
    yield Guess("a label of -100 is taken for class 0", replaced(setup, **counted))
    shifted = changed_arguments(
        "cross_entropy",
        lambda xp, z, t, count: (z, xp.where(t < 0, t, (t + 1) % z.shape[-1]), count),
    )
    yield Guess("labels are off by one", replaced(setup, **shifted))
    twice = "the cross-entropy is given probabilities, not logits"
    yield Guess(twice, replaced(setup, cross_entropy_forward=_of_probs,
                                cross_entropy_backward=_of_probs_backward))  # fmt: skip
    simply = changed_arguments(
        "cross_entropy", lambda xp, z, t, count: (PLAIN["softmax_forward"](xp, z)[0], t, count)
    )
    yield Guess(twice, replaced(setup, **simply))  # whose backward forgets that softmax


def _of_probs(xp: Backend, logits: Array, labels: Any, count: int) -> Any:
    probs, softmax = PLAIN["softmax_forward"](xp, logits)
    loss, cache = PLAIN["cross_entropy_forward"](xp, probs, labels, count)
    return loss, (softmax, cache)


def _of_probs_backward(xp: Backend, dy: Array, cache: Any) -> Array:
    softmax, inner = cache
    dprobs = PLAIN["cross_entropy_backward"](xp, dy, inner)
    dlogits: Array = PLAIN["softmax_backward"](xp, dprobs, softmax)
    return dlogits


def span(setup: Setup, _: str) -> Iterator[Guess]:
    """Columns of padding among the places where an answer may start and end."""
    if setup.kind is BertForQuestionAnswering and not setup.mask.all():
        cause = "padding takes part in the softmax of start and end (as in transformers)"
        yield Guess(cause, padding_masked(setup))


def smoothed(setup: Setup, _: str) -> Iterator[Guess]:
    """Label smoothing: (1 − ε)·one-hot + ε/K, or ε/(K − 1) for the other classes."""
    K = setup.config.num_labels
    for share in (0.1, 0.2, 0.05):
        for words, of_all in {
            "": share,
            ", shared by the other classes alone": share * K / max(K - 1, 1),
        }.items():
            guess = replaced(setup, **_smoothed(of_all))
            yield Guess(f"labels are smoothed by {share:g}{words}", guess)


def _smoothed(share: float) -> dict[str, Layer]:
    """Cross-entropy with (1 − share)·one-hot + share/K in place of the labels."""

    def forward(xp: Backend, logits: Array, labels: Any, count: int) -> Any:
        loss, cache = PLAIN["cross_entropy_forward"](xp, logits, labels, count)
        even = -xp.sum(xp.mean(xp.log(cache.probs), axis=-1) * cache.weight[:, 0])
        return (1 - share) * loss + share * even, cache

    def backward(xp: Backend, dy: Array, cache: Any) -> Array:
        hard: Array = PLAIN["cross_entropy_backward"](xp, dy, cache)
        even = (cache.probs - 1.0 / cache.probs.shape[1]) * (cache.weight * dy)
        return (1 - share) * hard + share * even

    return {"cross_entropy_forward": forward, "cross_entropy_backward": backward}


ALL = (pooler, loss, span, smoothed)
