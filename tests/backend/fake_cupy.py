"""A strict stand-in for CuPy on a machine without a GPU: NumPy behind glass.

`DeviceArray` has the methods of cupy.ndarray that minibert may use, refuses every implicit way to
the host, and meets no host array. `module()` makes a fake `cupy` module: its functions are those
that CuPy has (a test holds the list to the real one), its cuBLAS reads raw pointers column by
column as the real one does, and its RawModule runs the kernels' own source on the CPU.

LAUNCHES has the name of all that was asked of the device, in order, for tests to read and clear.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import sys
import unittest.mock
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from cuda_on_cpu import Kernel
from numpy.typing import NDArray

from minibert.backend import Backend
from minibert.backend.cupy_backend import CupyBackend

UFUNCS = (
    "add",
    "subtract",
    "multiply",
    "divide",
    "sqrt",
    "exp",
    "isfinite",
    "log",
    "log1p",
    "tanh",
)
FUNCTIONS = (
    "arange", "argmax", "ascontiguousarray", "concatenate", "dot", "full", "matmul", "max", "mean",
    "searchsorted", "stack", "sum", "take", "take_along_axis", "where", "zeros", "ones",
)  # fmt: skip
OWN = ("argsort", "asarray", "asnumpy", "empty", "empty_like", "get_default_memory_pool")
ATTRIBUTES = ("dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size", "strides")
METHODS = ("all", "astype", "clip", "copy", "fill", "max", "mean", "min", "reshape", "sum",
           "swapaxes", "transpose")  # fmt: skip
OPERATORS = ("add", "sub", "mul", "truediv", "matmul", "pow")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


LAUNCHES: list[str] = []
VIEWS = ("reshape", "swapaxes", "transpose")


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
        whole = _memory(self._glass)
        memory = SimpleNamespace(ptr=whole.ctypes.data, size=whole.nbytes)
        return SimpleNamespace(ptr=self._glass.ctypes.data, mem=memory)

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
        if any(isinstance(part, DeviceArray) for part in _parts(index)):
            LAUNCHES.append("getitem")
        return _wrap(self._glass[_index(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        LAUNCHES.append("setitem")
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


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _index(index: Any) -> Any:
    parts = _parts(index)
    for part in parts:
        if isinstance(part, DeviceArray) and part.dtype == bool:
            raise HostTransferError("indexing by a mask: the host must wait for its count")
        if isinstance(part, list | np.ndarray | range):
            raise HostTransferError(f"indexing by a host {type(part).__name__}")
    return tuple(map(_unwrap, parts))


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: DeviceArray, *args: Any, **kwargs: Any) -> Any:
        if getattr(function, "__name__", "") not in VIEWS:
            LAUNCHES.append(getattr(function, "__name__", "operator"))
        given = {name: _unwrap(value) for name, value in kwargs.items()}
        return _wrap(function(self._glass, *map(_unwrap, args), **given))

    return call


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: DeviceArray, other: Any) -> DeviceArray:
        LAUNCHES.append(function.__name__)
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
    """A new fake `cupy`, with lists of the copies and waits it was asked for."""
    _Stream.current = _Stream(name="main")
    Event.waits = 0
    fake = SimpleNamespace(to_device=[], to_host=[], copies=[], waits=[], on_stream=[])
    for name in (*UFUNCS, *FUNCTIONS):
        setattr(fake, name, _function(getattr(np, name)))

    def asarray(a: Any, dtype: Any = None, order: str | None = None) -> DeviceArray:
        if isinstance(a, DeviceArray):
            return DeviceArray(np.asarray(a._glass, dtype=dtype, order=order))
        array = np.array(a, dtype=dtype)
        fake.to_device.append(array)
        fake.on_stream.append(_Stream.current.name)
        return DeviceArray(array)

    def asnumpy(a: DeviceArray) -> NDArray[Any]:
        fake.to_host.append(a.shape)
        Event.waits += 1
        return a._glass.copy()

    def synchronize() -> None:
        fake.waits.append("device")
        Event.waits += 1

    def ascontiguousarray(a: DeviceArray) -> DeviceArray:
        fake.copies.append(a.shape)
        LAUNCHES.append("ascontiguousarray")
        return DeviceArray(np.ascontiguousarray(_unwrap(a)))

    fake.asarray, fake.asnumpy, fake.ascontiguousarray = asarray, asnumpy, ascontiguousarray
    fake.synchronize = synchronize
    fake.empty, fake.empty_like = _empty, lambda a: _empty(a.shape, a.dtype)
    fake.argsort = _function(_stable_argsort)
    fake.get_default_memory_pool = lambda: SimpleNamespace(total_bytes=lambda: 0)
    fake.RawModule = lambda code: SimpleNamespace(get_function=lambda name: _Launch(code, name))
    # Hashable, as a module is: kernels are cached by it.
    return _Module(fake)


class _Launch(Kernel):
    def __call__(self, *how: Any) -> None:
        LAUNCHES.append(self.name)
        super().__call__(*how)


class Event(str):
    """What a stream was asked for up to here; done when the host has waited for the device since.

    (The slowest device there is. The fake's own work is done at once, but nobody may see that.)
    """

    waits: ClassVar[int] = 0  # of the host

    def __init__(self, name: str) -> None:
        self._asked = Event.waits

    @property
    def done(self) -> bool:
        return Event.waits > self._asked


class _Stream:
    """A stream: what it recorded, and what it was told to wait for, by name and number."""

    current: ClassVar[_Stream]

    def __init__(self, non_blocking: bool = False, name: str = "side") -> None:
        self.name, self.recorded, self.waits = name, 0, list[str]()

    def record(self) -> Event:
        self.recorded += 1
        return Event(f"{self.name} {self.recorded}")

    def wait_event(self, event: str) -> None:
        self.waits.append(event)

    def __enter__(self) -> _Stream:
        self._before, _Stream.current = _Stream.current, self
        return self

    def __exit__(self, *_: object) -> None:
        _Stream.current = self._before


class _Module:
    def __init__(self, names: SimpleNamespace) -> None:
        self.__dict__.update(vars(names))
        self.cuda = SimpleNamespace(
            cublas=SimpleNamespace(**CUBLAS),
            device=SimpleNamespace(get_cublas_handle=lambda: HANDLE),
            Device=lambda: SimpleNamespace(synchronize=names.synchronize),
            Stream=_Stream,
            get_current_stream=lambda: _Stream.current,
        )


def _function(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        LAUNCHES.append(function.__name__)
        given = {name: _unwrap(value) for name, value in kwargs.items()}
        result = _wrap(function(*map(_unwrap, args), **given))
        return kwargs.get("out", result) if kwargs.get("out") is not None else result

    return call


def _stable_argsort(a: NDArray[Any]) -> NDArray[Any]:
    return np.argsort(a, kind="stable")


def _empty(shape: Any, dtype: Any = float) -> DeviceArray:
    """Uninitialised memory, at its worst: NaN in every floating-point type."""
    dtype = np.dtype(dtype)
    memory = np.full(int(np.prod(shape)) * dtype.itemsize, 0xFF, np.uint8)
    return DeviceArray(memory.view(dtype).reshape(shape))


def _memory(array: NDArray[Any]) -> NDArray[Any]:
    """The whole of which an array is a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@functools.cache
def backend() -> CupyBackend:
    """The CuPy backend over a fake CuPy."""
    with unittest.mock.patch.dict(sys.modules, {"cupy": module()}):
        return _Backend()


class _Backend(CupyBackend):
    """Its siblings, made later, share its module."""

    def _sibling(self, reference: bool) -> Backend:
        with unittest.mock.patch.dict(sys.modules, {"cupy": self.module}):
            return super()._sibling(reference)


# ---- cuBLAS: column-major matrices behind raw pointers ----

HANDLE = 42


def _matrix(ptr: int, dtype: Any, rows: int, columns: int, ld: int) -> NDArray[Any]:
    """The column-major matrix (rows, columns) at this address, as a view."""
    assert ld >= max(1, rows)  # or cuBLAS answers CUBLAS_STATUS_INVALID_VALUE
    size = np.dtype(dtype).itemsize
    buffer = (ctypes.c_char * (((columns - 1) * ld + rows) * size)).from_address(ptr)
    flat = np.frombuffer(buffer, dtype)
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (size, ld * size))


