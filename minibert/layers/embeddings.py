"""Embeddings: word + position + token type, then layer norm and dropout."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend import Array, Backend, Ints, RowGradient, twinned
from minibert.layers.dropout import DropoutCache, DropoutKey, dropout_backward, dropout_forward
from minibert.layers.layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward


class LookupCache(NamedTuple):
    input_ids: Ints  # (T,)
    position_ids: Ints  # (T,)
    token_type_ids: Ints  # (T,)
    padding_idx: int | None
    shapes: tuple[tuple[int, ...], ...]  # of the three tables


@twinned
def lookup_forward(
    xp: Backend,
    word: Array,
    position: Array,
    token_type: Array,
    input_ids: Ints,
    position_ids: Ints,
    token_type_ids: Ints,
    padding_idx: int | None,
) -> tuple[Array, LookupCache]:
    """y_t = word[input_ids_t] + position[position_ids_t] + token_type[token_type_ids_t].

    word (V, H), position (P, H), token_type (2, H), ids (T,) → y (T, H).
    """
    y = xp.take(word, input_ids, axis=0)
    y += xp.take(position, position_ids, axis=0)
    y += xp.take(token_type, token_type_ids, axis=0)
    shapes = (word.shape, position.shape, token_type.shape)
    return y, LookupCache(input_ids, position_ids, token_type_ids, padding_idx, shapes)


@twinned
def lookup_backward(
    xp: Backend, dy: Array, cache: LookupCache
) -> tuple[RowGradient, RowGradient, RowGradient]:
    """dy (T, H) → the gradients of the three tables, each as the rows that are not zero.

    A look-up is a product with a one-hot matrix, y = O E with O_tv = [id_t = v], so
    dE = Oᵀ dy: row v receives the sum of dy over the tokens whose id is v. Tokens are sorted by id
    and summed in order, so the result does not depend on chance, as it would with atomic additions.

    Row `padding_idx` of the word table receives nothing, as in PyTorch's `nn.Embedding`.
    """
    ids, values = xp.sum_rows(cache.input_ids, dy)
    if cache.padding_idx is not None:
        values = xp.multiply(values, (ids != cache.padding_idx)[:, None])
    word = RowGradient(ids, values, cache.shapes[0])
    position = RowGradient(*xp.sum_rows(cache.position_ids, dy), cache.shapes[1])
    token_type = RowGradient(*xp.sum_rows(cache.token_type_ids, dy), cache.shapes[2])
    return word, position, token_type


class EmbeddingsWeights(NamedTuple):
    """The parameters; their gradients come in the same shape, the tables' as `RowGradient`."""

    word: Array  # (V, H)
    position: Array  # (P, H)
    token_type: Array  # (2, H)
    gamma: Array  # (H,)
    beta: Array  # (H,)


class EmbeddingsCache(NamedTuple):
    lookup: LookupCache
    norm: LayerNormCache
    dropout: DropoutCache


@twinned
def embeddings_forward(
    xp: Backend,
    w: EmbeddingsWeights,
    input_ids: Ints,
    position_ids: Ints,
    token_type_ids: Ints,
    padding_idx: int | None,
    eps: float,
    p: float,
    key: DropoutKey | None,
) -> tuple[Array, EmbeddingsCache]:
    """y = dropout(LN(word + position + token type)); ids (T,) → y (T, H)."""
    e, lookup = lookup_forward(xp, *w[:3], input_ids, position_ids, token_type_ids, padding_idx)
    n, norm = layer_norm_forward(xp, e, w.gamma, w.beta, eps)
    y, dropout = dropout_forward(xp, n, p, key)
    return y, EmbeddingsCache(lookup, norm, dropout)


@twinned
def embeddings_backward(xp: Backend, dy: Array, cache: EmbeddingsCache) -> EmbeddingsWeights:
    """The three steps in reverse; dy (T, H) → dw. Nothing flows into the ids."""
    dn = dropout_backward(xp, dy, cache.dropout)
    de, dgamma, dbeta = layer_norm_backward(xp, dn, cache.norm)
    return EmbeddingsWeights(*lookup_backward(xp, de, cache.lookup), dgamma, dbeta)
