"""Attention against the slowest way to write it: one query of one head at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.attention import attention_backward, attention_forward
from minibert.layers.dropout import DropoutKey

N, D = 3, 4
H = N * D
LENGTHS = (5, 1, 2, 2, 2, 7, 1)  # with runs of one length, which are computed together
OFFSETS = (0, *np.cumsum(LENGTHS).tolist())
KEY = DropoutKey(seed=7, step=3, site=1, first_row=10)
THRESHOLD = 19661  # 0.3·65536


def naive(
    xp: NumpyBackend, qkv: NDArray[np.float64], key: DropoutKey | None
) -> NDArray[np.float64]:
    context = np.zeros((len(qkv), H))
    for start, stop in itertools.pairwise(OFFSETS):
        n = stop - start
        keep = np.ones((N, n, n))
        if key is not None:
            place = key.first_row + start + 1
            bits = xp.keep_decisions(key.seed, key.site, key.step, place, 0, N * n * n, THRESHOLD)
            keep = bits.reshape(N, n, n) * 65536 / (65536 - THRESHOLD)
        for head in range(N):
            q, k, v = (qkv[start:stop, part * H + head * D :][:, :D] for part in range(3))
            for i in range(n):
                e = [math.exp(q[i] @ k[j] / math.sqrt(D)) for j in range(n)]
                for j in range(n):
                    weight = e[j] / sum(e) * keep[head, i, j]
                    context[start + i, head * D : (head + 1) * D] += weight * v[j]
    return context


@pytest.mark.parametrize("key", [None, KEY])
def test_it_is_one_query_after_the_other(
    key: DropoutKey | None, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    qkv = rng.normal(size=(OFFSETS[-1], 3 * H))
    context, _ = attention_forward(xp, qkv, OFFSETS, N, 0.3, key)
    np.testing.assert_allclose(context, naive(xp, qkv, key), atol=1e-14)


def test_a_single_token_attends_to_itself(xp: NumpyBackend, rng: np.random.Generator) -> None:
    qkv = rng.normal(size=(1, 3 * H))
    context, cache = attention_forward(xp, qkv, (0, 1), N, 0.0, None)
    np.testing.assert_allclose(context, qkv[:, 2 * H :], rtol=1e-15)
    dqkv = attention_backward(xp, np.ones((1, H)), cache)
    np.testing.assert_array_equal(dqkv, [[0] * 2 * H + [1] * H])


def test_sequences_do_not_see_each_other(xp: NumpyBackend, rng: np.random.Generator) -> None:
    qkv = rng.normal(size=(OFFSETS[-1], 3 * H))
    before, _ = attention_forward(xp, qkv, OFFSETS, N, 0.0, None)
    qkv[OFFSETS[2] : OFFSETS[3]] += 1
    after, cache = attention_forward(xp, qkv, OFFSETS, N, 0.0, None)
    changed = np.flatnonzero((before != after).any(axis=1))
    assert changed.tolist() == list(range(OFFSETS[2], OFFSETS[3]))
    dcontext = np.zeros_like(before)
    dcontext[OFFSETS[2] : OFFSETS[3]] = rng.normal(size=(2, H))
    touched = np.flatnonzero(attention_backward(xp, dcontext, cache).any(axis=1))
    assert touched.tolist() == changed.tolist()


@pytest.mark.parametrize("cut", range(1, len(LENGTHS)))
def test_a_shard_attends_and_drops_as_in_the_whole(
    cut: int, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    qkv, dcontext = rng.normal(size=(OFFSETS[-1], 3 * H)), rng.normal(size=(OFFSETS[-1], H))
    whole, cache = attention_forward(xp, qkv, OFFSETS, N, 0.3, KEY)
    gradient = attention_backward(xp, dcontext, cache)
    middle = OFFSETS[cut]
    parts = [
        (slice(0, middle), OFFSETS[: cut + 1]),
        (slice(middle, None), tuple(o - middle for o in OFFSETS[cut:])),
    ]
    for rows, offsets in parts:
        key = KEY._replace(first_row=KEY.first_row + rows.start)
        context, part_cache = attention_forward(xp, qkv[rows], offsets, N, 0.3, key)
        np.testing.assert_allclose(context, whole[rows], atol=1e-15)
        part = attention_backward(xp, dcontext[rows], part_cache)
        np.testing.assert_allclose(part, gradient[rows], atol=1e-14)


def test_probabilities_are_kept_before_dropout(xp: NumpyBackend, rng: np.random.Generator) -> None:
    qkv = rng.normal(size=(OFFSETS[-1], 3 * H))
    _, cache = attention_forward(xp, qkv, OFFSETS, N, 0.3, KEY)
    shapes = [run.y.shape for run in cache.probs]
    assert shapes == [(1, N, 5, 5), (1, N, 1, 1), (3, N, 2, 2), (1, N, 7, 7), (1, N, 1, 1)]
    for run in cache.probs:
        np.testing.assert_allclose(run.y.sum(axis=-1), 1, rtol=1e-14)


@pytest.mark.crosscheck
def test_gradients_are_those_of_pytorch(xp: NumpyBackend, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch's autograd")
    qkv, dcontext = rng.normal(size=(OFFSETS[-1], 3 * H)), rng.normal(size=(OFFSETS[-1], H))
    context, cache = attention_forward(xp, qkv, OFFSETS, N, 0.0, None)
    dqkv = attention_backward(xp, dcontext, cache)
    for start, stop in itertools.pairwise(OFFSETS):
        x = torch.tensor(qkv[start:stop], requires_grad=True)
        q, k, v = (part.view(-1, N, D).transpose(0, 1) for part in x.split(H, dim=1))
        attend = torch.nn.functional.scaled_dot_product_attention
        want = attend(q, k, v).transpose(0, 1).reshape(-1, H)
        want.backward(torch.tensor(dcontext[start:stop]))
        np.testing.assert_allclose(context[start:stop], want.detach().numpy(), atol=1e-14)
        np.testing.assert_allclose(dqkv[start:stop], x.grad.numpy(), atol=1e-14)
