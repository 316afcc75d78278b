"""Losses on pairs of embeddings: in-batch contrast, and regression of the cosine.

Row 2i of y (2R, H) and row 2i + 1 are a pair, u_i and v_i.
"""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, Targets, twinned
from minibert.layers.losses import (
    CrossEntropyCache,
    MeanSquaredErrorCache,
    cross_entropy_backward,
    cross_entropy_forward,
    mean_squared_error_backward,
    mean_squared_error_forward,
)
from minibert.layers.normalize import NormalizeCache, normalize_backward, normalize_forward


class ContrastiveCache(NamedTuple):
    unit: Array  # (2R, H) y, each row scaled to length 1
    normalize: NormalizeCache
    entropy: CrossEntropyCache
    scale: float


@twinned
def contrastive_forward(xp: Backend, y: Array, scale: float) -> tuple[Array, ContrastiveCache]:
    """loss = CE(S, diagonal) with S_ij = scale·cos(u_i, v_j): u_i should find v_i among all v_j.

    y (2R, H) → loss (). InfoNCE with in-batch negatives, `scale` = 1/temperature; also known as
    multiple negatives ranking. The other pairs' v are the negatives, so it is a loss of the whole
    batch, not a sum over shards: more shards do not mean fewer negatives. Source: Henderson et
    al., arXiv 1705.00652, section 4.4; sentence-transformers' MultipleNegativesRankingLoss.
    """
    unit, normalize = normalize_forward(xp, y)
    scores = xp.matmul(unit[0::2], unit[1::2].T) * scale
    loss, entropy = cross_entropy_forward(xp, scores, xp.arange(len(scores)), len(scores))
    return loss, ContrastiveCache(unit, normalize, entropy, scale)


@twinned
def contrastive_backward(xp: Backend, dy: Array, cache: ContrastiveCache) -> Array:
    """With unit vectors û, v̂ and S = scale·û v̂ᵀ: dû = scale·dS v̂, dv̂ = scale·dSᵀ û.

    From û to u: `layers/normalize.py`.
    """
    dS = cross_entropy_backward(xp, dy, cache.entropy) * cache.scale
    dunit = xp.empty_like(cache.unit)
    dunit[0::2] = xp.matmul(dS, cache.unit[1::2])
    dunit[1::2] = xp.matmul(dS.T, cache.unit[0::2])
    return normalize_backward(xp, dunit, cache.normalize)


class CosineRegressionCache(NamedTuple):
    unit: Array  # (2R, H)
    normalize: NormalizeCache
    error: MeanSquaredErrorCache


@twinned
def cosine_regression_forward(
    xp: Backend, y: Array, labels: Targets, count: int
) -> tuple[Array, CosineRegressionCache]:
    """loss = Σᵢ (cos(u_i, v_i) − label_i)²/count.  y (2R, H), labels (R,) → loss ().

    Source: sentence-transformers' CosineSimilarityLoss; labels between −1 and 1.
    """
    unit, normalize = normalize_forward(xp, y)
    cosine = xp.sum(unit[0::2] * unit[1::2], axis=-1)
    loss, error = mean_squared_error_forward(xp, cosine, labels, count)
    return loss, CosineRegressionCache(unit, normalize, error)


@twinned
def cosine_regression_backward(xp: Backend, dy: Array, cache: CosineRegressionCache) -> Array:
    """cos = û·v̂, so dû = dcos·v̂ and dv̂ = dcos·û."""
    dcosine = mean_squared_error_backward(xp, dy, cache.error)[:, None]
    dunit = xp.empty_like(cache.unit)
    dunit[0::2] = dcosine * cache.unit[1::2]
    dunit[1::2] = dcosine * cache.unit[0::2]
    return normalize_backward(xp, dunit, cache.normalize)
