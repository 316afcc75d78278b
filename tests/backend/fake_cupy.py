"""A strict stand-in for CuPy on a machine without a GPU: NumPy behind glass.

`DeviceArray` has the methods of cupy.ndarray that minibert may use, refuses every implicit way to
the host, and meets no host array. `module()` makes a fake `cupy` module: its functions are those
that CuPy has (a test holds the list to the real one), its cuBLAS reads raw pointers column by
column as the real one does, and its RawModule runs the kernels' own source on the CPU.
"""

from __future__ import annotations

import ctypes
import operator
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from cuda_on_cpu import Kernel
from numpy.typing import NDArray

UFUNCS = ("add", "subtract", "multiply", "divide", "sqrt", "exp", "log", "log1p", "tanh")
FUNCTIONS = (
    "arange", "argmax", "ascontiguousarray", "concatenate", "dot", "full", "matmul", "max", "mean",
    "searchsorted", "stack", "sum", "take", "take_along_axis", "where", "zeros", "ones",
)  # fmt: skip
OWN = ("argsort", "asarray", "asnumpy", "empty", "empty_like", "get_default_memory_pool")
ATTRIBUTES = ("dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size", "strides")
METHODS = ("astype", "clip", "copy", "fill", "max", "mean", "min", "reshape", "sum", "swapaxes",
           "transpose")  # fmt: skip
OPERATORS = ("add", "sub", "mul", "truediv", "matmul", "pow")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


class HostTransferError(TypeError):
    """What would make the host wait for the device, or hand it a host array unasked."""


