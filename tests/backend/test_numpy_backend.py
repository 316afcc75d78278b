"""NumPy's own operations where they work block by block."""

from __future__ import annotations

import device_checks as checks
import numpy as np
import pytest

from minibert.backend.numpy_backend import NumpyBackend
from minibert.backend.numpy_twins.blocks import BLOCK


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ids", [1, 2, 5, 300])
def test_rows_of_one_id_are_added_across_blocks(ids: int, dtype: str) -> None:
    """300 rows are 3 blocks: of few ids some go on in the next, one fills them all."""
    rows, width = 300, 1000
    assert rows * width > 2 * BLOCK
    checks.check_sum_rows(
        NumpyBackend(), np.random.default_rng(ids).integers(0, ids, rows), width, dtype
    )


def test_no_rows_have_no_sums() -> None:
    checks.check_sum_rows(NumpyBackend(), np.zeros(0, np.int64), 3, "float32")
