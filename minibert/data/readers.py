"""Example files: TSV, CSV, JSON lines and plain text → lists of texts and raw labels.

The columns are those of transformers' run_glue.py. Every error names the file and the line, and
nothing is guessed twice: what was taken for a text and what for a label stands in the result.

Forms, by suffix (each also with `.gz` after it), always UTF-8, with or without a byte order mark:
  .tsv                    tab-separated; a quote is a character like others (GLUE's files)
  .csv                    comma-separated; a field in double quotes may hold commas and line breaks
  .jsonl .json .ndjson    one JSON object a line
  .txt                    one text a line, no labels
Blank lines are skipped, except in .txt, where each is an empty text.

A first TSV or CSV row is a header if one of its cells is, in any case, one of HEADER_WORDS. A file
without one has the columns sentence1, label, or sentence1, sentence2, label, or sentence1 alone.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from minibert.data.text_files import (
    JSON_LINES,
    brief,
    error_at,
    json_objects,
    read_text,
    suffix_of,
)
from minibert.errors import InputError

PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("text", "text_pair"),
)
SINGLES = ("sentence", "sentence1", "text")
LABELS = ("label", "labels", "gold_label", "score", "is_duplicate")
IGNORED = ("index", "idx", "id", "guid")
HEADER_WORDS = frozenset({*(name for pair in PAIRS for name in pair), *SINGLES, *LABELS, *IGNORED})

Label = str | float | list[str]


class Columns(NamedTuple):
    """Which columns of a file hold the texts and the labels; None where there is none."""

    sentence1: str
    sentence2: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Examples:
    """The examples of one file; all lists have one entry an example.

    A label is raw: a string (all of TSV and CSV; whole numbers, true and false of JSON as well), a
    float (JSON numbers with a point) or a list of strings (JSON lists: multi-label).
    """

    path: Path
    columns: Columns
    sentence1: list[str]
    sentence2: list[str] | None
    labels: list[Label] | None
    lines: list[int]  # the line of the file, from 1, at which each example begins

    def __len__(self) -> int:
        return len(self.sentence1)

    def take(self, numbers: Sequence[int]) -> Examples:
        """The examples with these numbers."""

        def chosen(values: list[Any] | None) -> Any:
            return None if values is None else [values[i] for i in numbers]

        texts = chosen(self.sentence1), chosen(self.sentence2)
        return Examples(self.path, self.columns, *texts, chosen(self.labels), chosen(self.lines))

    def head(self, count: int) -> Examples:
        """The first `count` examples."""
        if count < 1:
            raise InputError(f"wanted the first {count} examples of {self.path}; give at least 1")
        return self.take(range(min(count, len(self))))

    def error(self, example: int, problem: str) -> InputError:
        """An error about one example, with the place where its user will find it."""
        return error_at(self.path, self.lines[example], problem)


class _Row(NamedTuple):
    line: int
    values: Sequence[Any]


def read_examples(
    path: str | os.PathLike[str], *, columns: Columns | None = None, allow_empty: bool = False
) -> Examples:
    """Read an example file; the module's docstring says which forms there are.

    Without `columns` the texts are the first pair of PAIRS that the header names, else the first
    of SINGLES, else the first one or two columns that are neither a label nor in IGNORED; the
    label is the first of LABELS, else, where no text column has a known name, the last column.
    `columns` names them in a header or in JSON objects. Raises InputError for a file that is
    missing, empty, not UTF-8 or ragged, for a missing column, a label that is absent or NaN, and,
    unless `allow_empty`, a blank text.
    """
    path = Path(path)
    suffix = _suffix(path)
    text = read_text(path)
    if suffix == ".txt":
        lines = text.removesuffix("\n").split("\n")
        rows = [_Row(n, [line.removesuffix("\r")]) for n, line in enumerate(lines, start=1)]
        header, columns = ["text"], Columns("text")
    elif suffix in (".tsv", ".csv"):
        rows = list(_tsv_rows(text) if suffix == ".tsv" else _csv_rows(path, text))
        header, rows = _split_header(path, rows, columns)
        _refuse_ragged(path, header, rows)
    else:
        header, rows = _json_rows(path, text)
    chosen = _checked(path, header, columns) if columns else _choose_columns(path, header)
    if not rows:
        raise error_at(path, 1, "there is a header and no example below it")
    return _gather(path, header, rows, chosen, allow_empty)


def _gather(
    path: Path, header: list[str], rows: list[_Row], columns: Columns, allow_empty: bool
) -> Examples:
    def texts(name: str) -> list[str]:
        at = header.index(name)
        for row in rows:
            if not isinstance(row.values[at], str):
                found = type(row.values[at]).__name__
                raise error_at(path, row.line, f"{name!r} must be a text, got {found}")
            if not allow_empty and not row.values[at].strip():
                raise error_at(path, row.line, f"the text in {name!r} is empty; remove the example")
        return [row.values[at] for row in rows]

    labels: list[Label] | None = None
    if columns.label is not None:
        at = header.index(columns.label)
        labels = [_label(path, row.line, row.values[at]) for row in rows]
    return Examples(
        path=path,
        columns=columns,
        sentence1=texts(columns.sentence1),
        sentence2=None if columns.sentence2 is None else texts(columns.sentence2),
        labels=labels,
        lines=[row.line for row in rows],
    )


def _label(path: Path, line: int, value: Any) -> Label:
    """One raw label as its type in Examples; refuses what stands for "none"."""
    if isinstance(value, list):
        names = [_label(path, line, item) for item in value]
        if not all(isinstance(name, str) for name in names):
            raise error_at(path, line, f"a list of labels holds names, got {brief(value)}")
        return [str(name) for name in names]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isnan(value):
        return value
    if isinstance(value, int | str):
        name = str(value).strip()
        if name and name.casefold() != "nan":
            return name
    raise error_at(path, line, f"a label is wanted, got {brief(value)}; remove the example")


def _choose_columns(path: Path, header: list[str]) -> Columns:
    """The columns of a header by the rule of `read_examples`."""
    names = {name.casefold(): name for name in reversed(header)}
    label = next((names[known] for known in LABELS if known in names), None)
    for first, second in PAIRS:
        if first in names and second in names:
            return Columns(names[first], names[second], label or _last(header, first, second))
    for single in SINGLES:
        if single in names:
            return Columns(names[single], None, label or _last(header, single))
    free = [name for name in header if name != label and name.casefold() not in IGNORED]
    if label is None and len(free) > 1:
        label = free.pop()
    if not free or free[0].casefold() == "sentence2":
        raise _missing(path, "sentence1", header)
    return Columns(free[0], free[1] if len(free) > 1 else None, label)


def _last(header: list[str], *texts: str) -> str | None:
    """The last column, if it is free to be the label."""
    taken = header[-1].casefold() in (*texts, *IGNORED, "sentence2")
    return None if taken else header[-1]


def _checked(path: Path, header: list[str], columns: Columns) -> Columns:
    for name in columns:
        if name is not None and name not in header:
            raise _missing(path, name, header)
    return columns


def _missing(path: Path, name: str, header: list[str]) -> InputError:
    return error_at(path, 1, f"there is no column {name!r}; the columns are {brief(header)}")


def _split_header(
    path: Path, rows: list[_Row], columns: Columns | None
) -> tuple[list[str], list[_Row]]:
    """Column names and the rows below them; names are made up for a file without a header."""
    if not rows:
        raise InputError(f"{path}: the file holds blank lines only; an example a line is wanted")
    first = [cell.strip() for cell in rows[0].values]
    if columns is not None or any(cell.casefold() in HEADER_WORDS for cell in first):
        if len(set(first)) != len(first):
            raise error_at(path, rows[0].line, f"the header names a column twice: {brief(first)}")
        return first, rows[1:]
    made_up = {1: ["sentence1"], 2: ["sentence1", "label"], 3: ["sentence1", "sentence2", "label"]}
    if len(first) not in made_up:
        raise error_at(
            path,
            rows[0].line,
            f"{len(first)} columns and no header: which are the texts? Add a first row such as "
            "sentence1, sentence2, label",
        )
    return made_up[len(first)], rows


def _refuse_ragged(path: Path, header: list[str], rows: list[_Row]) -> None:
    for row in rows:
        if len(row.values) != len(header):
            raise error_at(
                path,
                row.line,
                f"{len(row.values)} fields where {len(header)} are wanted {brief(header)}",
            )


def _tsv_rows(text: str) -> Iterator[_Row]:
    # Not splitlines(): that also breaks at U+2028 and form feeds, which a text may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if row := line.removesuffix("\r"):
            yield _Row(number, row.split("\t"))


def _csv_rows(path: Path, text: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for values in reader:
            if values:
                yield _Row(line, values)
            line = reader.line_num + 1
    except csv.Error as error:
        raise error_at(path, line, f"not valid CSV ({error}); is a quote not closed?") from None


def _json_rows(path: Path, text: str) -> tuple[list[str], list[_Row]]:
    """The keys of the first object, and each object's values under them."""
    keys: list[str] | None = None
    rows = []
    for line, value in json_objects(path, text):
        keys = list(value) if keys is None else keys
        if absent := [key for key in keys if key not in value]:
            raise error_at(path, line, f"{absent[0]!r} is missing, which earlier lines have")
        rows.append(_Row(line, [value[key] for key in keys]))
    return keys or [], rows


def _suffix(path: Path) -> str:
    suffix = suffix_of(path)
    if suffix not in (".tsv", ".csv", *JSON_LINES, ".txt"):
        raise InputError(
            f"{path}: the suffix says the form of a file and must be .tsv, .csv, .jsonl, .json, "
            f".ndjson or .txt, or one of them and .gz; got {path.suffix or 'none'}"
        )
    return suffix
