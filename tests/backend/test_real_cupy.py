"""What the real CuPy can be asked without a GPU: its signatures, constants and compiler.

The stand-in is only as good as its likeness. Where CuPy, or CUDA's libraries, are not installed
these skip, and say so.
"""

from __future__ import annotations

import functools
import re
import warnings
from typing import Any

import fake_cupy
import pytest
from cuda_on_cpu import KERNEL
from test_cupy_kernels import ARCHITECTURES, FILES

from minibert.backend import cublas, kernels
from minibert.backend.cupy_backend import CupyBackend

with warnings.catch_warnings(action="ignore"):  # of CUDA libraries that it does not find
    cupy = pytest.importorskip("cupy", reason='CuPy is not installed: pip install -e ".[cuda13]"')
    try:
        _ = cupy.cuda.cublas, cupy.cuda.nvrtc.getVersion()  # loads the libraries
    except ImportError as error:
        pytest.skip(str(error).splitlines()[0], allow_module_level=True)


def parameters(function: Any) -> list[str]:
    """The names of a compiled function's parameters, which its docstring begins with."""
    (inside,) = re.findall(r"^\w+\((.*)\)", function.__doc__.splitlines()[0])
    return [part.split("=")[0].split()[-1] for part in inside.split(",")]


@pytest.mark.parametrize("name", fake_cupy.CUBLAS)
def test_cublas_is_given_what_it_takes(
    name: str, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many arguments as the real function has, addresses where it wants addresses."""
    asked, function = [], getattr(fake.cuda.cublas, name)
    monkeypatch.setattr(fake.cuda.cublas, name, lambda *x: (asked.append(x), function(*x))[1])
    for dtype in ("float32", "float64"):
        xp = CupyBackend()
        x = xp.ones((2, 3, 3), dtype=dtype)
        xp.matmul(x, x)
        xp.matmul(x[0], x[0])
        xp.sum(x[0], axis=0)
        xp.dot(x[0, 0], x[0, 0])
    half = xp.ones((3, 3), dtype="float16")
    xp.matmul(half, half)
    names = parameters(getattr(cupy.cuda.cublas, name))
    assert asked
    for given in asked:
        assert len(given) == len(names)
        for parameter, value in zip(names, given, strict=True):
            assert type(value) is int
            is_address = parameter in ("alpha", "beta", "A", "B", "C", "x", "y", "result")
            assert (value > 1000) == is_address, parameter


def test_numbers_stand_for_what_cupy_says() -> None:
    b, runtime = cupy.cuda.cublas, cupy.cuda.runtime
    assert (b.CUBLAS_COMPUTE_32F, b.CUBLAS_COMPUTE_32F_FAST_TF32, b.CUBLAS_COMPUTE_64F) == (
        cublas.FLOAT32, cublas.TENSOR_FLOAT32, cublas.FLOAT64,
    )  # fmt: skip
    assert (b.CUBLAS_OP_N, b.CUBLAS_OP_T) == (cublas.KEEP, cublas.TRANSPOSE)
    assert (b.CUBLAS_POINTER_MODE_HOST, b.CUBLAS_POINTER_MODE_DEVICE) == (
        cublas.HOST, cublas.DEVICE,
    )  # fmt: skip
    assert b.CUBLAS_GEMM_DEFAULT == cublas.DEFAULT
    assert {dtype.name: number for dtype, number in cublas.TYPES.items()} == {
        "float32": runtime.CUDA_R_32F, "float64": runtime.CUDA_R_64F,
        "float16": runtime.CUDA_R_16F, "uint16": runtime.CUDA_R_16BF,
    }  # fmt: skip


@pytest.mark.parametrize("storage", kernels.STORAGES)
@pytest.mark.parametrize("file", FILES)
def test_cupys_compiler_takes_every_kernel(file: str, storage: str) -> None:
    """To machine code, with CuPy's own options; every kernel is there under its own name."""
    nvrtc, text = cupy.cuda.nvrtc, kernels.source(file, storage)
    for architecture in ARCHITECTURES:
        program = nvrtc.createProgram(text, "kernels.cu", (), ())
        options = (f"-arch=sm_{architecture}", "-std=c++17", "-ftz=true")
        try:
            nvrtc.compileProgram(program, (*options, "--device-as-default-execution-space"))
        finally:
            log = nvrtc.getProgramLog(program)
        code = nvrtc.getCUBIN(program)
        nvrtc.destroyProgram(program)
        assert {*re.findall(r"warning #(\d+)", log)} <= {"177"}  # of a name that is not used
        for name, _ in KERNEL.findall(text):
            assert f".text.{name}\0".encode() in code


def test_what_is_asked_of_cupy_is_there() -> None:
    for path in (
        "RawModule.get_function", "asarray", "asnumpy", "get_default_memory_pool", "cuda.Device",
        "cuda.Event.done", "cuda.Stream.record", "cuda.Stream.wait_event",
        "cuda.get_current_stream", "cuda.device.get_cublas_handle", "cuda.memory.OutOfMemoryError",
    ):  # fmt: skip
        functools.reduce(getattr, path.split("."), cupy)


def test_the_fake_has_no_name_that_cupy_lacks() -> None:
    for name in (*fake_cupy.UFUNCS, *fake_cupy.FUNCTIONS, *fake_cupy.OWN):
        assert hasattr(cupy, name), name
    for name in (*fake_cupy.ATTRIBUTES, *fake_cupy.METHODS, "T", "real", "data", "device"):
        assert hasattr(cupy.ndarray, name), name
