"""GELU that keeps Φ(x) for its backward: the same bits, and half of the erf, which is slow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from minibert.backend import Array, Backend
from minibert.verify.trace.setup import Setup


class PhiCache(NamedTuple):
    x: Array
    Phi: Array


def keeping_phi(setup: Setup) -> Mapping[str, Callable[..., Any]]:
    """The setup's functions, and these two where it has none for GELU.

    In float64 alone: a shaken float32 run gives erf another argument each time.
    """
    mine: dict[str, Callable[..., Any]] = {
        "gelu_forward": gelu_forward,
        "gelu_backward": gelu_backward,
    }
    if setup.dtype != "float64" or mine.keys() & setup.functions.keys():
        return setup.functions
    return {**mine, **setup.functions}


def gelu_forward(xp: Backend, x: Array) -> tuple[Array, PhiCache]:
    """See `layers/activations.py`."""
    Phi = 0.5 * (1.0 + xp.erf(x * math.sqrt(0.5)))
    return x * Phi, PhiCache(x, Phi)


def gelu_backward(xp: Backend, dy: Array, cache: PhiCache) -> Array:
    x, Phi = cache
    phi = xp.exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
    return dy * (Phi + x * phi)
