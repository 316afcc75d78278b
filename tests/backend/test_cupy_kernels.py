"""CUDA kernels without a GPU: compiled by NVIDIA's compiler, and run, as C++, on the CPU."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import cuda_on_cpu
import device_checks as checks
import fake_cupy
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import special

from minibert.backend import cublas, cupy_backend, kernels
from minibert.backend.cupy_backend import CupyBackend
from minibert.backend.cupy_twins import columns
from minibert.backend.cupy_twins.activation import KINDS
from minibert.backend.cupy_twins.update import RULES

FILES = sorted(p.stem for p in Path(kernels.__file__).parent.glob("*.cu"))
ARCHITECTURES = (80, 90, 100)  # Ampere, Hopper, Blackwell
needs_compiler = pytest.mark.skipif(
    cuda_on_cpu.COMPILER is None, reason="needs g++ or clang++ to run CUDA kernels on the CPU"
)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> CupyBackend:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    return CupyBackend()


# ---- Compiled ----


def find_nvrtc() -> str | None:
    """NVRTC's library from a pip package: nvidia-cuda-nvrtc, of [test] and of cupy-cuda13x[ctk]."""
    spec = importlib.util.find_spec("nvidia")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [p for place in places for p in sorted(Path(place).glob("*/lib/libnvrtc.so.*"))]
    return str(found[0]) if found else None


def find_nvcc() -> str | None:
    usual = Path("/usr/local/cuda/bin/nvcc")
    return shutil.which("nvcc") or (str(usual) if usual.exists() else None)


def compile_with_nvrtc(library: str, source: str) -> tuple[bool, str]:
    """Whether `source` compiles for every architecture, and the log: by NVRTC's C interface."""
    nvrtc, logs = ctypes.CDLL(library), []
    for architecture in ARCHITECTURES:
        program = ctypes.c_void_p()
        code = nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None
        )
        assert code == 0
        options = [f"--gpu-architecture=compute_{architecture}".encode(), b"-std=c++17"]
        result = nvrtc.nvrtcCompileProgram(program, 2, (ctypes.c_char_p * 2)(*options))
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        if result != 0:
            logs.append(f"{architecture}: {log.value.decode()}")
    return not logs, "".join(logs)


def compile_with_nvcc(nvcc: str, source: str, directory: Path) -> tuple[bool, str]:
    file = directory / "kernels.cu"
    file.write_text(source)
    command = [nvcc, "-ptx", "-std=c++17", f"-arch=compute_{ARCHITECTURES[0]}", "-o", "/dev/null"]
    result = subprocess.run([*command, file], capture_output=True, text=True, check=False)
    return result.returncode == 0, result.stderr


@pytest.mark.parametrize("storage", kernels.STORAGES)
@pytest.mark.parametrize("file", [*FILES, "broken", "spin"])
def test_every_kernel_compiles(file: str, storage: str, tmp_path: Path) -> None:
    """The tests' own too."""
    own = {"broken": "extern __global__ void f(float* x) { x[0] = oops; }", "spin": checks.SPIN}
    source = own.get(file) or kernels.source(file, storage)
    if (library := find_nvrtc()) is not None:
        compiled, log = compile_with_nvrtc(library, source)
    elif (nvcc := find_nvcc()) is not None:
        compiled, log = compile_with_nvcc(nvcc, source, tmp_path)
    else:
        pytest.skip("needs NVRTC (pip install nvidia-cuda-nvrtc) or nvcc to compile CUDA")
    assert compiled == (file != "broken"), log


@pytest.mark.parametrize("file", FILES)
def test_a_kernel_uses_nothing_that_nvrtc_lacks(file: str) -> None:
    """nvcc has the C library's headers, and CuPy compiles without them."""
    code = re.sub("//.*", "", kernels.source(file))
    assert not re.search(r"#include|\b(INFINITY|NAN|FLT_\w+|M_PI|std::\w+)\b", code)


