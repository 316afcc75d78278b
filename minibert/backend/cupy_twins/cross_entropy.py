"""Cross-entropy and its gradient in one launch: twin of `layers/losses.py` (cross_entropy)."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend.base import Array, Backend, Ints
from minibert.backend.kernels import WARP, launch


class CrossEntropyCache(NamedTuple):
    dlogits: Array | None  # (R, K) for an upstream gradient of 1; None for inference


def cross_entropy_forward(
    xp: Backend, logits: Array, labels: Ints, count: int
) -> tuple[Array, CrossEntropyCache]:
    (R, K), logits = logits.shape, xp.asarray(logits, order="C")
    losses = xp.empty(R, dtype="float32")
    dlogits = xp.empty((R, K), dtype="float32") if xp.keeps_caches else None
    weight = 1.0 / count if count else float("nan")  # no label at all: as in the plain function
    labels = xp.asarray(labels, dtype="int64", order="C")
    launch(
        xp.module, "cross_entropy", "cross_entropy", WARP * R,
        logits, labels, weight, losses, dlogits, R, K,
    )  # fmt: skip
    return xp.sum(losses), CrossEntropyCache(dlogits)


def cross_entropy_backward(xp: Backend, dy: Array, cache: CrossEntropyCache) -> Array:
    return cache.dlogits * dy
