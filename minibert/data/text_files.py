"""Text files that other people wrote: read whole, and every error names the file and the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minibert.errors import InputError

JSON_LINES = (".jsonl", ".json", ".ndjson")


def read_text(path: Path) -> str:
    """The whole file, decompressed (.gz) and decoded (UTF-8), without a byte order mark."""
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path}: the file cannot be read: {error}") from error
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


def suffix_of(path: Path) -> str:
    """The suffix that says the form of a file, in small letters: .tsv of a.TSV and of a.tsv.gz."""
    names = path.suffixes[:-1] if path.suffix.lower() == ".gz" else path.suffixes
    return names[-1].lower() if names else ""


def json_objects(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON lines, each with its line; blank lines are skipped.

    InputError for a line that is no object, and where there is no object at all.
    """
    found = False
    for number, value in json_values(path, text, "a JSON object"):
        if not isinstance(value, dict):
            raise error_at(path, number, f"an object {{...}} is wanted, got {type(value).__name__}")
        found = True
        yield number, value
    if not found:
        raise InputError(f"{path}: the file holds blank lines only; an object a line is wanted")


def json_values(path: Path, text: str, wanted: str = "JSON") -> Iterator[tuple[int, Any]]:
    """The values of JSON lines, each with its line; blank lines are skipped.

    InputError for a line that is not `wanted`, and says so of one that the file's end cuts off.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            cut = "; the file ends in the middle of it" if number == len(lines) else ""
            raise error_at(path, number, f"not {wanted} on one line ({error}){cut}") from None
        yield number, value


def brief(value: Any) -> str:
    """`repr`, cut to what fits in a message: values come from files of any kind."""
    written = repr(value)
    return written if len(written) <= 120 else f"{written[:117]}..."


def error_at(path: Path, line: int, problem: str) -> InputError:
    """An error with the place where its user will find it."""
    return InputError(f"{path}, line {line}: {problem}")
