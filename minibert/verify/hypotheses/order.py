"""Layer norm in another place than behind the residual connection."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from minibert.backend import Array, Backend
from minibert.layers.add_norm import AddNormCache, add_norm_forward
from minibert.layers.dropout import dropout_backward, dropout_forward
from minibert.layers.encoder_layer import SITES, EncoderLayerWeights
from minibert.layers.feed_forward import feed_forward_backward, feed_forward_forward
from minibert.layers.layer_norm import layer_norm_backward, layer_norm_forward
from minibert.layers.multi_head_attention import (
    multi_head_attention_backward,
    multi_head_attention_forward,
)
from minibert.verify.hypotheses.base import PLAIN, Guess, replaced
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import Tensor

NORMS = "attention.output", "output"
BEFORE = "layer norm comes before each sub-layer, not after its residual connection (pre-LN)"


class _Cache(NamedTuple):
    attention: Any
    attention_norm: AddNormCache
    feed_forward: Any
    output_norm: AddNormCache


class _Sums:
    """What may be handed in for a norm or its input, beside what a guess has there."""

    def __init__(self, setup: Setup) -> None:
        self.mask = setup.mask.astype(bool)
        self.arrays: dict[str, tuple[Array, ...]] = {}

    def keep(self, section: str, i: int, norm: str, kind: str, *arrays: Array) -> None:
        """Tokens (T, H) of layer i."""
        self.arrays[f"{section}/bert.encoder.layer.{i}.{norm}.{kind}"] = arrays

    def forms(self, tensor: Tensor) -> list[Any]:
        """A module's result may be that of its norm, or of the sum behind the sub-layer."""
        found = [tensor.value]
        for tokens in self.arrays.get(tensor.name.removeprefix("dropout/"), ()):
            padded = np.zeros_like(tensor.value)
            padded[self.mask] = tokens
            found.append(padded)
        return found


class _PreNorm:
    """The functions of the guess."""

    def __init__(self, setup: Setup, sums: _Sums) -> None:
        self.sums, self.layers = sums, setup.config.num_hidden_layers
        self.forwards, self.backwards = itertools.count(), itertools.count()

    def forward(
        self, xp: Backend, x: Array, w: Any, offsets: Any, s: Any, key: Any, rows: None = None
    ) -> Any:
        """h = x + dropout(attention(LN(x))),  y = h + dropout(feed_forward(LN(h))).

        Of all rows: a trace has them all.
        """
        keys = [None if key is None else key.at(key.site + i) for i in range(SITES)]
        norm, p = PLAIN["layer_norm_forward"], s.hidden_dropout
        n, _ = norm(xp, x, w.gamma_attention, w.beta_attention, s.eps)
        projections = w.W_qkv, w.b_qkv, w.W_o, w.b_o
        a, attention = multi_head_attention_forward(
            xp, n, *projections, offsets, s.num_heads, s.attention_dropout, keys[0]
        )
        h, first = add_norm_forward(
            xp, a, x, w.gamma_attention, w.beta_attention, s.eps, p, keys[1]
        )
        n, _ = norm(xp, h, w.gamma_output, w.beta_output, s.eps)
        f, feed_forward = feed_forward_forward(
            xp, n, w.W_in, w.b_in, w.W_out, w.b_out, s.activation
        )
        y, second = add_norm_forward(xp, f, h, w.gamma_output, w.beta_output, s.eps, p, keys[2])
        i = next(self.forwards) % self.layers
        self._keep("activation", i, (h,), (h,), (y,), (y,))
        return y, _Cache(attention, first, feed_forward, second)

    def backward(self, xp: Backend, dy: Array, cache: _Cache) -> Any:
        df = dropout_backward(xp, dy, cache.output_norm.dropout)
        dn, *dfeed_forward = feed_forward_backward(xp, df, cache.feed_forward)
        dh, *doutput = layer_norm_backward(xp, dn, cache.output_norm.norm)
        dh = dh + dy
        da = dropout_backward(xp, dh, cache.attention_norm.dropout)
        dn, *dattention = multi_head_attention_backward(xp, da, cache.attention)
        dx, *dfirst = layer_norm_backward(xp, dn, cache.attention_norm.norm)
        dx = dx + dh
        i = self.layers - 1 - next(self.backwards) % self.layers
        self._keep("gradient", i, (dh,), (dh, dx), (dy,), (dy, dh))
        return dx, EncoderLayerWeights(*dattention, *dfirst, *dfeed_forward, *doutput)

    def _keep(self, section: str, i: int, *arrays: tuple[Array, ...]) -> None:
        places = itertools.product(NORMS, ("LayerNorm", "residual"))
        for (norm, kind), each in zip(places, arrays, strict=True):
            self.sums.keep(section, i, norm, kind, *each)


def _add_forward(xp: Backend, x: Array, residual: Array, *rest: Any) -> tuple[Array, AddNormCache]:
    """The sum alone. The norm is that of the residual: it has been taken before the sub-layer."""
    gamma, beta, eps, p, key = rest
    dropped, dropout = dropout_forward(xp, x, p, key)
    _, norm = layer_norm_forward(xp, residual, gamma, beta, eps)
    return dropped + residual, AddNormCache(dropout, norm)


def pre_norm(setup: Setup, _: str) -> Iterator[Guess]:
    """The order of GPT-2, with BERT's norm of the embeddings and none at the end."""
    sums = _Sums(setup)
    order = _PreNorm(setup, sums)
    guess = replaced(
        setup,
        add_norm_forward=_add_forward,
        encoder_layer_forward=order.forward,
        encoder_layer_backward=order.backward,
    )
    yield Guess(BEFORE, guess, sums.forms)


def inner_norm(setup: Setup, _: str) -> Iterator[Guess]:
    """y = x + LN(sub-layer): "res-post-norm", as in Swin v2."""
    sums, calls, L = _Sums(setup), itertools.count(), setup.config.num_hidden_layers

    def forward(xp: Backend, x: Array, residual: Array, *rest: Any) -> Any:
        gamma, beta, eps, p, key = rest
        dropped, dropout = dropout_forward(xp, x, p, key)
        n, norm = layer_norm_forward(xp, dropped, gamma, beta, eps)
        i, place = divmod(next(calls) % (2 * L), 2)
        sums.keep("activation", i, NORMS[place], "LayerNorm", n + residual)
        return n + residual, AddNormCache(dropout, norm)

    def backward(xp: Backend, dy: Array, cache: AddNormCache) -> Any:
        dx, dgamma, dbeta = layer_norm_backward(xp, dy, cache.norm)
        return dropout_backward(xp, dx, cache.dropout), dy, dgamma, dbeta

    guess = replaced(setup, add_norm_forward=forward, add_norm_backward=backward)
    cause = "layer norm comes before the residual connection is added: x + LN(sub-layer)"
    yield Guess(cause, guess, sums.forms)


ALL = (pre_norm, inner_norm)
