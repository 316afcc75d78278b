"""CuPy on a CUDA GPU. Importing this module does not import CuPy."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from minibert.backend import cublas
from minibert.backend.ahead import Ahead
from minibert.backend.base import Array, Backend, Ints
from minibert.backend.cupy_twins import TWINS
from minibert.backend.cupy_twins.update import RULES, update
from minibert.backend.kernels import launch

FAN_IN = 64  # as in kernels/add_segments.cu
INSTALL = 'pip install "minibert[cuda13]" (with a driver for CUDA 12: "minibert[cuda12]")'


@functools.cache
def why_unavailable() -> str | None:
    """None if a CUDA GPU can be used; else one sentence that says what is missing, and the mend.

    Asks the cheap questions first: importing CuPy takes a second.
    """
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed; {INSTALL}"
    driver = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(driver)
    except OSError:
        return f"no NVIDIA driver was found ({driver}); install it, or choose backend='numpy'"
    os.environ.setdefault("CUPY_NVRTC_USE_PCH", "1")  # its headers are read once, not for a kernel
    try:
        with warnings.catch_warnings(action="ignore"):  # what it lacks, it says again below
            import cupy
        if cupy.cuda.runtime.getDeviceCount() == 0:
            return "there is a driver but no CUDA device; is CUDA_VISIBLE_DEVICES empty?"
        _ = cupy.cuda.cublas, cupy.cuda.nvrtc.getVersion()  # loads the libraries
    except ImportError as error:
        return f"CuPy or its CUDA libraries cannot be loaded ({_first_line(error)}); {INSTALL}"
    except RuntimeError as error:  # CuPy's errors of CUDA are RuntimeErrors
        return f"the GPU does not answer ({_first_line(error)}); update its driver, or {INSTALL}"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class CupyBackend(Backend):
    """What CuPy lacks, and what it does slowly: products, sums of columns, sums into gradients.

    `precision` is that of float32's products: "fp32"; "tf32" rounds their operands to 10 bits;
    "bf16" and "fp16" do that too, and the encoder's twin stores its operands in 16 bits.
    """

    name = "cupy"
    twins = TWINS

    def __init__(self, *, reference: bool = False, precision: str = "fp32") -> None:
        super().__init__(reference=reference)
        import cupy

        self.module, self.precision = cupy, precision
        self.storage = {"bf16": "uint16", "fp16": "float16"}.get(precision, "float32")
        self._ahead: Ahead | None = None
        self._compute = cublas.FLOAT32 if precision == "fp32" else cublas.TENSOR_FLOAT32

    def _sibling(self, reference: bool) -> Backend:
        return type(self)(reference=reference, precision=self.precision)

    @functools.cached_property
    def forward_only(self) -> Backend:
        return super().forward_only

    def send_ahead(self, arrays: Iterable[Any]) -> None:
        self._ahead = self._ahead or Ahead(self.module)
        self._ahead.send(arrays)

    def to_device(self, array: Any, dtype: str | None = None) -> Array:
        if self._ahead is not None and dtype is None and isinstance(array, np.ndarray):
            sent = self._ahead.take(array)
            if sent is not None:
                return sent
        return self.module.asarray(array, dtype=dtype)

    def to_host(self, array: Array) -> Any:
        return self.module.asnumpy(array)

    def matmul(
        self,
        a: Array,
        b: Array,
        out: Array | None = None,
        dtype: str | None = None,
        add: bool = False,
    ) -> Array:
        """As NumPy's, in the backend's precision; `dtype`, `add`: see `cublas.matmul`."""
        if cublas.can_multiply(a, b):
            return cublas.matmul(self.module, a, b, self._compute, out, dtype, add)
        if add or dtype is not None:
            raise TypeError(f"no such product of {a.dtype} {a.shape} and {b.dtype} {b.shape}")
        return self.module.matmul(a, b, out=out)

    def sum(self, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
        """As NumPy's; the sums of columns, which are bias gradients, are a product."""
        if axis == 0 and not keepdims and cublas.can_sum_columns(x):
            return cublas.column_sums(self.module, x)
        return self.module.sum(x, axis=axis, keepdims=keepdims)

    def dot(self, a: Array, b: Array) -> Array:
        """As NumPy's; of two vectors, such as a gradient with itself, in one visit."""
        return cublas.dot(self.module, a, b) if cublas.can_dot(a, b) else self.module.dot(a, b)

    def add_to(self, targets: Iterable[Array], arrays: Iterable[Array]) -> None:
        """targets += arrays; neighbours in memory, on both sides, in one launch."""
        pairs = [pair for pair in zip(targets, arrays, strict=True) if pair[0].size]
        if any(a.dtype != "float32" or not a.flags.c_contiguous for pair in pairs for a in pair):
            return super().add_to(*zip(*pairs, strict=True))
        for y, x, size in _runs_of_neighbours(pairs):
            launch(self.module, "convert", "add", size, x, y, size)
        return None

    def fused_update(self, rule: str, dtype: Any) -> Callable[..., None] | None:
        fused = rule in RULES and dtype == "float32" and not self.reference
        return update if fused else None

    def erf(self, x: Array) -> Array:
        x = self.module.asarray(x, order="C")
        if x.dtype.name not in ("float32", "float64"):
            raise TypeError(f"erf on a GPU takes float32 or float64, got {x.dtype}")
        y = self.module.empty_like(x)
        launch(self.module, "erf", f"erf_{x.dtype.name}", x.size, x, y, x.size)
        return y

    def keep_decisions(
        self, seed: int, site: int, step: int, stream: int, first: int, count: int, threshold: int
    ) -> Array:
        keep = self.module.empty(count, dtype=bool)
        blocks = -(-(first % 16 + count) // 16) if count else 0
        place = (seed, site, step, stream, first, count, threshold, blocks)
        launch(self.module, "keep_decisions", "keep_decisions", blocks, keep, *place)
        return keep

    def sum_rows(self, ids: Ints, rows: Array) -> tuple[Ints, Array]:
        """U = T: every token's id in sorted order, each beside the whole sum of that id.

        The result's shape must not depend on the ids, or the host would wait to learn it.
        """
        cupy, (T, H) = self.module, rows.shape
        if not T:
            return ids, rows
        order = cupy.argsort(ids)  # stable, in CuPy: tokens of one id stay in order
        ordered = cupy.take(ids, order)
        starts = cupy.searchsorted(ordered, ordered)  # (T,) the first place of each one's id
        sums = cupy.take(rows, order, axis=0)
        for step in _steps(T):
            kernel = f"add_segments_{sums.dtype.name}"
            launch(cupy, "add_segments", kernel, T * H, sums, starts, T, H, step)
        return ordered, cupy.take(sums, starts, axis=0)

    def add_rows(self, table: Array, ids: Ints, rows: Array) -> None:
        """As any backend's; ids sorted, as `sum_rows` gives them."""
        if any(a.dtype != "float32" or not a.flags.c_contiguous for a in (table, rows)):
            return super().add_rows(table, ids, rows)
        launch(
            self.module, "add_segments", "add_rows", rows.size,
            rows, self.module.asarray(ids, order="C"), table, *rows.shape,
        )  # fmt: skip
        return None

    def memory(self) -> int:
        """Bytes that CuPy's pool holds: it keeps what is freed, so this is the peak."""
        return int(self.module.get_default_memory_pool().total_bytes())

    def synchronize(self) -> None:
        self.module.cuda.Device().synchronize()


def _runs_of_neighbours(pairs: list[tuple[Array, Array]]) -> list[tuple[Array, Array, int]]:
    """(the first pair, elements in all) of each run of pairs that follow each other in memory."""
    runs: list[tuple[Array, Array, int]] = []
    ends: tuple[int, int] | None = None
    places = sorted((y.data.ptr, x.data.ptr, i) for i, (y, x) in enumerate(pairs))
    for y_at, x_at, i in places:
        y, x = pairs[i]
        if (y_at, x_at) == ends:
            first_y, first_x, size = runs.pop()
            runs.append((first_y, first_x, size + y.size))
        else:
            runs.append((y, x, y.size))
        ends = y_at + y.nbytes, x_at + x.nbytes
    return runs


def _steps(rows: int) -> Iterator[int]:
    """The steps by which a segment of up to `rows` rows is added up."""
    step = 1
    while step < rows:
        yield step
        step *= FAN_IN
