"""A rule of `optim/rules.py` over the whole buffer, clipping included, in one launch."""

from __future__ import annotations

import math
from typing import Any

from minibert.backend.base import Array, Backend
from minibert.backend.kernels import launch

RULES = ("adamw_torch", "adamw_hf", "adam_google", "adam", "sgd")  # as in kernels/update.cu


def update(
    xp: Backend, rule: str, p: Array, g: Array, m: Array, v: Array, h: Any, decayed: int
) -> None:
    """One step of `rule`; h: the `Hyper` of the decayed parameters p[:decayed].

    With xp.precision "fp16" a scale that is not finite leaves everything as it is.
    """
    correction1, correction2 = 1 - h.beta1**h.step, math.sqrt(1 - h.beta2**h.step)
    rate, eps, shrink, l2 = h.lr, h.eps, 1 - h.lr * h.weight_decay, 0.0
    if rule in ("adamw_torch", "adam"):
        rate, eps = h.lr * correction2 / correction1, h.eps * correction2
    if rule == "adamw_hf":
        rate = h.lr * correction2 / correction1
    if rule in ("adam", "sgd"):
        shrink, l2 = 1.0, h.weight_decay
    beta1 = h.momentum if rule == "sgd" else h.beta1
    given = isinstance(h.scale, float)
    scale = xp.full((), h.scale, dtype="float32") if given else xp.asarray(h.scale, "float32")
    launch(
        xp.module, "update", "update", p.size, p, g, m, v if v.size else None, scale,
        RULES.index(rule), float(rate), float(eps), beta1, 1 - beta1, h.beta2, 1 - h.beta2,
        float(shrink), float(l2), int(xp.precision == "fp16"), decayed, p.size,
    )  # fmt: skip
