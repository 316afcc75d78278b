"""Text files that other people wrote: read whole, and every error names the file and the line."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minibert.errors import InputError
from minibert.io.json_io import error_text

JSON_LINES = (".jsonl", ".json", ".ndjson")

# What files begin with that hold text, if any, in a form of their own; after PKWARE's APPNOTE,
# ISO 32000, and the magic numbers of the others. A text does not begin so.
_OTHER_FORMS = {
    rb"PK(\x03\x04|\x05\x06)": "a zip archive, or a .docx, .xlsx, .odt or .epub, which are such",
    rb"%PDF-": "a PDF",
    rb"\{\\rtf": "an RTF document",
    rb"\xd0\xcf\x11\xe0": "an old Office document (.doc, .xls)",
    rb"7z\xbc\xaf": "a 7z archive",
    rb"Rar!\x1a": "a rar archive",
    rb"PAR1[^\t\n\r -\xff]": "a Parquet table",
    rb"\x1f\x8b": "compressed by gzip, though its name does not end in .gz",
    rb"BZh[1-9]1AY&SY": "compressed by bzip2, though its name does not end in .bz2",
    rb"\xfd7zXZ": "compressed by xz, though its name does not end in .xz",
    rb"\x28\xb5\x2f\xfd": "compressed by zstd",
}


class Problem(ValueError):
    """What is wrong with a row or an object; who knows its place adds that."""


class TextFile:
    """A file, or what came through a pipe, for a reader that reads it whole.

    path: what errors call it; suffix: what says its form, the path's own unless another is given;
    data: its bytes, unless they lie at the path.
    """

    def __init__(self, path: Path, suffix: str | None = None, data: bytes | None = None) -> None:
        self.path, self._data = path, data
        self.suffix = suffix_of(path) if suffix is None else suffix

    def read(self) -> str:
        """All of it, as `read_text`."""
        return _decoded(self.path, read_bytes(self.path) if self._data is None else self._data)


Source = str | os.PathLike[str] | TextFile


def opened(source: Source) -> TextFile:
    """A path as a TextFile; one that is there already, as it is."""
    return source if isinstance(source, TextFile) else TextFile(Path(source))


def read_text(path: Path) -> str:
    """The whole file, decompressed (.gz) and decoded (UTF-8), without a byte order mark."""
    return _decoded(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """The whole file, decompressed (.gz)."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path}: the file cannot be read: {error_text(error)}") from error


def _decoded(path: Path, data: bytes) -> str:
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data:
        raise InputError(f"{path}: the file is empty; an example a line is wanted")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        byte = error.start - (before.rfind(b"\n") + 1) + 1
        problem = (
            f"byte {byte} of the line (0x{data[error.start]:02x}) is not UTF-8; save it as UTF-8"
        )
        raise error_at(path, before.count(b"\n") + 1, problem) from None


def other_form(start: bytes) -> str | None:
    """What a file is that begins with those bytes (16 are enough), if it is known and no text."""
    found = (form for magic, form in _OTHER_FORMS.items() if re.match(magic, start))
    return next(found, None)


def suffix_of(path: Path) -> str:
    """The suffix that says the form of a file, in small letters: .tsv of a.TSV and of a.tsv.gz."""
    names = path.suffixes[:-1] if path.suffix.lower() == ".gz" else path.suffixes
    return names[-1].lower() if names else ""


def json_objects(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON lines, each with its line; blank lines are skipped.

    InputError for a line that is no object, and where there is no object at all.
    """
    found = False
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = parse_json(line, number == len(lines), "a JSON object")
        except Problem as problem:
            raise error_at(path, number, str(problem)) from None
        if not isinstance(value, dict):
            hint = "; write what it holds one a line" if isinstance(value, list) else ""
            got = type(value).__name__ + hint
            raise error_at(path, number, f"an object {{...}} is wanted, got {got}")
        found = True
        yield number, value
    if not found:
        raise InputError(f"{path}: the file holds blank lines only; an object a line is wanted")


def parse_json(line: str, is_cut: bool = False, wanted: str = "JSON") -> Any:
    """The JSON value of a line; Problem for a line that is not `wanted`.

    is_cut: no line break follows, so a line that is broken may be one that was cut off.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg.removesuffix(' starting at')}, column {error.colno}"
        cut = "; the input ends in the middle of it" if is_cut else ""
        raise Problem(f"not {wanted} on one line ({reason}){cut}") from None


def brief(value: Any) -> str:
    """`repr`, cut to what fits in a message: values come from files of any kind."""
    written = repr(value)
    return written if len(written) <= 120 else f"{written[:117]}..."


def error_at(path: Path, line: int, problem: str) -> InputError:
    """An error with the place where its user will find it."""
    return InputError(f"{path}, line {line}: {problem}")
