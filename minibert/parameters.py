"""All parameters in one flat buffer with named views; gradients and moments are its twins.

The optimizer, the gradient norm, zeroing, saving and an all-reduce are each one operation on one
array. Decayed parameters come first, the rest after, so weight decay is a slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minibert.backend import Array, Backend, Deferred

Shapes = Mapping[str, tuple[int, ...]]


def is_decayed(name: str) -> bool:
    """Weight decay applies to weight matrices and embeddings, not to biases and layer norms.

    Searches in the full name, as google-research/bert optimization.py does.
    """
    return not name.endswith("bias") and "LayerNorm" not in name


class Layout:
    """Where each parameter lies in the flat buffer."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.starts: dict[str, int] = {}
        self.size = 0
        self.decayed = 0
        for decay in (True, False):
            for name, shape in shapes.items():
                if is_decayed(name) == decay:
                    self.shapes[name] = tuple(shape)
                    self.starts[name] = self.size
                    self.size += math.prod(shape)
            if decay:
                self.decayed = self.size

    def name_at(self, index: int) -> str:
        """The parameter that element `index` of the flat buffer belongs to."""
        return max((n for n in self.starts if self.starts[n] <= index), key=self.starts.__getitem__)


class Parameters(Mapping[str, Array]):
    """Named arrays under Hugging Face's names, in (out, in) layout.

    Loaded from a file they may at first be views into the memory-mapped file, so that a model for
    inference starts at once; `flat` copies them into one buffer the first time it is asked for.
    """

    def __init__(self, xp: Backend, layout: Layout, arrays: Mapping[str, Array]) -> None:
        self.xp, self.layout = xp, layout
        self._arrays = {name: arrays[name] for name in layout.shapes}
        self._flat: Array | None = None
        self.bound: dict[type, Any] = {}
        """What a class of models made of these arrays."""

    @classmethod
    def zeros(cls, xp: Backend, layout: Layout, dtype: Any) -> Parameters:
        """All zero, in a buffer of their own."""
        return cls.over(xp, layout, xp.zeros(layout.size, dtype=dtype))

    @classmethod
    def over(cls, xp: Backend, layout: Layout, flat: Array) -> Parameters:
        """Named views of an existing flat buffer (P,)."""
        self = cls.__new__(cls)
        self.xp, self.layout = xp, layout
        self._bind(flat)
        return self

    def _bind(self, flat: Array) -> None:
        self._flat, self._arrays, self.bound = flat, {}, {}
        for name, shape in self.layout.shapes.items():
            start = self.layout.starts[name]
            self._arrays[name] = flat[start : start + math.prod(shape)].reshape(shape)

    @property
    def flat(self) -> Array:
        """(P,) the buffer that every named array is a view of."""
        if self._flat is None:
            arrays = self._arrays
            self._bind(self.xp.empty(self.layout.size, dtype=self.dtype))
            for name, array in arrays.items():
                self._arrays[name][...] = array
        return self._flat

    @property
    def is_flat(self) -> bool:
        """False while the arrays are views into a file."""
        return self._flat is not None

    @property
    def dtype(self) -> Any:
        return next(iter(self._arrays.values())).dtype

    def zeros_like(self) -> Parameters:
        """A twin: the same names and layout, all zero."""
        return Parameters.zeros(self.xp, self.layout, self.flat.dtype)

    def fused(self, names: Sequence[str]) -> Array:
        """Several parameters below each other as one array.

        A view, since neighbours in the layout are neighbours in memory; a copy while the
        parameters still lie in a file.
        """
        if not self.is_flat:
            return self.xp.concatenate([self[name] for name in names])
        start, shapes = self.layout.starts[names[0]], [self.layout.shapes[n] for n in names]
        for name, place in zip(names, _running(start, shapes), strict=True):
            if self.layout.starts[name] != place:
                raise ValueError(f"{names} are not neighbours in the layout")
        rows = sum(shape[0] for shape in shapes)
        size = sum(map(math.prod, shapes))
        return self.flat[start : start + size].reshape(rows, *shapes[0][1:])

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _running(start: int, shapes: Sequence[tuple[int, ...]]) -> Iterator[int]:
    for shape in shapes:
        yield start
        start += math.prod(shape)


def accumulate(xp: Backend, targets: tuple[Any, ...], gradients: tuple[Any, ...]) -> None:
    """targets += gradients, field by field; a `Deferred` one is added in its own way."""
    if isinstance(gradients, Deferred):
        return gradients.add_to(xp, targets)
    dense = []
    for target, gradient in zip(targets, gradients, strict=True):
        if isinstance(gradient, Deferred):
            gradient.add_to(xp, target)
        else:
            dense.append((target, gradient))
    if dense:
        xp.add_to(*zip(*dense, strict=True))
