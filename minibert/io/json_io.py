"""JSON objects from files other people wrote: read whole, or refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minibert.errors import CheckpointError


def read_json(path: Path) -> Any:
    """The JSON value in the file `path`; CheckpointError when it is missing or not JSON."""
    return _parse(_read(path), str(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in the file `path`; CheckpointError when it is missing or is not one."""
    return parse_json_object(_read(path), str(path))


def parse_json_object(data: bytes, source: str) -> dict[str, Any]:
    """`data` (UTF-8) as a JSON object without duplicate keys; `source` names it in errors."""
    value = _parse(data, source)
    if not isinstance(value, dict):
        raise CheckpointError(f"{source}: got a JSON {type(value).__name__}, wanted an object")
    return value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error_text(error)}") from error


def _parse(data: bytes, source: str) -> Any:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError as error:
        raise CheckpointError(
            f"{source}: JSON nested too deeply; correct it, or fetch it again"
        ) from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both ValueErrors
        raise CheckpointError(
            f"{source}: not JSON ({error}); correct it, or fetch it again"
        ) from error


def error_text(error: Exception) -> str:
    """The reason alone: an OSError's own text repeats the path."""
    return getattr(error, "strerror", None) or str(error)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    # Python keeps the last of two equal keys and other readers the first: a file that two programs
    # read differently is refused.
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r} occurs twice")
        result[key] = value
    return result
