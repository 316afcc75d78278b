"""Inference on few tokens: twins whose work all threads share, and whose products copy no weights.

With few tokens a product is as fast as its weights are read. OpenBLAS first copies both factors
into an order of its own, which then costs as much as the product; only a product of at most 10⁶
multiplications runs without, on kernels for AVX-512. So W xᵀ is cut into such small ones, blocks of
W's rows by chunks of tokens, that `np.matmul` runs through in C. Tokens are columns here: (T, H) is
a view of an (H, T) array, and a layer's result is the next one's factor as it lies.

The threads share the heads and the hidden features of one and the same batch, and each reads its
own part of the weights: some rows of the first product's and those columns of the second's, whose
results add up (as Megatron-LM divides a layer, arXiv 1909.08053).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from minibert.backend.base import Array, Backend, Ints
from minibert.backend.buffers import empty
from minibert.backend.numpy_twins.attention import softmax
from minibert.backend.numpy_twins.blocks import row_blocks
from minibert.backend.numpy_twins.gelu import phi
from minibert.parallel import blas_cores, share

SMALL = 10**6  # multiplications of a product that OpenBLAS runs without copies
CHUNK = 32  # tokens: two vectors; measured best between 16 and 64
ROWS = (48, 24, 12, 6)  # of a block: the kernels take 6 at a time
ALONE = 64  # tokens: fewer are not worth a thread's waking up in a layer norm
Parts = list[Array]  # the chunks of an array (K, T): whole ones (m, K, c), and the rest (1, K, r)


@functools.cache
def has_small_products() -> bool:
    """Whether this machine's OpenBLAS runs small products without copies: with AVX-512 it does."""
    return bool(blas_cores()) and blas_cores() <= {"SkylakeX", "Cooperlake", "SapphireRapids"}


def _chunks(x: Array) -> Parts:
    """Views of x (K, T)."""
    K, T = x.shape
    if not has_small_products() or T < CHUNK + CHUNK // 2:
        return [x[None]]
    whole = T // CHUNK
    if T % CHUNK < CHUNK // 2:
        whole -= T % CHUNK > 0  # a small rest joins the last chunk
    cut = whole * CHUNK
    chunks = x[:, :cut].reshape(K, whole, CHUNK).transpose(1, 0, 2)
    return [chunks, x[None, :, cut:]] if cut < T else [chunks]


def _factor(x: Array) -> Parts:
    """The chunks of x (K, T) as a product wants them, each by itself: in a longer row's stride of
    a power of two they would fall on the same lines of the cache.
    """
    factor = []
    for view in _chunks(x):
        part = view if view.flags.c_contiguous else empty(view.shape, x.dtype)
        if part is not view:
            part[...] = view
        factor.append(part)
    return factor


def _product(W: Array, x: Parts, b: Array | None, y: Parts) -> None:
    """y ← W x + b, with W (O, K), x (K, T), b (O,), y (O, T)."""
    for xs, into in zip(x, y, strict=True):
        n = _block(len(W), *xs.shape[1:])
        count = len(W) // n
        cut, (m, _, c) = count * n, into.shape
        blocks = into[:, :cut].reshape(m, count, n, c).swapaxes(0, 1)
        np.matmul(W[:cut].reshape(count, 1, n, W.shape[1]), xs[None], out=blocks)
        if cut < len(W):
            np.matmul(W[cut:], xs, out=into[:, cut:])
        if b is not None:
            np.add(into, b[:, None], out=into)


