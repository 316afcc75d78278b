"""What float32 loses: shaken runs, and attention as fused kernels compute it."""

from __future__ import annotations

import numpy as np
import pytest
from traces import setup_of_head

from minibert.backend.numpy_backend import NumpyBackend
from minibert.verify.budget import FACTOR, UNIT, budget_of, error_of
from minibert.verify.float32 import float32_runs, measured
from minibert.verify.model_cases import KINDS
from minibert.verify.trace.fused import fused_attention
from minibert.verify.trace.shaken import shaken
from minibert.verify.trace.tensors import collected


def test_arguments_move_by_a_unit_in_the_last_place_at_most() -> None:
    x = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    one = np.ones((1, 1), np.float32)
    moved = [shaken(NumpyBackend(), seed).matmul(x.reshape(-1, 1), one).reshape(x.shape)
             for seed in (0, 0, 1)]  # fmt: skip
    assert moved[0].dtype == np.float32
    np.testing.assert_array_equal(moved[0], moved[1])
    assert 0.3 < np.mean(moved[0] != x) < 1.0
    assert np.mean(moved[0] != moved[2]) > 0.3
    np.testing.assert_allclose(moved[0], x, rtol=3 * 2.0**-23)


def test_other_dtypes_stay_as_they_are() -> None:
    x = np.random.default_rng(0).normal(size=50)
    np.testing.assert_array_equal(shaken(NumpyBackend(), 0).exp(x), np.exp(x))


@pytest.mark.parametrize("head", ["masked LM", "question answering"])
def test_fused_attention_is_the_same_in_exact_arithmetic(head: str) -> None:
    setup = setup_of_head(head).replace(recipe=None)
    plain, fused = collected(setup), collected(setup.replace(functions=fused_attention()))
    assert plain.keys() == fused.keys()
    assert any(not np.array_equal(plain[name], fused[name]) for name in plain)
    for name, array in plain.items():
        assert error_of(fused[name], array, 1e-2) < 1e-12, name


def test_the_largest_error_of_all_runs_counts() -> None:
    setup = setup_of_head("regression").replace(recipe=None, dropout=None)
    double = collected(setup)
    runs = [collected(run) for run in float32_runs(setup, 8)]
    for tensor, plain, largest in measured(setup):
        lost = [error_of(run[tensor.name], double[tensor.name], tensor.scale) for run in runs]
        assert (plain, largest) == (lost[0], max(lost)), tensor.name


def test_float32_traces_have_the_same_budgets() -> None:
    setup = setup_of_head("token classification")
    double, single = (list(measured(setup.replace(dtype=t))) for t in ("float64", "float32"))
    assert [each.largest for each in double] == [each.largest for each in single]
    kinds = {each.tensor.value.dtype.name for each in single}
    assert kinds == {"float32", "bool"}


def test_budgets() -> None:
    assert budget_of("activation/loss", 1e-6) == pytest.approx(FACTOR * 1e-6)
    assert budget_of("activation/loss", 0.0) >= FACTOR * UNIT["float32"]
    assert budget_of("training/adam/step_1/m", 1e-6) == pytest.approx(4 * FACTOR * 1e-6, rel=0.1)


def test_every_head_is_measured() -> None:
    for head in KINDS:
        assert all(each.largest < 1 for each in measured(setup_of_head(head)))
