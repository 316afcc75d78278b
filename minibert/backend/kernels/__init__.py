"""CUDA C++ kernels, one subject a file, compiled by CuPy when first used (and cached on disk).

A kernel here is one thread for each piece of work, along x alone. Its arguments are C-contiguous
arrays and `unsigned long long` numbers.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

BLOCK = 256  # threads


def source(file: str) -> str:
    """The text of kernels/`file`.cu."""
    return Path(__file__).with_name(f"{file}.cu").read_text(encoding="utf-8")


@functools.cache
def _module(cupy: ModuleType, file: str) -> Any:
    return cupy.RawModule(code=source(file))


@functools.cache
def _kernel(cupy: ModuleType, file: str, name: str) -> Any:
    return _module(cupy, file).get_function(name)


def launch(cupy: ModuleType, file: str, name: str, threads: int, *arguments: Any) -> None:
    """Run kernel `name` of `file`.cu on at least `threads` threads; returns without waiting."""
    if threads == 0:  # a grid of no blocks is an error
        return
    typed = tuple(np.uint64(a) if isinstance(a, int) else a for a in arguments)
    _kernel(cupy, file, name)((-(-threads // BLOCK),), (BLOCK,), typed)
