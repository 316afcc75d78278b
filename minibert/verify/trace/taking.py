"""What a tensor is in its call: mostly the result, here what is a part of it or never was whole."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from minibert.backend import Array, Backend
from minibert.backend.base import dropout_threshold
from minibert.verify.trace.record import Call

Take = Callable[[Backend, Call], Any]


def third(part: int) -> tuple[Take, Take]:
    """The query, key or value (T, H) of the fused projection (T, 3H), and its gradient."""

    def cut(fused: Array | None) -> Array | None:
        if fused is None:
            return None
        H = fused.shape[1] // 3
        return fused[:, part * H : (part + 1) * H]

    return lambda _, call: cut(call.y), lambda _, call: cut(call.dy)


def looked_up(table: int) -> Take:
    return lambda xp, call: xp.take(call.args[table], call.args[3 + table], axis=0)


def norm_mean(xp: Backend, call: Call) -> Array:
    return xp.mean(call.args[0], axis=-1)


def norm_rstd(_: Backend, call: Call) -> Array:
    """What the layer itself computed: of a guess it is wrong as the guess is."""
    return call.cache.rstd[:, 0]


def of_softmaxes(what: Callable[[Call], Any]) -> Take:
    """(N, n, n) for each sequence, from the softmax calls, which serve runs of sequences."""

    def take(_: Backend, call: Call) -> list[Array] | None:
        runs = [what(inner) for inner in call.calls if inner.name == "softmax"]
        if any(run is None for run in runs):
            return None
        return [sequence for run in runs for sequence in run]

    return take


def probs(call: Call) -> list[Array]:
    return [sequence for c in call.calls if c.name == "softmax" for sequence in c.y]


def dropped_probs(_: Backend, call: Call) -> list[Array]:
    scale = dropout_threshold(call.args[3])[1]
    pairs = zip(probs(call), call.keeps, strict=True)
    return [P * keep.reshape(P.shape) * scale for P, keep in pairs]


def dropped_probs_gradient(xp: Backend, call: Call) -> list[Array] | None:
    """dcontext·valueᵀ of each head of each sequence: no layer function has it as its own result."""
    if call.dy is None:
        return None
    qkv, offsets, N = call.args[:3]
    T, H = call.dy.shape
    parts = call.dy, qkv[:, 2 * H :]
    dcontext, value = (part.reshape(T, N, H // N).swapaxes(0, 1) for part in parts)  # (N, T, D)
    sequences = pairwise(offsets)
    return [xp.matmul(dcontext[:, a:z], value[:, a:z].swapaxes(1, 2)) for a, z in sequences]
