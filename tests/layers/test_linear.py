"""Linear, by hand and against a spelled-out sum."""

from __future__ import annotations

import numpy as np

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.linear import linear_backward, linear_forward


def test_by_hand(xp: NumpyBackend) -> None:
    x = np.array([[1.0, 2.0]])
    W = np.array([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    y, cache = linear_forward(xp, x, W, np.array([0.5, 0.0, -1.0]))
    np.testing.assert_array_equal(y, [[11.5, 17, 22]])
    dx, dW, db = linear_backward(xp, np.array([[1.0, 10.0, 100.0]]), cache)
    np.testing.assert_array_equal(dx, [[753, 864]])
    np.testing.assert_array_equal(dW, [[1, 2], [10, 20], [100, 200]])
    np.testing.assert_array_equal(db, [1, 10, 100])


def test_every_element_is_its_sum(xp: NumpyBackend, rng: np.random.Generator) -> None:
    x, W, b, dy = (rng.normal(size=s) for s in ((5, 3), (4, 3), (4,), (5, 4)))
    y, cache = linear_forward(xp, x, W, b)
    dx, dW, db = linear_backward(xp, dy, cache)
    for t in range(5):
        for o in range(4):
            assert np.isclose(y[t, o], sum(x[t, i] * W[o, i] for i in range(3)) + b[o])
        for i in range(3):
            assert np.isclose(dx[t, i], sum(dy[t, o] * W[o, i] for o in range(4)))
    for o in range(4):
        assert np.isclose(db[o], sum(dy[:, o]))
        for i in range(3):
            assert np.isclose(dW[o, i], sum(dy[t, o] * x[t, i] for t in range(5)))
