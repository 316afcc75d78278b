"""CUDA kernels on the CPU: the very source, compiled as C++.

Threads run one after the other, warp by warp. The 32 threads of a warp are fibres, each with a
stack of its own: a thread that comes to a shuffle leaves its number and makes way for the next, so
that all stand at the shuffle before the first goes on. If they do not (one has returned, or taken
another branch), a GPU would do anything at all; here the launch fails. So it does where a thread
reads or writes beside the memory that it was given: every pointer knows its bounds.

Enough for kernels without shared memory, whose threads talk to each other within their warp only.
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
HALF = Path(__file__).with_name("half.h").read_text(encoding="utf-8")

SHIM = """
#include <math.h>
#include <setjmp.h>
#include <string.h>
#include <ucontext.h>
#define __global__
#define __device__ static
struct Place { unsigned x; };
static Place blockIdx, blockDim, threadIdx;
static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
static unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
static float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
static long long clock64() { static long long now; return now += 100; }

static bool outside;

// As a pointer, but what it points to must lie in its memory.
template <typename T>
struct Pointer {
    T *p, *begin, *end;

    Pointer() = default;
    Pointer(decltype(nullptr)) : p(nullptr), begin(nullptr), end(nullptr) {}
    Pointer(T* p, T* begin, T* end) : p(p), begin(begin), end(end) {}
    template <typename U>
    Pointer(Pointer<U> other) : p(other.p), begin(other.begin), end(other.end) {}
    T& operator[](unsigned long long i) const {
        static long long nowhere;
        if (p + i >= begin && p + i < end) return p[i];
        outside = true;
        return *(T*)&nowhere;
    }
    T& operator*() const { return (*this)[0]; }
    Pointer operator+(unsigned long long i) const { return Pointer(p + i, begin, end); }
    Pointer& operator+=(unsigned long long i) { p += i; return *this; }
    bool operator==(decltype(nullptr)) const { return p == nullptr; }
    bool operator!=(decltype(nullptr)) const { return p != nullptr; }
};

const int WARP = 32;
static jmp_buf scheduler, fibres[WARP];
static ucontext_t start[WARP], origin;
static char stacks[WARP][1 << 16];
static float given[2][WARP];  // by turns, so that a slow reader is not overtaken
static int lane, shuffles[WARP];
static bool returned[WARP];
static void (*work)();

static float __shfl_xor_sync(unsigned mask, float x, int other) {
    float* slots = given[shuffles[lane]++ % 2];
    slots[lane] = x;
    if (!_setjmp(fibres[lane])) _longjmp(scheduler, 1);
    return mask == 0xFFFFFFFF ? slots[lane ^ other] : NAN;
}

static void fibre() {
    work();
    returned[lane] = true;
    _longjmp(scheduler, 1);
}

