"""Embeddings: three look-ups; who receives a gradient, and who does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.dropout import DropoutKey
from minibert.layers.embeddings import (
    EmbeddingsWeights,
    embeddings_backward,
    embeddings_forward,
    lookup_backward,
    lookup_forward,
)

WORD, POSITION, TYPE, H = 6, 5, 2, 3
IDS = np.array([4, 0, 1, 4, 0, 4])
POSITIONS = np.array([0, 1, 2, 0, 1, 3])
TYPES = np.array([0, 0, 1, 0, 0, 1])


def tables(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(size=(rows, H)) for rows in (WORD, POSITION, TYPE)]


def test_a_token_is_the_sum_of_its_three_rows(xp: NumpyBackend, rng: np.random.Generator) -> None:
    word, position, kind = tables(rng)
    y, _ = lookup_forward(xp, word, position, kind, IDS, POSITIONS, TYPES, 0)
    for t in range(len(IDS)):
        want = word[IDS[t]] + position[POSITIONS[t]] + kind[TYPES[t]]
        np.testing.assert_allclose(y[t], want, rtol=1e-15)


@pytest.mark.parametrize("padding_idx", [None, 0, 4])
def test_a_row_receives_what_its_tokens_do_except_padding(
    padding_idx: int | None, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    _, cache = lookup_forward(xp, *tables(rng), IDS, POSITIONS, TYPES, padding_idx)
    dy = rng.normal(size=(len(IDS), H))
    gradients = lookup_backward(xp, dy, cache)
    for gradient, ids, rows in zip(
        gradients, (IDS, POSITIONS, TYPES), (WORD, POSITION, TYPE), strict=True
    ):
        want = np.zeros((rows, H))
        for t, row in enumerate(ids):
            want[row] += dy[t]
        if ids is IDS and padding_idx is not None:
            want[padding_idx] = 0
        np.testing.assert_allclose(gradient.dense(xp), want, atol=1e-15)
        assert gradient.shape == (rows, H)
        assert len(set(gradient.rows.tolist())) == len(gradient.rows)  # each row once: += is safe


@given(st.lists(st.integers(0, 9), max_size=30))
def test_rows_of_one_id_are_added(ids: list[int]) -> None:
    rows = np.arange(2.0 * len(ids)).reshape(-1, 2)
    unique, sums = NumpyBackend().sum_rows(np.array(ids, np.int64), rows)
    assert unique.tolist() == sorted(set(ids))
    for number, total in zip(unique, sums, strict=True):
        assert total.tolist() == rows[np.array(ids) == number].sum(axis=0).tolist()


def test_layer_norm_comes_before_dropout(xp: NumpyBackend, rng: np.random.Generator) -> None:
    w = EmbeddingsWeights(*tables(rng), rng.normal(size=H), rng.normal(size=H))
    key, eps, p = DropoutKey(3, 1, 0, 5), 1e-12, 0.4
    y, cache = embeddings_forward(xp, w, IDS, POSITIONS, TYPES, 0, eps, p, key)
    e = w.word[IDS] + w.position[POSITIONS] + w.token_type[TYPES]
    xhat = (e - e.mean(axis=1, keepdims=True)) / e.std(axis=1, keepdims=True)
    keep = xp.keep_decisions(3, 0, 1, 0, 5 * H, e.size, 26214).reshape(e.shape)  # 0.4·65536
    assert 0 < keep.sum() < keep.size
    want = (xhat * w.gamma + w.beta) * keep * (65536 / (65536 - 26214))
    np.testing.assert_allclose(y, want, atol=1e-11)
    dw = embeddings_backward(xp, np.ones_like(y), cache)
    np.testing.assert_allclose(dw.beta, (keep * (65536 / (65536 - 26214))).sum(axis=0))
    assert not dw.word.dense(xp)[[0, 2, 3, 5]].any()  # padding, and words that did not occur
