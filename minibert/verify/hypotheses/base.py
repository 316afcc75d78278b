"""What hypotheses are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from minibert.backend import Backend
from minibert.verify.coverage import plain_functions
from minibert.verify.trace.setup import Setup

Layer = Callable[..., Any]

PLAIN: dict[str, Layer] = plain_functions()


class Guess(NamedTuple):
    """A cause in words, and the setup that has it."""

    cause: str
    setup: Setup


def replaced(setup: Setup, **functions: Layer) -> Setup:
    """The setup with these layer functions in place of the right ones."""
    return setup.replace(functions={**setup.functions, **functions})


def around(
    layer: str, before: Callable[..., Any] | None = None, after: Callable[[Any], Any] | None = None
) -> dict[str, Layer]:
    """A layer between two linear maps, with its backward: y = after(f(before(x))).

    `before` and `after` are symmetric (scalings, exchanges): each is its own transpose.
    """
    forward, backward = PLAIN[f"{layer}_forward"], PLAIN[f"{layer}_backward"]
    first, last = before or (lambda x: x), after or (lambda y: y)

    def new_forward(xp: Backend, x: Any, *rest: Any) -> Any:
        y, cache = forward(xp, first(x), *rest)
        return last(y), cache

    def new_backward(xp: Backend, dy: Any, cache: Any) -> Any:
        dx = backward(xp, last(dy), cache)
        return (first(dx[0]), *dx[1:]) if isinstance(dx, tuple) else first(dx)

    return {f"{layer}_forward": new_forward, f"{layer}_backward": new_backward}


def changed_arguments(layer: str, change: Callable[..., tuple[Any, ...]]) -> dict[str, Layer]:
    """A layer whose forward gets `change(xp, *args)` in place of its arguments."""
    forward = PLAIN[f"{layer}_forward"]
    return {f"{layer}_forward": lambda xp, *args: forward(xp, *change(xp, *args))}


def changed_result(layer: str, change: Callable[..., Any]) -> dict[str, Layer]:
    """A layer whose backward returns `change(xp, result, dy, cache)` in place of its result."""
    backward = PLAIN[f"{layer}_backward"]

    def new(xp: Backend, dy: Any, cache: Any) -> Any:
        return change(xp, backward(xp, dy, cache), dy, cache)

    return {f"{layer}_backward": new}
