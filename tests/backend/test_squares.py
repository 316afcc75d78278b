"""Attention's squares on a GPU: every sequence has one, and a further size pays."""

from __future__ import annotations

from itertools import pairwise

import cuda_on_cpu
import fake_cupy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.backend.cupy_twins import attention
from minibert.backend.cupy_twins.attention import layout_of


def layout(lengths: list[int], N: int, cells: int) -> tuple[attention.Layout, np.ndarray]:
    """And its table (6, G), on the host."""
    xp = fake_cupy.backend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "CELLS", cells)
        layout_of.cache_clear()
        found = layout_of(xp, (0, *np.cumsum(lengths).tolist()), N)
    layout_of.cache_clear()
    return found, xp.to_host(found.table)


LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=40)


@given(lengths=LENGTHS, N=st.integers(1, 16), cells=st.sampled_from([0, 10_000, 1 << 23]))
def test_every_sequence_has_a_square(lengths: list[int], N: int, cells: int) -> None:
    found, (start, n, decisions, S, rows, squares) = layout(lengths, N, cells)
    offsets = (0, *np.cumsum(lengths).tolist())
    spans = sorted((int(a), int(a + b)) for a, b in zip(start, n, strict=True))
    assert spans == list(pairwise(offsets))
    assert ((n <= S) & (S % 8 == 0)).all()
    np.testing.assert_array_equal(decisions, N * n**2)
    np.testing.assert_array_equal(rows, np.cumsum([0, *S])[:-1])
    np.testing.assert_array_equal(squares, np.cumsum([0, *S**2])[:-1])
    assert (found.G, found.most, found.rows) == (len(lengths), S.max(), S.sum())
    assert found.cells == (S**2).sum()
    g = 0
    for size in found.sizes:
        assert (S[g : g + size.G] == size.S).all()
        assert (size.rows_before, size.cells_before) == (rows[g], squares[g])
        g += size.G
    assert g == len(lengths)


@given(lengths=LENGTHS, N=st.integers(1, 16), cells=st.sampled_from([0, 10_000, 1 << 23]))
def test_no_second_size_saves_more(lengths: list[int], N: int, cells: int) -> None:
    """Than that which is taken; and than must be saved, where there is none."""
    found, (_, n, _, S, _, _) = layout(lengths, N, cells)
    most = max(S)
    assert max(n) > most - 8  # the longest's own size
    first, *second = found.sizes
    saved = sum(N * size.G * (most**2 - size.S**2) for size in second)
    assert (first.S, len(second)) in ((most, 0), (most, 1))
    assert saved > cells or not second
    for other in range(8, most, 8):
        assert N * sum(n <= other) * (most**2 - other**2) <= max(saved, cells)


def test_no_sequence_is_no_square() -> None:
    found, table = layout([], 2, 0)
    assert (found.sizes, table.shape) == ([], (6, 0))


@pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason="needs g++ or clang++")
@pytest.mark.parametrize("longest", [128, 290])
def test_probabilities_are_zero_behind_the_end(longest: int) -> None:
    """And those of a row sum to 1: of a short sequence in a large square too."""
    xp, N, lengths = fake_cupy.backend(), 2, (35, 1, longest)
    rng, offsets = np.random.default_rng(0), (0, *np.cumsum(lengths).tolist())
    qkv = xp.to_device(rng.normal(size=(offsets[-1], 3 * N * 4)), "float32")
    _, cache = attention.attention_forward(xp, qkv, offsets, N, 0.0, None)
    (size,) = cache.layout.sizes
    probs = xp.to_host(size.cells(cache.probs, N))
    _, n, *_ = xp.to_host(cache.layout.table)
    for square, real in zip(probs, n, strict=True):
        np.testing.assert_allclose(square[:, :real, :real].sum(axis=-1), 1, rtol=1e-6)
        assert not square[:, real:].any()
        assert not square[:, :, real:].any()
