"""The certificate: every gradient of every layer and head, in every precision that is at hand.

A chain of trust: the complex step judges NumPy in float64, and that judges all the others.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.backend import Backend, get_backend
from minibert.backend.cupy_backend import why_unavailable
from minibert.verify import layer_cases as cases
from minibert.verify import model_cases
from minibert.verify.gradcheck import Check, check_layer, check_model, dense_arrays, is_shift
from minibert.verify.layer_cases import LayerCase
from minibert.verify.model_cases import DROPOUT, LENGTHS, random_model, small_config

PACKAGES = ("numpy", "safetensors", "tokenizers", "cupy-cuda13x", "cupy-cuda12x")


class Mode(NamedTuple):
    """One way of computing, held against NumPy in float64."""

    backend: str
    dtype: str
    layer_bound: float  # relative L2 error of one layer's result or gradient
    model_bound: float  # of a whole model's
    products: str = "fp32"  # how products of float32 are rounded: a backend's `precision`

    @property
    def name(self) -> str:
        """As the certificate says it."""
        return self.dtype if self.products == "fp32" else self.products


MODES = (
    Mode("numpy", "float32", 1e-5, 1e-4),
    Mode("cupy", "float64", 1e-13, 1e-12),
    Mode("cupy", "float32", 1e-5, 1e-4),
    # 10 and 50 times what the rounding of a product's operands may change: 2⁻¹¹, and bf16's 2⁻⁸
    Mode("cupy", "float32", 5e-3, 2.5e-2, "tf32"),
    Mode("cupy", "float32", 4e-2, 2e-1, "bf16"),
    Mode("cupy", "float32", 5e-3, 2.5e-2, "fp16"),
)


class Line(NamedTuple):
    """One line of the certificate."""

    what: str  # a layer or a head
    backend: str
    precision: str
    against: str
    tensors: int
    error: float  # the worst, relative
    where: str  # the tensor that has it
    bound: float

    @property
    def passed(self) -> bool:
        return self.error <= self.bound


def certificate(tell: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """{"versions": …, "rows": …, "left_out": …}; `tell` hears of every line as it is done."""
    rows = []
    for line in lines():
        rows.append(line._asdict() | {"passed": line.passed})
        tell(f"{line.what}, {line.backend} {line.precision}: {line.error:.1e}")
    return {"versions": versions(), "rows": rows, "left_out": left_out()}


def left_out() -> list[str]:
    """The modes that have no line here, and why."""
    why, modes = why_unavailable(), [mode.name for mode in MODES if mode.backend == "cupy"]
    return [f"cupy {', '.join(modes)}: {why}"] if why else []


def versions() -> dict[str, str]:
    """Python, the processor, and the libraries that are installed."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"platform": sys.platform}


def lines() -> Iterator[Line]:
    """Every layer and head: by the complex step, then in each precision at hand."""
    for case in cases.layer_cases():
        yield _worst_check(case.layer, check_layer(case))
    for name, (kind, changes) in model_cases.KINDS.items():
        model, batch = random_model(kind, small_config(**changes), LENGTHS)
        yield _worst_check(f"model: {name}", check_model(model, batch, DROPOUT))
    for mode in MODES:
        if mode.backend == "cupy" and why_unavailable() is not None:
            continue
        xp = get_backend(mode.backend, precision=mode.products)
        for case in cases.layer_cases():
            yield _line(case.layer, mode, layer_errors(case, xp, mode.dtype))
        for name in model_cases.KINDS:
            yield _line(f"model: {name}", mode, model_errors(name, xp, mode.dtype))


def _worst_check(what: str, checks: list[Check]) -> Line:
    worst = max(checks, key=lambda check: check.error / check.bound)
    return Line(
        what, "numpy", "float64", "complex step", len(checks), worst.error, worst.tensor,
        worst.bound,
    )  # fmt: skip


def _line(what: str, mode: Mode, errors: dict[str, float]) -> Line:
    where = max(errors, key=errors.__getitem__)
    bound = mode.model_bound if what.startswith("model") else mode.layer_bound
    return Line(
        what, mode.backend, mode.name, "numpy float64", len(errors), errors[where], where, bound
    )


