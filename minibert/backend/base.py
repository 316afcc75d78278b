"""What every backend offers, and how a layer function finds its faster twin."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

Array: TypeAlias = Any
"""A floating-point (or complex) array of the backend in use; the gradient checks cover it."""

Ints: TypeAlias = Any
"""An integer array: ids, positions, offsets. Nothing flows back into it."""

Targets: TypeAlias = Any
"""Given data, such as labels: floating or integer; nothing flows back into it."""

Function = TypeVar("Function", bound=Callable[..., Any])

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
"""Of the products of float32 models: full; operands rounded to 10 bits; stored in 16 bits."""


def dropout_threshold(p: float) -> tuple[int, float]:
    """The 16-bit threshold for dropout probability p, and the factor for what is kept.

    A decision has 16 bits, so the true probability is p̂ = round(65536·p)/65536; scaling by
    1/(1 − p̂), not 1/(1 − p), keeps the expectation exact. (p̂ stays below 1, as p does.)
    """
    threshold = min(round(p * 65536), 65535)
    return threshold, 65536 / (65536 - threshold)


class Deferred:
    """A gradient that is no array yet (or of a tuple of weights, no tuple of arrays)."""

    def dense(self, xp: Backend) -> Any:
        """It as an array, or as a tuple like the weights."""
        raise NotImplementedError  # abstract: each kind defines it

    def add_to(self, xp: Backend, target: Any) -> None:
        """target += it."""
        raise NotImplementedError  # abstract: each kind defines it


@dataclass(frozen=True, slots=True)
class RowGradient(Deferred):
    """The gradient of a table of which only a few rows were looked up: zero everywhere else."""

    rows: Ints  # (U,) row numbers; beside one that repeats stand the same values each time
    values: Array  # (U, H)
    shape: tuple[int, ...]  # of the table

    def dense(self, xp: Backend) -> Array:
        table = xp.zeros(self.shape, dtype=self.values.dtype)
        table[self.rows] = self.values
        return table

    def add_to(self, xp: Backend, target: Array) -> None:
        xp.add_rows(target, self.rows, self.values)


class Backend:
    """An array module and the operations that NumPy and CuPy do not share.

    Everything this class does not define is looked up in the array module, so layer code reads
    like NumPy: `xp.exp(x)`.
    """

    name: str
    module: ModuleType
    twins: dict[str, Callable[..., Any]]
    keeps_caches = True
    """False on a backend for inference: nothing is kept for a backward."""
    precision = "fp32"
    """Of float32's products; see `PRECISIONS`."""
    storage = "float32"
    """dtype of the operands of a float32 model's large products; "uint16" is bfloat16."""

    def __init__(self, *, reference: bool = False) -> None:
        self.reference = reference

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "module":
            raise AttributeError(name)
        value = getattr(self.module, name)
        self.__dict__[name] = value  # found without a detour the next time
        return value

    def twin(self, name: str, x: Any) -> Callable[..., Any] | None:
        """The faster twin of layer function `name` for arrays like `x`, or None.

        `x` is the function's first argument: an array, or a tuple of weights.
        """
        twin = self.twins.get(name)
        if twin is None or self.reference:
            return None
        dtype = (x[0] if isinstance(x, tuple) else x).dtype
        return twin if dtype == "float32" else None

    def to_device(self, array: Any, dtype: str | None = None) -> Array:
        """Host array → array of this backend (the same memory where nothing has to change)."""
        raise NotImplementedError  # abstract: each backend defines it

    def to_host(self, array: Array) -> Any:
        """Array of this backend → NumPy array; waits for the device."""
        raise NotImplementedError  # abstract: each backend defines it

    def erf(self, x: Array) -> Array:
        """The error function 2/√π ∫₀ˣ exp(−t²) dt, element by element, in x's dtype."""
        raise NotImplementedError  # abstract: each backend defines it

    def keep_decisions(
        self, seed: int, site: int, step: int, stream: int, first: int, count: int, threshold: int
    ) -> Array:
        """`count` dropout decisions from number `first` of a stream on: (count,) bool, True = keep.

        The rule, which needs no state and is the same on every device. Decision number d of a
        stream is piece d mod 16 of Philox block d div 16. A block is

            Philox4x64-10(counter = (block + 1, stream, step, 0), key = (seed, site)),

        four 64-bit words; its 16 pieces are the words' 16-bit parts, lowest first. A decision
        keeps its element when the piece is ≥ `threshold`. (Block numbers are counted from one
        because NumPy's generator advances its counter before the first block.)

        Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
        """
        raise NotImplementedError  # abstract: each backend defines it

    def sum_rows(self, ids: Ints, rows: Array) -> tuple[Ints, Array]:
        """Sums of the rows that share an id, in a fixed order: (ids (U,), sums (U, H)).

        The U ids are sorted. On a GPU an id may stand there several times, each time beside the
        same complete sum: counting the distinct ones would make the host wait. `table[ids] = sums`
        and `table[ids] += sums` mean the same either way; adding up the sums does not.
        """
        raise NotImplementedError  # abstract: each backend defines it

    def add_to(self, targets: Iterable[Array], arrays: Iterable[Array]) -> None:
        """targets += arrays, array by array; no two targets share memory."""
        for target, array in zip(targets, arrays, strict=True):
            target[...] += array

    def fused_update(self, rule: str, dtype: Any) -> Callable[..., None] | None:
        """A step of an optimizer's rule over whole buffers at once, where the backend has one.

        update(xp, rule, p, g, m, v, h, decayed), with h the `Hyper` of the parameters p[:decayed].
        """
        return None

    def send_ahead(self, arrays: Iterable[Any]) -> None:
        """Copy host arrays to the device while it computes: `to_device` will find them there.

        It finds pieces of them too: the shards of a batch. To be called after a step, with what the
        next one reads, which must not change until this is called again.
        """

    def add_rows(self, table: Array, ids: Ints, rows: Array) -> None:
        """table[ids] += rows, in place; ids, sorted, and rows as `sum_rows` gives them."""
        table[ids] += rows

    @property
    def plain(self) -> Backend:
        """The same backend without twins: exactly what `layers/` says."""
        return self if self.reference else self._sibling(reference=True)

    def _sibling(self, reference: bool) -> Backend:
        return type(self)(reference=reference)

    @property
    def forward_only(self) -> Backend:
        """The same backend for inference: no cache is kept, and forward twins need not fill one."""
        sibling = self._sibling(self.reference)
        sibling.keeps_caches = False
        return sibling

    def together(self, num_tokens: int, dtype: Any) -> Backend | None:
        """For inference inside `Workers.together`, where that is faster for so many tokens."""
        return None

    def memory(self) -> int:
        """Peak bytes in use: resident memory of the process, or memory taken on the device."""
        raise NotImplementedError  # abstract: each backend defines it

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked to: before a clock is read."""


def twinned(function: Function) -> Function:
    """Let the backend's faster twin of this layer function, if it has one, take the call.

    A twin has the same name and signature, and agrees with the original to rounding. Forward and
    backward twins come in pairs, since the cache is theirs to choose.
    """
    name = function.__name__

    @functools.wraps(function)
    def call(xp: Backend, x: Any, *args: Any, **kwargs: Any) -> Any:
        twin = xp.twin(name, x)
        return (twin or function)(xp, x, *args, **kwargs)

    call.plain = function  # type: ignore[attr-defined]  # the tests compare the two
    return call  # type: ignore[return-value]  # same signature as `function`
