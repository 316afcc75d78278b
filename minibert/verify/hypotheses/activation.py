"""Another activation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from minibert.backend import Array, Backend
from minibert.layers.activations import GeluCache
from minibert.verify.hypotheses.base import PLAIN, Guess, Layer, replaced
from minibert.verify.trace.setup import Setup

ACTIVATIONS = {
    "gelu": "GELU by the true erf",
    "gelu_new": "GELU by tanh (hidden_act gelu_new)",
    "relu": "ReLU",
}


def activation(setup: Setup, _: str) -> Iterator[Guess]:
    """Another function of the same family."""
    act = setup.config.hidden_act
    for name, words in ACTIVATIONS.items():
        if name != act:
            cause = f"the activation is {words}, not {ACTIVATIONS[act]}"
            yield Guess(cause, setup.replace(config=setup.config.replace(hidden_act=name)))
    for words, slope in {
        "x·sigmoid(1.702·x) (quick GELU)": 1.702,
        "x·sigmoid(x) (SiLU)": 1,
    }.items():
        yield Guess(f"the activation is {words}", replaced(setup, **_sigmoid_gate(act, slope)))
    for wrong in (0.44715, 0.0044715):
        cause = f"the activation is GELU by tanh with {wrong}, not 0.044715"
        yield Guess(cause, replaced(setup, **_tanh_gelu(act, wrong)))
    if act == "gelu":
        unscaled = replaced(setup, gelu_forward=_gelu_of_x)
        yield Guess("GELU takes erf(x), not erf(x/√2)", unscaled)
        rough = replaced(setup, gelu_forward=_rough_gelu)
        yield Guess("GELU's erf is an approximation (Abramowitz & Stegun 7.1.26, 1.5e-7)", rough)


def _sigmoid_gate(act: str, slope: float) -> dict[str, Layer]:
    """x·σ(slope·x) in place of the activation `act`."""

    def sigmoid(xp: Backend, x: Array) -> Array:
        return 1.0 / (1.0 + xp.exp(-slope * x))

    def forward(xp: Backend, x: Array) -> tuple[Array, GeluCache]:
        return x * sigmoid(xp, x), GeluCache(x)

    def backward(xp: Backend, dy: Array, cache: GeluCache) -> Array:
        s = sigmoid(xp, cache.x)
        return dy * (s + slope * cache.x * s * (1.0 - s))

    return {f"{act}_forward": forward, f"{act}_backward": backward}


def _tanh_gelu(act: str, a: float) -> dict[str, Layer]:
    """x·(1 + tanh(√(2/π)·(x + a·x³)))/2 in place of the activation `act`."""
    c = math.sqrt(2.0 / math.pi)

    def forward(xp: Backend, x: Array) -> tuple[Array, GeluCache]:
        return 0.5 * x * (1.0 + xp.tanh(c * (x + a * x * x * x))), GeluCache(x)

    def backward(xp: Backend, dy: Array, cache: GeluCache) -> Array:
        x = cache.x
        t = xp.tanh(c * (x + a * x * x * x))
        return dy * 0.5 * (1.0 + t + x * (1.0 - t * t) * c * (1.0 + 3.0 * a * x * x))

    return {f"{act}_forward": forward, f"{act}_backward": backward}


def _gelu_of_x(xp: Backend, x: Array) -> Any:
    """x·(1 + erf(x))/2 = gelu(√2·x)/√2, of the derivative gelu′(√2·x)."""
    y, cache = PLAIN["gelu_forward"](xp, x * math.sqrt(2.0))
    return y * math.sqrt(0.5), cache


def _rough_gelu(xp: Backend, x: Array) -> tuple[Array, GeluCache]:
    z = abs(x) * math.sqrt(0.5)
    t = 1.0 / (1.0 + 0.3275911 * z)
    series = 0.254829592 + t * (
        -0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))
    )
    erf = xp.copysign(1.0 - t * series * xp.exp(-z * z), x)
    return 0.5 * x * (1.0 + erf), GeluCache(x)


ALL = (activation,)
