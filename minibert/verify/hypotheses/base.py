"""What hypotheses are made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minibert.backend import Array, Backend
from minibert.verify.coverage import plain_functions
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import Tensor

Layer = Callable[..., Any]
Forms = Callable[[Tensor], Sequence[Any]]

PLAIN: dict[str, Layer] = plain_functions()


def as_it_is(tensor: Tensor) -> Sequence[Any]:
    return (tensor.value,)


class Guess(NamedTuple):
    """A cause in words, and the setup that has it."""

    cause: str
    setup: Setup
    forms: Forms = as_it_is
    """What the other side may hand in as this tensor: the first form, or another."""
    names: Mapping[str, str] = {}
    """Tensors that the other side hands in under another's name."""


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


def in_some_calls(
    layer: str, wrong: dict[str, Layer], calls: int, chosen: Container[int]
) -> dict[str, Layer]:
    """A layer that is wrong in the `chosen` ones of its `calls` in one forward of the model.

    wrong: its functions in these, forward and backward.
    """
    names = f"{layer}_forward", f"{layer}_backward"
    right_forward, right_backward = (PLAIN[name] for name in names)
    wrong_forward, wrong_backward = (wrong.get(name, PLAIN[name]) for name in names)
    count = itertools.count()
    wrong_caches: dict[int, Any] = {}  # by their id, which is theirs as long as they are here

    def forward(xp: Backend, *args: Any) -> Any:
        if next(count) % calls not in chosen:
            return right_forward(xp, *args)
        y, cache = wrong_forward(xp, *args)
        wrong_caches[id(cache)] = cache
        return y, cache

    def backward(xp: Backend, dy: Any, cache: Any) -> Any:
        was_wrong = wrong_caches.pop(id(cache), None) is not None
        return (wrong_backward if was_wrong else right_backward)(xp, dy, cache)

    return {names[0]: forward, names[1]: backward}


def scores_changed(change: Callable[[Array], Array]) -> dict[str, Layer]:
    """Softmax of `change(scores)`: what is added there is a constant, so the backward stays."""

    def forward(xp: Backend, x: Array) -> Any:
        return PLAIN["softmax_forward"](xp, change(x).astype(x.dtype))

    return {"softmax_forward": forward}


def with_padding(setup: Setup) -> Setup:
    """The setup with padding computed as if it were tokens, and attended to."""
    everything = np.ones_like(setup.inputs["input_ids"])
    return setup.replace(inputs={**setup.inputs, "attention_mask": everything})


def padding_masked(setup: Setup) -> Setup:
    """A right model in the padded convention: padding is computed, and not attended to."""
    padding = np.where(setup.mask, 0.0, -np.inf)[:, None, None, :]
    return replaced(with_padding(setup), **scores_changed(lambda scores: scores + padding))
