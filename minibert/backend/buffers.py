"""Large arrays whose memory is used again, step after step.

A training step takes and drops the same large arrays as the one before. Here an array's memory
comes back by itself when nobody holds the array, or a view of it, any more, and serves the next
that fits. Nothing is handed back by hand, so nothing can be handed back too early: what a user
still holds is never written over.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort_left
from collections import deque
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minibert.backend.base import Array

SMALL = 1 << 15  # bytes: below, the allocator is as good, and faster
SLACK = 2  # an array takes memory of up to that many times its size
IDLE = 1 << 14  # arrays later, a few steps, memory that served none of them is let go
ALIGNMENT = 64  # bytes: a cache line, and a vector register


class Memory:
    """A stretch of memory."""

    __slots__ = ("_raw", "address", "size", "used")

    def __init__(self, size: int) -> None:
        self.used = 0  # when it last served
        self.size, self._raw = size, np.empty(size + ALIGNMENT, np.uint8)
        address = self._raw.ctypes.data
        self.address = address + -address % ALIGNMENT


class Lease:
    """The owner of an array's memory: the array and its views hold it, and it ends with the last.

    NumPy's array interface keeps it alive as the array's base.
    """

    __slots__ = ("__array_interface__", "_memory", "_returned")

    def __init__(
        self, memory: Memory, returned: deque[Memory], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._memory, self._returned = memory, returned
        self.__array_interface__ = {
            "version": 3, "data": (memory.address, False), "shape": shape, "typestr": dtype.str,
        }  # fmt: skip

    def __del__(self) -> None:
        self._returned.append(self._memory)  # from whichever thread: atomic


class Buffers(threading.local):
    """The memory of each thread that asks: its own, so that no lock is needed.

    Every thread does the same work step after step, and finds what it needs from the second on.
    """

    def __init__(self) -> None:
        self._free: list[Memory] = []  # smallest first
        self._returned: deque[Memory] = deque()  # on its way there
        self._arrays = 0  # made so far: the clock

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Like `np.empty`."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        if size < SMALL:
            return np.empty(shape, dtype)
        return np.asarray(Lease(self._take(size), self._returned, shape, dtype))

    def _take(self, size: int) -> Memory:
        """The smallest free memory that fits, the latest of its size: it may still be in cache."""
        while self._returned:
            insort_left(self._free, self._returned.popleft(), key=_size)
        place = bisect_left(self._free, size, key=_size)
        if place < len(self._free) and self._free[place].size <= SLACK * size:
            memory = self._free.pop(place)
        else:
            memory = Memory(size)
        memory.used = self._arrays = self._arrays + 1
        if self._arrays % IDLE == 0:
            self._free = [each for each in self._free if each.used > self._arrays - IDLE]
        return memory


def _size(memory: Memory) -> int:
    return memory.size


empty = Buffers().empty


def empty_like(x: Array) -> Array:
    """Like `np.empty_like`, in C order."""
    return empty(x.shape, x.dtype)


def matmul(a: Array, b: Array) -> Array:
    """Like `np.matmul` of two matrices of one dtype."""
    return np.matmul(a, b, out=empty((a.shape[0], b.shape[1]), a.dtype))
