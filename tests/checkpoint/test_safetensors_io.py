"""The format itself; tests/test_checkpoint.py tests what is made of it."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from minibert.checkpoint.safetensors_io import open_safetensors, write_safetensors
from minibert.errors import CheckpointError, InputError


def file_bytes(header: object, buffer: bytes = b"", padding: bytes = b"") -> bytes:
    text = (header if isinstance(header, bytes) else json.dumps(header).encode()) + padding
    return len(text).to_bytes(8, "little") + text + buffer


def entry(dtype: str, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def read(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    return {name: tensor.read() for name, tensor in open_safetensors(path).items()}


@pytest.mark.parametrize(
    "dtype",
    ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"],
)
def test_agrees_with_the_package(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "matrix": rng.integers(0, 100, (3, 4)).astype(dtype),
        "scalar": np.array(7).astype(dtype),
        "empty": np.zeros((0, 5), dtype),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "np"})
    ours = {name: t.read() for name, t in open_safetensors(tmp_path / "x.safetensors").items()}
    with safe_open(tmp_path / "x.safetensors", "np") as theirs:
        assert ours.keys() == set(theirs.keys())
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs.get_tensor(name))
            assert array.shape == tensors[name].shape
            assert array.dtype == (np.float32 if dtype == "f2" else tensors[name].dtype)
            assert not array.flags.writeable


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.140625, np.inf, 2.0**-130], np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    tensors = read(tmp_path / "x", file_bytes({"x": entry("BF16", [5], 0, 10)}, upper))
    np.testing.assert_array_equal(tensors["x"], values, strict=True)


@pytest.mark.parametrize("name", ["F16", "BF16", "F32"])
def test_a_tensor_without_axes(tmp_path: Path, name: str) -> None:
    data = {"F16": np.float16(1.5).tobytes(), "BF16": b"\xc0\x3f", "F32": np.float32(1.5).tobytes()}
    content = file_bytes({"x": entry(name, [], 0, len(data[name]))}, data[name])
    np.testing.assert_array_equal(
        read(tmp_path / "x", content)["x"], np.array(1.5, np.float32), strict=True
    )


def test_tensors_are_views_of_the_file_and_outlive_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"x": np.arange(5.0)})
    stored = open_safetensors(path)["x"]
    array = stored.read()
    assert np.shares_memory(array, stored.raw)
    path.unlink()
    np.testing.assert_array_equal(array, np.arange(5.0))


def test_padding_and_unaligned_buffers_are_legal(tmp_path: Path) -> None:
    header = {"__metadata__": {"a": "b"}, "x": entry("F32", [2], 0, 8)}
    content = file_bytes(header, np.array([1, 2], "<f4").tobytes(), padding=b" " * 5)
    np.testing.assert_array_equal(read(tmp_path / "x", content)["x"], [1, 2])
    assert read(tmp_path / "none", file_bytes({})) == {}


def test_what_we_write_the_package_reads(tmp_path: Path) -> None:
    tensors: dict[str, Any] = {
        "a": np.float32(3) * np.ones((2, 3), np.float32).T,
        "b": np.array(2.5),
    }
    write_safetensors(tmp_path / "x", tensors)
    with safe_open(tmp_path / "x", "np") as theirs:
        assert theirs.metadata() == {"format": "pt"}
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(theirs.get_tensor(name), tensor, strict=True)
    with pytest.raises(InputError, match="x: got dtype complex128"):
        write_safetensors(tmp_path / "x", {"x": np.ones(2, complex)})


BAD_HEADERS: dict[str, tuple[object, str]] = {
    "list": ([], "wanted an object"),
    "text": (b"{'x': 1}", "not JSON"),
    "not utf-8": (b'{"\xff": 1}', "not JSON"),
    "deep": (b"[" * 50_000, "nested too deeply"),
    "long number": (b'{"x": ' + b"9" * 5000 + b"}", "not JSON"),
    "twice": (b'{"x": 1, "x": 2}', "occurs twice"),
    "metadata": ({"__metadata__": {"a": 1}}, "strings to strings"),
    "no entry": ({"x": 3}, "x: got 3, wanted dtype, shape and data_offsets"),
    "dtype": ({"x": entry("F8_E4M3", [8], 0, 8)}, "x: got F8_E4M3, wanted a dtype among"),
    "dtype list": ({"x": {"dtype": [], "shape": [], "data_offsets": [0, 8]}}, "a dtype among"),
    "negative size": ({"x": entry("F32", [-2], 0, 8)}, "whole numbers"),
    "bool size": ({"x": entry("F32", [True, 2], 0, 8)}, "whole numbers"),
    "float size": ({"x": entry("F32", [2.0], 0, 8)}, "whole numbers"),
    "rank": ({"x": entry("F64", [1] * 65, 0, 8)}, "at most 64"),
    "huge": ({"x": entry("F32", [2**62, 2**62], 0, 8)}, "fits into memory"),
    "huge but empty": ({"x": entry("F32", [0, 2**40, 2**40], 0, 0)}, "fits into memory"),
    "too many bytes": ({"x": entry("F32", [1], 0, 8)}, r"got 8 bytes, wanted 4 for F32"),
    "beyond the end": ({"x": entry("F32", [4], 0, 16)}, "truncated"),
    "reversed": ({"x": entry("F32", [2], 8, 0)}, "data_offsets within the 8 bytes"),
    "negative begin": ({"x": entry("F32", [2], -8, 0)}, "data_offsets within"),
    "three offsets": ({"x": entry("F32", [2], 0, 8) | {"data_offsets": [0, 8, 8]}}, "within"),
    "hole": ({"x": entry("F32", [1], 4, 8)}, "begin 4, wanted 0"),
    "overlap": (
        {"x": entry("F32", [2], 0, 8), "y": entry("F32", [1], 4, 8)},
        "begin 4, wanted 8",
    ),
    "unused end": ({"x": entry("F32", [1], 0, 4)}, "got 8 bytes, wanted 4, as the header"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_bad_header_is_refused(tmp_path: Path, case: str) -> None:
    header, message = BAD_HEADERS[case]
    path = tmp_path / "bad.safetensors"
    with pytest.raises(CheckpointError, match=message) as error:
        read(path, file_bytes(header, bytes(8)))
    assert str(path) in str(error.value)
    assert "wanted" in str(error.value) or "again" in str(error.value)
    assert len(str(error.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got 0 bytes"),
        (b"1234567", "got 7 bytes"),
        (b"\xff" * 64, "got 18446744073709551615 bytes, wanted at most 56"),
        (b"<!DOCTYPE html><html>404</html>", "no safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "no safetensors file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "x", content)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="absent: No such file"):
        open_safetensors(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="cannot read"):
        open_safetensors(tmp_path)


WHOLE = file_bytes(
    {
        "a": entry("F32", [2, 3], 0, 24),
        "b": entry("BF16", [0, 4], 24, 24),
        "c": entry("I64", [], 24, 32),
    },
    bytes(range(32)),
)


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(WHOLE)),
)
def test_a_damaged_file_is_refused_or_loads(flips: list[tuple[int, int]], length: int) -> None:
    damaged = bytearray(WHOLE)
    for position, value in flips:
        damaged[position] = value
    for content in (bytes(damaged), bytes(damaged[:length])):
        with tempfile.TemporaryDirectory() as directory:
            try:
                tensors = read(Path(directory) / "x", content)
            except CheckpointError:
                continue
            assert sum(tensor.size for tensor in tensors.values()) <= 32


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_load(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory, suppress(CheckpointError):
        read(Path(directory) / "x", content)