def test_kernels_keep_to_the_width_of_a_page() -> None:
    """As ruff wants it of Python."""
    for path in Path(kernels.__file__).parent.glob("*.cu*"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 100, f"{path.name}:{number}"


def test_every_file_of_a_kernel_is_packaged() -> None:
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["minibert"]
    package, folder = Path(kernels.__file__).parents[2], Path(kernels.__file__).parent
    packaged = {path for pattern in patterns for path in package.glob(pattern)}
    assert {p for p in folder.iterdir() if p.suffix in (".cu", ".cuh")} <= packaged


def test_numbers_that_stand_twice_are_the_same() -> None:
    for name, file, value in (
        ("FAN_IN", "add_segments", cupy_backend.FAN_IN),
        ("CHUNK", "columns", columns.CHUNK),
        ("CHUNK", "activation", columns.CHUNK),
        ("LANES", "norm", kernels.WARP),
        *(("GELU", "activation", KINDS["gelu"]), ("GELU_NEW", "activation", KINDS["gelu_new"])),
        *((rule.upper(), "update", i) for i, rule in enumerate(RULES[:-1])),
    ):
        found = re.findall(rf"\b{name} = (\d+)[,;]", kernels.source(file))
        assert found == [str(value)], (name, file)


# ---- Run ----


@needs_compiler
@pytest.mark.parametrize("place", checks.PLACES)
def test_dropout_decisions_have_the_bits_of_numpy(
    device: CupyBackend, place: tuple[int, ...]
) -> None:
    checks.check_keep_decisions(device, place)


WORD = st.integers(0, 2**63)
PLACE = st.tuples(
    WORD, st.integers(0, 99), WORD, WORD,
    st.integers(0, 2**40), st.integers(0, 700), st.integers(0, 65535),
)  # fmt: skip


@needs_compiler
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=PLACE)
def test_any_dropout_decisions_have_the_bits_of_numpy(
    device: CupyBackend, place: tuple[int, ...]
) -> None:
    checks.check_keep_decisions(device, place)


@needs_compiler
def test_a_kernel_stays_within_its_array(device: CupyBackend) -> None:
    """The first and last threads of a grid have nothing to do."""
    room = device.zeros(64, dtype=bool)
    middle = room[20:41]
    kernels.launch(
        device.module, "keep_decisions", "keep_decisions", 3, middle, 1, 2, 3, 4, 5, 21, 0, 2
    )
    kept = device.to_host(room)
    assert kept[20:41].all()  # threshold 0 keeps everything
    assert kept.sum() == 21


WARP_KERNEL = """#define STORAGE float
#include "warp"
extern "C" __global__ void total(const float* x, float* y, unsigned long long size) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    BODY
}
"""


