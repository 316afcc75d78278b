"""Copies to the GPU while it computes: the next batch is there before the last one is done."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple

from minibert.backend.base import Array


class Sent(NamedTuple):
    host: Any  # kept, so that no other array comes to lie at its address
    device: Array


class Ahead:
    """Host arrays on their way, on a stream of their own, until the next ones are sent.

    What is not sent does not stop the host either: CuPy's `asarray` puts an array into page-locked
    memory, of a pool that it keeps, and asks the stream for the rest without waiting. But the
    device makes that copy between two kernels, and the copies from here beside them.

    CuPy gives memory that was freed out again in the order of the stream it was taken on, and knows
    nothing of other streams that still read it. So what was sent for a step is kept until the
    copying stream has been told to wait for that step's end.
    """

    def __init__(self, cupy: ModuleType) -> None:
        self._cupy, self._stream = cupy, cupy.cuda.Stream(non_blocking=True)
        self._sent: list[Sent] = []  # for the step that comes next
        self._arrived: Any = None  # None: the computing stream waits for it already
        self._before: tuple[Any, list[Sent]] | None = None  # for the one before, and its end

    def send(self, arrays: Iterable[Any]) -> None:
        """Start copying; to be called when a step has been asked for, and is being computed."""
        if self._before is not None:
            self._stream.wait_event(self._before[0])
        self._before = self._cupy.cuda.get_current_stream().record(), self._sent  # frees the rest
        with self._stream:
            self._sent = [Sent(a, self._cupy.asarray(a)) for a in arrays if a.flags.c_contiguous]
            self._arrived = self._stream.record()

    def take(self, array: Any) -> Array | None:
        """The copy of this host array, or of the piece of a larger one that it is, if sent."""
        for host, device in self._sent if array.flags.c_contiguous else ():
            before = array.ctypes.data - host.ctypes.data
            if array.dtype == host.dtype and 0 <= before <= host.nbytes - array.nbytes:
                if self._arrived is not None:
                    self._cupy.cuda.get_current_stream().wait_event(self._arrived)
                    self._arrived = None
                first = before // array.itemsize
                return device.reshape(-1)[first : first + array.size].reshape(array.shape)
        return None
