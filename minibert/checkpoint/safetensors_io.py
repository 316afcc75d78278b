"""The safetensors format: tensors as views of a mapped file.

A file is a little-endian u64 N, then N bytes of JSON, then the buffer. The JSON maps each name to
`{"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}`, offsets in bytes from the start
of the buffer (https://github.com/huggingface/safetensors, "Format"). We read it ourselves because
the package's NumPy reader copies every tensor and knows no BF16; the package writes it.

Nothing in a header is believed before it is checked against the size of the file.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.errors import CheckpointError, InputError
from minibert.io.json_io import error_text, parse_json_object, read_json_object

MAX_HEADER = 100_000_000  # bytes, the limit of the reference implementation
_MAX_RANK = 64  # NumPy's own limit

# name in the file → (dtype of the stored bytes, dtype it is widened to)
_DTYPES: Mapping[str, tuple[np.dtype[Any], type[np.generic] | None]] = {
    "F64": (np.dtype("<f8"), None),
    "F32": (np.dtype("<f4"), None),
    "F16": (np.dtype("<f2"), np.float32),
    "BF16": (np.dtype("<u2"), np.float32),
    "I64": (np.dtype("<i8"), None),
    "I32": (np.dtype("<i4"), None),
    "I16": (np.dtype("<i2"), None),
    "I8": (np.dtype("i1"), None),
    "U64": (np.dtype("<u8"), None),
    "U32": (np.dtype("<u4"), None),
    "U16": (np.dtype("<u2"), None),
    "U8": (np.dtype("u1"), None),
    "BOOL": (np.dtype("?"), None),
}


class StoredTensor(NamedTuple):
    """A tensor that lies in a file and has not been read."""

    file: Path
    dtype: str  # the format's name, such as "F32" or "BF16"
    shape: tuple[int, ...]
    raw: NDArray[np.uint8]  # its bytes, a view of the mapped file

    def read(self) -> NDArray[Any]:
        """The tensor, read-only: a view of the file, except that F16 and BF16 become float32.

        Old files do not align their buffer, so a view may be unaligned (`array.flags.aligned`).
        """
        stored, widened = _DTYPES[self.dtype]
        array: NDArray[Any] = self.raw.view(stored).reshape(self.shape)
        if self.dtype == "BF16":  # a bfloat16 is the upper half of a float32
            # asarray: a shifted 0-d array is a scalar
            array = np.asarray(array.astype(np.uint32) << 16).view(np.float32)
        elif widened is not None:
            array = array.astype(widened)
        array.flags.writeable = False
        return array


class _Span(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    begin: int  # bytes from the start of the buffer
    end: int


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of the file at `path`, in the file's order, none of them read yet.

    The file stays mapped as long as one of the tensors, or an array read from it, is alive.
    Raises CheckpointError for a missing, truncated or inconsistent file.
    """
    raw = _map(path)
    length, limit = int.from_bytes(raw[:8].tobytes(), "little"), min(MAX_HEADER, raw.size - 8)
    if length > limit:
        mend = "it is truncated or no safetensors file: fetch it again"
        raise _refusal(path, "header", f"{length} bytes", f"at most {limit}", mend)
    header = parse_json_object(raw[8 : 8 + length].tobytes(), f"{path}: header")
    _check_metadata(path, header.pop("__metadata__", {}))
    buffer = raw[8 + length :]
    spans = {name: _span(path, name, entry, buffer.size) for name, entry in header.items()}
    _check_no_holes(path, spans, buffer.size)
    return {
        name: StoredTensor(path, span.dtype, span.shape, buffer[span.begin : span.end])
        for name, span in spans.items()
    }


