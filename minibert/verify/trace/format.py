"""The format minibert-trace/1: NAME.safetensors with the tensors, NAME.json that explains them.

Tensors stand in the order of execution. One with more than `limit` elements is thinned: the file
holds each `stride`-th element of the flattened tensor, and the JSON its norm and a checksum,
Σᵢ xᵢ·((i mod 257) − 128)/128, which sees every element and its place.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from minibert.checkpoint.safetensors_io import StoredTensor, open_safetensors
from minibert.errors import InputError
from minibert.io.files import staged
from minibert.io.json_io import read_json_object
from minibert.parameters import Layout
from minibert.verify.budget import UNIT, Places, thinned_places, trained_places

FORMAT = "minibert-trace/1"
KEYS = ("file", "sha256", "model", "dtype", "config", "weights", "layout", "tensors")
DTYPES = {"float64": "F64", "float32": "F32", "int64": "I64", "bool": "BOOL"}


@dataclass(frozen=True)
class Entry:
    """What the JSON says of one tensor."""

    order: int
    shape: tuple[int, ...]
    meaning: str = ""
    formula: str = ""
    aliases: tuple[str, ...] = ()
    axes: str = ""  # "tokens": (B, S, …), "pairs": (B, N, S, S), "rows": (B, …), "columns": (S, …)
    error_float32: float | None = None  # relative L2 error of NumPy in float32
    budget_float32: float | None = None  # allowed; in float64 2⁻²⁹ of it
    scale: float = 0.0
    stride: int = 1
    norm: float | None = None  # of a thinned tensor
    checksum: float | None = None

    def budget(self, dtype: str) -> float:
        """The relative L2 error that a right implementation in `dtype` stays under."""
        if self.budget_float32 is None:
            return 2 * UNIT[dtype]  # given, not computed: rounding alone
        return self.budget_float32 * UNIT[dtype] / UNIT["float32"]


DEFAULTS = {field.name: field.default for field in fields(Entry)}
PERIOD = 257
PLACES = (np.arange(PERIOD) - 128) / 128  # what a checksum multiplies the elements with


def checksum(flat: NDArray[Any]) -> float:
    """Σᵢ xᵢ·((i mod 257) − 128)/128."""
    whole = flat.size // PERIOD * PERIOD
    rows, rest = flat[:whole].reshape(-1, PERIOD), flat[whole:]
    return float((rows @ PLACES).sum() + rest @ PLACES[: rest.size])


def thin(value: NDArray[Any], limit: int | None) -> tuple[NDArray[Any], dict[str, Any]]:
    """A tensor as it is stored, and what the JSON says of it if that is not all of it."""
    if limit is None or value.size <= limit or value.dtype.kind not in "f":
        return value, {}
    flat = value.reshape(-1)
    stride = -(-flat.size // limit)
    while math.gcd(stride, value.shape[-1]) != 1:  # or only some of the columns would be seen
        stride += 1
    about = {"stride": stride, "norm": float(np.linalg.norm(flat)), "checksum": checksum(flat)}
    return flat[::stride].copy(), about


class TraceWriter:
    """Writes tensors one by one as they come, so that no two of them need be in memory."""

    def __init__(self, data: BinaryIO, limit: int | None) -> None:
        self._data, self._limit, self._at = data, limit, 0
        self.header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self.entries: dict[str, dict[str, Any]] = {}

    def add(self, name: str, value: NDArray[Any], **about: Any) -> None:
        """One tensor; `about`: fields of its `Entry`."""
        limit = self._limit
        if limit is not None and name.startswith("training/"):
            limit = max(1, limit // 2)  # there are 48 of them, each with all parameters
        stored, thinned = thin(value, limit)
        data = np.ascontiguousarray(stored)
        shape, size = list(stored.shape), data.nbytes  # ascontiguousarray makes () a (1,)
        kind = DTYPES[str(data.dtype)]
        self.header[name] = {
            "dtype": kind, "shape": shape, "data_offsets": [self._at, self._at + size]
        }  # fmt: skip
        little: Any = data.astype(data.dtype.newbyteorder("<"), copy=False)
        self._data.write(memoryview(little).cast("B"))
        self._at += size
        entry = Entry(order=len(self.entries), shape=value.shape, **about, **thinned)
        self.entries[name] = {
            key: item for key, item in asdict(entry).items() if item != DEFAULTS[key]
        }

    def finish(self, whole: BinaryIO) -> str:
        """Write the complete file, length, header, data; returns its sha256."""
        text = json.dumps(self.header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the data is aligned
        self._data.seek(0)
        head, data = len(text).to_bytes(8, "little") + text, self._data
        digest = hashlib.sha256()
        for piece in chain([head], iter(lambda: data.read(1 << 20), b"")):
            whole.write(piece)
            digest.update(piece)
        return digest.hexdigest()


Fill = Callable[[TraceWriter], None]


def write(path: Path, about: Mapping[str, Any], fill: Fill, limit: int | None = None) -> int:
    """Write `path`.safetensors and `path`.json; `fill(writer)` adds the tensors.

    Both appear when both are complete. `about` comes first in the JSON. Returns how many there are.
    """
    with staged(path.parent) as stage:
        whole = stage / f"{path.name}.safetensors"
        with open(stage / "data", "w+b") as data, open(whole, "wb") as out:
            writer = TraceWriter(data, limit)
            fill(writer)
            digest = writer.finish(out)
        (stage / "data").unlink()
        head = {"format": FORMAT, "file": whole.name, "sha256": digest, **about}
        text = _dumps(head, writer.entries)
        (stage / f"{path.name}.json").write_text(text, encoding="utf-8")
    return len(writer.entries)


def _dumps(head: Mapping[str, Any], entries: Mapping[str, Any]) -> str:
    """JSON with one line a tensor: short, and a change shows in one line of a diff."""

    def dump(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = [
        f" {dump(key)}: {json.dumps(v, indent=1, ensure_ascii=False)}" for key, v in head.items()
    ]
    tensors = ",\n".join(f"  {dump(name)}: {dump(entry)}" for name, entry in entries.items())
    return "{\n" + ",\n".join(lines) + ',\n "tensors": {\n' + tensors + "\n }\n}\n"


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Trace:
    """A trace that was read: what it says of every tensor, and the tensors on demand."""

    path: Path  # of the JSON
    about: Mapping[str, Any]
    entries: Mapping[str, Entry]
    stored: Mapping[str, StoredTensor] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Trace:
        """From NAME, NAME.json or NAME.safetensors; InputError for anything that is no trace."""
        path = Path(path)
        path = path.with_suffix(".json") if path.suffix == ".safetensors" else path
        path = path if path.suffix == ".json" else path.with_name(path.name + ".json")
        about = read_json_object(path)
        if about.get("format") != FORMAT:
            raise InputError(
                f"{path}: got the format {about.get('format')!r}, wanted {FORMAT!r}: make the "
                "trace again with `scripts/crosscheck.py trace` of this version"
            )
        for key in KEYS:
            if key not in about:
                raise InputError(f"{path}: not a whole trace (it lacks {key!r}); make it again")
        try:
            entries = {name: _entry(value) for name, value in about.pop("tensors").items()}
            file = path.parent / Path(about["file"]).name
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a whole trace ({error!r}); make it again") from error
        stored = open_safetensors(file)
        _check(path, file, about, entries, stored)
        return cls(path, about, entries, stored)

    def read(self, name: str) -> NDArray[Any]:
        """The tensor as it is stored: thinned where its entry has a stride."""
        return self.stored[name].read()

    @cached_property
    def mask(self) -> NDArray[Any]:
        """1 for real tokens, a row for each sequence: (B, S)."""
        ids = self.read("input/input_ids")
        given = "input/attention_mask" in self.entries
        mask = self.read("input/attention_mask") if given else np.ones_like(ids)
        return mask.reshape(-1, ids.shape[-1])

    @cached_property
    def layout(self) -> Layout:
        """Where each parameter lies in the flat buffers of `training`."""
        return Layout({name: tuple(shape) for name, _, shape in self.about["layout"]})

    @cached_property
    def places(self) -> Places:
        """Of the parameters whose training can be compared."""
        blind = {name.removeprefix("gradient/") for name, e in self.entries.items() if e.scale}
        return trained_places(self.layout, blind)

    def places_in(self, name: str) -> Places:
        """The same in a buffer as it is stored: thinned, perhaps."""
        stride = self.entries[name].stride
        return self.places if stride == 1 else thinned_places(self.places, stride)

    def names(self) -> Iterator[str]:
        """Every tensor's name, in the order of execution."""
        return iter(self.entries)


def _entry(value: Mapping[str, Any]) -> Entry:
    known: dict[str, Any] = dict(value) | {"shape": tuple(value["shape"])}
    known["aliases"] = tuple(value.get("aliases", ()))
    return Entry(**known)


def _check(
    path: Path,
    file: Path,
    about: Mapping[str, Any],
    entries: Mapping[str, Entry],
    stored: Mapping[str, StoredTensor],
) -> None:
    if (got := sha256(file)) != about.get("sha256"):
        raise InputError(
            f"{file}: its sha256 is {got[:12]}…, but {path.name} wants "
            f"{str(about.get('sha256'))[:12]}…: the two are not of one trace"
        )
    if stored.keys() != entries.keys():
        odd = sorted(stored.keys() ^ entries.keys())[0]
        raise InputError(f"{path}: {odd} is in only one of the trace's two files: make it again")
