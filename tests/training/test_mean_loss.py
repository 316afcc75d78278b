"""The mean loss between two lines of the log."""

from __future__ import annotations

import math

import numpy as np

from minibert.backend.numpy_backend import NumpyBackend
from minibert.training.mean_loss import MeanLoss


def test_the_mean_begins_anew_after_each_look() -> None:
    mean = MeanLoss(NumpyBackend())
    for losses in ([1.5, 2.5, 5.0], [0.25]):
        for loss in losses:
            mean.add(np.float32(loss))
        assert mean.take() == np.mean(losses)
    assert math.isnan(mean.take())


def test_a_sum_that_is_put_back_goes_on_to_the_same_bits() -> None:
    losses = np.random.default_rng(0).normal(5, 1, 40).astype(np.float32)
    whole, first = MeanLoss(NumpyBackend()), MeanLoss(NumpyBackend())
    for loss in losses:
        whole.add(loss)
    for loss in losses[:23]:
        first.add(loss)
    second = MeanLoss(NumpyBackend(), *first.state())
    for loss in losses[23:]:
        second.add(loss)
    assert second.state() == whole.state()
    assert whole.state() == (math.fsum(losses.tolist()), 40)  # exact in float64 by then


def test_a_loss_that_is_not_finite_is_left_out() -> None:
    mean = MeanLoss(NumpyBackend())
    for loss in (3.0, math.inf, math.nan, 5.0):
        mean.add(np.float32(loss))
    assert mean.state() == (8.0, 2)
    assert mean.take() == 4.0
