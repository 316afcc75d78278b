"""Products by cuBLAS that CuPy would make with copies, more slowly, or not in this precision.

cuBLAS counts matrices column by column. A row-major matrix is its own transpose there, so for
c = a b it is asked for cᵀ = bᵀ aᵀ: the same numbers in the same places.

Sums are taken in float32 (float64 of float64 operands), whatever the operands are.
"""

from __future__ import annotations

import itertools
import math
from types import ModuleType
from typing import NamedTuple

import numpy as np

from minibert.backend.base import Array

TYPES = {"float32": 0, "float64": 1, "float16": 2, "uint16": 14}
"""cudaDataType_t by dtype. bfloat16, which NumPy lacks, is uint16 here: nothing else is."""

FLOAT32, TENSOR_FLOAT32, FLOAT64 = 68, 77, 70  # cublasComputeType_t
KEEP, TRANSPOSE = 0, 1  # cublasOperation_t
DEFAULT = -1  # cublasGemmAlgo_t

_SCALARS = {dtype: np.array([0, 1], dtype) for dtype in ("float32", "float64")}
_ADDRESSES = {  # of 0 and of 1
    dtype: (pair.ctypes.data, pair.ctypes.data + pair.itemsize) for dtype, pair in _SCALARS.items()
}


def can_multiply(a: Array, b: Array) -> bool:
    """Whether `matmul` serves these arrays: one dtype, one batch shape, no broadcasting."""
    fit = a.ndim > 1 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    return bool(fit and a.dtype == b.dtype and a.dtype.name in TYPES)


def matmul(
    cupy: ModuleType,
    a: Array,
    b: Array,
    compute: int = FLOAT32,
    out: Array | None = None,
    dtype: str | None = None,
    add: bool = False,
) -> Array:
    """The products of a (…, M, K) and b (…, K, N) → (…, M, N), C-contiguous.

    `compute`: FLOAT32, or TENSOR_FLOAT32, which rounds float32 operands to 10 bits; `out`: where
    the result goes, C-contiguous, else to a new array of `dtype` (default: the operands'); with
    `add` it is added to `out`.

    cuBLAS reads a transposed or strided view where it lies, if its rows (or columns) are contiguous
    and one stride leads from each matrix to the next; only another is copied.
    """
    (M, K), N = a.shape[-2:], b.shape[-1]
    c = cupy.empty((*a.shape[:-1], N), dtype=dtype or a.dtype) if out is None else out
    if not c.size or not K:
        if not add:
            c.fill(0)
        return c
    left, right = _operand(cupy, b), _operand(cupy, a)
    double = a.dtype.name == "float64"
    zero, one = _ADDRESSES["float64" if double else "float32"]
    kind, result = TYPES[a.dtype.name], TYPES[c.dtype.name]
    shape = left.operation, right.operation, N, M, K, one
    beta = one if add else zero
    how = FLOAT64 if double else compute if a.dtype.name == "float32" else FLOAT32
    handle, gemm = cupy.cuda.device.get_cublas_handle(), cupy.cuda.cublas
    if a.ndim == 2:
        gemm.gemmEx(
            handle, *shape, left.array.data.ptr, kind, left.ld, right.array.data.ptr, kind,
            right.ld, beta, c.data.ptr, result, N, how, DEFAULT,
        )  # fmt: skip
    else:
        gemm.gemmStridedBatchedEx(
            handle, *shape, left.array.data.ptr, kind, left.ld, left.stride,
            right.array.data.ptr, kind, right.ld, right.stride,
            beta, c.data.ptr, result, N, M * N, math.prod(c.shape[:-2]), how, DEFAULT,
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
    return bool(x.ndim == 2 and x.size and x.flags.c_contiguous and x.dtype.name in _SCALARS)


def column_sums(cupy: ModuleType, x: Array) -> Array:
    """Σₜ x_ti of x (T, I), C-contiguous → (I,), as the product xᵀ·1.

    CuPy's reductions are fast along contiguous axes only; cuBLAS reads rows as they lie.
    """
    T, I = x.shape  # noqa: E741  (the name of the mathematics)
    ones, y = cupy.ones(T, dtype=x.dtype), cupy.empty(I, dtype=x.dtype)
    zero, one = _ADDRESSES[x.dtype.name]
    gemv = cupy.cuda.cublas.sgemv if x.dtype.name == "float32" else cupy.cuda.cublas.dgemv
    gemv(
        cupy.cuda.device.get_cublas_handle(), KEEP, I, T,
        one, x.data.ptr, I, ones.data.ptr, 1, zero, y.data.ptr, 1,
    )  # fmt: skip
    return y
