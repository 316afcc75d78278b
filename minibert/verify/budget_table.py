"""The error budget as a table: what float32 loses against float64, in NumPy and in PyTorch."""

from __future__ import annotations

from typing import Any

from minibert.verify.compare import compare
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Setup


def budget_table(trace: Trace, setup: Setup) -> list[dict[str, Any]]:
    """A row for each computed tensor: NumPy's error, PyTorch's (None without it), the budget."""
    pytorch = _pytorch_errors(trace, setup)
    return [
        {
            "name": name,
            "numpy": entry.error_float32,
            "pytorch": pytorch.get(name),
            "budget": entry.budget_float32,
        }
        for name, entry in trace.entries.items()
        if entry.error_float32 is not None or entry.budget_float32 is not None
    ]


def _pytorch_errors(trace: Trace, setup: Setup) -> dict[str, float]:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError:
        return {}
    from minibert.verify.transformers_run import run_transformers

    comparison = compare(run_transformers(setup, "float32"), trace, dtype="float32")
    return {row.name: row.error for row in comparison.rows}