def _block(rows: int, K: int, tokens: int) -> int:
    """Rows of W in a block."""
    if not has_small_products() or tokens == 1:
        return max(rows, 1)
    most = min(SMALL // max(K * tokens, 1), rows)
    fits = [n for n in ROWS if n <= most]
    return next((n for n in fits if rows % n == 0), fits[0] if fits else max(most, 1))


def _part(size: int, part: int, parts: int) -> slice:
    return slice(size * part // parts, size * (part + 1) // parts)


def linear_forward(xp: Backend, x: Array, W: Array, b: Array) -> tuple[Array, None]:
    factor, y = _factor(x.T), empty((len(W), len(x)), x.dtype)

    def multiply(part: int, parts: int) -> None:
        rows = _part(len(W), part, parts)
        _product(W[rows], factor, b[rows], _chunks(y[rows]))

    if x.size * len(W) <= SMALL:  # a pooler, a classifier
        multiply(0, 1)
    else:
        share(multiply)
    return y.T, None


def _sum(shape: tuple[int, int], dtype: Any, term: Callable[[int, int, Array], None]) -> Array:
    """The terms that the threads write, term(part, parts, into), added in their order."""
    terms: dict[int, Array] = {}

    def write(part: int, parts: int) -> None:
        terms[part] = empty(shape, dtype)
        term(part, parts, terms[part])

    share(write)
    y = terms[0]
    for part in range(1, len(terms)):
        y += terms[part]
    return y


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
    key: Any,
    rows: Ints | None = None,
) -> tuple[Array, None]:
    T, H = x.shape
    D, factor = H // num_heads, _factor(x.T)
    W, b = W_qkv.reshape(3, H, H), b_qkv.reshape(3, H)

    def attend(part: int, parts: int, y: Array) -> None:
        """Some of the heads, and what they add to the result."""
        heads = _part(num_heads, part, parts)
        own = slice(heads.start * D, heads.stop * D)
        N = heads.stop - heads.start
        qkv, context = empty((3, N * D, T), x.dtype), empty((N * D, T), x.dtype)
        for i in range(3):
            _product(W[i, own], factor, b[i, own], _chunks(qkv[i]))
        qkv[0] *= 1.0 / math.sqrt(D)
        _attend(qkv.reshape(3, N, D, T), context.reshape(N, D, T), offsets)
        if rows is not None:
            context = np.take(context, rows, axis=1)
        _product(W_o[:, own], _factor(context), None if part else b_o, _chunks(y))

    return _sum((H, T if rows is None else len(rows)), x.dtype, attend).T, None


def _attend(qkv: Array, context: Array, offsets: Sequence[int]) -> None:
    """Fills context (N, D, T) from qkv (3, N, D, T), sequence by sequence."""
    N = qkv.shape[1]
    longest = max(b - a for a, b in pairwise(offsets))
    scores = empty(N * longest * longest, qkv.dtype)
    for start, stop in pairwise(offsets):
        n = stop - start
        q, k, v = qkv[..., start:stop]
        P = scores[: N * n * n].reshape(N, n, n)
        np.matmul(q.swapaxes(1, 2), k, out=P)
        softmax(P)
        np.matmul(v, P.swapaxes(1, 2), out=context[..., start:stop])


def feed_forward_forward(
    xp: Backend, x: Array, W_in: Array, b_in: Array, W_out: Array, b_out: Array, activation: str
) -> tuple[Array, None]:
    factor = _factor(x.T)

    def expand_and_contract(part: int, parts: int, y: Array) -> None:
        """Some of the hidden features, and what they add to the result."""
        own = _part(len(W_in), part, parts)
        hidden = [empty((len(f), own.stop - own.start, f.shape[2]), x.dtype) for f in factor]
        _product(W_in[own], factor, b_in[own], hidden)
        for flat in (chunks.reshape(-1) for chunks in hidden):
            for block in row_blocks(len(flat), 1):
                IN_PLACE[activation](flat[block])
        _product(W_out[:, own], hidden, None if part else b_out, _chunks(y))

    return _sum((len(W_out), len(x)), x.dtype, expand_and_contract).T, None


def _gelu(x: Array) -> None:
    z, y, scratch = (empty(x.shape, x.dtype) for _ in range(3))
    phi(x, z, y, scratch)
    x *= y


def _gelu_new(x: Array) -> None:
    u = np.multiply(x, x, out=empty(x.shape, x.dtype))
    u *= 0.044715
    u += 1.0
    u *= x
    u *= math.sqrt(2.0 / math.pi)
    np.tanh(u, out=u)
    u += 1.0
    u *= 0.5
    x *= u


def _relu(x: Array) -> None:
    np.maximum(x, 0.0, out=x)


IN_PLACE: dict[str, Callable[[Array], None]] = {
    "gelu": _gelu, "gelu_new": _gelu_new, "relu": _relu,
}  # fmt: skip


def _column_sums(x: Array) -> Array:
    """Sums of some rows, then of these: their rounding errors grow less than along all of H."""
    H, T = x.shape
    rows = math.gcd(H, 32)
    return np.add.reduce(np.add.reduce(x.reshape(H // rows, rows, T), axis=1), axis=0)


def add_norm_forward(
    xp: Backend,
    x: Array,
    residual: Array,
    gamma: Array,
    beta: Array,
    eps: float,
    p: float,
    key: Any,
) -> tuple[Array, None]:
    T, H = x.shape
    y = empty((H, T), x.dtype)

    def normalise(part: int, parts: int) -> None:
        own = _part(T, part, parts)
        z = np.add(x.T[:, own], residual.T[:, own], out=empty((H, own.stop - own.start), x.dtype))
        z -= _column_sums(z) / H
        square = np.multiply(z, z, out=y[:, own])
        z *= 1.0 / np.sqrt(_column_sums(square) / H + eps)
        np.multiply(z, gamma[:, None], out=y[:, own])
        y[:, own] += beta[:, None]

    if T < ALONE:
        normalise(0, 1)
    else:
        share(normalise)
    return y.T, None
