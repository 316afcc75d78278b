"""Sums over rows: gradients of biases and of layer norms, many of them in one array."""

from __future__ import annotations

from minibert.backend.base import Array, Backend
from minibert.backend.cupy_twins.dropout import ALL, Kept
from minibert.backend.kernels import launch

CHUNK = 64  # rows, as in kernels/chunk.cuh


def chunks_of(rows: int) -> int:
    return -(-rows // CHUNK)


class ColumnSums:
    """Gathers sums over `rows` rows, `columns` of them side by side; see kernels/columns.cu.

    All columns must have been added before the end. Those from column `rest` on are sums over
    `rest_rows` rows, which are fewer.
    """

    def __init__(
        self, xp: Backend, rows: int, columns: int, rest: int | None = None, rest_rows: int = 0
    ) -> None:
        self.xp = xp
        self.rest, self.rest_rows = (columns, rows) if rest is None else (rest, rest_rows)
        self.partial = xp.empty((chunks_of(rows), columns), dtype="float32")

    def add(self, place: int, x: Array) -> None:
        """Σₜ x, x (rows, width) stored, into the columns from `place` on."""
        self._launch("sum_columns", place, x.shape, x, storage=x.dtype)

    def add_norm(
        self, place: int, dy: Array, xhat: Array, after: Kept = ALL, dx: Array | None = None,
        place_dx: int = 0,
    ) -> None:  # fmt: skip
        """Σₜ dy·x̂ and Σₜ dy, one behind the other, and Σₜ dx of a stored dx, from place_dx on.

        `after`: the dropout behind the norm.
        """
        storage = "float32" if dx is None else dx.dtype
        arrays = dy, *after, xhat, dx, place_dx
        self._launch("sum_norm_columns", place, dy.shape, *arrays, storage=storage)

    def _launch(
        self, kernel: str, place: int, shape: tuple[int, int], *arrays: object,
        storage: object = "float32",
    ) -> None:  # fmt: skip
        launch(
            self.xp.module, "columns", kernel, chunks_of(shape[0]) * shape[1],
            *arrays, self.partial, self.partial.shape[1], place, *shape, storage=storage,
        )  # fmt: skip

    def finish(self, sums: Array) -> Array:
        """The sums, into `sums` (columns,)."""
        chunks, columns = self.partial.shape
        launch(
            self.xp.module, "columns", "finish", columns,
            self.partial, sums, chunks, columns, self.rest, chunks_of(self.rest_rows),
        )  # fmt: skip
        return sums
