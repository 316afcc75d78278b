"""Products by cuBLAS that CuPy would make with copies, more slowly, or not in this precision.

cuBLAS counts matrices column by column. A row-major matrix is its own transpose there, so for
c = a b it is asked for cᵀ = bᵀ aᵀ: the same numbers in the same places.

Sums are taken in float32 (float64 of float64 operands), whatever the operands are.
"""

from __future__ import annotations

import functools
import itertools
import math
from types import ModuleType
from typing import NamedTuple

import numpy as np

from minibert.backend.base import Array

SINGLE, DOUBLE = np.dtype("float32"), np.dtype("float64")
TYPES = {SINGLE: 0, DOUBLE: 1, np.dtype("float16"): 2, np.dtype("uint16"): 14}
"""cudaDataType_t by dtype. bfloat16, which NumPy lacks, is uint16 here: nothing else is."""

FLOAT32, TENSOR_FLOAT32, FLOAT64 = 68, 77, 70  # cublasComputeType_t
KEEP, TRANSPOSE = 0, 1  # cublasOperation_t
DEFAULT = -1  # cublasGemmAlgo_t
HOST, DEVICE = 0, 1  # cublasPointerMode_t
SUMS_IN_FLOAT32 = 16  # cublasMath_t: CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION

_SCALARS = {dtype: np.array([0, 1], dtype) for dtype in (SINGLE, DOUBLE)}
_ADDRESSES = {  # of 0 and of 1
    dtype: (pair.ctypes.data, pair.ctypes.data + pair.itemsize) for dtype, pair in _SCALARS.items()
}


def can_multiply(a: Array, b: Array) -> bool:
    """Whether `matmul` serves these arrays: one dtype, one batch shape, no broadcasting."""
    left, right = a.shape, b.shape
    fit = len(left) > 1 and left[:-2] == right[:-2] and left[-1] == right[-2]
    return bool(fit and a.dtype == b.dtype and a.dtype in TYPES)


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
    *batch, M, K = a.shape
    N, given = b.shape[-1], a.dtype
    c = cupy.empty((*batch, M, N), dtype=dtype or given) if out is None else out
    if not c.size or not K:
        if not add:
            c.fill(0)
        return c
    b, left = _readable(cupy, b)
    a, right = _readable(cupy, a)
    zero, one = _ADDRESSES[DOUBLE if given == DOUBLE else SINGLE]
    kind, result = TYPES[given], TYPES[c.dtype]
    shape = left.operation, right.operation, N, M, K, one
    beta = one if add else zero
    how = FLOAT64 if given == DOUBLE else compute if given == SINGLE else FLOAT32
    handle, gemm = cupy.cuda.device.get_cublas_handle(), cupy.cuda.cublas
    if given.itemsize == 2:  # else parts of a long sum may be added up in 16 bits
        gemm.setMathMode(handle, SUMS_IN_FLOAT32)
    if not batch:
        gemm.gemmEx(
            handle, *shape, b.data.ptr, kind, left.ld, a.data.ptr, kind,
            right.ld, beta, c.data.ptr, result, N, how, DEFAULT,
        )  # fmt: skip
    else:
        gemm.gemmStridedBatchedEx(
            handle, *shape, b.data.ptr, kind, left.ld, left.stride,
            a.data.ptr, kind, right.ld, right.stride,
            beta, c.data.ptr, result, N, M * N, math.prod(batch), how, DEFAULT,
        )  # fmt: skip
    return c


class _Reading(NamedTuple):
    """How cuBLAS finds a batch of matrices in memory."""

    operation: int
    ld: int  # elements from one row to the next
    stride: int  # elements from one matrix to the next


def _readable(cupy: ModuleType, x: Array) -> tuple[Array, _Reading]:
    """x, or a copy of it that cuBLAS can read."""
    reading = _reading(x.shape, x.strides, x.itemsize)
    if reading is None:
        return cupy.ascontiguousarray(x), _Reading(KEEP, x.shape[-1], x.shape[-2] * x.shape[-1])
    return x, reading


@functools.lru_cache(maxsize=4096)
def _reading(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> _Reading | None:
    """None: not as it lies. (Cached: a step asks some 400 times, for the same few.)"""
    operation, row, rows, width = KEEP, strides[-2], shape[-2], shape[-1]
    if strides[-1] != itemsize:
        operation, row, rows, width = TRANSPOSE, strides[-1], shape[-1], shape[-2]
    contiguous = operation == KEEP or strides[-2] == itemsize
    apart = rows == 1 or row >= width * itemsize  # not of a broadcast or reversed view
    stride = _batch_stride(shape[:-2], strides[:-2]) if len(shape) > 2 else 0
    if not (contiguous and apart) or stride is None or stride < 0:
        return None
    ld = max(row // itemsize, width)  # a single row's stride says nothing
    return _Reading(operation, ld, stride // itemsize)


def _batch_stride(shape: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """Bytes from one matrix of a batch of this shape to the next, if that is one number."""
    batch = [(n, s) for n, s in zip(shape, strides, strict=True) if n > 1]
    for (_, outer), (n, inner) in itertools.pairwise(batch):
        if outer != n * inner:
            return None
    return batch[-1][1] if batch else 0


def dot(cupy: ModuleType, a: Array, b: Array) -> Array:
    """Σ a·b, (), of a and b (P,) of one dtype, float32 or float64, both C-contiguous.

    CuPy would write the products into an array of their own first.
    """
    handle, blas = cupy.cuda.device.get_cublas_handle(), cupy.cuda.cublas
    y = cupy.empty((), dtype=a.dtype)
    blas.setPointerMode(handle, DEVICE)
    try:
        function = blas.ddot if a.dtype == DOUBLE else blas.sdot
        function(handle, a.size, a.data.ptr, 1, b.data.ptr, 1, y.data.ptr)
    finally:
        blas.setPointerMode(handle, HOST)
    return y


def can_dot(a: Array, b: Array) -> bool:
    """Whether `dot` serves these arrays; cuBLAS counts elements in 32 bits."""
    alike = a.ndim == 1 and a.shape == b.shape and a.dtype == b.dtype and 0 < a.size < 2**31
    return bool(alike and a.dtype in _SCALARS and a.flags.c_contiguous and b.flags.c_contiguous)


def can_sum_columns(x: Array) -> bool:
    """Whether `column_sums` serves this array."""
    return bool(x.ndim == 2 and x.size and x.flags.c_contiguous and x.dtype in _SCALARS)


def column_sums(cupy: ModuleType, x: Array) -> Array:
    """Σₜ x_ti of x (T, I), C-contiguous → (I,), as the product xᵀ·1.

    CuPy's reductions are fast along contiguous axes only; cuBLAS reads rows as they lie.
    """
    T, I = x.shape  # noqa: E741  (the name of the mathematics)
    ones, y = cupy.ones(T, dtype=x.dtype), cupy.empty(I, dtype=x.dtype)
    zero, one = _ADDRESSES[x.dtype]
    gemv = cupy.cuda.cublas.dgemv if x.dtype == DOUBLE else cupy.cuda.cublas.sgemv
    gemv(
        cupy.cuda.device.get_cublas_handle(), KEEP, I, T,
        one, x.data.ptr, I, ones.data.ptr, 1, zero, y.data.ptr, 1,
    )  # fmt: skip
    return y
