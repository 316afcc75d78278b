"""A comparison as people read it, and as programs do."""

from __future__ import annotations

import math
from typing import Any

from minibert.io.numbers import counted
from minibert.verify.compare import THINNED, Comparison, Row
from minibert.verify.diagnosis import Diagnosis


def as_text(comparison: Comparison, diagnosis: Diagnosis | None, *, only_out: bool = False) -> str:
    """One line a tensor, in the order of execution, then what to look at."""
    rows = [row for row in comparison.rows if not (only_out and row.passed)]
    width = max((len(row.name) for row in rows), default=0)
    lines = [_line(row, width) for row in rows]
    out = sum(not row.passed for row in comparison.rows)
    count = len(comparison.rows)
    widened = f" ({comparison.stored} that holds {comparison.dtype}'s numbers alone)"
    lines += ["", f"{counted(count, 'tensor')} compared, {out} out of the "
              f"{comparison.dtype} budget{widened if comparison.stored else ''}"]  # fmt: skip
    first = comparison.first_out
    if first is not None:
        lines.append(f"first out: {first.name}")
        if first.formula:
            lines.append(f"its formula: {first.formula}")
        if math.isnan(first.error):
            lines.append(f"it {first.note}")
        elif diagnosis is not None:
            lines.append(f"likely cause: {diagnosis}")
    return "\n".join(lines)


def _line(row: Row, width: int) -> str:
    verdict = "" if row.passed else "  OUT"
    told = row.note and not math.isnan(row.error) and not (row.passed and row.note != THINNED)
    note = f"  ({row.note})" if told else ""
    return f"{row.order:5} {row.name:<{width}} {row.error:8.1e} of {row.budget:.1e}{verdict}{note}"


def as_dict(comparison: Comparison, diagnosis: Diagnosis | None) -> dict[str, Any]:
    """The same for JSON; NaN errors are null."""
    first = comparison.first_out
    return {
        "passed": comparison.passed,
        "dtype": comparison.dtype,
        "stored": comparison.stored or comparison.dtype,
        "first_out": first and first.name,
        "formula": (first and first.formula) or None,
        "cause": str(diagnosis) if diagnosis is not None else None,
        "known_cause": bool(diagnosis and diagnosis.causes),
        "tensors": [
            {
                "order": row.order,
                "name": row.name,
                "error": None if math.isnan(row.error) else row.error,
                "budget": row.budget,
                "passed": row.passed,
                "note": row.note,
            }
            for row in comparison.rows
        ],
    }
