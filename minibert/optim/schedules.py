"""Learning-rate schedules: step → multiplier of the base rate.

`step` counts from 0: update k (the first is 0) uses `lr * multiplier(k)`, as torch's LambdaLR does.
So every schedule with a warm-up makes its first update with a rate of 0, like the originals.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from minibert.errors import InputError

Multiplier = Callable[[int], float]


def constant(step: int, training_steps: int, warmup_steps: int) -> float:
    """1, warm-up or not (transformers: get_constant_schedule)."""
    return 1.0


def constant_with_warmup(step: int, training_steps: int, warmup_steps: int) -> float:
    """Up from 0 to 1 over the warm-up, then 1 (get_constant_schedule_with_warmup)."""
    return step / warmup_steps if step < warmup_steps else 1.0


def linear(step: int, training_steps: int, warmup_steps: int) -> float:
    """Up from 0 to 1, then down to 0 at the end (get_linear_schedule_with_warmup)."""
    if step < warmup_steps:
        return step / warmup_steps
    return max(0, training_steps - step) / max(1, training_steps - warmup_steps)


def cosine(step: int, training_steps: int, warmup_steps: int) -> float:
    """Up from 0 to 1, then half a cosine wave to 0 (get_cosine_schedule_with_warmup)."""
    if step < warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / max(1, training_steps - warmup_steps)
    return max(0.0, (1 + math.cos(math.pi * progress)) / 2)


def google(step: int, training_steps: int, warmup_steps: int) -> float:
    """google-research/bert optimization.py: the decay runs from step 0, under the warm-up.

    The rate therefore drops where the warm-up ends: from 1 to 1 - warmup_steps / training_steps.
    """
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, 1 - step / max(1, training_steps))


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    function.__name__: function
    for function in (constant, constant_with_warmup, linear, cosine, google)
}


def schedule(name: str, *, num_training_steps: int, num_warmup_steps: int = 0) -> Multiplier:
    """The schedule called `name`, for a training of `num_training_steps` updates.

    Raises InputError for a name not in `SCHEDULES` or a negative number of steps.
    """
    if name not in SCHEDULES:
        raise InputError(f"unknown schedule {name!r}: choose one of {', '.join(SCHEDULES)}")
    if num_training_steps < 0 or num_warmup_steps < 0:
        raise InputError(
            "the numbers of steps must be at least 0, got "
            f"num_training_steps={num_training_steps} and num_warmup_steps={num_warmup_steps}"
        )
    multiplier = SCHEDULES[name]
    return lambda step: multiplier(step, num_training_steps, num_warmup_steps)
