"""What the benchmarks share: the machine's description, quartiles, a Markdown table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

# Last: profile.py in this folder must not hide the standard library's, which PyTorch imports.
sys.path.sort(key=str(Path(__file__).parent).__eq__)


class Spread(NamedTuple):
    """A sample's median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, sample: Sequence[float]) -> Spread:
        """The spread of at least one number."""
        if len(sample) == 1:
            return cls(sample[0], sample[0], sample[0])
        low, median, high = statistics.quantiles(sample, n=4, method="inclusive")
        return cls(median, low, high)

    @property
    def relative(self) -> float:
        """The distance of the quartiles ÷ the median: how far to trust the median."""
        return (self.high - self.low) / self.median


def machine(packages: Iterable[str]) -> dict[str, str]:
    """What a reader needs to judge a measurement; a package that is not installed is left out."""
    found = {"system": platform.platform(), "processor": _processor(), "cores": str(os.cpu_count())}
    found["python"] = platform.python_version()
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere the platform's own, shorter word
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with aligned columns: the first to the left, numbers to the right."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in table)
    first, *rest = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([first, f"| {' | '.join(rule)} |", *rest])
