"""Softmax against scipy's, where numbers are large too."""

from __future__ import annotations

import numpy as np
from scipy import special

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.softmax import softmax_backward, softmax_forward


def test_it_is_scipys(xp: NumpyBackend, rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 3, 5)) * 10
    y, _ = softmax_forward(xp, x)
    np.testing.assert_allclose(y, special.softmax(x, axis=-1), rtol=1e-13)


def test_large_numbers_do_not_overflow(xp: NumpyBackend) -> None:
    for dtype in (np.float32, np.float64):
        x = np.array([[1e4, 1e4, -1e4], [-1e30, 0, 1e30], [1e30, 1e30, 1e30]], dtype)
        y, cache = softmax_forward(xp, x)
        np.testing.assert_allclose(y, [[0.5, 0.5, 0], [0, 0, 1], [1 / 3] * 3], rtol=1e-6)
        assert np.isfinite(softmax_backward(xp, np.ones_like(y), cache)).all()


def test_a_single_score_is_certain(xp: NumpyBackend) -> None:
    y, cache = softmax_forward(xp, np.array([[-7.0]]))
    assert y.item() == 1
    assert softmax_backward(xp, np.array([[3.0]]), cache).item() == 0


def test_the_backward_is_the_product_with_the_jacobian(
    xp: NumpyBackend, rng: np.random.Generator
) -> None:
    x, dy = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    _, cache = softmax_forward(xp, x)
    got = softmax_backward(xp, dy, cache)
    for row, d, dx in zip(special.softmax(x, axis=1), dy, got, strict=True):
        np.testing.assert_allclose(dx, (np.diag(row) - np.outer(row, row)) @ d, atol=1e-15)