static bool run_warp(unsigned first, unsigned block, bool backwards, void (*kernel)()) {
    work = kernel;
    memset(shuffles, 0, sizeof shuffles);
    memset(returned, 0, sizeof returned);
    for (int round = 0;; ++round) {
        int ended = 0;
        for (volatile int i = 0; i < WARP; ++i) {
            lane = backwards ? WARP - 1 - i : i;
            threadIdx.x = (first + lane) % block;
            if (!_setjmp(scheduler)) {
                if (round) _longjmp(fibres[lane], 1);
                getcontext(&start[lane]);
                start[lane].uc_stack.ss_sp = stacks[lane];
                start[lane].uc_stack.ss_size = sizeof stacks[lane];
                makecontext(&start[lane], fibre, 0);
                swapcontext(&origin, &start[lane]);
            }
            ended += returned[lane];
        }
        if (ended == WARP) return true;
        if (ended) return false;  // some threads returned, others wait for them
        for (int i = 1; i < WARP; ++i) if (shuffles[i] != shuffles[0]) return false;
    }
}
"""

LAUNCHER = """
struct Arguments_{name} {{ {fields} }};
static Arguments_{name}* arguments_{name};
static void call_{name}() {{
    auto& a = *arguments_{name};
    {name}({values});
}}
extern "C" const char* launch_{name}(
    bool backwards, unsigned grid, unsigned block, {parameters}) {{
    outside = false;
    Arguments_{name} arguments = {{ {names} }};
    arguments_{name} = &arguments;
    blockDim.x = block;
    for (unsigned i = 0; i < grid * block / {group}; ++i) {{
        unsigned first = (backwards ? grid * block / {group} - 1 - i : i) * {group};
        blockIdx.x = first / block;
        threadIdx.x = first % block;
        if ({group} == 1) call_{name}();
        else if (!run_warp(first, block, backwards, call_{name})) {{
            return "a warp diverges at a shuffle";
        }}
    }}
    return outside ? "access out of bounds" : nullptr;
}}
"""

POINTERS = {
    "bool": "bool", "float": "float32", "double": "float64", "long long": "int64",
    "unsigned short": "uint16",
}  # fmt: skip
POINTER = re.compile(r"((?:const )?(?:stored|T|bool|float|double|long long|unsigned short))\* ?")
STORED = {"float": "float32", "Half": "float16", "Bfloat": "uint16"}


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


def as_cpp(source: str) -> str:
    """A whole C++ file of the kernels and a function `launch_…` for each."""
    assert "__shared__" not in source
    kernels, source = signatures(source), POINTER.sub(r"Pointer<\1> ", source)
    text = SHIM + re.sub(r"__device__ [^{}]*\{[^{}]*asm\([^{}]*\}", "", source)
    if "half_to_float" in source:
        text = text.replace("struct Half {", HALF + "struct Half {", 1)
    for name, parameters in KERNEL.findall(source):
        names = [parameter for _, parameter in kernels[name]]
        text += LAUNCHER.format(
            name=name,
            parameters=parameters,
            fields="".join(f"{parameter.strip()}; " for parameter in parameters.split(",")),
            names=", ".join(names),
            values=", ".join(f"a.{parameter}" for parameter in names),
            group=32 if "__shfl" in source else 1,
        )
    return text


@functools.cache
def compiled(source: str) -> ctypes.CDLL:
    """The kernels of one file as a library of functions `launch_…`."""
    assert COMPILER is not None
    with tempfile.TemporaryDirectory() as directory:
        file, library = Path(directory, "kernels.cpp"), Path(directory, "kernels.so")
        file.write_text(as_cpp(source))
        command = [COMPILER, "-O1", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off"]
        command += ["-U_FORTIFY_SOURCE", "-fno-strict-aliasing"]  # longjmp between stacks is meant
        subprocess.run([*command, "-o", library, file], check=True)
        return ctypes.CDLL(str(library))


class Bounded(ctypes.Structure):
    """The shim's Pointer."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("p", "begin", "end")]


class Kernel:
    """A stand-in for cupy.RawKernel that checks what a GPU would not: every argument's type."""

    backwards = False  # the last thread first: a kernel may not depend on the order

    def __init__(self, source: str, name: str) -> None:
        self.name, self.parameters = name, signatures(source)[name]
        (stored,) = re.findall(r"^#define STORAGE (\w+)$", source, re.MULTILINE)
        self.pointers = POINTERS | {"stored": STORED[stored]}
        self.function = getattr(compiled(source), f"launch_{name}")
        self.function.restype = ctypes.c_char_p

    def __call__(self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
        assert 0 < grid[0] < 2**31
        assert 0 < block[0] <= 1024
        assert block[0] % 32 == 0
        assert len(arguments) == len(self.parameters)
        pairs = zip(self.parameters, arguments, strict=True)
        converted = [self._argument(*parameter, value) for parameter, value in pairs]
        shape = ctypes.c_bool(self.backwards), ctypes.c_uint(grid[0]), ctypes.c_uint(block[0])
        fault = self.function(*shape, *converted)
        assert fault is None, f"{self.name}: {fault.decode()}"

    def _argument(self, kind: str, name: str, value: Any) -> Any:
        if kind.endswith("*"):
            if type(value) is int:
                assert value == 0, f"{self.name}: {name} is a number, not an array"
                return Bounded(None, None, None)
            want = self.pointers[kind.rstrip("* ")]
            assert value.dtype == want, f"{self.name}: {name} is {value.dtype}, want {want}"
            assert value.flags.c_contiguous, "a kernel would ignore the strides of a view"
            memory = value.data.mem
            return Bounded(value.data.ptr, memory.ptr, memory.ptr + memory.size)
        if kind == "float":
            assert type(value) is np.float32, (name, type(value))
            return ctypes.c_float(float(value))
        assert kind == "unsigned long long", f"numbers are unsigned long long or float, not {kind}"
        assert type(value) is int, (name, type(value))  # which CuPy passes as 64 bits
        assert 0 <= value < 2**64, (name, value)
        return ctypes.c_ulonglong(value)
