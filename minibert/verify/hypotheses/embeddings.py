"""Mistakes in the embeddings: ids that are off, tables that are not added, a scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from minibert.backend import Array, Backend
from minibert.verify.hypotheses.base import (
    PLAIN,
    Guess,
    Layer,
    changed_arguments,
    changed_result,
    replaced,
)
from minibert.verify.trace.setup import Setup


def inputs(setup: Setup, _: str) -> Iterator[Guess]:
    """Token types, positions and ids that are off."""
    types, positions = setup.config.type_vocab_size - 1, setup.config.max_position_embeddings - 1
    for cause, change in {
        "token_type_ids are ignored (all 0)": lambda i, p, t: (i, p, 0 * t),
        "token_type_ids are all 1 (off by one)": lambda i, p, t: (i, p, 0 * t + types),
        "token_type_ids are swapped (0 for 1)": lambda i, p, t: (i, p, types - t),
        "positions are off by one (counted from 1)": lambda i, p, t: (
            i, (p + 1).clip(0, positions), t
        ),
        "positions are off by two (as in RoBERTa)": lambda i, p, t: (
            i, (p + 2).clip(0, positions), t
        ),
        "positions are ignored (all 0)": lambda i, p, t: (i, 0 * p, t),
        "input_ids are off by one": lambda i, p, t: ((i + 1) % setup.config.vocab_size, p, t),
    }.items():  # fmt: skip

        def changed(
            xp: Backend, w: Any, i: Any, p: Any, t: Any, *rest: Any, change: Layer = change
        ) -> tuple[Any, ...]:
            return (w, *change(i, p, t), *rest)

        yield Guess(cause, replaced(setup, **changed_arguments("embeddings", changed)))


def missing_tables(setup: Setup, _: str) -> Iterator[Guess]:
    """A table that is not added, or a norm that is not applied."""
    for place, table in enumerate(("word", "position", "token type")):

        def change(xp: Backend, *args: Any, place: int = place) -> tuple[Any, ...]:
            return (*args[:place], 0 * args[place], *args[place + 1 :])

        def none(xp: Backend, result: Any, *_: Any, place: int = place) -> Any:
            empty = result[place]._replace(values=0 * result[place].values)
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
        lambda xp, d, *_: (d[0]._replace(values=factor * d[0].values), *d[1:]),
    )
    yield Guess("word embeddings are multiplied by √(hidden size)", replaced(setup, **words))

    def sum_forward(xp: Backend, *args: Any) -> Any:
        y, cache = PLAIN["lookup_forward"](xp, *args)
        return factor * y, cache

    def sum_backward(xp: Backend, dy: Array, cache: Any) -> Any:
        return PLAIN["lookup_backward"](xp, factor * dy, cache)

    guess = replaced(setup, lookup_forward=sum_forward, lookup_backward=sum_backward)
    yield Guess("the embeddings' sum is multiplied by √(hidden size)", guess)


ALL = (inputs, missing_tables, scaled)
