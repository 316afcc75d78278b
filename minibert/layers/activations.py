"""Activations: GELU (erf), GELU (tanh), ReLU; `config.hidden_act` chooses by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from minibert.backend import Array, Backend, twinned


class GeluCache(NamedTuple):
    x: Array  # everything else is a function of x


@twinned
def gelu_forward(xp: Backend, x: Array) -> tuple[Array, GeluCache]:
    """gelu(x) = x·Φ(x), with Φ(x) = (1 + erf(x/√2))/2, the normal distribution function.

    Any shape. Source: Hendrycks & Gimpel, arXiv 1606.08415; Hugging Face's "gelu".
    """
    return x * (0.5 * (1.0 + xp.erf(x * math.sqrt(0.5)))), GeluCache(x)


@twinned
def gelu_backward(xp: Backend, dy: Array, cache: GeluCache) -> Array:
    """Product rule, with Φ′ = φ, the normal density:

    gelu′(x) = Φ(x) + x·φ(x),    φ(x) = exp(−x²/2)/√(2π)
    """
    x = cache.x
    Phi = 0.5 * (1.0 + xp.erf(x * math.sqrt(0.5)))
    phi = xp.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
    return dy * (Phi + x * phi)


class GeluNewCache(NamedTuple):
    x: Array


C = math.sqrt(2.0 / math.pi)
A = 0.044715


@twinned
def gelu_new_forward(xp: Backend, x: Array) -> tuple[Array, GeluNewCache]:
    """x·(1 + tanh(u))/2 with u = √(2/π)·(x + 0.044715·x³): Hugging Face's "gelu_new".

    Differs from the erf form by up to 4.7e-4 in value. google-research/bert modeling.py calls this
    one "gelu"; the configurations of Hugging Face, of Google's checkpoints too, mean erf by that.
    """
    return x * (0.5 * (1.0 + xp.tanh(C * (x + A * x * x * x)))), GeluNewCache(x)


@twinned
def gelu_new_backward(xp: Backend, dy: Array, cache: GeluNewCache) -> Array:
    """With t = tanh(u), t′ = (1 − t²)·u′ and u′ = √(2/π)·(1 + 3·0.044715·x²):

    dx = dy·((1 + t)/2 + x·(1 − t²)·u′/2)
    """
    x = cache.x
    t = xp.tanh(C * (x + A * x * x * x))
    du = C * (1.0 + 3.0 * A * x * x)
    return dy * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * du)


class ReluCache(NamedTuple):
    positive: Array  # bool


@twinned
def relu_forward(xp: Backend, x: Array) -> tuple[Array, ReluCache]:
    """max(x, 0). Looks at the real part, so that the complex step passes through."""
    positive = x.real > 0
    return x * positive, ReluCache(positive)


@twinned
def relu_backward(xp: Backend, dy: Array, cache: ReluCache) -> Array:
    """The slope is 1 where x > 0, else 0 (at 0 too, as in PyTorch)."""
    return dy * cache.positive


class Activation(NamedTuple):
    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., Array]


ACTIVATIONS = {
    "gelu": Activation(gelu_forward, gelu_backward),
    "gelu_new": Activation(gelu_new_forward, gelu_new_backward),
    "relu": Activation(relu_forward, relu_backward),
}
