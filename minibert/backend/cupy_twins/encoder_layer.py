"""One encoder layer: products, and one kernel between each two; twin of `layers/encoder_layer.py`.

The operands of the products are "stored": float32, or 16 bits by the backend's precision. x, y and
their gradients, which carry the residuals, are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from minibert.backend.base import Array, Backend, ProductGradient
from minibert.backend.cupy_twins.activation import activate, activate_backward
from minibert.backend.cupy_twins.attention import AttentionCache, attend, attend_backward
from minibert.backend.cupy_twins.chosen import choose
from minibert.backend.cupy_twins.columns import ColumnSums
from minibert.backend.cupy_twins.dropout import kept_rows
from minibert.backend.cupy_twins.norm import NormCache, normalise, normalise_backward
from minibert.backend.kernels import launch


class Matrices(NamedTuple):
    """The weights as the products take them."""

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
    slope: Array  # (R, F) stored, of the activation
    g: Array  # (R, F) stored, after it
    output_norm: NormCache


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
        xp,
        a,
        w.b_o,
        x,
        w.gamma_attention,
        w.beta_attention,
        s.eps,
        kept[0],
        *chosen,
        stored=True,
    )
    f = xp.matmul(h_stored, W.W_in.T)
    g = activate(xp, f, w.b_in, s.activation, slope=f if xp.keeps_caches else None)
    o = xp.matmul(g, W.W_out.T)
    y, _, output_norm = normalise(
        xp, o, w.b_out, h, w.gamma_output, w.beta_output, s.eps, kept[1], chosen.rows
    )
    return y, EncoderLayerCache(
        w, W, x_stored, attention, context, attention_norm, h_stored, f, g, output_norm
    )


def encoder_layer_backward(xp: Backend, dy: Array, cache: EncoderLayerCache) -> tuple[Array, Any]:
    c = cache
    storage = c.x.dtype
    place, columns = _places(c.w)
    sums = ColumnSums(xp, len(c.x), columns, rest=place["b_o"], rest_rows=len(dy))

    # Apart, since dh and dx grow below, and do and da are multiplied when they are added up.
    dh, do = normalise_backward(xp, dy, c.output_norm, storage, apart=True)
    norm, xhat = place["gamma_output"], c.output_norm.xhat
    sums.add_norm(norm, dy, xhat, dx=do, place_dx=place["b_out"])
    dg = xp.matmul(do, c.stored.W_out)
    df = activate_backward(xp, dg, c.slope, sums, place["b_in"])
    xp.matmul(df, c.stored.W_in, out=dh, add=True)

    dx, da = normalise_backward(xp, dh, c.attention_norm, storage, apart=True)
    norm, xhat = place["gamma_attention"], c.attention_norm.xhat
    sums.add_norm(norm, dh, xhat, dx=da, place_dx=place["b_o"])
    dcontext = xp.matmul(da, c.stored.W_o)
    dqkv = attend_backward(xp, dcontext, c.attention)
    sums.add(place["b_qkv"], dqkv)
    xp.matmul(dqkv, c.stored.W_qkv, out=dx, add=True)

    vectors = sums.finish(xp.empty(columns, dtype="float32"))
    return dx, type(c.w)(
        W_qkv=ProductGradient(dqkv, c.x), W_o=ProductGradient(da, c.context),
        W_in=ProductGradient(df, c.h), W_out=ProductGradient(do, c.g),
        **{name: vectors[at : at + getattr(c.w, name).size] for name, at in place.items()},
    )  # fmt: skip


# ---- The gradients of vectors lie in the order of the flat buffer, so that adding them to the sum
# takes one launch (`CupyBackend.add_to`). That of the first one, b_qkv, is a sum over T rows, those
# of all others over the R that go on. ----

VECTORS = ("b_qkv", "b_o", "b_in", "b_out", "gamma_attention", "beta_attention", "gamma_output",
           "beta_output")  # fmt: skip


def _places(w: Any) -> tuple[dict[str, int], int]:
    """Where each vector begins among the column sums, and where the last one ends."""
    places, at = {}, 0
    for name in VECTORS:
        places[name] = at
        at += getattr(w, name).size
    return places, at


def _stored(xp: Backend, w: Any, x: Array) -> tuple[Matrices, Array]:
    """Weights and x (T, H) as the products take them, rounded in one launch."""
    given = [*(getattr(w, name) for name in Matrices._fields), x]
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
