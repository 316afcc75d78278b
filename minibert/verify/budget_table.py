"""The error budget as a table: what float32 loses against float64, in NumPy and in PyTorch.

NumPy's errors stand in a trace's JSON, which is a function of the trace alone. PyTorch's depend on
its version and its machine: they stand beside it, in NAME.pytorch.json, where somebody had PyTorch
at hand (`crosscheck.py trace … --pytorch`).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

from minibert.errors import InputError
from minibert.io.files import atomic_write
from minibert.io.json_io import read_json_object
from minibert.verify.compare import compare
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Setup

PACKAGES = ("torch", "transformers")


def budget_table(trace: Trace, pytorch: dict[str, float]) -> list[dict[str, Any]]:
    """A row for each computed tensor: NumPy's error, PyTorch's, the budget; None: not measured."""
    return [
        {
            "name": name,
            "numpy": entry.error_float32,
            "pytorch": pytorch.get(name),
            "budget": entry.budget_float32,
        }
        for name, entry in trace.entries.items()
        if entry.budget_float32 is not None
    ]


def has_pytorch() -> bool:
    return all(importlib.util.find_spec(package) for package in PACKAGES)


def measure_pytorch(trace: Trace, setup: Setup) -> dict[str, float]:
    """PyTorch's relative float32 errors, by a live model; InputError without PyTorch."""
    from minibert.verify.transformers_run import run_transformers

    comparison = compare(run_transformers(setup, "float32"), trace, dtype="float32")
    computed = (row for row in comparison.rows if trace.entries[row.name].budget_float32)
    return {row.name: float(f"{row.error:.2g}") for row in computed}


def pytorch_file(trace: Trace) -> Path:
    return trace.path.with_suffix(".pytorch.json")


def write_pytorch(trace: Trace, errors: dict[str, float]) -> Path:
    """Write what `measure_pytorch` found beside the trace; returns the file."""
    about = {
        "what": "relative L2 errors of PyTorch in float32 against the trace",
        "sha256": trace.about["sha256"],
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "error_float32": errors,
    }
    atomic_write(pytorch_file(trace), json.dumps(about, indent=1) + "\n")
    return pytorch_file(trace)


def read_pytorch(trace: Trace) -> tuple[dict[str, float], dict[str, str]] | None:
    """The errors that stand beside a trace and the versions that made them; None: no such file."""
    file = pytorch_file(trace)
    if not file.is_file():
        return None
    about = read_json_object(file)
    if about.get("sha256") != trace.about["sha256"]:
        raise InputError(
            f"{file}: made for another trace than {trace.path.name}: make it again with "
            "`crosscheck.py trace … --pytorch`, or remove it"
        )
    return dict(about["error_float32"]), dict(about["versions"])
