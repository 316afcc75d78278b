"""Masked-language-model head: transform, then the word table as decoder."""

from __future__ import annotations

from typing import Any, NamedTuple

from minibert.backend import Array, Backend, twinned
from minibert.layers.activations import ACTIVATIONS
from minibert.layers.layer_norm import LayerNormCache, layer_norm_backward, layer_norm_forward
from minibert.layers.linear import LinearCache, linear_backward, linear_forward


class MaskedLMHeadCache(NamedTuple):
    transform: LinearCache
    activate: Any  # the activation's own cache
    norm: LayerNormCache
    decode: LinearCache
    activation: str


@twinned
def masked_lm_head_forward(
    xp: Backend,
    x: Array,
    W: Array,
    b: Array,
    gamma: Array,
    beta: Array,
    bias: Array,
    word: Array,
    activation: str,
    eps: float,
) -> tuple[Array, MaskedLMHeadCache]:
    """logits = LN(act(x Wᵀ + b)) Eᵀ + bias.

    x (M, H): the rows of the masked positions only, W (H, H), bias (V,), word = E (V, H) → logits
    (M, V). The decoder is tied: E is the embedding table itself, `hidden_act` the activation.
    Source: google-research/bert run_pretraining.py, get_masked_lm_output.
    """
    h, transform = linear_forward(xp, x, W, b)
    a, activate = ACTIVATIONS[activation].forward(xp, h)
    n, norm = layer_norm_forward(xp, a, gamma, beta, eps)
    logits, decode = linear_forward(xp, n, word, bias)
    return logits, MaskedLMHeadCache(transform, activate, norm, decode, activation)


@twinned
def masked_lm_head_backward(
    xp: Backend, dy: Array, cache: MaskedLMHeadCache
) -> tuple[Array, Array, Array, Array, Array, Array, Array]:
    """The four steps in reverse; dy (M, V) → dx, dW, db, dgamma, dbeta, dbias, dword.

    dword (V, H) = dyᵀ n is the tied table's gradient as a decoder; what it receives as the table
    of the look-up comes on top: a parameter used twice has the sum of both as its gradient.
    """
    dn, dword, dbias = linear_backward(xp, dy, cache.decode)
    da, dgamma, dbeta = layer_norm_backward(xp, dn, cache.norm)
    dh = ACTIVATIONS[cache.activation].backward(xp, da, cache.activate)
    dx, dW, db = linear_backward(xp, dh, cache.transform)
    return dx, dW, db, dgamma, dbeta, dbias, dword
