"""Embedding sum + layer norm + dropout in one visit: twin of `layers/embeddings.py`.

The gradients of the tables are sums over sorted segments (`sum_rows`), without atomic additions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minibert.backend.base import Array, Backend, Ints, RowGradient
from minibert.backend.cupy_twins.columns import gamma_and_beta
from minibert.backend.cupy_twins.dropout import ALL, Kept, kept_rows
from minibert.backend.cupy_twins.norm import NormCache, normalise_backward
from minibert.backend.kernels import WARP, launch


class EmbeddingsCache(NamedTuple):
    ids: tuple[Ints, ...]  # of words, positions and token types, each (T,)
    padding_idx: int | None
    weights: Any  # layers/embeddings.py's EmbeddingsWeights, of which the gradients are another
    norm: NormCache
    kept: Kept


def embeddings_forward(
    xp: Backend,
    w: Any,
    input_ids: Ints,
    position_ids: Ints,
    token_type_ids: Ints,
    padding_idx: int | None,
    eps: float,
    p: float,
    key: Any,
) -> tuple[Array, EmbeddingsCache]:
    T, H = len(input_ids), w.word.shape[1]
    ids = input_ids, position_ids, token_type_ids
    kept = kept_rows(xp, key, p, (T, H))
    y, xhat = xp.empty((T, H), dtype="float32"), xp.empty((T, H), dtype="float32")
    rstd = xp.empty(T, dtype="float32")
    launch(
        xp.module, "norm", "embeddings_forward", WARP * T, *w[:3], *ids, *kept, w.gamma, w.beta,
        eps, y, xhat, rstd, T, H,
    )  # fmt: skip
    return y, EmbeddingsCache(ids, padding_idx, w, NormCache(xhat, rstd, w.gamma, ALL), kept)


def embeddings_backward(xp: Backend, dy: Array, cache: EmbeddingsCache) -> Any:
    de, _ = normalise_backward(xp, dy, cache.norm, after=cache.kept)
    dgamma, dbeta = gamma_and_beta(xp, dy, cache.norm.xhat, cache.kept)
    w = cache.weights
    word, position, token_type = (
        RowGradient(*xp.sum_rows(ids, de), table.shape)
        for ids, table in zip(cache.ids, w[:3], strict=True)
    )
    if cache.padding_idx is not None:
        word.values[...] *= (word.rows != cache.padding_idx)[:, None]
    return type(w)(word, position, token_type, dgamma, dbeta)
