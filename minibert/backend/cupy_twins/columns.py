"""Sums over rows: gradients of biases and of layer norms, many of them in one array."""

from __future__ import annotations

from typing import NamedTuple

from minibert.backend.base import Array, Backend
from minibert.backend.cupy_twins.dropout import ALL, Kept
from minibert.backend.kernels import launch

CHUNK = 64  # rows, as in kernels/chunk.cuh


def chunks_of(rows: int) -> int:
    return -(-rows // CHUNK)


class ColumnSums(NamedTuple):
    """Sums over rows, side by side, of CHUNK rows each: the first stage; see kernels/columns.cu.

    Those from column `rest` on are sums over `rest_rows` rows, which are fewer.
    """

    partial: Array  # (chunks, columns)
    rest: int
    rest_rows: int

    def finish(self, xp: Backend, sums: Array, add: bool = False) -> Array:
        """The sums, into (or added to) the memory that begins with `sums`."""
        chunks, columns = self.partial.shape
        launch(
            xp.module, "columns", "finish", columns,
            self.partial, sums, chunks, columns, self.rest, chunks_of(self.rest_rows), int(add),
        )  # fmt: skip
        return sums


def room_for_sums(
    xp: Backend, rows: int, columns: int, rest: int | None = None, rest_rows: int = 0
) -> ColumnSums:
    """All columns must be filled before the end."""
    partial = xp.empty((chunks_of(rows), columns), dtype="float32")
    return ColumnSums(partial, columns if rest is None else rest, rest_rows or rows)


def gamma_and_beta(xp: Backend, dy: Array, xhat: Array, after: Kept = ALL) -> tuple[Array, Array]:
    """Σₜ dy·x̂ and Σₜ dy of a layer norm, (H,) each; `after`: the dropout behind it."""
    T, H = dy.shape
    room = room_for_sums(xp, T, 2 * H)
    launch(
        xp.module, "columns", "norm_columns", chunks_of(T) * H,
        dy, *after, xhat, room.partial, T, H,
    )  # fmt: skip
    sums = room.finish(xp, xp.empty(2 * H, dtype="float32"))
    return sums[:H], sums[H:]
