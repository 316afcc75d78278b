"""Activations against scipy's normal distribution, spelled-out formulas, and PyTorch."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from minibert.backend.numpy_backend import NumpyBackend
from minibert.config import ACTIVATIONS as CONFIGURABLE
from minibert.layers.activations import ACTIVATIONS

X = np.linspace(-7, 7, 1401).reshape(3, 467)


def test_every_configurable_activation_is_here() -> None:
    assert set(CONFIGURABLE) == set(ACTIVATIONS)


def test_gelu_is_x_times_the_normal_distribution(xp: NumpyBackend) -> None:
    y, cache = ACTIVATIONS["gelu"].forward(xp, X)
    # 1 + erf(x/√2) cancels on the far left, to an absolute error of one rounding
    np.testing.assert_allclose(y, X * stats.norm.cdf(X), rtol=1e-14, atol=1e-15)
    slope = stats.norm.cdf(X) + X * stats.norm.pdf(X)
    dx = ACTIVATIONS["gelu"].backward(xp, 3 * np.ones_like(X), cache)
    np.testing.assert_allclose(dx, 3 * slope, rtol=1e-13, atol=1e-15)


def test_gelu_new_is_the_tanh_form_with_exact_constants(xp: NumpyBackend) -> None:
    y, _ = ACTIVATIONS["gelu_new"].forward(xp, X)
    want = [
        0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) for x in X.flat
    ]
    np.testing.assert_allclose(y.ravel(), want, rtol=1e-14, atol=1e-15)


def test_the_two_forms_of_gelu_differ_as_published(xp: NumpyBackend) -> None:
    erf_form, _ = ACTIVATIONS["gelu"].forward(xp, X)
    tanh_form, _ = ACTIVATIONS["gelu_new"].forward(xp, X)
    assert 4.6e-4 < np.abs(erf_form - tanh_form).max() < 4.8e-4


def test_relu_has_slope_zero_at_zero(xp: NumpyBackend) -> None:
    y, cache = ACTIVATIONS["relu"].forward(xp, np.array([-2.0, -0.0, 0.0, 3.0]))
    np.testing.assert_array_equal(y, [0, 0, 0, 3])
    np.testing.assert_array_equal(ACTIVATIONS["relu"].backward(xp, np.ones(4), cache), [0, 0, 0, 1])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_large_inputs_stay_finite(name: str, xp: NumpyBackend) -> None:
    x = np.array([-1e4, -40.0, 40.0, 1e4])
    y, cache = ACTIVATIONS[name].forward(xp, x)
    np.testing.assert_array_equal(y, [0, 0, 40, 1e4])
    np.testing.assert_array_equal(ACTIVATIONS[name].backward(xp, np.ones(4), cache), [0, 0, 1, 1])


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values_and_slopes_are_those_of_pytorch(name: str, xp: NumpyBackend) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch's autograd")
    functional = torch.nn.functional
    theirs = {
        "gelu": functional.gelu,
        "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
        "relu": functional.relu,
    }[name]
    x = torch.tensor(X, requires_grad=True)
    want = theirs(x)
    want.sum().backward()
    y, cache = ACTIVATIONS[name].forward(xp, X)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-13, atol=2e-15)
    dx = ACTIVATIONS[name].backward(xp, np.ones_like(X), cache)
    np.testing.assert_allclose(dx, x.grad.numpy(), rtol=1e-12, atol=1e-14)  # 1 − t² cancels
