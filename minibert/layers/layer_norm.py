"""Layer normalisation."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, twinned


class LayerNormCache(NamedTuple):
    xhat: Array  # (T, H) the normalised input: dgamma and dx are written in it; x is not kept
    rstd: Array  # (T, 1) 1/σ
    gamma: Array  # (H,) a reference


@twinned
def layer_norm_forward(
    xp: Backend, x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, LayerNormCache]:
    """y = γ·x̂ + β with x̂ = (x − μ)/√(σ² + ε): μ, σ² are each row's mean and population variance.

    x (T, H), gamma (H,), beta (H,) → y (T, H). BERT's ε is 1e-12, inside the root.
    Source: Ba, Kiros & Hinton, arXiv 1607.06450.
    """
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    variance = xp.mean(centred * centred, axis=-1, keepdims=True)
    rstd = 1.0 / xp.sqrt(variance + eps)
    xhat = centred * rstd
    return xhat * gamma + beta, LayerNormCache(xhat, rstd, gamma)


@twinned
def layer_norm_backward(
    xp: Backend, dy: Array, cache: LayerNormCache
) -> tuple[Array, Array, Array]:
    """dy (T, H) → dx (T, H), dgamma (H,), dbeta (H,).

    y = γ·x̂ + β, row by row and feature by feature, so

        dβ = Σₜ dy        dγ = Σₜ dy·x̂        dx̂ = dy·γ

    For one row, with r = 1/√(σ² + ε) and c = x − μ, x̂ = r·c. A change δx moves c by
    δc = δx − mean(δx), and r by δr = −r³·mean(c·δx)  (since σ² = mean(c²), and c sums to 0), so

        δx̂ = r·(δx − mean(δx) − x̂·mean(x̂·δx))

    As a matrix, r·(I − 11ᵀ/H − x̂x̂ᵀ/H), this map is symmetric. The gradient goes through the
    transpose, which is the same map:

        dx = r·(dx̂ − mean(dx̂) − x̂·mean(x̂·dx̂))
    """
    xhat, rstd, gamma = cache
    dbeta = xp.sum(dy, axis=0)
    dgamma = xp.sum(dy * xhat, axis=0)
    dxhat = dy * gamma
    mean = xp.mean(dxhat, axis=-1, keepdims=True)
    along = xp.mean(dxhat * xhat, axis=-1, keepdims=True)
    dx = rstd * (dxhat - mean - xhat * along)
    return dx, dgamma, dbeta
