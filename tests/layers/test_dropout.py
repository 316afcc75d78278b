"""Dropout: what is kept, by which factor, and that backward and shards see the same mask."""

from __future__ import annotations

import numpy as np
import pytest

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.dropout import DropoutKey, dropout_backward, dropout_forward

KEY = DropoutKey(seed=1, step=2, site=3, first_row=0)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_what_is_kept_is_scaled_and_the_expectation_stays(p: float, xp: NumpyBackend) -> None:
    x = np.ones((1000, 300))
    y, _ = dropout_forward(xp, x, p, KEY)
    true_p = round(65536 * p) / 65536
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - true_p)], rtol=1e-15)
    error = (p / (1 - p) / x.size) ** 0.5  # of the mean of independent 0 and 1/(1 − p)
    assert abs(y.mean() - 1) < 4 * error


def test_the_backward_uses_the_mask_of_the_forward(
    xp: NumpyBackend, rng: np.random.Generator
) -> None:
    x = rng.normal(size=(6, 7))
    y, cache = dropout_forward(xp, x, 0.4, KEY)
    dx = dropout_backward(xp, np.ones_like(x), cache)
    np.testing.assert_allclose(y, x * dx, rtol=1e-15)
    assert 0 < (dx == 0).sum() < dx.size


@pytest.mark.parametrize(("p", "key"), [(0.4, None), (0.0, KEY)])
def test_evaluation_and_p_0_change_nothing(
    p: float, key: DropoutKey | None, xp: NumpyBackend
) -> None:
    x = np.ones((3, 5))
    y, cache = dropout_forward(xp, x, p, key)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(dropout_backward(xp, x, cache), x)


def test_a_shard_drops_what_the_whole_batch_drops(xp: NumpyBackend) -> None:
    x = np.ones((11, 7))
    whole, _ = dropout_forward(xp, x, 0.5, KEY)
    for start, stop in ((0, 4), (4, 5), (5, 11)):
        part, _ = dropout_forward(xp, x[start:stop], 0.5, KEY._replace(first_row=start))
        np.testing.assert_array_equal(part, whole[start:stop])


@pytest.mark.parametrize("rows", [[1, 2, 6, 10], [6, 10, 1], [10, 2, 0]])
def test_chosen_rows_drop_what_they_drop_among_the_others(
    rows: list[int], xp: NumpyBackend
) -> None:
    x = np.ones((11, 7))
    for key in (KEY, KEY._replace(first_row=5)):
        whole, _ = dropout_forward(xp, x, 0.5, key)
        some, cache = dropout_forward(xp, x[rows], 0.5, key.of(rows))
        np.testing.assert_array_equal(some, whole[rows])
        np.testing.assert_array_equal(dropout_backward(xp, x[rows], cache), whole[rows])
        assert key.of(rows).runs(range(1, 3)) == [(key.first_row + row, 1) for row in rows[1:3]]


@pytest.mark.parametrize("change", [{"seed": 9}, {"step": 9}, {"site": 9}])
def test_another_place_has_another_mask(change: dict[str, int], xp: NumpyBackend) -> None:
    x = np.ones((9, 9))
    here, _ = dropout_forward(xp, x, 0.5, KEY)
    there, _ = dropout_forward(xp, x, 0.5, KEY._replace(**change))
    assert (here != there).any()
    assert KEY.at(9) == KEY._replace(site=9)
