"""Classifier: dropout, then a linear layer."""

from __future__ import annotations

import numpy as np
import pytest

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.classifier import classifier_backward, classifier_forward
from minibert.layers.dropout import DropoutKey

R, H, K = 5, 6, 3


@pytest.mark.parametrize("key", [None, DropoutKey(seed=1, step=2, site=7, first_row=4)])
def test_dropout_comes_before_the_product(
    key: DropoutKey | None, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    x, W, b, dy = (rng.normal(size=s) for s in ((R, H), (K, H), (K,), (R, K)))
    factor = np.ones((R, H))
    if key is not None:
        factor = xp.keep_decisions(1, 7, 2, 0, 4 * H, R * H, 16384).reshape(R, H) / 0.75
    logits, cache = classifier_forward(xp, x, W, b, 0.25, key)
    np.testing.assert_allclose(logits, (x * factor) @ W.T + b, atol=1e-14)
    dx, dW, db = classifier_backward(xp, dy, cache)
    np.testing.assert_allclose(dx, (dy @ W) * factor, atol=1e-14)
    np.testing.assert_allclose(dW, dy.T @ (x * factor), atol=1e-14)
    np.testing.assert_allclose(db, dy.sum(axis=0), atol=1e-14)
