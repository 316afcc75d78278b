"""What may be wrong in somebody's BERT: one small function for each family of mistakes.

A hypothesis changes a setup (its configuration, weights, layer functions, …) so that minibert makes
the same mistake. `diagnosis` runs each and looks whether the result is what the other side has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from minibert.verify.hypotheses import (
    activation,
    attention,
    backward,
    dropout,
    embeddings,
    heads,
    loading,
    mask,
    norm,
    order,
    training,
)
from minibert.verify.hypotheses.base import Guess
from minibert.verify.trace.setup import Setup

Hypothesis = Callable[[Setup, str], Iterator[Guess]]
"""(the right setup, the name of the first tensor that is out) → guesses."""

HYPOTHESES: Mapping[str, tuple[Hypothesis, ...]] = {
    "activation": (
        *embeddings.ALL,
        *norm.ALL,
        *order.ALL,
        *attention.ALL,
        *mask.ALL,
        *activation.ALL,
        *heads.ALL,
        *loading.ALL,
    ),
    "gradient": backward.ALL,
    "dropout": dropout.ALL,
    "training": training.ALL,
}
"""By the section of a trace in which the mistake shows first."""

__all__ = ["HYPOTHESES", "Guess", "Hypothesis"]
