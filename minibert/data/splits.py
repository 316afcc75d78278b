"""Cutting examples: the first ones, or a part held out for validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np

from minibert.errors import InputError
from minibert.io.numbers import counted


class ExampleFile(Protocol):
    """What the examples of any task's file have in common."""

    @property
    def path(self) -> Path: ...
    def __len__(self) -> int: ...
    def take(self, numbers: Sequence[int]) -> Self: ...


Examples = TypeVar("Examples", bound=ExampleFile)


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """(rest, held out): `share` of the examples drawn by `seed`, each part in file order."""
    count = round(len(examples) * share)
    if not 0 < count < len(examples):
        raise InputError(
            f"{examples.path} has {counted(len(examples), 'example')}: too few to hold out "
            f"{share:.0%}; give a --validation_file"
        )
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(examples))
    return examples.take(sorted(order[count:])), examples.take(sorted(order[:count]))
