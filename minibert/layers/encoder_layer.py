"""One encoder layer: self-attention and feed-forward, each followed by Add & Norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minibert.backend import Array, Backend, twinned
from minibert.layers.add_norm import AddNormCache, add_norm_backward, add_norm_forward
from minibert.layers.dropout import DropoutKey
from minibert.layers.feed_forward import (
    FeedForwardCache,
    feed_forward_backward,
    feed_forward_forward,
)
from minibert.layers.multi_head_attention import (
    MultiHeadAttentionCache,
    multi_head_attention_backward,
    multi_head_attention_forward,
)
from minibert.layers.select import SelectCache, select_backward, select_forward

SITES = 3  # dropouts in a layer: attention probabilities, attention output, feed-forward output


class EncoderLayerWeights(NamedTuple):
    """The parameters of one layer; its gradients come in the same shape."""

    W_qkv: Array  # (3H, H)
    b_qkv: Array  # (3H,)
    W_o: Array  # (H, H)
    b_o: Array  # (H,)
    gamma_attention: Array  # (H,)
    beta_attention: Array  # (H,)
    W_in: Array  # (F, H)
    b_in: Array  # (F,)
    W_out: Array  # (H, F)
    b_out: Array  # (H,)
    gamma_output: Array  # (H,)
    beta_output: Array  # (H,)


class EncoderLayerSettings(NamedTuple):
    num_heads: int
    activation: str
    eps: float
    attention_dropout: float
    hidden_dropout: float


class EncoderLayerCache(NamedTuple):
    attention: MultiHeadAttentionCache
    select: SelectCache | None  # None: all rows
    attention_norm: AddNormCache
    feed_forward: FeedForwardCache
    output_norm: AddNormCache


@twinned
def encoder_layer_forward(
    xp: Backend,
    x: Array,
    w: EncoderLayerWeights,
    offsets: Sequence[int],
    s: EncoderLayerSettings,
    key: DropoutKey | None,
    rows: Sequence[int] | None = None,
) -> tuple[Array, EncoderLayerCache]:
    """h = LN(dropout(attention(x)) + x),  y = LN(dropout(feed_forward(h)) + h).

    x (T, H) → y (T, H). `key` is at the layer's first dropout site, or None for evaluation.

    `rows` (R,), on the host, none twice: only these rows of y are wanted → y (R, H). Attention is
    the only step in which tokens meet. After it each row is a function of itself alone, y_t =
    f(attention(x)_t, x_t), so the other rows need not be computed; and since no loss depends on
    them, their part of every gradient is zero, and the backward leaves it out as well.

    Source: Devlin et al., arXiv 1810.04805, section 3; Vaswani et al., figure 1, left half.
    """
    keys = [None if key is None else key.at(key.site + i) for i in range(SITES)]
    chosen, select = None if rows is None else xp.asarray(rows), None
    a, attention = multi_head_attention_forward(
        xp, x, *w[:4], offsets, s.num_heads, s.attention_dropout, keys[0], chosen
    )
    if rows is not None:
        x, select = select_forward(xp, x, chosen)
        keys[1:] = [key and key.of(rows) for key in keys[1:]]
    h, attention_norm = add_norm_forward(xp, a, x, *w[4:6], s.eps, s.hidden_dropout, keys[1])
    f, feed_forward = feed_forward_forward(xp, h, *w[6:10], s.activation)
    y, output_norm = add_norm_forward(xp, f, h, *w[10:], s.eps, s.hidden_dropout, keys[2])
    return y, EncoderLayerCache(attention, select, attention_norm, feed_forward, output_norm)


@twinned
def encoder_layer_backward(
    xp: Backend, dy: Array, cache: EncoderLayerCache
) -> tuple[Array, EncoderLayerWeights]:
    """The forward's lines in reverse; dy (T, H), or (R, H) of some rows → dx (T, H), dw.

    h and x are each used twice, by a sub-layer and by the residual: their gradients add up. Where
    only some rows were wanted, the others had no residual, and their dx is attention's alone.
    """
    df, dh, *dnorm_output = add_norm_backward(xp, dy, cache.output_norm)
    dh_inner, *dfeed_forward = feed_forward_backward(xp, df, cache.feed_forward)
    dh = xp.add(dh, dh_inner)
    da, dx, *dnorm_attention = add_norm_backward(xp, dh, cache.attention_norm)
    if cache.select is not None:
        dx = select_backward(xp, dx, cache.select)
    dx_inner, *dattention = multi_head_attention_backward(xp, da, cache.attention)
    dw = EncoderLayerWeights(*dattention, *dnorm_attention, *dfeed_forward, *dnorm_output)
    return xp.add(dx, dx_inner), dw
