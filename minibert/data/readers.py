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
Whoever names a column says with it that there is a header. The first row of a file without one may
still look like a header: see `Examples.warning`.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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

_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE)

Label = str | float | list[str]


def is_number(written: str) -> bool:
    """Whether a label is written as a number."""
    return _NUMBER.fullmatch(written) is not None


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
    header: bool | None = None  # whether the first row names the columns; None: no table

    def __len__(self) -> int:
        return len(self.sentence1)

    def take(self, numbers: Sequence[int]) -> Examples:
        """The examples with these numbers."""

        def chosen(values: list[Any] | None) -> Any:
            return None if values is None else [values[i] for i in numbers]

        return replace(
            self,
            sentence1=chosen(self.sentence1),
            sentence2=chosen(self.sentence2),
            labels=chosen(self.labels),
            lines=chosen(self.lines),
        )

    def head(self, count: int) -> Examples:
        """The first `count` examples."""
        if count < 1:
            raise InputError(f"wanted the first {count} examples of {self.path}; give at least 1")
        return self.take(range(min(count, len(self))))

    def error(self, example: int, problem: str) -> InputError:
        """An error about one example, with the place where its user will find it."""
        return error_at(self.path, self.lines[example], problem)

    @property
    def description(self) -> str:
        """What was taken for a text and what for a label, in a line."""
        first, second, label = self.columns
        shown = f"texts {first!r} and {second!r}" if second else f"text {first!r}"
        shown += f", label {label!r}" if label else ", no labels"
        if self.header is None:
            return f"{self.path}: {shown}"
        how = "as the first row names them" if self.header else "by position: there is no header"
        return f"{self.path}: columns {shown}, {how}"

    @property
    def warning(self) -> str | None:
        """A line about a first row, taken for an example, whose label no other example has."""
        if self.header is not False or not self.labels or isinstance(self.labels[0], list):
            return None
        first, others = str(self.labels[0]), self.labels[1:]
        if is_number(first) or first in others or len(set(map(str, others))) == len(others):
            return None
        return (
            f"{self.path}: is the first row a header? No other has its label {first!r}; {NAME_IT}"
        )


NAME_IT = "if it is one, name its columns: --text_column … --label_column …"


class _Named(NamedTuple):
    """Columns that the user names."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None


class _Row(NamedTuple):
    line: int
    values: Sequence[Any]


def read_examples(
    path: str | os.PathLike[str],
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    pairs: bool = False,
    allow_empty: bool = False,
) -> Examples:
    """Read an example file; the module's docstring says which forms there are.

    Unless they are named, the texts are the first pair of PAIRS that the header names, else the
    first of SINGLES, else the first one or two columns that are neither a label nor in IGNORED; the
    label is the first of LABELS, else, where no text column has a known name, the last column.
    A named text column that a file lacks is refused; a file without the named label, or whose
    labels are all empty, has none and is one to predict. `pairs`: two columns without a header are
    two texts.

    Raises InputError for a file that is missing, empty, not UTF-8 or ragged, for a missing column,
    a first row that must be a header (its label alone is no number), a label that is absent or
    NaN, and, unless `allow_empty`, a blank text.
    """
    path = Path(path)
    named = _Named(text_column, text_pair_column, label_column)
    suffix = _suffix(path)
    text = read_text(path)
    headed = None
    if suffix == ".txt":
        lines = text.removesuffix("\n").split("\n")
        rows = [_Row(n, [line.removesuffix("\r")]) for n, line in enumerate(lines, start=1)]
        header, named = ["text"], _Named()
    elif suffix in (".tsv", ".csv"):
        rows = _split_rows(path, text)
        headed = any(named) or _looks_like_header(rows)
        header, rows = _split_header(path, rows, headed, pairs)
        _refuse_ragged(path, header, rows)
    else:
        header, rows = _json_rows(path, text)
    columns = _choose_columns(path, header, named)
    if not rows:
        raise error_at(path, 1, "there is a header and no example below it")
    examples = replace(_gather(path, header, rows, columns, allow_empty), header=headed)
    if headed is False:
        _refuse_header(examples)
    return examples


def _refuse_header(examples: Examples) -> None:
    """Refuse a first row whose label is the only one that is no number."""
    first, *others = map(str, examples.labels or [""])
    if others and not is_number(first) and all(map(is_number, others)):
        raise examples.error(
            0,
            f"the label {first!r} is no number, and all the others are: if the row is a header, "
            "name its columns (--text_column … --label_column …), else correct the label",
        )


def read_table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a TSV or CSV file with a header, or the objects of JSON lines, with their lines.

    Raises InputError for a file that is missing, empty, not UTF-8 or ragged.
    """
    suffix = _suffix(path)
    if suffix in JSON_LINES:
        yield from json_objects(path, read_text(path))
        return
    if suffix == ".txt":
        raise InputError(f"{path}: columns or JSON lines are wanted, and .txt holds plain text")
    header, rows = _split_header(path, _split_rows(path, read_text(path)), True)
    _refuse_ragged(path, header, rows)
    if not rows:
        raise error_at(path, 1, "there is a header and no example below it")
    for row in rows:
        yield row.line, dict(zip(header, row.values, strict=True))


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
        if any(row.values[at] not in (None, "") for row in rows):  # none at all: a file to predict
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


