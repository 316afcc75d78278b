"""The mean loss of the steps between two lines of the log, without a look at each."""

from __future__ import annotations

from typing import Any

from minibert.backend import Array


class MeanLoss:
    """A sum of losses that stays on the device, so that no step waits for it.

    A loss that is not finite is left out: in fp16 the step it belongs to changes nothing but the
    loss scale. (In any other precision it spoils the parameters, which the next line finds out.)
    """

    def __init__(self, xp: Any, total: float = 0.0, steps: int = 0) -> None:
        self._xp = xp
        self._total = xp.full((), total, dtype="float64")
        self._steps = xp.full((), steps, dtype="float64")

    def add(self, loss: Array) -> None:
        """One step's loss (), as the model gives it: not scaled."""
        finite = self._xp.isfinite(loss)
        self._total += self._xp.where(finite, loss, 0)
        self._steps += finite

    def state(self) -> tuple[float, int]:
        """The sum, and of how many steps it is; waits for the device."""
        return float(self._xp.to_host(self._total)), int(self._xp.to_host(self._steps))

    def take(self) -> float:
        """The mean, which begins anew; NaN where there is none."""
        total, steps = self.state()
        self._total.fill(0)
        self._steps.fill(0)
        return total / steps if steps else float("nan")
