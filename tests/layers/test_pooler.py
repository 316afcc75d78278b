"""Pooler: a tanh layer on first tokens, and on no others."""

from __future__ import annotations

import numpy as np
import pytest

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.pooler import pooler_backward, pooler_forward


def test_only_first_tokens_are_looked_at(xp: NumpyBackend, rng: np.random.Generator) -> None:
    x, W, b, dy = (rng.normal(size=s) for s in ((9, 4), (4, 4), (4,), (3, 4)))
    first = np.array([0, 2, 7])
    y, cache = pooler_forward(xp, x, W, b, first)
    np.testing.assert_allclose(y, np.tanh(x[[0, 2, 7]] @ W.T + b), rtol=1e-14)
    dx, dW, db = pooler_backward(xp, dy, cache)
    dz = dy / np.cosh(x[first] @ W.T + b) ** 2
    np.testing.assert_allclose(dx[first], dz @ W, atol=1e-14)
    assert not dx[[1, 3, 4, 5, 6, 8]].any()
    np.testing.assert_allclose(dW, dz.T @ x[first], atol=1e-14)
    np.testing.assert_allclose(db, dz.sum(axis=0), atol=1e-14)


def test_nothing_is_looked_up_where_there_are_first_tokens_alone(
    xp: NumpyBackend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, W, b, dy = (rng.normal(size=s) for s in ((3, 4), (4, 4), (4,), (3, 4)))
    for name in ("select_forward", "select_backward"):
        monkeypatch.delattr(f"minibert.layers.pooler.{name}")
    y, cache = pooler_forward(xp, x, W, b, np.arange(3))
    np.testing.assert_allclose(y, np.tanh(x @ W.T + b), rtol=1e-14)
    dx, dW, _ = pooler_backward(xp, dy, cache)
    dz = dy / np.cosh(x @ W.T + b) ** 2
    np.testing.assert_allclose(dx, dz @ W, atol=1e-14)
    np.testing.assert_allclose(dW, dz.T @ x, atol=1e-14)
