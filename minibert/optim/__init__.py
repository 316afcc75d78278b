"""Update rules, the optimizer, clipping and learning-rate schedules."""

from __future__ import annotations

from minibert.optim.clipping import clip_scale, global_norm
from minibert.optim.loss_scale import LossScale
from minibert.optim.optimizer import Optimizer
from minibert.optim.rules import RULES
from minibert.optim.schedules import SCHEDULES, schedule

__all__ = [
    "RULES",
    "SCHEDULES",
    "LossScale",
    "Optimizer",
    "clip_scale",
    "global_norm",
    "schedule",
]
