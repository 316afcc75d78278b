"""CUDA kernels on the CPU: the very source, compiled as C++, one thread after the other.

Enough for kernels whose threads do not talk to each other (no shared memory, no barriers).
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

COMPILER = shutil.which("g++") or shutil.which("clang++")
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')

SHIM = """
#include <math.h>
#define __global__
#define __device__ static
struct Place { unsigned x; };
static Place blockIdx, blockDim, threadIdx;
static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
"""

LAUNCHER = """
extern "C" void launch_{name}(bool backwards, unsigned grid, unsigned block, {parameters}) {{
    blockDim.x = block;
    for (unsigned i = 0; i < grid * block; ++i) {{
        unsigned thread = backwards ? grid * block - 1 - i : i;
        blockIdx.x = thread / block;
        threadIdx.x = thread % block;
        {name}({arguments});
    }}
}}
"""

POINTERS = {"bool": "bool", "float": "float32", "double": "float64", "long long": "int64"}


def signatures(source: str) -> dict[str, list[tuple[str, str]]]:
    """Each kernel's parameters: (type without const, name)."""
    source = source.replace("word ", "unsigned long long ")
    return {
        name: [
            (kind.replace("const ", "").strip(), parameter)
            for kind, parameter in re.findall(r"\s*([^,]*?)\s*(\w+)\s*(?:,|$)", parameters)
        ]
        for name, parameters in KERNEL.findall(source)
    }


@functools.cache
def compiled(source: str) -> ctypes.CDLL:
    """The kernels of one file as a library of functions `launch_…`."""
    assert COMPILER is not None
    text = SHIM + source
    for name, parameters in KERNEL.findall(source):
        arguments = ", ".join(parameter for _, parameter in signatures(source)[name])
        text += LAUNCHER.format(name=name, parameters=parameters, arguments=arguments)
    with tempfile.TemporaryDirectory() as directory:
        file, library = Path(directory, "kernels.cpp"), Path(directory, "kernels.so")
        file.write_text(text)
        command = [COMPILER, "-O1", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off"]
        subprocess.run([*command, "-o", library, file], check=True)
        return ctypes.CDLL(str(library))


class Kernel:
    """A stand-in for cupy.RawKernel that checks what a GPU would not: every argument's type."""

    backwards = False  # the last thread first: a kernel may not depend on the order

    def __init__(self, source: str, name: str) -> None:
        self.parameters = signatures(source)[name]
        self.function = getattr(compiled(source), f"launch_{name}")
        self.function.restype = None

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        assert 0 < grid[0] < 2**31
        assert 0 < block[0] <= 1024
        assert len(arguments) == len(self.parameters)
        pairs = zip(self.parameters, arguments, strict=True)
        converted = [_argument(kind, value) for (kind, _), value in pairs]
        shape = ctypes.c_bool(self.backwards), ctypes.c_uint(grid[0]), ctypes.c_uint(block[0])
        self.function(*shape, *converted)


def _argument(kind: str, value: Any) -> Any:
    if kind.endswith("*"):
        assert value.dtype == POINTERS[kind.rstrip("* ")], (kind, value.dtype)
        assert value.flags.c_contiguous, "a kernel would ignore the strides of a view"
        return ctypes.c_void_p(value.data.ptr)
    assert kind == "unsigned long long", f"a kernel's numbers are unsigned long long, not {kind}"
    assert type(value) is np.uint64, type(value)
    return ctypes.c_ulonglong(int(value))
