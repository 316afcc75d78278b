"""Cross-entropy in blocks of rows: twin of `layers/losses.py` (cross_entropy).

Over a vocabulary of 30,000 a row is 120 kB, and all rows are far from any cache: the probabilities
are made in one visit, and the gradient in another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minibert.backend.base import Array, Backend, Ints
from minibert.backend.buffers import empty_like
from minibert.backend.numpy_twins.blocks import row_blocks

IGNORE_INDEX = -100  # that of layers/losses.py: layers import the backend, never it them


class CrossEntropyCache(NamedTuple):
    probs: Array  # (R, K)
    labels: Ints  # (R,)
    weight: Array  # (R, 1)


def cross_entropy_forward(
    xp: Backend, logits: Array, labels: Ints, count: int
) -> tuple[Array, CrossEntropyCache]:
    valid = labels != IGNORE_INDEX
    chosen = np.where(valid, labels, 0)
    weight = valid / np.asarray(count, logits.dtype)
    probs, log_probs = empty_like(logits), np.empty(len(labels), logits.dtype)
    for rows in row_blocks(*logits.shape):
        e, label = probs[rows], chosen[rows]
        np.subtract(logits[rows], logits[rows].max(axis=-1, keepdims=True), out=e)
        log_probs[rows] = e[np.arange(len(e)), label]
        np.exp(e, out=e)
        total = e.sum(axis=-1, keepdims=True)
        log_probs[rows] -= np.log(total[:, 0])
        e *= 1.0 / total
    return -np.sum(log_probs * weight), CrossEntropyCache(probs, chosen, weight[:, None])


def cross_entropy_backward(xp: Backend, dy: Array, cache: CrossEntropyCache) -> Array:
    probs, labels, weight = cache
    dlogits, weight = empty_like(probs), weight * dy
    for rows in row_blocks(*probs.shape):
        part = dlogits[rows]
        np.multiply(probs[rows], weight[rows], out=part)
        part[np.arange(len(part)), labels[rows]] -= weight[rows, 0]
    return dlogits
