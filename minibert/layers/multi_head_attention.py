"""Multi-head self-attention: project, attend, project back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minibert.backend import Array, Backend, Ints, twinned
from minibert.layers.attention import AttentionCache, attention_backward, attention_forward
from minibert.layers.dropout import DropoutKey
from minibert.layers.linear import LinearCache, linear_backward, linear_forward
from minibert.layers.select import SelectCache, select_backward, select_forward


class MultiHeadAttentionCache(NamedTuple):
    project: LinearCache
    attend: AttentionCache
    select: SelectCache | None  # None: all rows
    output: LinearCache


@twinned
def multi_head_attention_forward(
    xp: Backend,
    x: Array,
    W_qkv: Array,
    b_qkv: Array,
    W_o: Array,
    b_o: Array,
    offsets: Sequence[int],
    num_heads: int,
    p: float,
    key: DropoutKey | None,
    rows: Ints | None = None,
) -> tuple[Array, MultiHeadAttentionCache]:
    """y = attention(x W_qkvᵀ + b_qkv) W_oᵀ + b_o.

    x (T, H), W_qkv (3H, H), b_qkv (3H,): the weights of query, key and value stacked in this order,
    for one product instead of three; W_o (H, H), b_o (H,) → y (T, H), or only its rows `rows` (R,),
    (R, H). Without output dropout and residual: those are in `add_norm`.

    Source: Vaswani et al., arXiv 1706.03762, section 3.2.2.
    """
    qkv, project = linear_forward(xp, x, W_qkv, b_qkv)
    context, attend = attention_forward(xp, qkv, offsets, num_heads, p, key)
    select = None
    if rows is not None:
        context, select = select_forward(xp, context, rows)
    y, output = linear_forward(xp, context, W_o, b_o)
    return y, MultiHeadAttentionCache(project, attend, select, output)


@twinned
def multi_head_attention_backward(
    xp: Backend, dy: Array, cache: MultiHeadAttentionCache
) -> tuple[Array, Array, Array, Array, Array]:
    """The steps in reverse; dy (T, H), or (R, H) → dx (T, H), dW_qkv, db_qkv, dW_o, db_o.

    A token that is not among the rows has dcontext zero, but others looked at its key and value.

    The key third of db_qkv is exactly zero in exact arithmetic: adding c to every key adds qᵢ·c to
    all scores of query i, and softmax does not see a shift.
    """
    dcontext, dW_o, db_o = linear_backward(xp, dy, cache.output)
    if cache.select is not None:
        dcontext = select_backward(xp, dcontext, cache.select)
    dqkv = attention_backward(xp, dcontext, cache.attend)
    dx, dW_qkv, db_qkv = linear_backward(xp, dqkv, cache.project)
    return dx, dW_qkv, db_qkv, dW_o, db_o
