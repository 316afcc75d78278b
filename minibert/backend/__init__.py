"""Where arrays live: the only folder that knows NumPy from CuPy.

A layer receives a `Backend` as its first argument, `xp`, and uses it as the array module:
`xp.exp`, `xp.sum`, … are NumPy's or CuPy's own. Beside them a backend has the few operations that
the two do not share (`erf`, `keep_decisions`, `sum_rows`) and, where it pays, faster *twins* of
layer functions (see `twinned`).
"""

from __future__ import annotations

from minibert.backend.base import (
    PRECISIONS,
    Array,
    Backend,
    Deferred,
    Ints,
    RowGradient,
    Targets,
    twinned,
)
from minibert.errors import InputError

__all__ = [
    "PRECISIONS",
    "Array",
    "Backend",
    "Deferred",
    "Ints",
    "RowGradient",
    "Targets",
    "get_backend",
    "twinned",
]

NAMES = ("auto", "numpy", "cupy")


def get_backend(
    name: str | Backend = "auto", *, reference: bool = False, precision: str = "fp32"
) -> Backend:
    """The backend called `name`: "numpy", "cupy", or "auto" (a CUDA GPU if there is one).

    `reference=True` forces the plain layer functions everywhere: slower, and exactly what the
    files in `layers/` say. `precision`: one of PRECISIONS; a CPU has "fp32" alone.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    backend = name if isinstance(name, Backend) else _named(name, reference, precision)
    if precision not in ("fp32", backend.precision):
        raise InputError(
            f"precision {precision!r} wants a GPU, but the backend is {backend.name!r}, which "
            f"computes in {backend.precision!r}: leave it out"
        )
    return backend


def _named(name: str, reference: bool, precision: str) -> Backend:
    if name not in NAMES:
        raise InputError(f"unknown backend {name!r}: choose one of {', '.join(NAMES)}")
    if name != "numpy":
        from minibert.backend import cupy_backend

        problem = cupy_backend.why_unavailable()
        if problem is None:
            return cupy_backend.CupyBackend(reference=reference, precision=precision)
        if name == "cupy":
            raise InputError(f"backend 'cupy' cannot be used: {problem}")
    from minibert.backend.numpy_backend import NumpyBackend

    return NumpyBackend(reference=reference)
