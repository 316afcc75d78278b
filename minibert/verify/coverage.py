"""What there is to check: every layer pair and every differentiable argument, found by reflection.

An argument counts when its annotation is `Array`, or a NamedTuple of `Array` fields (weights).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import minibert.layers


def layer_functions() -> dict[str, Callable[..., Any]]:
    """Every function `<layer>_forward` and `<layer>_backward` defined in `minibert.layers`."""
    found = {}
    for info in pkgutil.iter_modules(minibert.layers.__path__):
        module = importlib.import_module(f"minibert.layers.{info.name}")
        for name, value in vars(module).items():
            if name.endswith(("_forward", "_backward")) and value.__module__ == module.__name__:
                found[name] = value
    return found


def plain_functions() -> dict[str, Callable[..., Any]]:
    """The same without a look for twins: exactly what the files in `layers/` say."""
    return {name: function.plain for name, function in layer_functions().items()}  # type: ignore[attr-defined]  # `twinned` sets it


def differentiable_arguments(forward: Callable[..., Any]) -> list[str]:
    """The names of a forward's differentiable arguments: "x", or "w.W_qkv" for a weights tuple."""
    module = inspect.getmodule(forward)
    names = []
    for parameter in inspect.signature(forward).parameters.values():
        kind = parameter.annotation
        if kind == "Array":
            names.append(parameter.name)
        fields = getattr(getattr(module, str(kind), None), "__annotations__", {})
        if str(kind).endswith("Weights"):
            names += [f"{parameter.name}.{field}" for field in fields]
    return names
