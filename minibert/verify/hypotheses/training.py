"""Mistakes in the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from minibert.optim.rules import RULES, Hyper
from minibert.verify.hypotheses.base import Guess
from minibert.verify.trace.setup import Recipe, Setup, Update

DECAYS = {
    "adamw_torch": "weight decay before the step",
    "adamw_hf": "weight decay after the step, eps before the bias correction",
    "adam_google": "no bias correction",
    "adam": "weight decay added to the gradient (L2)",
    "sgd": "gradient descent with momentum",
}
"""What is special about each rule."""


def other_rule(setup: Setup, first: str) -> Iterator[Guess]:
    """The update of another rule: bias correction and the place of the decay."""
    rule = first.split("/")[1] if first.startswith("training/") else "adamw_torch"
    for other, words in DECAYS.items():
        if other not in (rule, "sgd"):
            cause = f"the update is that of {other}, not {rule}: {words}"
            yield _guess(setup, cause, updates={rule: RULES[other].update})
    variants: dict[str, Update] = {
        "Adam's second moment is averaged with 1 − beta1": lambda *a: _adam(*a, v_share="beta1"),
        "Adam's second moment is of g, not of g²": lambda *a: _adam(*a, square=False),
        "eps stands inside the root": lambda *a: _adam(*a, eps_inside=True),
        "steps are counted from 0 in the bias correction": lambda *a: _adam(*a, late=1),
        "the weight decay is not multiplied by the learning rate": lambda *a: _adam(
            *a, lr_wd=False
        ),
        "weight decay comes after the step, not before it": lambda *a: _adam(*a, decay_last=True),
        "Adam's first moment alone is corrected for its bias": lambda *a: _adam(
            *a, v_corrected=False
        ),
        "Adam's second moment alone is corrected for its bias": lambda *a: _adam(
            *a, m_corrected=False
        ),
    }
    variants["the second moment never shrinks (AMSGrad)"] = _amsgrad()
    if rule == "adamw_torch":
        for cause, update in variants.items():
            yield _guess(setup, cause, updates={rule: update})
    uphill, right = "the update goes uphill: its sign is wrong", RULES[rule].update
    if right is not None:
        yield _guess(setup, uphill, updates={rule: _of_negative_gradient(right)})
        yield _guess(setup, uphill, updates={rule: _added(right)})
        yield _guess(setup, f"{uphill}, that of the weight decay too", lr=-_recipe(setup).lr)


def _of_negative_gradient(right: Update) -> Update:
    """The moments, too, are those of −g."""

    def update(xp: Any, p: Any, g: Any, *rest: Any) -> None:
        right(xp, p, -g, *rest)

    return update


def _added(right: Update) -> Update:
    """p + lr·update for p − lr·update, the weight decay as it should be."""

    def update(xp: Any, p: Any, g: Any, m: Any, *rest: Any) -> None:
        m *= -1
        right(xp, p, -g, m, *rest)
        m *= -1

    return update


def _amsgrad() -> Update:
    """The root is of the largest second moment so far."""
    largest: dict[int, Any] = {}  # by where the moments lie: buffers are updated in blocks

    def update(xp: Any, p: Any, g: Any, m: Any, v: Any, h: Hyper, scratch: Any) -> None:
        def highest(v: Any) -> Any:
            place = v.__array_interface__["data"][0]
            seen = largest.get(place, v) if h.step > 1 else v
            largest[place] = xp.where(seen > v, seen, v)
            return largest[place]

        _adam(xp, p, g, m, v, h, scratch, of_v=highest)

    return update


def _clipped_to(max_norm: float, right: Update) -> Update:
    """The gradient times max_norm/norm, without the 10⁻⁶ that `clip_scale` adds to the norm."""

    def update(xp: Any, p: Any, g: Any, m: Any, v: Any, h: Hyper, scratch: Any) -> None:
        exact = h.scale / (1.0 - 1e-6 * h.scale / max_norm)
        scale = min(exact, 1.0) if h.scale < 1.0 else h.scale
        right(xp, p, g, m, v, h._replace(scale=scale), scratch)

    return update


def _adam(
    xp: Any, p: Any, g: Any, m: Any, v: Any, h: Hyper, scratch: Any, *,
    v_share: str = "beta2", square: bool = True,
    eps_inside: bool = False, late: int = 0, lr_wd: bool = True, decay_last: bool = False,
    m_corrected: bool = True, v_corrected: bool = True, of_v: Callable[[Any], Any] | None = None,
) -> None:  # fmt: skip
    """`adamw_torch` with one thing wrong."""
    g = g * h.scale
    m[...] = h.beta1 * m + (1 - h.beta1) * g
    v[...] = h.beta2 * v + (1 - getattr(h, v_share)) * (g * g if square else abs(g))
    t = h.step + late
    mhat = m / (1 - h.beta1**t) if m_corrected else m
    second = of_v(v) if of_v else v
    vhat = second / (1 - h.beta2**t) if v_corrected else second
    decay = 1 - (h.lr if lr_wd else 1.0) * h.weight_decay
    root = xp.sqrt(vhat + h.eps) if eps_inside else xp.sqrt(vhat) + h.eps
    step = h.lr * mhat / root
    p[...] = (p - step) * decay if decay_last else p * decay - step


def recipe(setup: Setup, _: str) -> Iterator[Guess]:
    """Other numbers, and what surrounds the rule."""
    if setup.recipe is None:
        return
    right = setup.recipe
    yield _guess(setup, "the gradient is not clipped by the norm of all of it", max_norm=math.inf)
    exact = {n: _clipped_to(right.max_norm, u) for n, u in right.updates.items()}
    yield _guess(setup, "the gradient is clipped by max_norm/norm, not by max_norm/(norm + 1e-6)",
                 updates=exact)  # fmt: skip
    yield _guess(setup, "weight decay applies to everything, biases and layer norms too",
                 decay_all=True)  # fmt: skip
    yield _guess(setup, "there is no weight decay", weight_decay=0.0)
    yield _guess(setup, "gradients are not zeroed between the steps", zero_gradients=False)
    for name, values in {
        "eps": (1e-6, 1e-8, 1e-7, 1e-12),
        "beta1": (0.8, 0.95, 0.99),
        "beta2": (0.98, 0.99, 0.95),
        "max_norm": (0.1, 0.5),
        "weight_decay": (0.1, 1e-4),
        "lr": (right.lr * 10, right.lr / 10, right.lr * 2, right.lr / 2, 2e-5, 3e-5, 5e-5),
    }.items():
        for value in values:
            if value != getattr(right, name):
                cause = f"{name} is {value:g}, not {getattr(right, name):g}"
                yield _guess(setup, cause, **{name: value})


def _recipe(setup: Setup) -> Recipe:
    return setup.recipe or Recipe()


def _guess(setup: Setup, cause: str, **changes: Any) -> Guess:
    right = _recipe(setup)
    if "updates" in changes:
        changes["updates"] = {**right.updates, **changes["updates"]}
    return Guess(cause, setup.replace(recipe=replace(right, **changes)))


ALL = (other_rule, recipe)