def _choose_columns(path: Path, header: list[str], named: _Named) -> Columns:
    """The columns of a header by the rule of `read_examples`."""
    for name in (named.text, named.pair):
        if name is not None and name not in header:
            raise _missing(path, name, header)
    if named.pair is not None and named.text is None:
        raise InputError(f"the second text is {named.pair!r}: --text_column must name the first")
    names = {name.casefold(): name for name in reversed(header) if name != named.label}
    label = next((names[known] for known in LABELS if known in names), None)
    if named.label is not None:  # "": there is none, and none is to be guessed
        label = named.label if named.label in header else ""
    if named.text is not None:
        return _columns(header, named.text, named.pair, label)
    for first, second in PAIRS:
        if first in names and second in names:
            return _columns(header, names[first], names[second], label)
    for single in SINGLES:
        if single in names:
            return _columns(header, names[single], None, label)
    free = [name for name in header if name != label and name.casefold() not in IGNORED]
    if label is None and len(free) > 1:
        label = free.pop()
    if not free or free[0].casefold() == "sentence2":
        raise _missing(path, "sentence1", header)
    return Columns(free[0], free[1] if len(free) > 1 else None, label or None)


def _columns(header: list[str], first: str, second: str | None, label: str | None) -> Columns:
    """With the last column as the label, where none is known."""
    if label is None:
        label = _last(header, *(name.casefold() for name in (first, second) if name))
    return Columns(first, second, label or None)


def _last(header: list[str], *texts: str) -> str | None:
    """The last column, if it is free to be the label."""
    taken = header[-1].casefold() in (*texts, *IGNORED, "sentence2")
    return None if taken else header[-1]


def _missing(path: Path, name: str, header: list[str]) -> InputError:
    return error_at(path, 1, f"there is no column {name!r}; the columns are {brief(header)}")


def _looks_like_header(rows: list[_Row]) -> bool:
    return any(cell.strip().casefold() in HEADER_WORDS for row in rows[:1] for cell in row.values)


def _split_header(
    path: Path, rows: list[_Row], has_header: bool, pairs: bool = False
) -> tuple[list[str], list[_Row]]:
    """Column names and the rows below them; names are made up for a file without a header."""
    if not rows:
        raise InputError(f"{path}: the file holds blank lines only; an example a line is wanted")
    first = [cell.strip() for cell in rows[0].values]
    if has_header:
        if len(set(first)) != len(first):
            raise error_at(path, rows[0].line, f"the header names a column twice: {brief(first)}")
        return first, rows[1:]
    two = ["sentence1", "sentence2" if pairs else "label"]
    made_up = {1: ["sentence1"], 2: two, 3: ["sentence1", "sentence2", "label"]}
    if len(first) not in made_up:
        raise error_at(
            path,
            rows[0].line,
            f"{len(first)} columns and no header: which are the texts? Add a first row such as "
            "sentence1, sentence2, label, or name the columns of this one (--text_column …)",
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


def _split_rows(path: Path, text: str) -> list[_Row]:
    return list(_tsv_rows(text) if suffix_of(path) == ".tsv" else _csv_rows(path, text))


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
