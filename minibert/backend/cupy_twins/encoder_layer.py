"""One encoder layer: products, and one kernel between each two; twin of `layers/encoder_layer.py`.

The operands of the products are "stored": float32, or 16 bits by the backend's precision. x, y and
their gradients, which carry the residuals, are float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from minibert.backend.base import Array, Backend
from minibert.backend.cupy_twins.activation import activate, activate_backward
from minibert.backend.cupy_twins.attention import AttentionCache, attend, attend_backward
from minibert.backend.cupy_twins.chosen import choose
from minibert.backend.cupy_twins.columns import ColumnSums
from minibert.backend.cupy_twins.dropout import kept_rows
from minibert.backend.cupy_twins.norm import NormCache, normalise, normalise_backward
from minibert.backend.kernels import launch


class Matrices(NamedTuple):
    """The weights as the products take them, or their gradients."""

    W_qkv: Array  # (3H, H)
    W_o: Array  # (H, H)
    W_in: Array  # (F, H)
    W_out: Array  # (H, F)


class EncoderLayerCache(NamedTuple):
    """R = T, or the number of rows that go on behind attention."""

    w: Any  # EncoderLayerWeights
    stored: Matrices
    x: Array  # (T, H) stored
    attention: AttentionCache
    context: Array  # (R, H) stored
    attention_norm: NormCache
    h: Array  # (R, H) stored
    f: Array  # (R, F) stored, before bias and activation
    g: Array  # (R, F) stored, after them
    output_norm: NormCache
    activation: str


def encoder_layer_forward(
    xp: Backend,
    x: Array,
    w: Any,
    offsets: Sequence[int],
    s: Any,
    key: Any,
    rows: Sequence[int] | None = None,
) -> tuple[Array, EncoderLayerCache]:
    W, x_stored = _stored(xp, w, x)
    hidden = None if key is None else key.at(key.site + 1)._replace(rows=rows)
    kept = kept_rows(xp, hidden, s.hidden_dropout, x.shape, sites=2)
    chosen = choose(xp, rows, len(x))
    qkv = xp.matmul(x_stored, W.W_qkv.T)
    context, attention = attend(
        xp, qkv, w.b_qkv, offsets, s.num_heads, s.attention_dropout, key, chosen
    )
    a = xp.matmul(context, W.W_o.T)
    h, h_stored, attention_norm = normalise(
        xp, a, w.b_o, x, w.gamma_attention, w.beta_attention, s.eps, kept[0], *chosen
    )
    f = xp.matmul(h_stored, W.W_in.T)
    g = activate(xp, f, w.b_in, s.activation)
    o = xp.matmul(g, W.W_out.T)
    y, _, output_norm = normalise(
        xp, o, w.b_out, h, w.gamma_output, w.beta_output, s.eps, kept[1], chosen.rows
    )
    return y, EncoderLayerCache(
        w, W, x_stored, attention, context, attention_norm, h_stored, f, g, output_norm,
        s.activation,
    )  # fmt: skip


def encoder_layer_backward(xp: Backend, dy: Array, cache: EncoderLayerCache) -> tuple[Array, Any]:
    c = cache
    storage = c.x.dtype
    dW, dw, columns = _gradients(xp, c.w)
    place = _places(c.w)
    sums = ColumnSums(xp, len(c.x), columns.size, rest=(place["b_o"], len(dy)))

    dh, do = normalise_backward(xp, dy, c.output_norm, storage)
    norm, xhat = place["gamma_output"], c.output_norm.xhat
    sums.add_norm(norm, dy, xhat, dx=do, place_dx=place["b_out"])
    xp.matmul(do.T, c.g, out=dW.W_out)
    dg = xp.matmul(do, c.stored.W_out)
    df = activate_backward(xp, dg, c.f, c.w.b_in, c.activation, sums, place["b_in"])
    xp.matmul(df.T, c.h, out=dW.W_in)
    xp.matmul(df, c.stored.W_in, out=dh, add=True)

    dx, da = normalise_backward(xp, dh, c.attention_norm, storage)
    norm, xhat = place["gamma_attention"], c.attention_norm.xhat
    sums.add_norm(norm, dh, xhat, dx=da, place_dx=place["b_o"])
    xp.matmul(da.T, c.context, out=dW.W_o)
    dcontext = xp.matmul(da, c.stored.W_o)
    dqkv = attend_backward(xp, dcontext, c.attention)
    sums.add(place["b_qkv"], dqkv)
    xp.matmul(dqkv.T, c.x, out=dW.W_qkv)
    xp.matmul(dqkv, c.stored.W_qkv, out=dx, add=True)
    sums.finish(columns)
    return dx, dw


# ---- Weights in, gradients out. Vectors lie in the order of the flat buffer, and so do matrices,
# so that adding a layer's gradients to the sum takes two launches (`CupyBackend.add_to`). The first
# vector's gradient, b_qkv's, is a sum over T rows, that of all others over the R that go on. ----

MATRICES = Matrices._fields
VECTORS = ("b_qkv", "b_o", "b_in", "b_out", "gamma_attention", "beta_attention", "gamma_output",
           "beta_output")  # fmt: skip


def _places(w: Any) -> dict[str, int]:
    """Where each vector begins among the column sums."""
    places, at = {}, 0
    for name in VECTORS:
        places[name] = at
        at += getattr(w, name).size
    return places


def _gradients(xp: Backend, w: Any) -> tuple[Matrices, Any, Array]:
    """Room for the gradients: the matrices, all of `w`'s kind, and the vectors in one piece."""
    shapes = {name: getattr(w, name).shape for name in (*MATRICES, *VECTORS)}
    room = xp.empty(sum(map(math.prod, shapes.values())), dtype="float32")
    arrays, at = {}, 0
    for name, shape in shapes.items():
        arrays[name] = room[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
    matrices = Matrices(*(arrays[name] for name in MATRICES))
    vectors = room[sum(matrix.size for matrix in matrices) :]
    return matrices, type(w)(**arrays), vectors


def _stored(xp: Backend, w: Any, x: Array) -> tuple[Matrices, Array]:
    """Weights and x (T, H) as the products take them, rounded in one launch."""
    given = [*(getattr(w, name) for name in MATRICES), x]
    if xp.storage == "float32":
        return Matrices(*given[:-1]), x
    room = xp.empty(sum(array.size for array in given), dtype=xp.storage)
    pairs = [argument for array in given for argument in (array, array.size)]
    threads = -(-room.size // 8)
    launch(xp.module, "convert", "convert", threads, *pairs, room, threads, storage=xp.storage)
    stored, at = [], 0
    for array in given:
        stored.append(room[at : at + array.size].reshape(array.shape))
        at += array.size
    return Matrices(*stored[:-1]), stored[-1]
