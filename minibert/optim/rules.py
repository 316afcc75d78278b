"""Update rules: functions on 1-D arrays, without a state of their own; each is its equations.

p parameters, g gradient, m and v moments: (n,); scratch: (rows, n). p, m and v are updated in
place. `xp` is the array module. The rules of the Adam family begin with the moments, m = v = 0
before the first step, and t is `step`:

    m ← beta1·m + (1 - beta1)·g        v ← beta2·v + (1 - beta2)·g²
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from minibert.backend import Array


class Hyper(NamedTuple):
    """The scalars of one step. `step` counts from 1; `scale` multiplies the gradient."""

    lr: float
    scale: float | Array  # a 0-d array on a GPU, so that clipping needs no host transfer
    step: int
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    momentum: float


def adamw_torch(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """AdamW as in torch.optim.AdamW (Loshchilov & Hutter 2019): decay first, bias corrected.

    p ← (1 - lr·wd)·p
    p ← p - lr · m̂ / (√v̂ + eps),   m̂ = m / (1 - beta1^t),   v̂ = v / (1 - beta2^t)
    """
    update_moments(xp, g, m, v, h, h.scale, scratch[0])
    _decay(xp, p, h)
    _descend_corrected(xp, p, m, v, h, scratch[0])


def adamw_hf(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """AdamW as transformers had it before 4.50: eps outside the correction, decay last.

    p ← p - lr · √(1 - beta2^t) / (1 - beta1^t) · m / (√v + eps)
    p ← (1 - lr·wd)·p
    """
    update_moments(xp, g, m, v, h, h.scale, scratch[0])
    rate = h.lr * math.sqrt(1 - h.beta2**h.step) / (1 - h.beta1**h.step)
    _descend(xp, p, m, v, rate, h.eps, scratch[0])
    _decay(xp, p, h)


def adam_google(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """AdamWeightDecayOptimizer of google-research/bert optimization.py: no bias correction.

    p ← p - lr · (m / (√v + eps) + wd·p)   =   (1 - lr·wd)·p - lr · m / (√v + eps)
    """
    update_moments(xp, g, m, v, h, h.scale, scratch[0])
    _decay(xp, p, h)
    _descend(xp, p, m, v, h.lr, h.eps, scratch[0])


def adam(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """Adam with L2 regularisation as in torch.optim.Adam (Kingma & Ba 2015).

    g ← g + wd·p, then `adamw_torch` without decay. The penalty passes through the moments.
    """
    penalised, penalty = scratch[0], scratch[1]
    xp.multiply(g, h.scale, out=penalised)
    if h.weight_decay:
        xp.multiply(p, h.weight_decay, out=penalty)
        xp.add(penalised, penalty, out=penalised)
    update_moments(xp, penalised, m, v, h, 1.0, penalised)
    _descend_corrected(xp, p, m, v, h, penalised)


def sgd(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """Gradient descent with momentum and L2 as in torch.optim.SGD; `v` is empty.

    m ← momentum·m + g + wd·p;   p ← p - lr·m
    """
    s = scratch[0]
    xp.multiply(m, h.momentum, out=m)
    xp.multiply(g, h.scale, out=s)
    xp.add(m, s, out=m)
    if h.weight_decay:
        xp.multiply(p, h.weight_decay, out=s)
        xp.add(m, s, out=m)
    xp.multiply(m, h.lr, out=s)
    xp.subtract(p, s, out=p)


class Rule(NamedTuple):
    """A rule and the memory it needs."""

    update: Callable[[Any, Array, Array, Array, Array, Hyper, Array], None] | None
    """None: it looks at whole tensors, see `lamb`."""
    second_moment: bool
    scratch_rows: int


RULES = {
    "adamw_torch": Rule(adamw_torch, second_moment=True, scratch_rows=1),
    "adamw_hf": Rule(adamw_hf, second_moment=True, scratch_rows=1),
    "adam_google": Rule(adam_google, second_moment=True, scratch_rows=1),
    "adam": Rule(adam, second_moment=True, scratch_rows=2),
    "sgd": Rule(sgd, second_moment=False, scratch_rows=1),
    "lamb": Rule(None, second_moment=True, scratch_rows=2),
}


# ---- What the rules share. Scalars are folded first: a pass over the block is what costs. ----


def update_moments(
    xp: Any, g: Array, m: Array, v: Array, h: Hyper, scale: float | Array, s: Array
) -> None:
    """Update m ← beta1·m + (1 - beta1)·g and v ← beta2·v + (1 - beta2)·g², with g·scale for g.

    `s` may be `g`. It holds (1 - beta1)·g first, and its square serves v.
    """
    xp.multiply(g, scale * (1 - h.beta1), out=s)
    xp.multiply(m, h.beta1, out=m)
    xp.add(m, s, out=m)
    xp.multiply(s, s, out=s)
    xp.multiply(s, (1 - h.beta2) / (1 - h.beta1) ** 2, out=s)
    xp.multiply(v, h.beta2, out=v)
    xp.add(v, s, out=v)


def adam_direction(xp: Any, p: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> Array:
    """m̂ / (√v̂ + eps) + wd·p, in scratch[0]."""
    r, penalty = scratch[0], scratch[1]
    c = math.sqrt(1 - h.beta2**h.step)
    xp.sqrt(v, out=r)
    xp.add(r, c * h.eps, out=r)
    xp.divide(m, r, out=r)
    xp.multiply(r, c / (1 - h.beta1**h.step), out=r)
    if h.weight_decay:
        xp.multiply(p, h.weight_decay, out=penalty)
        xp.add(r, penalty, out=r)
    return r


def _descend(xp: Any, p: Array, m: Array, v: Array, rate: float, eps: float, s: Array) -> None:
    """Step p ← p - rate · m / (√v + eps)."""
    xp.sqrt(v, out=s)
    xp.add(s, eps, out=s)
    xp.divide(m, s, out=s)
    xp.multiply(s, rate, out=s)
    xp.subtract(p, s, out=p)


def _descend_corrected(xp: Any, p: Array, m: Array, v: Array, h: Hyper, s: Array) -> None:
    """Step p ← p - lr · m̂ / (√v̂ + eps), both fractions multiplied by c = √(1 - beta2^t).

    lr · (m / (1 - beta1^t)) / (√v / c + eps)   =   lr·c / (1 - beta1^t) · m / (√v + c·eps)
    """
    c = math.sqrt(1 - h.beta2**h.step)
    _descend(xp, p, m, v, h.lr * c / (1 - h.beta1**h.step), c * h.eps, s)


def _decay(xp: Any, p: Array, h: Hyper) -> None:
    """Shrink p ← (1 - lr·wd)·p; do nothing at all without weight decay."""
    if h.weight_decay:
        xp.multiply(p, 1 - h.lr * h.weight_decay, out=p)


def flush_denormals(xp: Any, m: Array) -> None:
    """Round m to a multiple of about 1e-37 (float32), so that what decays ends as an exact 0.

    The momentum of a word not seen for some 800 steps decays to denormal numbers and stays there:
    rounding keeps 0.9·x at x. CPUs compute with them many times slower. The update they cause is
    below 1e-29·lr, far under the resolution of any parameter.
    """
    xp.add(m, 1e-30, out=m)
    xp.subtract(m, 1e-30, out=m)
