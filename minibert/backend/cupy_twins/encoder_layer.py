"""One encoder layer: products, and one kernel between each two; twin of `layers/encoder_layer.py`.

The operands of the products are "stored": float32, or 16 bits by the backend's precision. x, y and
their gradients, which carry the residuals, are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from minibert.backend.base import Array, Backend, Deferred
from minibert.backend.cupy_twins.activation import activate, activate_backward
from minibert.backend.cupy_twins.attention import (
    AttentionCache,
    attend,
    attend_backward,
    layout_of,
)
from minibert.backend.cupy_twins.chosen import choose
from minibert.backend.cupy_twins.columns import ColumnSums, chunks_of, room_for_sums
from minibert.backend.cupy_twins.dropout import kept_in_layer
from minibert.backend.cupy_twins.norm import NormCache, normalise, normalise_backward
from minibert.backend.kernels import launch


class Matrices(NamedTuple):
    """The weights as the products take them, or what their gradients are made of."""

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
    layout, chosen = layout_of(xp, tuple(offsets), s.num_heads), choose(xp, rows, len(x))
    kept, in_squares = kept_in_layer(
        xp, hidden, s.hidden_dropout, x.shape, 2, key, s.attention_dropout, layout.decisions
    )
    qkv = xp.matmul(x_stored, W.W_qkv.T)
    context, attention = attend(xp, qkv, w.b_qkv, layout, in_squares, chosen)
    a = xp.matmul(context, W.W_o.T)
    h, h_stored, attention_norm = normalise(
        xp, a, w.b_o, x, w.gamma_attention, w.beta_attention, s.eps, kept[0], *chosen, stored=True
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
    # Apart, since dh and dx grow below, and do and da are multiplied when they are added up.
    dh, do = normalise_backward(xp, dy, c.output_norm, storage, apart=True)
    dg = xp.matmul(do, c.stored.W_out)
    place, columns = _places(c.w)
    sums = room_for_sums(xp, len(c.x), columns, rest=place["b_o"], rest_rows=len(dy))
    df = activate_backward(xp, dg, c.slope, sums, place["b_in"])
    xp.matmul(df, c.stored.W_in, out=dh, add=True)

    dx, da = normalise_backward(xp, dh, c.attention_norm, storage, apart=True)
    dcontext = xp.matmul(da, c.stored.W_o)
    dqkv = attend_backward(xp, dcontext, c.attention)
    xp.matmul(dqkv, c.stored.W_qkv, out=dx, add=True)

    (R, H), T = dy.shape, len(dqkv)
    launch(
        xp.module, "columns", "layer_columns", (2 * chunks_of(R) + 3 * chunks_of(T)) * H,
        dy, c.output_norm.xhat, do, place["gamma_output"], place["b_out"],
        dh, c.attention_norm.xhat, da, place["gamma_attention"], place["b_o"],
        dqkv, place["b_qkv"], sums.partial, columns, R, T, H, storage=storage,
    )  # fmt: skip
    factors = Matrices((dqkv, c.x), (da, c.context), (df, c.h), (do, c.g))
    return dx, LayerGradient(c.w, factors, sums)


# ---- The gradients of a layer. Those of vectors lie in the order of the flat buffer, so that
# adding them to their sum takes one launch. That of the first one, b_qkv, is a sum over T rows,
# those of all others over the R that go on. ----

VECTORS = ("b_qkv", "b_o", "b_in", "b_out", "gamma_attention", "beta_attention", "gamma_output",
           "beta_output")  # fmt: skip


@dataclass(frozen=True, slots=True)
class LayerGradient(Deferred):
    """Not multiplied out, nor summed up: cuBLAS adds each product aᵀ·b to its sum, and the last
    stage of the column sums does so too, without arrays that would be written, read and added.
    """

    w: Any  # EncoderLayerWeights
    factors: Matrices  # (a, b) of each matrix
    sums: ColumnSums

    def dense(self, xp: Backend) -> Any:
        factors = self.factors._asdict().items()
        matrices = {name: xp.matmul(a.T, b, dtype="float32") for name, (a, b) in factors}
        places, columns = _places(self.w)
        sums = self.sums.finish(xp, xp.empty(columns, dtype="float32"))
        vectors = {n: sums[at : at + getattr(self.w, n).size] for n, at in places.items()}
        return type(self.w)(**matrices, **vectors)

    def add_to(self, xp: Backend, target: Any) -> None:
        vectors = [getattr(target, name) for name in VECTORS]
        if not _neighbours(vectors):
            return xp.add_to(target, self.dense(xp))
        for name, (a, b) in self.factors._asdict().items():
            xp.matmul(a.T, b, out=getattr(target, name), add=True)
        self.sums.finish(xp, vectors[0], add=True)
        return None


def _places(w: Any) -> tuple[dict[str, int], int]:
    """Where each vector begins among the column sums, and where the last one ends."""
    places, at = {}, 0
    for name in VECTORS:
        places[name] = at
        at += getattr(w, name).size
    return places, at


def _neighbours(vectors: list[Array]) -> bool:
    """Whether each begins in memory where the one before it ends."""
    return all(b.data.ptr == a.data.ptr + a.nbytes for a, b in pairwise(vectors))


def _stored(xp: Backend, w: Any, x: Array) -> tuple[Matrices, Array]:
    """Weights and x (T, H) as the products take them, rounded in one launch."""
    given = [*(getattr(w, name) for name in Matrices._fields), x]
    if xp.storage == "float32":
        return Matrices(*given[:-1]), x
    room = xp.empty(sum(array.size for array in given), dtype=xp.storage)
    pairs = [argument for array in given for argument in (array, array.size)]
    threads = -(-room.size // 8)  # which a thread asks for at once
    launch(xp.module, "convert", "convert", threads, *pairs, room, threads, storage=xp.storage)
    stored, at = [], 0
    for array in given:
        stored.append(room[at : at + array.size].reshape(array.shape))
        at += array.size
    return Matrices(*stored[:-1]), stored[-1]
