"""Add & Norm: dropout on the sub-layer alone, then the residual, then layer norm."""

from __future__ import annotations

import numpy as np
import pytest

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.add_norm import add_norm_backward, add_norm_forward
from minibert.layers.dropout import DropoutKey

T, H = 5, 8
KEY = DropoutKey(seed=2, step=4, site=6, first_row=3)


@pytest.mark.parametrize("key", [None, KEY])
def test_the_order_is_dropout_residual_norm(
    key: DropoutKey | None, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    x, residual, dy = (rng.normal(size=(T, H)) for _ in range(3))
    gamma, beta = rng.normal(size=H), rng.normal(size=H)
    y, cache = add_norm_forward(xp, x, residual, gamma, beta, 1e-12, 0.25, key)
    factor = np.ones((T, H))
    if key is not None:
        factor = xp.keep_decisions(2, 6, 4, 0, 3 * H, T * H, 16384).reshape(T, H) / 0.75
    z = x * factor + residual
    want = gamma * (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True) + beta
    np.testing.assert_allclose(y, want, atol=1e-10)
    dx, dresidual, _, dbeta = add_norm_backward(xp, dy, cache)
    np.testing.assert_allclose(dx, dresidual * factor, atol=1e-14)
    np.testing.assert_allclose(dbeta, dy.sum(axis=0), atol=1e-14)


def test_x_and_residual_are_alike_without_dropout(
    xp: NumpyBackend, rng: np.random.Generator
) -> None:
    x, residual, ones = rng.normal(size=(T, H)), rng.normal(size=(T, H)), np.ones(H)
    one, _ = add_norm_forward(xp, x, residual, ones, ones, 1e-12, 0.0, None)
    other, _ = add_norm_forward(xp, residual, x, ones, ones, 1e-12, 0.0, None)
    np.testing.assert_array_equal(one, other)
