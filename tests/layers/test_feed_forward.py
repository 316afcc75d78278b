"""Feed-forward: expand, activate, contract."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.feed_forward import feed_forward_backward, feed_forward_forward

T, H, F = 5, 3, 7


def arguments(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(size=s) for s in ((T, H), (F, H), (F,), (H, F), (H,))]


@pytest.mark.parametrize(
    ("activation", "function"),
    [("gelu", lambda h: h * stats.norm.cdf(h)), ("relu", lambda h: np.maximum(h, 0))],
)
def test_values(
    activation: str, function: object, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    x, W_in, b_in, W_out, b_out = arguments(rng)
    y, _ = feed_forward_forward(xp, x, W_in, b_in, W_out, b_out, activation)
    assert callable(function)
    want = function(x @ W_in.T + b_in) @ W_out.T + b_out
    np.testing.assert_allclose(y, want, atol=1e-12)


def test_gradients_with_relu_are_products(xp: NumpyBackend, rng: np.random.Generator) -> None:
    x, W_in, b_in, W_out, b_out = arguments(rng)
    _, cache = feed_forward_forward(xp, x, W_in, b_in, W_out, b_out, "relu")
    dy = rng.normal(size=(T, H))
    dx, dW_in, db_in, dW_out, db_out = feed_forward_backward(xp, dy, cache)
    h = x @ W_in.T + b_in
    dh = (dy @ W_out) * (h > 0)
    np.testing.assert_allclose(dx, dh @ W_in, atol=1e-13)
    np.testing.assert_allclose(dW_in, dh.T @ x, atol=1e-13)
    np.testing.assert_allclose(db_in, dh.sum(axis=0), atol=1e-13)
    np.testing.assert_allclose(dW_out, dy.T @ np.maximum(h, 0), atol=1e-13)
    np.testing.assert_allclose(db_out, dy.sum(axis=0), atol=1e-13)