class DeviceArray:
    """Memory that only the device may read."""

    __array_ufunc__ = None  # host arrays leave `host + device` to us, and we refuse
    __hash__ = None  # type: ignore[assignment]  # as for any array

    def __init__(self, glass: NDArray[Any]) -> None:
        self._glass = glass

    @property
    def T(self) -> DeviceArray:
        return DeviceArray(self._glass.T)

    @property
    def real(self) -> DeviceArray:
        return DeviceArray(self._glass.real)

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(ptr=self._glass.ctypes.data)

    @property
    def device(self) -> object:
        return DEVICE

    def __len__(self) -> int:
        return len(self._glass)

    def __iter__(self) -> Iterator[DeviceArray]:
        if self.ndim < 2:
            raise HostTransferError("iterating over a device array, number by number")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> DeviceArray:
        return _wrap(self._glass[_index(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._glass[_index(index)] = _unwrap(value)


DEVICE = SimpleNamespace(name="fake")  # not equal to "cpu"


def _wrap(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return DeviceArray(np.asarray(value))
    return value


def _unwrap(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value._glass
    if isinstance(value, np.ndarray):
        raise HostTransferError(f"a host array {value.dtype} {value.shape} meets the device")
    if isinstance(value, list | tuple):
        return type(value)(_unwrap(v) for v in value)
    return value


def _index(index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if isinstance(part, DeviceArray) and part.dtype == bool:
            raise HostTransferError("indexing by a mask: the host must wait for its count")
        if isinstance(part, list | np.ndarray | range):
            raise HostTransferError(f"indexing by a host {type(part).__name__}")
    return tuple(map(_unwrap, parts))


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: DeviceArray, *args: Any, **kwargs: Any) -> Any:
        given = {name: _unwrap(value) for name, value in kwargs.items()}
        return _wrap(function(self._glass, *map(_unwrap, args), **given))

    return call


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: DeviceArray, other: Any) -> DeviceArray:
        function(self._glass, _unwrap(other))
        return self

    return call


def _swapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: function(b, a)


def _refuse(name: str) -> Callable[..., Any]:
    def call(self: DeviceArray, *args: Any, **kwargs: Any) -> Any:
        raise HostTransferError(f"{name}: the host would wait for the device")

    return call


for _name in ATTRIBUTES:
    setattr(DeviceArray, _name, property(lambda self, n=_name: getattr(self._glass, n)))
for _name in METHODS:
    setattr(DeviceArray, _name, _method(getattr(np.ndarray, _name)))
for _name in OPERATORS:
    setattr(DeviceArray, f"__{_name}__", _method(getattr(operator, _name)))
    setattr(DeviceArray, f"__r{_name}__", _method(_swapped(getattr(operator, _name))))
    setattr(DeviceArray, f"__i{_name}__", _in_place(getattr(operator, f"i{_name}")))
for _name in COMPARISONS:
    setattr(DeviceArray, f"__{_name}__", _method(getattr(operator, _name)))
for _name in ("neg", "invert", "abs"):
    setattr(DeviceArray, f"__{_name}__", _method(getattr(operator, _name)))
for _name in ("and", "or"):
    setattr(DeviceArray, f"__{_name}__", _method(getattr(operator, f"{_name}_")))
for _name in ("array", "float", "int", "bool", "complex", "index", "contains"):
    setattr(DeviceArray, f"__{_name}__", _refuse(f"__{_name}__"))
for _name in ("item", "get", "tolist", "tobytes", "nonzero"):
    setattr(DeviceArray, _name, _refuse(_name))


# ---- The module ----


def module() -> Any:
    """A new fake `cupy`, with lists of the copies it was asked for."""
    fake = SimpleNamespace(to_device=[], to_host=[], copies=[])
    for name in (*UFUNCS, *FUNCTIONS):
        setattr(fake, name, _function(getattr(np, name)))

    def asarray(a: Any, dtype: Any = None, order: str | None = None) -> DeviceArray:
        if isinstance(a, DeviceArray):
            return DeviceArray(np.asarray(a._glass, dtype=dtype, order=order))
        array = np.array(a, dtype=dtype)
        fake.to_device.append(array)
        return DeviceArray(array)

    def asnumpy(a: DeviceArray) -> NDArray[Any]:
        fake.to_host.append(a.shape)
        return a._glass.copy()

    def ascontiguousarray(a: DeviceArray) -> DeviceArray:
        fake.copies.append(a.shape)
        return DeviceArray(np.ascontiguousarray(_unwrap(a)))

    fake.asarray, fake.asnumpy, fake.ascontiguousarray = asarray, asnumpy, ascontiguousarray
    fake.empty, fake.empty_like = _empty, lambda a: _empty(a.shape, a.dtype)
    fake.argsort = lambda a: DeviceArray(np.argsort(_unwrap(a), kind="stable"))
    fake.get_default_memory_pool = lambda: SimpleNamespace(total_bytes=lambda: 0)
    fake.RawModule = lambda code: SimpleNamespace(get_function=lambda name: Kernel(code, name))
    # Hashable, as a module is: kernels are cached by it.
    return _Module(fake)


class _Module:
    def __init__(self, names: SimpleNamespace) -> None:
        self.__dict__.update(vars(names))
        self.cuda = SimpleNamespace(
            cublas=SimpleNamespace(**CUBLAS),
            device=SimpleNamespace(get_cublas_handle=lambda: HANDLE),
            Device=lambda: SimpleNamespace(synchronize=lambda: None),
        )


def _function(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        given = {name: _unwrap(value) for name, value in kwargs.items()}
        result = _wrap(function(*map(_unwrap, args), **given))
        return kwargs.get("out", result) if kwargs.get("out") is not None else result

    return call


def _empty(shape: Any, dtype: Any = float) -> DeviceArray:
    """Uninitialised memory, at its worst."""
    dtype = np.dtype(dtype)
    return DeviceArray(np.full(shape, np.nan if dtype.kind == "f" else 77, dtype))


# ---- cuBLAS: column-major matrices behind raw pointers ----

HANDLE = 42


def _matrix(ptr: int, dtype: Any, rows: int, columns: int, ld: int) -> NDArray[Any]:
    """The column-major matrix (rows, columns) at this address, as a view."""
    assert ld >= max(1, rows)  # or cuBLAS answers CUBLAS_STATUS_INVALID_VALUE
    size = np.dtype(dtype).itemsize
    buffer = (ctypes.c_char * (((columns - 1) * ld + rows) * size)).from_address(ptr)
    flat = np.frombuffer(buffer, dtype)
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (size, ld * size))


def _batched_gemm(dtype: Any) -> Callable[..., None]:
    def call(
        handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
        A: int, lda: int, stride_a: int, B: int, ldb: int, stride_b: int, beta: int,
        C: int, ldc: int, stride_c: int, batch: int,
    ) -> None:  # fmt: skip
        """Computes C = alpha·op(A)·op(B) + beta·C, for each of the batch."""
        assert handle == HANDLE
        one, zero = (_matrix(p, dtype, 1, 1, 1)[0, 0] for p in (alpha, beta))
        size = np.dtype(dtype).itemsize
        for i in range(batch):
            a = _matrix(A + i * stride_a * size, dtype, *((k, m) if transa else (m, k)), lda)
            b = _matrix(B + i * stride_b * size, dtype, *((n, k) if transb else (k, n)), ldb)
            c = _matrix(C + i * stride_c * size, dtype, m, n, ldc)
            product = one * ((a.T if transa else a) @ (b.T if transb else b))
            c[...] = product if zero == 0 else product + zero * c

    return call


def _gemv(dtype: Any) -> Callable[..., None]:
    def call(
        handle: int, trans: int, m: int, n: int, alpha: int, A: int, lda: int,
        x: int, incx: int, beta: int, y: int, incy: int,
    ) -> None:  # fmt: skip
        """Computes y = alpha·op(A)·x + beta·y, A (m, n)."""
        assert (handle, incx, incy) == (HANDLE, 1, 1)
        one, zero = (_matrix(p, dtype, 1, 1, 1)[0, 0] for p in (alpha, beta))
        a = _matrix(A, dtype, m, n, lda)
        a = a.T if trans else a
        vector, result = (_matrix(p, dtype, s, 1, s) for p, s in ((x, a.shape[1]), (y, a.shape[0])))
        product = one * (a @ vector)
        result[...] = product if zero == 0 else product + zero * result

    return call


CUBLAS = {
    "sgemmStridedBatched": _batched_gemm("float32"),
    "dgemmStridedBatched": _batched_gemm("float64"),
    "sgemv": _gemv("float32"),
    "dgemv": _gemv("float64"),
}
