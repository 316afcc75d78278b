"""Normalising: rows of length 1, and what becomes of those that have hardly any length."""

from __future__ import annotations

import numpy as np

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.normalize import EPS, normalize_backward, normalize_forward


def test_length_one_and_a_gradient_across_it(xp: NumpyBackend, rng: np.random.Generator) -> None:
    x, dy = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    y, cache = normalize_forward(xp, x)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(y, x / length, rtol=1e-14)
    dx = normalize_backward(xp, dy, cache)
    np.testing.assert_allclose((dx * x).sum(axis=1), 0, atol=1e-14)  # a longer x is the same y
    jacobians = (np.eye(7) - y[:, :, None] * y[:, None, :]) / length[:, :, None]
    np.testing.assert_allclose(dx, np.einsum("rij,rj->ri", jacobians, dy), atol=1e-14)


def test_a_short_row_is_divided_by_a_constant(xp: NumpyBackend) -> None:
    """As in PyTorch, whose clamp passes no gradient on where it holds."""
    x = np.array([[0.0, 0.0], [0.6 * EPS, 0.0], [0.0, -0.9 * EPS]])
    y, cache = normalize_forward(xp, x)
    np.testing.assert_allclose(y, x / EPS, rtol=1e-14)
    dy = np.array([[1.0, 2.0], [3.0, -4.0], [5.0, 6.0]])
    np.testing.assert_allclose(normalize_backward(xp, dy, cache), dy / EPS, rtol=1e-14)
