"""Multi-head attention against its parts, with query, key and value projected apart."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import special

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.multi_head_attention import (
    multi_head_attention_backward,
    multi_head_attention_forward,
)

N, D, LENGTHS = 2, 5, (4, 1, 6)
H, T = N * D, sum(LENGTHS)
OFFSETS = (0, *np.cumsum(LENGTHS).tolist())


def arguments(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(size=s) for s in ((T, H), (3 * H, H), (3 * H,), (H, H), (H,))]


def test_it_is_project_attend_project(xp: NumpyBackend, rng: np.random.Generator) -> None:
    x, W_qkv, b_qkv, W_o, b_o = arguments(rng)
    y, _ = multi_head_attention_forward(xp, x, W_qkv, b_qkv, W_o, b_o, OFFSETS, N, 0.0, None)
    (W_q, W_k, W_v), (b_q, b_k, b_v) = np.split(W_qkv, 3), np.split(b_qkv, 3)
    for start, stop in itertools.pairwise(OFFSETS):
        one = x[start:stop]
        q, k, v = one @ W_q.T + b_q, one @ W_k.T + b_k, one @ W_v.T + b_v
        heads = []
        for head in range(N):
            D_h = slice(head * D, (head + 1) * D)
            scores = q[:, D_h] @ k[:, D_h].T / D**0.5
            heads.append(special.softmax(scores, axis=1) @ v[:, D_h])
        want = np.concatenate(heads, axis=1) @ W_o.T + b_o
        np.testing.assert_allclose(y[start:stop], want, atol=1e-12)


def test_the_key_bias_has_no_effect_and_no_gradient(
    xp: NumpyBackend, rng: np.random.Generator
) -> None:
    x, W_qkv, b_qkv, W_o, b_o = arguments(rng)
    y, cache = multi_head_attention_forward(xp, x, W_qkv, b_qkv, W_o, b_o, OFFSETS, N, 0.0, None)
    _, _, db_qkv, _, _ = multi_head_attention_backward(xp, rng.normal(size=y.shape), cache)
    db_q, db_k, db_v = np.split(db_qkv, 3)
    assert np.abs(db_k).max() < 1e-13
    assert min(np.abs(db_q).max(), np.abs(db_v).max()) > 0.01
    b_qkv[H : 2 * H] += 1
    moved, _ = multi_head_attention_forward(xp, x, W_qkv, b_qkv, W_o, b_o, OFFSETS, N, 0.0, None)
    np.testing.assert_allclose(moved, y, atol=1e-12)
