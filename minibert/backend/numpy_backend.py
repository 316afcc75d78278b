"""NumPy on the CPU."""

from __future__ import annotations

import ctypes
import functools
import platform
import resource
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from minibert.backend.base import Array, Backend, Ints
from minibert.backend.buffers import empty, matmul
from minibert.backend.erf import erf
from minibert.backend.numpy_twins import FORWARD_ONLY_TWINS, TOGETHER_TWINS, TWINS
from minibert.backend.numpy_twins.blocks import row_blocks

FEW_TOKENS = 256
"""Up to which the threads share each product; above, each takes a shard of the batch."""


class NumpyBackend(Backend):
    name = "numpy"
    module = np
    twins = TWINS

    def __init__(self, *, reference: bool = False) -> None:
        super().__init__(reference=reference)
        keep_freed_memory()

    @functools.cached_property
    def forward_only(self) -> Backend:
        sibling = super().forward_only
        sibling.twins = FORWARD_ONLY_TWINS
        return sibling

    @functools.cached_property
    def _together(self) -> Backend:
        sibling = super().forward_only
        sibling.twins = TOGETHER_TWINS
        return sibling

    def together(self, num_tokens: int, dtype: Any) -> Backend | None:
        few = num_tokens <= FEW_TOKENS and dtype == np.float32 and not self.reference
        return self._together if few else None

    def to_device(self, array: Any, dtype: str | None = None) -> Array:
        # Aligned: in a file with an odd header tensors lie at odd addresses, where NumPy does not
        # call BLAS, and a product takes a hundred times as long.
        return np.require(array, dtype, "A")

    def to_host(self, array: Array) -> Any:
        return np.asarray(array)

    def erf(self, x: Array) -> Array:
        if x.dtype == np.float32:
            return erf(x.astype(np.float64)).astype(np.float32)
        return erf(x)

    def keep_decisions(
        self, seed: int, site: int, step: int, stream: int, first: int, count: int, threshold: int
    ) -> Array:
        return keep_decisions(seed, site, step, stream, first, count, threshold)

    # Results as large as a batch go into memory that is used again.

    def matmul(self, a: Array, b: Array) -> Array:
        return matmul(a, b) if a.ndim == b.ndim == 2 else np.matmul(a, b)

    def add(self, a: Array, b: Array, out: Array | None = None) -> Array:
        return np.add(a, b, out=result_of(a, b) if out is None else out)

    def multiply(self, a: Array, b: Array, out: Array | None = None) -> Array:
        return np.multiply(a, b, out=result_of(a, b) if out is None else out)

    def concatenate(self, arrays: Sequence[Array], axis: int = 0) -> Array:
        first = arrays[0]
        shape = list(first.shape)
        shape[axis] = sum(array.shape[axis] for array in arrays)
        dtype = np.result_type(*arrays)
        return np.concatenate(arrays, axis, out=empty(tuple(shape), dtype))

    def take(self, table: Array, ids: Ints, axis: int) -> Array:
        """Rows of a table; NumPy's own `out` would be filled by way of a copy."""
        if axis or table.ndim != 2 or ids.ndim != 1:
            return np.take(table, ids, axis)
        rows = empty((len(ids), table.shape[1]), table.dtype)
        for part in row_blocks(*rows.shape):
            rows[part] = table[ids[part]]
        return rows

    def add_rows(self, table: Array, ids: Ints, rows: Array) -> None:
        for part in row_blocks(*rows.shape):
            table[ids[part]] += rows[part]

    def sum_rows(self, ids: Ints, rows: Array) -> tuple[Ints, Array]:
        if not len(ids):
            return ids, rows
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        sums = empty((len(starts), rows.shape[1]), rows.dtype)
        sums.fill(0)
        for part in row_blocks(*rows.shape):  # a segment may go on in the next block
            first = int(np.searchsorted(starts, part.start, "right")) - 1
            last = int(np.searchsorted(starts, part.stop))
            inside = np.maximum(starts[first:last] - part.start, 0)
            sums[first:last] += np.add.reduceat(rows[order[part]], inside, axis=0)
        return ordered[starts], sums

    def memory(self) -> int:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def result_of(a: Array, b: Array) -> Array:
    """Memory for an operation on two arrays."""
    return empty(np.broadcast_shapes(a.shape, b.shape), np.result_type(a, b))


_generators = threading.local()


def keep_decisions(
    seed: int, site: int, step: int, stream: int, first: int, count: int, threshold: int
) -> Array:
    """`Backend.keep_decisions` by NumPy's own Philox generator, which runs in C."""
    block, skip = divmod(first, 16)
    blocks = -(-(skip + count) // 16)
    generator = getattr(_generators, "philox", None)
    if generator is None:
        generator = _generators.philox = np.random.Philox(key=0)
    generator.state = {  # 9 times cheaper than a new generator for each of thousands of masks
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([block, stream, step, 0], np.uint64),
            "key": np.array([seed, site], np.uint64),
        },
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    pieces = generator.random_raw(4 * blocks).astype("<u8", copy=False).view("<u2")
    return pieces[skip : skip + count] >= np.uint16(threshold)


@functools.cache
def keep_freed_memory() -> None:
    """Ask glibc's allocator to keep what is freed instead of returning it to the system.

    A training step frees and takes the same large arrays again and again. Returned and taken anew,
    every page of them costs a page fault: measured, up to 1.7 times the time of the element-wise
    work. What is larger than 64 MiB, a model's parameters or their moments, is made once and still
    comes from the system: its pages exist when they are first written. Elsewhere than on glibc this
    does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
    libc.mallopt(M_MMAP_THRESHOLD, 64 << 20)
    libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
    libc.mallopt(M_TOP_PAD, 64 << 20)
