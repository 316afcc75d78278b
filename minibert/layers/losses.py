"""Losses: cross-entropy, mean squared error, binary cross-entropy with logits.

Each is a sum over rows divided by `count`, the number of terms in the *whole* batch, so that the
losses (and gradients) of its shards add up to those of the batch, however it was cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from minibert.backend import Array, Backend, Ints, Targets, twinned

IGNORE_INDEX = -100  # a label that takes no part, as in PyTorch


class CrossEntropyCache(NamedTuple):
    probs: Array  # (R, K)
    labels: Ints  # (R,)
    weight: Array  # (R, 1): 1/count, or 0 for an ignored row


@twinned
def cross_entropy_forward(
    xp: Backend, logits: Array, labels: Ints, count: int
) -> tuple[Array, CrossEntropyCache]:
    """loss = −Σᵣ log softmax(logitsᵣ)[labelᵣ]/count, rows labelled −100 left out.

    logits (R, K), labels (R,) → loss (). `count` is the number of labels ≠ −100.
    """
    valid = labels != IGNORE_INDEX
    rows, chosen = xp.arange(len(labels)), xp.where(valid, labels, 0)
    shifted = logits - xp.max(logits.real, axis=-1, keepdims=True)
    e = xp.exp(shifted)
    total = xp.sum(e, axis=-1, keepdims=True)
    weight = valid / xp.asarray(count, dtype=logits.real.dtype)
    log_probs = shifted[rows, chosen] - xp.log(total[:, 0])
    loss = -xp.sum(log_probs * weight)
    return loss, CrossEntropyCache(e / total, chosen, weight[:, None])


@twinned
def cross_entropy_backward(xp: Backend, dy: Array, cache: CrossEntropyCache) -> Array:
    """ℓ = log Σⱼ exp(zⱼ) − z_label, so ∂ℓ/∂zⱼ = softmax(z)ⱼ − [j = label].

    dy () → dlogits (R, K) = (softmax − one-hot)·dy/count.
    """
    dlogits = cache.probs.copy()
    dlogits[xp.arange(len(cache.labels)), cache.labels] -= 1.0
    return dlogits * (cache.weight * dy)


class MeanSquaredErrorCache(NamedTuple):
    difference: Array  # (R, K)
    terms: int


@twinned
def mean_squared_error_forward(
    xp: Backend, logits: Array, labels: Targets, count: int
) -> tuple[Array, MeanSquaredErrorCache]:
    """loss = Σ (logits − labels)²/count; both (R, K), `count` = R·K of the whole batch."""
    difference = logits - labels
    return xp.sum(difference * difference) / count, MeanSquaredErrorCache(difference, count)


@twinned
def mean_squared_error_backward(xp: Backend, dy: Array, cache: MeanSquaredErrorCache) -> Array:
    """dlogits = 2·(logits − labels)·dy/count."""
    return cache.difference * (2.0 / cache.terms * dy)


class BinaryCrossEntropyCache(NamedTuple):
    logits: Array  # (R, K)
    labels: Array  # (R, K)
    terms: int


@twinned
def binary_cross_entropy_forward(
    xp: Backend, logits: Array, labels: Targets, count: int
) -> tuple[Array, BinaryCrossEntropyCache]:
    """loss = Σ −(t·log σ(z) + (1 − t)·log(1 − σ(z)))/count, for independent yes/no labels.

    logits z, labels t ∈ [0, 1], both (R, K), `count` = R·K. One term is z − z·t + log(1 + e^−z);
    with the sign of z taken out of the exponential, which then cannot overflow:

        max(z, 0) − z·t + log(1 + e^−|z|)
    """
    z, t = logits, labels
    positive = z.real > 0
    magnitude = xp.where(positive, z, -z)  # |z|, analytic on either side of 0
    terms = z * positive - z * t + xp.log1p(xp.exp(-magnitude))
    return xp.sum(terms) / count, BinaryCrossEntropyCache(z, t, count)


@twinned
def binary_cross_entropy_backward(xp: Backend, dy: Array, cache: BinaryCrossEntropyCache) -> Array:
    """d/dz (z − z·t + log(1 + e^−z)) = 1 − t − e^−z/(1 + e^−z) = σ(z) − t."""
    z = cache.logits
    sigmoid = 0.5 * (1.0 + xp.tanh(0.5 * z))  # cannot overflow, for either sign
    return (sigmoid - cache.labels) * (dy / cache.terms)


class Loss(NamedTuple):
    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., Array]


LOSSES = {
    "single_label_classification": Loss(cross_entropy_forward, cross_entropy_backward),
    "regression": Loss(mean_squared_error_forward, mean_squared_error_backward),
    "multi_label_classification": Loss(binary_cross_entropy_forward, binary_cross_entropy_backward),
}
"""By Hugging Face's `problem_type`."""
