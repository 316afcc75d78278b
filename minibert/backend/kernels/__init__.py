"""CUDA C++ kernels, one subject a file, compiled by CuPy when first used (and cached on disk).

A kernel here is one thread, or one warp of 32, for each piece of work, along x alone; threads speak
to each other within their warp only. Its arguments are C-contiguous arrays (None: a null pointer),
`unsigned long long` and `float` numbers.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

BLOCK = 256  # threads
WARP = 32  # threads that work on one row
STORAGES = {"float32": "float", "float16": "Half", "uint16": "Bfloat"}
"""dtype of an array of activations → storage.cuh's name; bfloat16, which NumPy lacks, is uint16."""


@functools.cache
def source(file: str, storage: Any = "float32") -> str:
    """The text of kernels/`file`.cu with its includes, for activations of dtype `storage`.

    (Given to the compiler whole: it would look for includes in the working directory, and CuPy's
    cache would not see that one has changed.)
    """

    def text(name: str) -> str:
        return Path(__file__).with_name(name).read_text(encoding="utf-8")

    whole = re.sub(r'#include "(\w+\.cuh)"', lambda found: text(found[1]), text(f"{file}.cu"))
    return f"#define STORAGE {STORAGES[np.dtype(storage).name]}\n{whole}"


@functools.cache
def _kernel(cupy: ModuleType, file: str, name: str, storage: Any) -> Any:
    return _module(cupy, file, storage).get_function(name)


@functools.cache
def _module(cupy: ModuleType, file: str, storage: Any) -> Any:
    return cupy.RawModule(code=source(file, storage))


def launch(
    cupy: ModuleType, file: str, name: str, threads: int, *arguments: Any, storage: Any = "float32"
) -> None:
    """Run kernel `name` of `file`.cu on at least `threads` threads; returns without waiting.

    CuPy passes a Python int as 64 bits, but a float as a double, and None, in some versions, not at
    all. (In line, and dtypes compared rather than their names: a step has hundreds of launches.)
    """
    if threads == 0:  # a grid of no blocks is an error
        return
    typed = [np.float32(x) if isinstance(x, float) else 0 if x is None else x for x in arguments]
    _kernel(cupy, file, name, storage)((-(-threads // BLOCK),), (BLOCK,), typed)