def _gemm(
    handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
    A: int, a_type: int, lda: int, stride_a: int, B: int, b_type: int, ldb: int, stride_b: int,
    beta: int, C: int, c_type: int, ldc: int, stride_c: int, batch: int, compute: int, algo: int,
) -> None:  # fmt: skip
    """Computes C = alpha·op(A)·op(B) + beta·C, for each of the batch, with sums in float32.

    As TF32 an operand loses its lower 13 bits; see `device_checks.UNIT`.
    """
    assert (handle, algo, POINTER_MODES[-1]) == (HANDLE, -1, 0)
    assert (a_type, compute, c_type) in SUPPORTED
    assert b_type == a_type
    assert np.dtype(TYPES[a_type]).itemsize > 2 or MATH_MODES[-1] == 16
    one, zero = (_matrix(p, SUMS[compute], 1, 1, 1)[0, 0] for p in (alpha, beta))
    size_a, size_c = (np.dtype(TYPES[t]).itemsize for t in (a_type, c_type))
    for i in range(batch):
        a = _matrix(A + i * stride_a * size_a, TYPES[a_type], *((k, m) if transa else (m, k)), lda)
        b = _matrix(B + i * stride_b * size_a, TYPES[b_type], *((n, k) if transb else (k, n)), ldb)
        c = _matrix(C + i * stride_c * size_c, TYPES[c_type], m, n, ldc)
        a, b = (cut_off(x) if compute == 77 else widened(x) for x in (a, b))
        product = one * ((a.T if transa else a) @ (b.T if transb else b))
        c[...] = narrowed(product if zero == 0 else product + zero * widened(c), c.dtype)


