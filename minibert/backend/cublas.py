"""Products by cuBLAS that CuPy would make with copies, or more slowly.

cuBLAS counts matrices column by column. A row-major matrix is its own transpose there, so for
c = a b it is asked for cᵀ = bᵀ aᵀ: the same numbers in the same places.

All of it computes in the arrays' own precision: no TF32.
"""

from __future__ import annotations

import itertools
import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minibert.backend.base import Array

LETTERS = {"float32": "s", "float64": "d"}  # what BLAS calls them
KEEP, TRANSPOSE = 0, 1  # cublasOperation_t


def _function(cupy: ModuleType, dtype: Any, name: str) -> Any:
    return getattr(cupy.cuda.cublas, LETTERS[dtype.name] + name)


def can_multiply(a: Array, b: Array) -> bool:
    """Whether `batched_matmul` serves these arrays: one dtype, one batch shape, no broadcasting."""
    fit = a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    return bool(fit and a.dtype == b.dtype and a.dtype.name in LETTERS)


def batched_matmul(cupy: ModuleType, a: Array, b: Array) -> Array:
    """The products of a (…, M, K) and b (…, K, N) → (…, M, N), C-contiguous.

    `cupy.matmul` first makes a contiguous copy of every operand that is a transposed or strided
    view. cuBLAS reads a view where it lies, if its rows (or columns) are contiguous and one stride
    leads from each matrix to the next; only another is copied.
    """
    (M, K), N = a.shape[-2:], b.shape[-1]
    c = cupy.empty((*a.shape[:-1], N), dtype=a.dtype)
    if not c.size or not K:
        c.fill(0)
        return c
    left, right = _operand(cupy, b), _operand(cupy, a)
    one, zero = np.ones(1, a.dtype), np.zeros(1, a.dtype)
    _function(cupy, a.dtype, "gemmStridedBatched")(
        cupy.cuda.device.get_cublas_handle(), left.operation, right.operation,
        N, M, K,
        one.ctypes.data, left.array.data.ptr, left.ld, left.stride,
        right.array.data.ptr, right.ld, right.stride,
        zero.ctypes.data, c.data.ptr, N, M * N,
        math.prod(c.shape[:-2]),
    )  # fmt: skip
    return c


class _Operand(NamedTuple):
    """A batch of matrices as cuBLAS wants it told."""

    array: Array  # kept alive through the call
    operation: int
    ld: int  # elements from one row to the next
    stride: int  # elements from one matrix to the next


def _operand(cupy: ModuleType, x: Array) -> _Operand:
    operation = KEEP
    if x.strides[-1] != x.itemsize:
        operation, x = TRANSPOSE, x.swapaxes(-1, -2)
    stride = _batch_stride(x)
    if x.strides[-1] != x.itemsize or stride is None:
        x = cupy.ascontiguousarray(x)
        stride = x.shape[-2] * x.shape[-1] * x.itemsize
    ld = max(x.strides[-2] // x.itemsize, x.shape[-1])  # a single row's stride says nothing
    return _Operand(x, operation, ld, stride // x.itemsize)


def _batch_stride(x: Array) -> int | None:
    """Bytes from one matrix of x (…, rows, columns) to the next, if that is one number."""
    batch = [(n, s) for n, s in zip(x.shape[:-2], x.strides[:-2], strict=True) if n > 1]
    for (_, outer), (n, inner) in itertools.pairwise(batch):
        if outer != n * inner:
            return None
    return batch[-1][1] if batch else 0


def can_sum_columns(x: Array) -> bool:
    """Whether `column_sums` serves this array."""
    return bool(x.ndim == 2 and x.size and x.flags.c_contiguous and x.dtype.name in LETTERS)


def column_sums(cupy: ModuleType, x: Array) -> Array:
    """Σₜ x_ti of x (T, I), C-contiguous → (I,), as the product xᵀ·1.

    CuPy's reductions are fast along contiguous axes only; cuBLAS reads rows as they lie.
    """
    T, I = x.shape  # noqa: E741  (the name of the mathematics)
    ones, y = cupy.ones(T, dtype=x.dtype), cupy.empty(I, dtype=x.dtype)
    one, zero = np.ones(1, x.dtype), np.zeros(1, x.dtype)
    _function(cupy, x.dtype, "gemv")(
        cupy.cuda.device.get_cublas_handle(), KEEP, I, T,
        one.ctypes.data, x.data.ptr, I, ones.data.ptr, 1, zero.ctypes.data, y.data.ptr, 1,
    )  # fmt: skip
    return y