@needs_compiler
@pytest.mark.parametrize("backwards", [False, True])
def test_the_threads_of_a_warp_exchange_numbers(
    device: CupyBackend, backwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several exchanges, in 8 warps of 2 blocks; a thread that leaves or branches off is seen."""
    monkeypatch.setattr(cuda_on_cpu.Kernel, "backwards", backwards)
    warp = (Path(kernels.__file__).parent / "warp.cuh").read_text()
    x = np.random.default_rng(0).integers(-99, 99, 512).astype("f")
    given_x, y = device.to_device(x), device.empty(512, dtype="float32")

    def run(body: str) -> None:
        source = WARP_KERNEL.replace('#include "warp"', warp).replace("BODY", body)
        kernel = device.module.RawModule(code=source).get_function("total")
        kernel((2,), (256,), (given_x, y, 512))

    run("y[i] = warp_sum(x[i]) + warp_max(x[i]);")
    rows = x.reshape(16, 32)
    want = np.repeat(rows.sum(axis=1) + rows.max(axis=1), 32)
    np.testing.assert_array_equal(device.to_host(y), want)
    for body in (
        "if (i % 32 == 5) return; y[i] = warp_sum(x[i]);",
        "if (i % 32 == 5) warp_max(x[i]); y[i] = warp_sum(x[i]);",
    ):
        with pytest.raises(AssertionError, match="a warp diverges"):
            run(body)
    with pytest.raises(AssertionError, match="out of bounds"):
        run("y[i + 1] = x[i];" if not backwards else "y[i - 1] = x[i];")


@needs_compiler
@pytest.mark.parametrize("storage", ["float16", "uint16"])
def test_rounding_to_16_bits(device: CupyBackend, storage: str) -> None:
    """To the nearest, ties to even, NaN and infinity; as NumPy rounds to float16."""
    rng, dtype = np.random.default_rng(0), np.dtype(storage)
    every = fake_cupy.widened(np.arange(65536).astype(np.uint16).view(dtype))
    every = every[np.isfinite(every)]
    between = np.sort(every)[1:] / 2 + np.sort(every)[:-1] / 2
    random = rng.normal(size=10_000) * 10.0 ** rng.integers(-9, 5, 10_000)
    x = np.concatenate([every, between, random, [np.inf, -np.inf, np.nan]]).astype("f")
    given_x, y = device.to_device(x), device.empty(x.size, dtype=storage)
    nothing = [argument for _ in range(4) for argument in (given_x, 0)]
    kernels.launch(
        device.module, "convert", "convert", 999, given_x, x.size, *nothing, y, 999, storage=storage
    )
    got = fake_cupy.widened(device.to_host(y))
    with np.errstate(over="ignore"):
        want = fake_cupy.widened(fake_cupy.narrowed(x, dtype))
    want[-1] = np.nan  # which the short rounding of `narrowed` does not care for
    np.testing.assert_array_equal(got, want)


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 128, 4096, 4097, 9000])
@pytest.mark.parametrize("ids", [1, 2, 70])
@pytest.mark.parametrize("backwards", [False, True])
def test_rows_of_one_id_are_added_in_any_order_of_threads(
    device: CupyBackend,
    rows: int,
    ids: int,
    dtype: str,
    backwards: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_on_cpu.Kernel, "backwards", backwards)
    drawn = np.random.default_rng(rows).integers(0, ids, rows)
    checks.check_sum_rows(device, drawn, 3, dtype)


@needs_compiler
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(0, 9), max_size=200), width=st.integers(1, 5))
def test_any_rows_of_one_id_are_added(device: CupyBackend, ids: list[int], width: int) -> None:
    checks.check_sum_rows(device, np.array(ids, np.int64), width, "float64")


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_erf(device: CupyBackend, dtype: str) -> None:
    x = np.linspace(-6, 6, 1003).astype(dtype).reshape(17, 59)
    y = device.to_host(device.erf(device.to_device(x).T))
    assert y.dtype == dtype
    np.testing.assert_allclose(y, special.erf(x.T), rtol=4 * np.finfo(dtype).eps)
    with pytest.raises(TypeError, match="int64"):
        device.erf(device.arange(3))


# ---- cuBLAS is asked for the right products ----


def layouts(x: Any) -> dict[str, Any]:
    """Device arrays (G, N, rows, columns) with the numbers of `x`, in every layout that matters."""
    return {
        "contiguous": x.copy(),
        "transposed": x.swapaxes(-1, -2).copy().swapaxes(-1, -2),
        "heads": x.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3),  # as in packed (T, H) rows
        "heads, transposed": x.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1),
        "backwards": x.transpose(3, 2, 1, 0).copy().transpose(3, 2, 1, 0),
    }


SHAPES = [(2, 3, 4, 5, 6), (1, 3, 4, 5, 6), (2, 1, 4, 1, 6), (1, 2, 1, 1, 1), (2, 3, 1, 5, 1),
          (2, 3, 4, 0, 6), (0, 3, 4, 5, 6)]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_batched_products(device: CupyBackend, shape: tuple[int, ...], dtype: str) -> None:
    G, N, M, K, O = shape  # noqa: E741  (O columns)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(G, N, M, K)).astype(dtype), rng.normal(size=(G, N, K, O)).astype(dtype)
    for name_a, left in layouts(device.to_device(a)).items():
        for name_b, right in layouts(device.to_device(b)).items():
            got = device.to_host(device.matmul(left, right))
            assert got.dtype == dtype
            checks.assert_close(got, a @ b, 4e-7, f"{name_a} × {name_b}")


def test_views_with_one_stride_are_not_copied(device: CupyBackend) -> None:
    x = device.ones((1, 3, 4, 5), dtype="float32")
    kinds = layouts(x)
    device.module.copies.clear()
    for name in ("contiguous", "transposed", "heads"):
        device.matmul(kinds[name], kinds[name].swapaxes(-1, -2))
    assert device.module.copies == []  # heads: one sequence; its heads lie one stride apart
    two = layouts(device.ones((2, 3, 4, 5), dtype="float32"))
    device.matmul(two["heads"], two["contiguous"].swapaxes(-1, -2))
    assert device.module.copies == [(2, 3, 4, 5)]


def test_reversed_views_are_multiplied_as_they_look(device: CupyBackend) -> None:
    """They have no leading dimension, nor have those whose rows are all one."""
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    views = (
        lambda a: a[:, :, ::-1],
        lambda a: a[:, :, ::-1].swapaxes(-1, -2),
        lambda a: a[::-1, ::-1],
        lambda a: a[..., ::-1],
    )
    for view in views:
        given = view(device.to_device(x.copy()))
        for got, want in (
            (device.matmul(given, device.to_device(x)), view(x) @ x),
            (device.matmul(device.to_device(x), given), x @ view(x)),
        ):
            checks.assert_close(device.to_host(got), want, 4e-7)
    repeated = np.broadcast_to(x[:, :, :1], x.shape)
    for rows in (repeated, repeated.swapaxes(-1, -2)):
        held, reading = cublas._readable(np, rows)
        assert (held.tolist(), reading.ld) == (rows.tolist(), 4)
        assert held.flags.c_contiguous


def test_other_products_are_left_to_cupy(device: CupyBackend) -> None:
    a, b = device.ones((2, 3, 4), dtype="float32"), device.ones((4, 5), dtype="float32")
    assert not cublas.can_multiply(a, b)
    assert device.matmul(a, b).shape == (2, 3, 5)
    with pytest.raises(ValueError, match="mismatch"):
        device.matmul(a, device.ones((2, 5, 4), dtype="float32"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(7, 5), (1, 5), (7, 1), (0, 5)])
def test_sums_of_columns(device: CupyBackend, shape: tuple[int, int], dtype: str) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    for given_x, host in ((device.to_device(x), x), (device.to_device(x).T, x.T)):
        got = device.to_host(device.sum(given_x, axis=0))
        assert got.dtype == dtype
        checks.assert_close(got, host.sum(axis=0), 4e-7)
    total = device.to_host(device.sum(device.to_device(x)))
    np.testing.assert_allclose(total, x.sum(), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dot_products(device: CupyBackend, dtype: str) -> None:
    """Of vectors in one visit, the result on the device; of others as CuPy makes them."""
    x, y = np.random.default_rng(0).normal(size=(2, 1001)).astype(dtype)
    a, b = device.to_device(x.copy()), device.to_device(y.copy())
    fake_cupy.LAUNCHES.clear()
    for left, right, want in ((a, b, x @ y), (a, a, x @ x), (a[::2], b[::2], x[::2] @ y[::2])):
        got = device.dot(left, right)
        assert (got.shape, got.dtype) == ((), dtype)
        np.testing.assert_allclose(device.to_host(got), want, rtol=0, atol=1e-4)
    assert fake_cupy.POINTER_MODES[-1] == 0  # as every other product wants it
    assert fake_cupy.LAUNCHES == ["dot"] * 3
    assert device.to_host(device.dot(device.zeros(0, dtype=dtype), device.zeros(0, dtype))) == 0
    assert not cublas.can_dot(a[::2], b[::2])


# ---- Without CuPy ----


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = cupy_backend.why_unavailable.__wrapped__
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert 'pip install "minibert[cuda13]"' in ask()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())

    def no_library(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert "no NVIDIA driver" in ask()


def test_importing_the_backend_does_not_import_cupy() -> None:
    code = (
        "import sys; from minibert.backend import cupy_backend as b; b.why_unavailable();"
        "import importlib.util; installed = importlib.util.find_spec('cupy');"
        "assert installed or 'cupy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