def cut_off(x: NDArray[Any]) -> NDArray[Any]:
    """float32 without its lower 13 bits: TF32, rounded towards zero."""
    return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def widened(x: NDArray[Any]) -> NDArray[Any]:
    """16-bit numbers as float32; uint16 is bfloat16."""
    if x.dtype == "uint16":
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float32) if x.dtype == "float16" else x


def narrowed(x: NDArray[Any], dtype: Any) -> NDArray[Any]:
    if dtype != "uint16":
        return x.astype(dtype)
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


TYPES = {0: "float32", 1: "float64", 2: "float16", 14: "uint16"}  # cudaDataType_t
SUMS = {68: "float32", 77: "float32", 70: "float64"}  # cublasComputeType_t: alpha's and beta's type
SUPPORTED = {(0, 68, 0), (0, 77, 0), (1, 70, 1), (2, 68, 2), (2, 68, 0), (14, 68, 14), (14, 68, 0)}
"""(type of A and B, compute type, type of C), from the table in cuBLAS's manual."""


def _gemm_ex(*given: int) -> None:
    LAUNCHES.append("gemmEx")
    handle, transa, transb, m, n, k, alpha, A, ta, lda, B, tb, ldb, beta, C, tc, ldc, *how = given
    one = handle, transa, transb, m, n, k, alpha, A, ta, lda, 0, B, tb, ldb, 0, beta, C, tc, ldc, 0
    _gemm(*one, 1, *how)


def _gemm_strided_batched_ex(*given: int) -> None:
    LAUNCHES.append("gemmStridedBatchedEx")
    _gemm(*given)


def _gemv(dtype: Any) -> Callable[..., None]:
    def call(
        handle: int, trans: int, m: int, n: int, alpha: int, A: int, lda: int,
        x: int, incx: int, beta: int, y: int, incy: int,
    ) -> None:  # fmt: skip
        """Computes y = alpha·op(A)·x + beta·y, A (m, n)."""
        LAUNCHES.append("gemv")
        assert (handle, incx, incy, POINTER_MODES[-1]) == (HANDLE, 1, 1, 0)
        one, zero = (_matrix(p, dtype, 1, 1, 1)[0, 0] for p in (alpha, beta))
        a = _matrix(A, dtype, m, n, lda)
        a = a.T if trans else a
        vector, result = (_matrix(p, dtype, s, 1, s) for p, s in ((x, a.shape[1]), (y, a.shape[0])))
        product = one * (a @ vector)
        result[...] = product if zero == 0 else product + zero * result

    return call


MATH_MODES: list[int] = [0]  # 16: 16-bit products are summed in float32 throughout
POINTER_MODES: list[int] = [0]  # 1: results of a dot product are on the device


def _dot(dtype: Any) -> Callable[..., None]:
    def call(handle: int, n: int, x: int, incx: int, y: int, incy: int, result: int) -> None:
        """Computes result = Σ x·y."""
        LAUNCHES.append("dot")
        assert (handle, incx, incy, POINTER_MODES[-1]) == (HANDLE, 1, 1, 1)
        a, b = (_matrix(p, dtype, n, 1, n)[:, 0] for p in (x, y))
        _matrix(result, dtype, 1, 1, 1)[0, 0] = a @ b

    return call


CUBLAS = {
    "sdot": _dot("float32"),
    "ddot": _dot("float64"),
    "setMathMode": lambda handle, mode: MATH_MODES.append(mode),
    "setPointerMode": lambda handle, mode: POINTER_MODES.append(mode),
    "gemmEx": _gemm_ex,
    "gemmStridedBatchedEx": _gemm_strided_batched_ex,
    "sgemv": _gemv("float32"),
    "dgemv": _gemv("float64"),
}