def layer_errors(case: LayerCase, xp: Backend, dtype: str) -> dict[str, float]:
    """Relative L2 errors of a layer's result and gradients against plain NumPy in float64."""
    reference = get_backend("numpy", reference=True)
    wanted = _run_layer(case, reference, "float64")
    got = _run_layer(case, xp, dtype)
    return {name: _relative(got[name], array) for name, array in wanted.items()}


def _run_layer(case: LayerCase, xp: Backend, dtype: str) -> dict[str, NDArray[Any]]:
    arrays = {name: xp.to_device(array, dtype) for name, array in case.arrays.items()}
    arguments = [_moved(xp, argument, dtype) for argument in case.arguments(arrays)]
    y, cache = case.forward(xp, *arguments)
    upstream = np.random.default_rng(1).normal(size=np.shape(y))
    dy = xp.to_device(np.asarray(upstream), dtype)
    gradients = dense_arrays(xp, case.backward(xp, dy, cache))
    named = zip(case.arrays, gradients, strict=True)
    result = {"result": y} | {f"d{name}": gradient for name, gradient in named}
    return {name: np.asarray(xp.to_host(array)) for name, array in result.items()}


def _moved(xp: Backend, argument: Any, dtype: str) -> Any:
    """Host arrays of ids, or of targets, on the backend; everything else as it is."""
    if isinstance(argument, np.ndarray):
        return xp.to_device(argument, dtype if argument.dtype.kind == "f" else None)
    return argument


def model_errors(name: str, xp: Backend, dtype: str) -> dict[str, float]:
    """Relative L2 errors of a head's loss and parameter gradients, dropout on."""
    kind, changes = model_cases.KINDS[name]
    model, batch = random_model(kind, small_config(**changes), LENGTHS)
    arrays = {key: np.asarray(value) for key, value in model.parameters.items()}
    other = kind(model.config, backend=xp, dtype=dtype, threads=1, arrays=arrays)
    wanted, got = (_gradients(each, batch) for each in (model, other))
    norm = float(np.sqrt(sum(np.vdot(array, array) for array in wanted.values())))
    size = model.parameters.flat.size

    def least(key: str, array: NDArray[Any]) -> float:
        """A small tensor is measured against its share of the whole's norm; one that is zero in
        exact arithmetic, of which rounding leaves what it will, against all of it.
        """
        return norm if is_shift(model, key) else 1e-2 * norm * (array.size / size) ** 0.5

    return {key: _relative(got[key], array, least(key, array)) for key, array in wanted.items()}


def _gradients(model: Any, batch: Any) -> dict[str, NDArray[Any]]:
    gradients = model.parameters.zeros_like()
    loss = model.accumulate_gradients(batch, gradients, DROPOUT).loss
    named: Iterable[tuple[str, Any]] = gradients.items()
    result = {name: np.asarray(model.xp.to_host(array)) for name, array in named}
    return result | {"loss": np.asarray(model.xp.to_host(loss))}


def _relative(got: NDArray[Any], want: NDArray[Any], least: float = 0.0) -> float:
    norm = max(float(np.linalg.norm(want)), least)
    return (
        float(np.linalg.norm((got - want).reshape(-1))) / norm if norm else float(np.abs(got).max())
    )


def markdown(result: dict[str, Any]) -> str:
    """The certificate as a Markdown table, a line for each layer and head."""
    lines = [
        "| what | computed by | against | tensors | worst relative error | bound | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        cells = (
            row["what"], f"{row['backend']} {row['precision']}", row["against"], row["tensors"],
            f"{row['error']:.1e} ({row['where']})", f"{row['bound']:.0e}",
            "ok" if row["passed"] else "**FAILED**",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    found = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    absent = [f"- {each}" for each in result["left_out"]]
    absent = ["", "Not measured:", "", *absent] if absent else []
    return "\n".join([*lines, "", f"With {found}.", *absent])
