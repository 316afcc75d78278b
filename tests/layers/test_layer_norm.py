"""Layer norm: the statistics of each row, with Python's statistics module as the oracle."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.layer_norm import layer_norm_backward, layer_norm_forward


@pytest.mark.parametrize("eps", [1e-12, 0.3])
def test_each_row_is_normalised_with_its_population_variance(
    eps: float, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    x, gamma, beta = rng.normal(2, 3, (5, 7)), rng.normal(size=7), rng.normal(size=7)
    y, _ = layer_norm_forward(xp, x, gamma, beta, eps)
    for row, got in zip(x.tolist(), y, strict=True):
        mean, variance = statistics.fmean(row), statistics.pvariance(row)
        want = (np.array(row) - mean) / (variance + eps) ** 0.5 * gamma + beta
        np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-14)


def test_epsilon_stands_inside_the_root(xp: NumpyBackend) -> None:
    """Variance 1e-12 and ε 1e-12: 1/√2. Outside the root ε would change nothing here."""
    x = np.array([[1e-6, -1e-6]])
    y, _ = layer_norm_forward(xp, x, np.ones(2), np.zeros(2), 1e-12)
    np.testing.assert_allclose(y, [[0.5**0.5, -(0.5**0.5)]], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_row_gives_beta(dtype: type, xp: NumpyBackend) -> None:
    beta = np.array([1, 2, 3, 4], dtype)
    y, cache = layer_norm_forward(xp, np.full((2, 4), 5, dtype), beta, beta, 1e-12)
    np.testing.assert_array_equal(y, [beta, beta])
    assert all(np.isfinite(g).all() for g in layer_norm_backward(xp, np.ones_like(y), cache))


def test_shift_and_scale_of_a_row_do_not_show(xp: NumpyBackend, rng: np.random.Generator) -> None:
    x, gamma, beta = rng.normal(size=(3, 8)), rng.normal(size=8), rng.normal(size=8)
    y, cache = layer_norm_forward(xp, x, gamma, beta, 1e-12)
    moved, _ = layer_norm_forward(xp, 4 * x - 3, gamma, beta, 1e-12)
    np.testing.assert_allclose(moved, y, atol=1e-10)
    dx, _, _ = layer_norm_backward(xp, rng.normal(size=(3, 8)), cache)
    np.testing.assert_allclose(dx.sum(axis=1), 0, atol=1e-13)  # so dx is orthogonal to a shift
    np.testing.assert_allclose((dx * x).sum(axis=1), 0, atol=1e-10)  # and to a scaling


def test_gradients_by_hand(xp: NumpyBackend) -> None:
    """For x = (1, −1): μ = 0, σ = 1, x̂ = x. With two features every change is shift or scale."""
    x, gamma = np.array([[1.0, -1.0]]), np.array([2.0, 5.0])
    y, cache = layer_norm_forward(xp, x, gamma, np.array([0.5, 0.5]), 1e-30)
    np.testing.assert_array_equal(y, [[2.5, -4.5]])
    dx, dgamma, dbeta = layer_norm_backward(xp, np.array([[3.0, 7.0]]), cache)
    np.testing.assert_allclose(dx, [[0, 0]], atol=1e-14)
    np.testing.assert_array_equal(dgamma, [3, -7])
    np.testing.assert_array_equal(dbeta, [3, 7])


@pytest.mark.crosscheck
def test_values_and_gradients_are_those_of_pytorch(
    xp: NumpyBackend, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch's autograd")
    arrays = [rng.normal(size=shape) for shape in ((5, 7), (7,), (7,))]
    dy = rng.normal(size=(5, 7))
    x, gamma, beta = (torch.tensor(a, requires_grad=True) for a in arrays)
    want = torch.nn.functional.layer_norm(x, (7,), gamma, beta, 1e-12)
    want.backward(torch.tensor(dy))
    y, cache = layer_norm_forward(xp, *arrays, 1e-12)
    np.testing.assert_allclose(y, want.detach().numpy(), atol=1e-13)
    for got, theirs in zip(layer_norm_backward(xp, dy, cache), (x, gamma, beta), strict=True):
        np.testing.assert_allclose(got, theirs.grad.numpy(), atol=1e-13)
