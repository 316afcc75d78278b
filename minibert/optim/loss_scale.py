"""Loss scaling: the gradients of a loss times `scale` stay within float16's range.

Without it, small gradients of activations, below 6e-8, would become 0; with too much of it, large
ones become infinite. Such a step changes nothing but the scale, which is halved; after many good
steps it is doubled. All of it stays on the device: no step waits for the answer. (So the host
counts it as a step: Adam's correction for t is then a step ahead of torch.amp.GradScaler's.)

Source: Micikevicius et al., "Mixed precision training", arXiv 1710.03740, section 3.2.
"""

from __future__ import annotations

from typing import Any

from minibert.backend import Array
from minibert.optim.clipping import clip_scale

START, PATIENCE = 65536.0, 2000  # torch.amp.GradScaler's


class LossScale:
    """`scale` () float32: what the loss is multiplied by in the next step."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self.scale = xp.full((), START, dtype="float32")
        self.good = xp.full((), 0.0, dtype="float32")  # steps since it last changed

    def unscale(self, norm: Array, max_norm: float) -> tuple[Array, Array]:
        """Of a scaled gradient's norm (): the true norm, and the factor that unscales and clips.

        Where the gradient is not finite, the norm is given as 0 and the factor is NaN, by which
        the optimizer knows to leave everything as it is. Adapts the scale. max_norm 0: no clipping.
        """
        xp, scale = self._xp, self.scale
        norm = norm / scale
        finite = xp.isfinite(norm)
        factor = (clip_scale(norm, max_norm) if max_norm > 0 else 1.0) / scale
        good = xp.where(finite, self.good + 1, 0)
        grown = good >= PATIENCE
        self.scale = xp.where(finite, xp.where(grown, 2 * scale, scale), 0.5 * scale)
        self.good = xp.where(grown, 0, good)
        return xp.where(finite, norm, 0), xp.where(finite, factor, float("nan"))

    def state(self) -> Array:
        """(2,) what a resumed run needs."""
        return self._xp.stack([self.scale, self.good])

    def load_state(self, state: Any) -> None:
        state = self._xp.asarray(state, dtype="float32")
        self.scale, self.good = state[0], state[1]
