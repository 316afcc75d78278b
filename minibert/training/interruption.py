"""Ctrl-C and SIGTERM: finish what is under way, then stop in good order."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from minibert.io.progress import say


class Interruptible:
    """Inside the block Ctrl-C and SIGTERM finish the step and save; a second one stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, request_stop: Callable[[int], None]) -> None:
        """`request_stop(number)` is called, in the main thread, when the first signal comes."""
        self.request_stop = request_stop

    def __enter__(self) -> None:
        self.previous: dict[int, Any] = {}
        try:
            for number in self.SIGNALS:
                self.previous[number] = signal.signal(number, self._handle)
        except ValueError:  # signals reach the main thread only; elsewhere there is nothing to do
            self.previous.clear()

    def _handle(self, number: int, frame: Any) -> None:
        say("interrupted: finishing this step and saving (again to stop at once)")
        self.request_stop(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def __exit__(self, *error: object) -> None:
        self._restore()
