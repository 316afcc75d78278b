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

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minibert.data.columns import HEADER_WORDS, Columns, Named, choose_columns, made_up
from minibert.data.tables import (
    ANOTHER_TASK,
    Row,
    check_suffix,
    json_rows,
    named_rows,
    refuse_ragged,
    split_rows,
)
from minibert.data.text_files import (
    JSON_LINES,
    Problem,
    Source,
    TextFile,
    brief,
    error_at,
    opened,
)
from minibert.errors import InputError

_NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE)

Label = str | float | list[str]


def is_number(written: str) -> bool:
    """Whether a label is written as a number."""
    return _NUMBER.fullmatch(written) is not None


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
    names: Sequence[str] = ()  # of all columns, the unused ones too

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


def read_examples(
    source: Source,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    pairs: bool = False,
    labels: bool = True,
    allow_empty: bool = False,
) -> Examples:
    """Read an example file; the module's docstring says which forms there are.

    Unless they are named, the texts are the first pair of PAIRS that the header names, else the
    first of SINGLES, else the first one or two columns that are neither a label nor in IGNORED; the
    label is the first of LABELS, else, where no text column has a known name, the last column.
    A named text column that a file lacks is refused; a file without the named label, or whose
    labels are all empty, has none and is one to predict. `pairs`: two columns without a header are
    two texts. `labels`: False leaves them unread.

    Raises InputError for a file that is missing, empty, not UTF-8 or ragged, for a missing column,
    a first row that must be a header (its label alone is no number), a label that is absent or
    NaN, and, unless `allow_empty`, a blank text.
    """
    file = opened(source)
    path, named = file.path, Named(text_column, text_pair_column, label_column)
    check_suffix(file)
    header, rows, headed = _rows(file, any(named), pairs)
    try:
        columns = choose_columns(header, Named() if file.suffix == ".txt" else named)
    except Problem as problem:
        raise error_at(path, 1, str(problem)) from None
    if not rows:
        raise error_at(path, 1, "there is a header and no example below it")
    columns = columns if labels else columns._replace(label=None)
    examples = replace(_gather(path, header, rows, columns, allow_empty), header=headed)
    if headed is False:
        _refuse_header(examples)
    return examples


def _rows(
    file: TextFile, has_header: bool, pairs: bool
) -> tuple[list[str], list[Row], bool | None]:
    """The names of the columns, the rows, and whether the first row of a table had the names."""
    path = file.path
    if file.suffix == ".txt":
        lines = file.read().removesuffix("\n").split("\n")
        rows = [Row(n, [line.removesuffix("\r")]) for n, line in enumerate(lines, start=1)]
        return ["text"], rows, None
    if file.suffix in JSON_LINES:
        return *json_rows(path, file.read()), None
    rows = split_rows(file)
    has_header = has_header or _looks_like_header(rows[0])
    try:
        header, rows = (
            named_rows(path, rows) if has_header else (made_up(len(rows[0].values), pairs), rows)
        )
    except Problem as problem:
        raise error_at(path, rows[0].line, str(problem)) from None
    refuse_ragged(path, header, rows)
    return header, rows, has_header


def _refuse_header(examples: Examples) -> None:
    """Refuse a first row whose label is the only one that is no number."""
    first, *others = map(str, examples.labels or [""])
    if others and not is_number(first) and all(map(is_number, others)):
        raise examples.error(
            0,
            f"the label {first!r} is no number, and all the others are: if the row is a header, "
            "name its columns (--text_column … --label_column …), else correct the label",
        )


def _gather(
    path: Path, header: list[str], rows: list[Row], columns: Columns, allow_empty: bool
) -> Examples:
    def texts(name: str) -> list[str]:
        at = header.index(name)
        for row in rows:
            if not isinstance(row.values[at], str):
                found = type(row.values[at]).__name__
                problem = f"{name!r} must be a text, got {found}{ANOTHER_TASK}"
                raise error_at(path, row.line, problem)
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
        names=header,
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
    hint = ANOTHER_TASK if isinstance(value, dict) else ""
    raise error_at(path, line, f"a label is wanted, got {brief(value)}; remove the example{hint}")


def _looks_like_header(row: Row) -> bool:
    return any(cell.strip().casefold() in HEADER_WORDS for cell in row.values)
