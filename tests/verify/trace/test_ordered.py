"""The ordered backend: its functions are exact to a few units in the last place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minibert.verify.trace.ordered import OrderedBackend


@pytest.fixture
def xp() -> OrderedBackend:
    return OrderedBackend()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("exp", -40, 40), ("tanh", -3, 3), ("tanh", -1e-3, 1e-3), ("tanh", -60, 60),
     ("log", 1e-3, 50), ("log1p", 0, 1), ("erf", -4, 4)],
)  # fmt: skip
def test_functions(name: str, low: float, high: float, xp: OrderedBackend) -> None:
    x = np.random.default_rng(0).uniform(low, high, 4000)
    want = [getattr(math, name)(value) for value in x]
    np.testing.assert_allclose(getattr(xp, name)(x), want, rtol=8e-16, atol=0)
    single = getattr(xp, name)(x.astype(np.float32))
    assert single.dtype == np.float32


def test_the_ends_of_the_range(xp: OrderedBackend) -> None:
    np.testing.assert_array_equal(xp.exp(np.array([0.0, -800.0])), [1.0, 0.0])
    np.testing.assert_array_equal(xp.tanh(np.array([0.0, 50.0, -50.0])), [0.0, 1.0, -1.0])
    np.testing.assert_array_equal(xp.log(np.array([1.0])), [0.0])


def test_sums_run_from_first_to_last(xp: OrderedBackend) -> None:
    x = np.array([1e16, 1.0, -1e16, 1.0])
    assert xp.sum(x) == ((1e16 + 1.0) - 1e16) + 1.0 == 1.0
    assert xp.mean(x, axis=0) == 0.25
    np.testing.assert_array_equal(xp.sum(np.ones((2, 3)), axis=1, keepdims=True), [[3], [3]])


def test_products(xp: OrderedBackend) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 3, 4)), rng.normal(size=(2, 5, 4, 6))
    np.testing.assert_allclose(xp.matmul(a, b), a @ b, rtol=1e-13, atol=1e-15)


def test_rows_are_summed_in_order(xp: OrderedBackend) -> None:
    ids, rows = np.array([3, 1, 3, 1]), np.array([[1.0], [2.0], [4.0], [8.0]])
    unique, sums = xp.sum_rows(ids, rows)
    np.testing.assert_array_equal(unique, [1, 3])
    np.testing.assert_array_equal(sums, [[10.0], [5.0]])
