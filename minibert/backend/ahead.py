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
    """Host arrays on their way, on a stream of their own; `take` hands each out once.

    CuPy gives memory that was freed out again in the order of the stream it was taken on, and knows
    nothing of other streams that still read it. So what a step took is kept until the copying
    stream has been told to wait for that step's end.
    """

    def __init__(self, cupy: ModuleType) -> None:
        self._cupy, self._stream = cupy, cupy.cuda.Stream(non_blocking=True)
        self._sent: dict[tuple[int, int, str], Sent] = {}
        self._arrived: Any = None
        self._taken: list[Sent] = []  # by the step that was asked for last
        self._before: tuple[Any, list[Sent]] | None = None  # by the one before, and its end

    def send(self, arrays: Iterable[Any]) -> None:
        """Start copying; to be called when a step has been asked for, and is being computed."""
        if self._before is not None:
            self._stream.wait_event(self._before[0])
        self._before = self._cupy.cuda.get_current_stream().record(), self._taken  # frees the rest
        self._taken = []
        with self._stream:
            self._sent = {_key(a): Sent(a, self._cupy.asarray(a)) for a in arrays}
            self._arrived = self._stream.record()

    def take(self, array: Any) -> Array | None:
        """The copy of this host array, if it was sent."""
        sent = self._sent.pop(_key(array), None) if self._sent else None
        if sent is None:
            return None
        self._cupy.cuda.get_current_stream().wait_event(self._arrived)
        self._taken.append(sent)
        return sent.device


def _key(array: Any) -> tuple[int, int, str]:
    """Where it lies: a shard that is the whole batch is a view of the batch's own memory."""
    return array.ctypes.data, array.nbytes, array.dtype.str
