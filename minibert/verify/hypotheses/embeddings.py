"""Mistakes in the embeddings: ids that are off, tables that are not added, a scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from minibert.backend import Array, Backend
from minibert.verify.hypotheses.base import (
    PLAIN,
    Forms,
    Guess,
    changed_arguments,
    changed_result,
    replaced,
)
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import Tensor

Change = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


def inputs(setup: Setup, _: str) -> Iterator[Guess]:
    """Token types, positions and ids that are off."""
    types, V = setup.config.type_vocab_size - 1, setup.config.vocab_size
    for cause, change in {
        "token_type_ids are ignored (all 0)": lambda i, p, t: (i, p, 0 * t),
        "token_type_ids are all 1 (off by one)": lambda i, p, t: (i, p, 0 * t + types),
        "token_type_ids are swapped (0 for 1)": lambda i, p, t: (i, p, types - t),
        "positions are ignored (all 0)": lambda i, p, t: (i, 0 * p, t),
        "input_ids are off by one": lambda i, p, t: ((i + 1) % V, p, t),
    }.items():
        yield _of_ids(setup, cause, change)


def offsets(setup: Setup, _: str) -> Iterator[Guess]:
    """Positions that begin late, and at the table's end stay there or begin anew."""
    P = setup.config.max_position_embeddings
    for cause, by in {
        "positions are off by one (counted from 1)": 1,
        "positions are off by two (as in RoBERTa)": 2,
    }.items():
        for places in (np.arange(by, P + by).clip(0, P - 1), np.arange(by, P + by) % P):
            yield _of_ids(setup, cause, partial(_moved, places))


def _moved(places: Any, i: Any, p: Any, t: Any) -> tuple[Any, Any, Any]:
    return i, places[p], t


def _of_ids(setup: Setup, cause: str, change: Change) -> Guess:
    """A guess whose embeddings get change(input_ids, position_ids, token_type_ids)."""

    def changed(xp: Backend, w: Any, i: Any, p: Any, t: Any, *rest: Any) -> tuple[Any, ...]:
        return (w, *change(i, p, t), *rest)

    return Guess(cause, replaced(setup, **changed_arguments("embeddings", changed)))


def missing_tables(setup: Setup, _: str) -> Iterator[Guess]:
    """A table that is not added, or a norm that is not applied."""
    for place, table in enumerate(("word", "position", "token type")):

        def change(xp: Backend, *args: Any, place: int = place) -> tuple[Any, ...]:
            return (*args[:place], 0 * args[place], *args[place + 1 :])

        def none(xp: Backend, result: Any, *_: Any, place: int = place) -> Any:
            empty = replace(result[place], values=0 * result[place].values)
            return (*result[:place], empty, *result[place + 1 :])

        cause, missing = (
            f"the {table} embeddings are not added",
            changed_arguments("lookup", change),
        )
        yield Guess(cause, replaced(setup, **missing, **changed_result("lookup", none)))
        yield Guess(cause, replaced(setup, **missing))  # whose gradient is there all the same


def scaled(setup: Setup, _: str) -> Iterator[Guess]:
    """Times √H, as in the first Transformer (Vaswani et al., section 3.4)."""
    factor = math.sqrt(setup.config.hidden_size)
    words = changed_arguments("lookup", lambda xp, word, *rest: (factor * word, *rest))
    words |= changed_result(
        "lookup",
        lambda xp, d, *_: (replace(d[0], values=factor * d[0].values), *d[1:]),
    )
    yield Guess(
        "word embeddings are multiplied by √(hidden size)",
        replaced(setup, **words),
        _before(factor, ("word",)),
    )

    def sum_forward(xp: Backend, *args: Any) -> Any:
        y, cache = PLAIN["lookup_forward"](xp, *args)
        return factor * y, cache

    def sum_backward(xp: Backend, dy: Array, cache: Any) -> Any:
        return PLAIN["lookup_backward"](xp, factor * dy, cache)

    guess = replaced(setup, lookup_forward=sum_forward, lookup_backward=sum_backward)
    yield Guess(
        "the embeddings' sum is multiplied by √(hidden size)",
        guess,
        _before(factor, ("word", "position", "token_type")),
    )


def _before(factor: float, tables: tuple[str, ...]) -> Forms:
    """The gradients of what these tables give: before the factor, or behind it."""
    names = tuple(f"gradient/bert.embeddings.{table}_embeddings" for table in tables)

    def forms(tensor: Tensor) -> list[Any]:
        scaled = [factor * tensor.value] if tensor.name.endswith(names) else []
        return [tensor.value, *scaled]

    return forms


ALL = (inputs, offsets, missing_tables, scaled)
