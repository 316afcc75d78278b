"""The error function against scipy's (float64) and its known derivative (complex)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from minibert.backend.erf import erf
from minibert.backend.numpy_backend import NumpyBackend

SEAMS = [s * x for x in (0.46875, 4.0, 6.0) for s in (-1, 1)]  # between the rational functions
GRID = np.concatenate(
    [np.linspace(-7, 7, 20001), np.geomspace(1e-300, 1, 500), SEAMS]
    + [np.nextafter(SEAMS, direction) for direction in (-9, 9)]
)


def test_float64_is_within_a_few_roundings_everywhere() -> None:
    want = special.erf(GRID)
    assert (np.abs(erf(GRID) - want) <= 5 * np.spacing(np.abs(want))).all()


@given(st.floats(-10, 10))
def test_it_is_odd(x: float) -> None:
    assert erf(np.array([-x])) == -erf(np.array([x]))


def test_special_values() -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, 1e308, np.nan])
    np.testing.assert_array_equal(erf(x), [0, 0, 1, -1, 1, np.nan])


def test_the_complex_step_finds_the_derivative() -> None:
    """2/√π·exp(−x²), on either side of each seam too; beyond 6 it is below 3e-16."""
    h = 1e-20
    stepped = erf(GRID + 1j * h)
    slope = 2 / math.sqrt(math.pi) * np.exp(-GRID * GRID)
    np.testing.assert_allclose(stepped.real, erf(GRID), rtol=1e-15, atol=0)
    near = np.abs(GRID) <= 6
    np.testing.assert_allclose(stepped.imag[near] / h, slope[near], rtol=2e-13, atol=3e-16)
    assert np.abs(stepped.imag / h - slope).max() < 3e-15


def test_complex_arguments_near_the_real_axis() -> None:
    """As near as scipy's complex erf promises to be."""
    x = np.linspace(-5.5, 5.5, 2001)
    for height in (1e-8, 1e-3):
        z = x + 1j * height
        np.testing.assert_allclose(erf(z), special.erf(z), rtol=1e-13, atol=0)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3, 4)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    x = np.full(shape, 0.7)
    np.testing.assert_allclose(erf(x), special.erf(x), rtol=1e-15)
    assert erf(x).shape == shape


def test_the_backend_rounds_once_for_float32(xp: NumpyBackend) -> None:
    x = GRID.astype(np.float32)
    got, want = xp.erf(x), special.erf(x.astype(np.float64))
    assert got.dtype == np.float32
    assert (np.abs(got - want) <= 0.501 * np.spacing(np.abs(want).astype(np.float32))).all()
    for dtype in (np.float64, np.complex128):
        assert xp.erf(x.astype(dtype)).dtype == dtype