def open_sharded(index: Path) -> dict[str, StoredTensor]:
    """Every tensor that `index` (a model.safetensors.index.json) places in a shard beside it."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index}: wanted a weight_map from tensor names to shard files")
    for name, shard in weight_map.items():
        # A plain file name: an index must not make us read files outside its directory.
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or _has_folder(shard):
            raise CheckpointError(
                f"{index}: got {shard!r} as the file of {name}, wanted the name of a .safetensors "
                "file beside the index"
            )
    shards = {shard: open_safetensors(index.parent / shard) for shard in set(weight_map.values())}
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise CheckpointError(
                f"{index}: {name} should be in {shard}, which does not hold it; "
                "the index and its shards are not of one model: fetch them again"
            )
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write float32 and float64 `tensors` to `path`.

    Raises InputError for another dtype, OSError where the disk is full or refuses.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    for name, tensor in tensors.items():
        if tensor.dtype not in (np.float32, np.float64):
            raise InputError(f"{name}: got dtype {tensor.dtype}, wanted float32 or float64 to save")
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    # transformers refuses a file that does not say which framework's layout it has.
    path.touch()
    mode = path.stat().st_mode  # the user's umask; the package's own file is for its owner alone
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(f"cannot write {path}: {error}") from error
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(mode)


def _map(path: Path) -> NDArray[np.uint8]:
    """The bytes of the file, mapped, read-only; it is unmapped when the last view is gone."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 8:
                raise CheckpointError(f"{path}: got {size} bytes, wanted a safetensors file")
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"cannot read {path}: {error_text(error)}") from error


def _check_metadata(path: Path, metadata: object) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _refusal(path, "__metadata__", metadata, "a map from strings to strings")


def _span(path: Path, name: str, entry: object, buffer_size: int) -> _Span:
    """A header entry, its three values checked one by one, against each other and the buffer."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _refusal(path, name, entry, "dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        wanted = f"a dtype among {', '.join(_DTYPES)}"
        raise _refusal(path, name, dtype, wanted, mend="convert the model to float32")
    if not _are_sizes(shape) or len(shape) > _MAX_RANK:
        raise _refusal(path, name, shape, f"a shape of at most {_MAX_RANK} whole numbers")
    itemsize = _DTYPES[dtype][0].itemsize
    # The non-zero sizes alone too: NumPy refuses (0, 2**60, 2**60), although it is empty.
    if math.prod(size or 1 for size in shape) * itemsize >= 2**63:
        raise _refusal(path, name, shape, "a shape that fits into memory")
    if not _are_sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= buffer_size:
        wanted = f"data_offsets within the {buffer_size} bytes after the header"
        raise _refusal(path, name, offsets, wanted, mend="it is truncated: fetch it again")
    begin, end = offsets
    if end - begin != math.prod(shape) * itemsize:
        wanted = f"{math.prod(shape) * itemsize} for {dtype} of shape {tuple(shape)}"
        raise _refusal(path, name, f"{end - begin} bytes", wanted)
    return _Span(dtype, tuple(shape), begin, end)


def _check_no_holes(path: Path, spans: Mapping[str, _Span], buffer_size: int) -> None:
    """Each tensor begins where the one before it ends, and the last ends with the file."""
    position = 0
    for name, span in sorted(spans.items(), key=lambda item: (item[1].begin, item[1].end)):
        if span.begin != position:
            raise _refusal(
                path, name, f"begin {span.begin}", f"{position}, where the last one ends"
            )
        position = span.end
    if position != buffer_size:
        raise _refusal(path, "buffer", f"{buffer_size} bytes", f"{position}, as the header says")


def _refusal(
    path: Path, what: str, got: object, wanted: str, mend: str = "it is damaged: fetch it again"
) -> CheckpointError:
    # reprlib cuts long and deep values short: they come from a file nobody has vouched for.
    shown = got if isinstance(got, str) else reprlib.repr(got)
    return CheckpointError(f"{path}: {what}: got {shown}, wanted {wanted}; {mend}")


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size < 2**63 for size in value
    )


def _has_folder(file_name: str) -> bool:
    return any(character in file_name for character in "/\\:\0")
