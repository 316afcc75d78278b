"""Tables, TSV, CSV and JSON lines → rows, each with the line of its file where it begins."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from minibert.data.text_files import (
    JSON_LINES,
    Source,
    TextFile,
    brief,
    error_at,
    json_objects,
    opened,
)
from minibert.errors import InputError
from minibert.io.numbers import counted

ANOTHER_TASK = "; or is it a file of another --task?"
SUFFIXES = (".tsv", ".csv", *JSON_LINES, ".txt")


class Row(NamedTuple):
    """The cells of a row."""

    line: int
    values: Sequence[Any]


def read_table(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a TSV or CSV file with a header, or the objects of JSON lines, with their lines.

    Raises InputError for a file that is missing, empty, not UTF-8 or ragged.
    """
    file = opened(source)
    path = file.path
    check_suffix(file)
    if file.suffix in JSON_LINES:
        yield from json_objects(path, file.read())
        return
    if file.suffix == ".txt":
        raise InputError(f"{path}: columns or JSON lines are wanted, and .txt holds plain text")
    header, rows = named_rows(path, split_rows(file))
    refuse_ragged(path, header, rows)
    if not rows:
        raise error_at(path, 1, "there is a header and no example below it")
    for row in rows:
        yield row.line, dict(zip(header, row.values, strict=True))


def check_suffix(file: TextFile) -> None:
    """InputError unless the suffix says what the file holds."""
    if file.suffix not in SUFFIXES:
        raise InputError(
            f"{file.path}: the suffix says the form of a file and must be .tsv, .csv, .jsonl, "
            f".json, .ndjson or .txt, or one of them and .gz; got {file.path.suffix or 'none'}"
            f"{ANOTHER_TASK}"
        )


def split_rows(file: TextFile) -> list[Row]:
    """The rows of a TSV or CSV file, at least one."""
    text = file.read()
    rows = list(_tsv_rows(text) if file.suffix == ".tsv" else _csv_rows(file.path, text))
    if not rows:
        raise InputError(
            f"{file.path}: the file holds blank lines only; an example a line is wanted"
        )
    return rows


def named_rows(path: Path, rows: list[Row]) -> tuple[list[str], list[Row]]:
    """The names of the columns, in the first row, and the rows below it."""
    header = [cell.strip() for cell in rows[0].values]
    if len(set(header)) != len(header):
        raise error_at(path, rows[0].line, f"the header names a column twice: {brief(header)}")
    return header, rows[1:]


def refuse_ragged(path: Path, header: list[str], rows: list[Row]) -> None:
    """InputError for a row that has more cells or fewer than there are columns."""
    for row in rows:
        if len(row.values) != len(header):
            raise error_at(
                path,
                row.line,
                f"{counted(len(row.values), 'field')}, wanted {len(header)}: {brief(header)}",
            )


def json_rows(path: Path, text: str) -> tuple[list[str], list[Row]]:
    """The keys of the first object, and each object's values under them."""
    keys: list[str] | None = None
    rows = []
    for line, value in json_objects(path, text):
        keys = list(value) if keys is None else keys
        if absent := [key for key in keys if key not in value]:
            raise error_at(path, line, f"{absent[0]!r} is missing, which earlier lines have")
        rows.append(Row(line, [value[key] for key in keys]))
    return keys or [], rows


def _tsv_rows(text: str) -> Iterator[Row]:
    # Not splitlines(): that also breaks at U+2028 and form feeds, which a text may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if row := line.removesuffix("\r"):
            yield Row(number, row.split("\t"))


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for values in reader:
            if values:
                yield Row(line, values)
            line = reader.line_num + 1
    except csv.Error as error:
        raise error_at(path, line, f"not valid CSV ({error}); is a quote not closed?") from None
