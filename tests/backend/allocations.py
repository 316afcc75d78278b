"""Counts what NumPy asks of the allocator, one by one, also what is freed again at once.

`tracemalloc` tells what is held, and the most that was; how often memory was taken it does not. So
NumPy is given an allocator that notes the size and hands on to the one it had (NEP 49; C API,
`PyDataMem_SetHandler`). The handler stands in a context variable: threads of `Workers` see it, as
they run in a copy of their caller's context.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t
ALLOCATE: dict[str, Any] = {  # of a type that keeps the interpreter's lock
    "malloc": ctypes.PYFUNCTYPE(POINTER, POINTER, SIZE),
    "calloc": ctypes.PYFUNCTYPE(POINTER, POINTER, SIZE, SIZE),
    "realloc": ctypes.PYFUNCTYPE(POINTER, POINTER, POINTER, SIZE),
}
SET_HANDLER, GET_HANDLER = 304, 305  # places in NumPy's table of functions, which never change
NAME = b"mem_handler"


class Handler(ctypes.Structure):
    """`PyDataMem_Handler`, with its `PyDataMemAllocator`."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", POINTER),
        *ALLOCATE.items(),
        ("free", ctypes.PYFUNCTYPE(None, POINTER, POINTER, SIZE)),
    )


def _pointer(capsule: Any, name: bytes | None) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = POINTER, (ctypes.py_object, ctypes.c_char_p)
    address: int = get(capsule, name)
    return address


def _numpy_function(place: int, *types: Any) -> Callable[..., Any]:
    """A function of NumPy's C API that returns an object."""
    table = _pointer(np._core._multiarray_umath._ARRAY_API, None)
    address = POINTER.from_address(table + place * ctypes.sizeof(POINTER)).value
    function: Callable[..., Any] = ctypes.PYFUNCTYPE(ctypes.py_object, *types)(address)
    return function


class Allocations:
    """Notes the sizes of the arrays made inside `counting()` that take more than `above` bytes.

    An array is freed by the handler that made it, so the handler is never let go.
    """

    def __init__(self, above: int) -> None:
        self.sizes: list[int] = []
        self._above = above
        self._set = _numpy_function(SET_HANDLER, ctypes.py_object)
        capsule = ctypes.pythonapi.PyCapsule_New
        capsule.restype, capsule.argtypes = ctypes.py_object, (POINTER, ctypes.c_char_p, POINTER)
        old = Handler.from_address(_pointer(_numpy_function(GET_HANDLER)(), NAME))
        functions = [self._noting(name, getattr(old, name)) for name in ALLOCATE]
        handler = Handler(b"noting", 1, old.context, *functions, old.free)
        for kept in (handler, NAME):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
        self._capsule = capsule(ctypes.addressof(handler), NAME, None)

    def _noting(self, name: str, function: Callable[..., Any]) -> Any:
        """`function` of the old handler, which also notes the size it is asked for."""

        def noting(context: Any, *given: int) -> Any:
            size = given[0] * given[1] if name == "calloc" else given[-1]
            if size > self._above:
                self.sizes.append(size)
            return function(context, *given)

        return ALLOCATE[name](noting)

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """`sizes`, empty, to be filled by what the block does on this thread and its workers."""
        self.sizes.clear()
        before = self._set(self._capsule)
        try:
            yield self.sizes
        finally:
            self._set(before)
