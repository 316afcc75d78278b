"""What the benchmarks share: settings, checks of arguments, spreads, a Markdown table."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# Last: profile.py in this folder must not hide the standard library's, which PyTorch imports.
sys.path.sort(key=str(Path(__file__).parent).__eq__)


# glibc's allocator kept from returning memory to the system, as minibert keeps it.
KEPT = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "2147483647",
    "MALLOC_TOP_PAD_": "67108864",
}  # fmt: skip


def set_threads(threads: int) -> None:
    """For every library, here (those not imported yet) and in the processes started from here."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)


# ---- What an argument has to be ----


def positive(text: str) -> int:
    """A whole number above 0."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def new_file(text: str) -> Path:
    """A file that can be written, found out before hours of work."""
    path = Path(text)
    folder = path.absolute().parent
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{folder} is no directory: make it first")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: name another file")
    return path


def require(modules: Iterable[str], extras: str) -> None:
    """Raise InputError, with the command to install them, where some are missing."""
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        from minibert.errors import InputError  # late: a worker imports its own side alone

        names = " and ".join(missing)
        raise InputError(f"needs {names}: python -m pip install -e '.[{extras}]'")


# ---- The report ----


FEW = 5


class Spread(NamedTuple):
    """A sample's median and quartiles; the least and the greatest of fewer than five numbers.

    Between three numbers quartiles would hide the one that stands apart.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, sample: Sequence[float]) -> Spread:
        """The spread of at least one number."""
        if len(sample) < FEW:
            return cls(statistics.median(sample), min(sample), max(sample))
        low, median, high = statistics.quantiles(sample, n=4, method="inclusive")
        return cls(median, low, high)

    @property
    def relative(self) -> float:
        """The distance of low and high ÷ the median: how far to trust the median."""
        return (self.high - self.low) / self.median


def describe(settings: Mapping[str, object], packages: Iterable[str] = ()) -> str:
    """The line below a table: how, with which packages and on what it was measured."""
    whole = {**settings, **(machine(packages) if packages else {})}
    return ", ".join(f"{name} {value}" for name, value in whole.items())


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
