"""Losses against scipy's stable logarithms and PyTorch's; extremes, ignored labels, shards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from minibert.backend.numpy_backend import NumpyBackend
from minibert.config import PROBLEM_TYPES
from minibert.layers.losses import LOSSES, Loss

R, K = 6, 4
CLASSES = np.array([2, 0, -100, 3, -100, 1])
CROSS_ENTROPY = LOSSES["single_label_classification"]
SQUARED_ERROR = LOSSES["regression"]
BINARY = LOSSES["multi_label_classification"]


def cases(rng: np.random.Generator) -> dict[str, tuple[NDArray[Any], int]]:
    """For each problem: labels, and the number of terms."""
    return {
        "single_label_classification": (CLASSES, 4),
        "regression": (rng.normal(size=(R, K)), R * K),
        "multi_label_classification": (rng.integers(0, 2, (R, K)).astype(float), R * K),
    }


def run(xp: NumpyBackend, loss: Loss, z: Any, labels: Any, count: int) -> tuple[Any, Any]:
    """The loss, and its gradient scaled by 1."""
    value, cache = loss.forward(xp, z, labels, count)
    return value, loss.backward(xp, np.ones((), z.dtype), cache)


def test_every_problem_has_a_loss() -> None:
    assert set(PROBLEM_TYPES) == set(LOSSES)


def test_cross_entropy_is_the_mean_over_labelled_rows(
    xp: NumpyBackend, rng: np.random.Generator
) -> None:
    z = rng.normal(size=(R, K)) * 3
    value, dz = run(xp, CROSS_ENTROPY, z, CLASSES, 4)
    rows = np.array([0, 1, 3, 5])
    log_probs = special.log_softmax(z, axis=1)
    np.testing.assert_allclose(value, -log_probs[rows, CLASSES[rows]].mean(), rtol=1e-14)
    want = np.zeros_like(z)
    want[rows] = (special.softmax(z[rows], axis=1) - np.eye(K)[CLASSES[rows]]) / 4
    np.testing.assert_allclose(dz, want, atol=1e-15)
    assert not dz[[2, 4]].any()  # exactly nothing from an ignored row


def test_squared_error_is_the_mean_over_all_numbers(xp: NumpyBackend) -> None:
    value, dz = run(xp, SQUARED_ERROR, np.array([[3.0], [1.0]]), np.array([[1.0], [4.0]]), 2)
    assert value == (4 + 9) / 2
    np.testing.assert_array_equal(dz, [[2], [-3]])


def test_binary_cross_entropy_is_the_mean_over_all_labels(
    xp: NumpyBackend, rng: np.random.Generator
) -> None:
    z, t = rng.normal(size=(R, K)) * 3, rng.uniform(size=(R, K))  # soft labels are labels too
    value, dz = run(xp, BINARY, z, t, R * K)
    want = -(t * special.log_expit(z) + (1 - t) * special.log_expit(-z)).mean()
    np.testing.assert_allclose(value, want, rtol=1e-14)
    np.testing.assert_allclose(dz, (special.expit(z) - t) / (R * K), atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_neither_overflow_nor_lose_the_loss(dtype: type, xp: NumpyBackend) -> None:
    z = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    value, dz = run(xp, CROSS_ENTROPY, z, np.array([0, 0]), 2)
    assert value == 1e4  # 0 where it is right, 2e4 where it is wrong
    np.testing.assert_array_equal(dz, [[0, 0], [-0.5, 0.5]])
    value, dz = run(xp, BINARY, z, np.array([[1, 0], [1, 0]], dtype), 4)
    assert value == 5e3
    np.testing.assert_array_equal(dz, [[0, 0], [-0.25, 0.25]])
    assert value.dtype == dz.dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_shards_add_up(name: str, xp: NumpyBackend, rng: np.random.Generator) -> None:
    labels, count = cases(rng)[name]
    z = rng.normal(size=(R, K))
    whole, dz = run(xp, LOSSES[name], z, labels, count)
    parts = [slice(0, 1), slice(1, 3), slice(3, 6)]  # rows of the second: one of two is ignored
    results = [run(xp, LOSSES[name], z[part], labels[part], count) for part in parts]
    np.testing.assert_allclose(sum(value for value, _ in results), whole, rtol=1e-15)
    np.testing.assert_allclose(np.concatenate([d for _, d in results]), dz, atol=1e-17)


@pytest.mark.parametrize("name", LOSSES)
def test_an_upstream_gradient_is_a_factor(
    name: str, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    labels, count = cases(rng)[name]
    _, cache = LOSSES[name].forward(xp, rng.normal(size=(R, K)), labels, count)
    one = LOSSES[name].backward(xp, np.ones(()), cache)
    np.testing.assert_allclose(LOSSES[name].backward(xp, np.array(-3.0), cache), -3 * one)


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_those_of_pytorch(
    name: str, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch's autograd")
    functional = torch.nn.functional
    theirs = {
        "single_label_classification": functional.cross_entropy,
        "regression": functional.mse_loss,
        "multi_label_classification": functional.binary_cross_entropy_with_logits,
    }[name]
    labels, count = cases(rng)[name]
    z = rng.normal(size=(R, K)) * 5
    logits = torch.tensor(z, requires_grad=True)
    want = theirs(logits, torch.tensor(labels))
    want.backward()
    value, dz = run(xp, LOSSES[name], z, labels, count)
    np.testing.assert_allclose(value, want.item(), rtol=1e-14)
    np.testing.assert_allclose(dz, logits.grad.numpy(), atol=1e-15)
