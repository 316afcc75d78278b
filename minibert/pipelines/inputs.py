"""What people write, on a command line, into a pipe or a file → the inputs of a task's pipeline.

The forms, by name:
  text    a line is a text, an empty one too, so that answers stay beside their texts; a tab
          separates the texts of a pair, or a question from its context
  jsonl   a JSON value a line: an object, a text in quotes, or a list of words; blank lines are
          skipped
  tsv     columns as training reads them (`minibert.data.readers`), the text first or named by a
  csv     header; for questions and choices with a header
  conll   for token-classification: a word a row
  squad   for question-answering: SQuAD's JSON

Lines of text and JSON are taken one by one, wherever they come from: what stands before a bad one
is answered. The others are read whole, as training reads them, without their labels.

A file's suffix says its form, also with .gz after it. Where it does not, and for arguments and
standard input, the first line does: it is JSON if it begins as an object or a list of texts does,
with {" or [", and text if not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from minibert.data.columns import Named
from minibert.data.conll import read_tagged
from minibert.data.readers import read_examples
from minibert.data.squad import read_squad
from minibert.data.tables import read_table
from minibert.data.text_files import (
    JSON_LINES,
    Problem,
    TextFile,
    parse_json,
    read_bytes,
    suffix_of,
)
from minibert.errors import InputError
from minibert.pipelines.values import Shared, value_of

FORMS = ("text", "jsonl", "tsv", "csv", "conll", "squad")
WHOLE = {"tsv": ".tsv", "csv": ".csv", "conll": ".conll", "squad": ".json"}
OF_TASK = {"conll": "token-classification", "squad": "question-answering"}
TAGGED = (".conll", ".bio", ".iob", ".iob2", ".tsv")
PORTION = 1 << 20  # bytes that are read at once, if so many have arrived
MIXED = {
    "text-classification": ("no second text after a tab", "a second text"),
    "token-classification": ("a text, not words", "words, not a text"),
}
WITH_HEADER = ("multiple-choice", "question-answering")
OF_PAIRS = ("next-sentence-prediction", "sentence-similarity")

_JSON = re.compile(r'\s*[{[]\s*"')
_TAGGED = re.compile(rb"\s*(-DOCSTART-|\S+([ \t]+\S+)*[ \t]+(O|[BIESLU]-\S+)[ \t]*(\r|\n|$))")


class Item(NamedTuple):
    """One input."""

    place: str  # where it stands, as errors name it: "texts.txt, line 3"
    given: Any  # a text, words or an object, as it stands there
    value: Any  # what the pipeline takes


Row = tuple[str, Any]  # the place of an input, and what stands there
Items = Iterator[list[Item]]  # as many inputs at a time as have arrived


def items_of_texts(
    task: str, texts: Sequence[str], shared: Shared, form: str | None = None
) -> Items:
    """Texts that count from 1, all at once."""
    if form in WHOLE:
        raise InputError(f"--format {form} is for a --file or standard input, not for arguments")
    form, hint = _decided(form, texts[0])
    lines = ((f"text {i}", text, False) for i, text in enumerate(texts, 1))
    return _items(task, [_rows(lines, form, hint)], shared)


def items_of_stream(
    task: str,
    stream: BufferedIOBase,
    shared: Shared,
    form: str | None = None,
    name: str = "standard input",
) -> Items:
    """The lines of a stream, as many at a time as have arrived: nobody waits for an answer."""
    if form in WHOLE:
        return _items_of_whole(task, TextFile(Path(name), WHOLE[form], stream.read()), shared, form)
    return _items(task, _parts(_arriving(stream), form, name), shared)


def items_of_file(task: str, path: Path, shared: Shared, form: str | None = None) -> Items:
    """The inputs of a file, all at once."""
    form = form or _form_of(task, path)
    if form in WHOLE:
        return _items_of_whole(task, TextFile(path, WHOLE[form]), shared, form)
    data = read_bytes(path)
    if form is None and task == "token-classification" and _TAGGED.match(data):
        return _items_of_whole(task, TextFile(path, WHOLE["conll"], data), shared, "conll")
    lines = [line for part in _arriving(BytesIO(data)) for line in part]
    return _items(task, _parts([lines] if lines else [], form, str(path)), shared)


def _items(task: str, parts: Iterable[Iterable[Row]], shared: Shared) -> Items:
    """Rows as inputs. The error of one that will not do comes after those before it."""
    first: Item | None = None
    for rows in parts:
        items, problem = [], None
        try:
            for place, given in rows:
                item = _item(task, place, given, shared)
                first = first or item
                _refuse_another_kind(task, item, first)
                items.append(item)
        except InputError as error:
            problem = error
        yield items
        if problem is not None:
            raise problem
    if first is None:
        raise InputError("the input holds blank lines only; a text or an object a line is wanted")


def _item(task: str, place: str, given: Any, shared: Shared) -> Item:
    try:
        return Item(place, given, value_of(task, given, shared))
    except Problem as problem:
        raise InputError(f"{place}: {task}: {problem}") from None


def _refuse_another_kind(task: str, item: Item, first: Item) -> None:
    """InputError for an item of another kind than the first, if a batch must agree."""
    if task in MIXED and type(item.value) is not type(first.value):
        one, other = MIXED[task][:: 1 if isinstance(item.value, str) else -1]
        raise InputError(f"{item.place} has {one}, but {first.place} has {other}")


# ---- Forms ----


def _form_of(task: str, path: Path) -> str | None:
    """The form that a file's suffix says."""
    suffix = suffix_of(path)
    if suffix in JSON_LINES:
        return "squad" if (task, suffix) == ("question-answering", ".json") else "jsonl"
    if task == "token-classification" and suffix in TAGGED:
        return "conll"
    return {".tsv": "tsv", ".csv": "csv", ".txt": "text"}.get(suffix)


def _decided(form: str | None, line: str) -> tuple[str, str]:
    """The form, by the first line where nobody says it; and what to do if that was wrong."""
    if form is not None:
        return form, ""
    if _JSON.match(line):
        return "jsonl", "; if these are texts, pass --format text"
    return "text", ""


# ---- Lines ----


def _rows(lines: Iterable[tuple[str, str, bool]], form: str, hint: str) -> Iterator[Row]:
    """Lines, each with its place and whether it may be cut off, as texts or JSON values."""
    for place, line, is_cut in lines:
        if form == "text":
            yield place, line
        elif line.strip():
            try:
                value = parse_json(line, is_cut)
            except Problem as problem:
                raise InputError(f"{place}: {problem}{hint}") from None
            yield place, value


Lines = list[tuple[int, bytes, bool]]  # numbers, lines, whether their source ends before they do


def _parts(parts: Iterable[Lines], form: str | None, name: str) -> Iterator[Iterator[Row]]:
    """The rows of lines, as they arrive."""
    hint, is_empty = "", True
    for lines in parts:
        if is_empty:
            form, hint = _decided(form, lines[0][1].decode("utf-8", "replace"))
            is_empty = False
        yield _rows(_decoded(name, lines), form or "text", hint)
    if is_empty:
        raise InputError(f"{name} is empty")


def _arriving(stream: BufferedIOBase) -> Iterator[Lines]:
    """Lines as they arrive."""
    rest, number = b"", 1
    while data := stream.read1(PORTION):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield [(n, _without_mark(n, line), False) for n, line in enumerate(lines, number)]
        number += len(lines)
    if rest:
        yield [(number, _without_mark(number, rest), True)]


def _without_mark(number: int, line: bytes) -> bytes:
    """A line without the byte order mark and the carriage return."""
    return (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).removesuffix(b"\r")


def _decoded(name: str, lines: Lines) -> Iterator[tuple[str, str, bool]]:
    for number, line, is_cut in lines:
        place = f"{name}, line {number}"
        try:
            yield place, line.decode("utf-8"), is_cut
        except UnicodeDecodeError as error:
            raise InputError(f"{place}: not UTF-8 ({error.reason})") from None


# ---- Files that are read whole ----


def _items_of_whole(task: str, file: TextFile, shared: Shared, form: str) -> Items:
    """All of a file, as `scripts/finetune.py` reads it for this task."""
    if OF_TASK.get(form, task) != task:
        raise InputError(f"--format {form} is for {OF_TASK[form]}; the task is {task}")
    if form == "conll":
        rows = _tagged(file)
    elif form == "squad":
        rows = _questions(file)
    elif task in WITH_HEADER:
        rows = ((f"{file.path}, line {line}", values) for line, values in read_table(file))
    else:
        rows = _texts(task, file, shared)
    return _items(task, [list(rows)], shared._replace(columns=Named()))  # they are chosen


def _tagged(file: TextFile) -> Iterator[Row]:
    tagged = read_tagged(file)
    for lines, words in zip(tagged.lines, tagged.words, strict=True):
        yield f"{file.path}, line {lines[0]}", words


def _questions(file: TextFile) -> Iterator[Row]:
    squad = read_squad(file, on_mismatch="skip")
    for name, question, context in zip(squad.ids, squad.questions, squad.contexts, strict=True):
        row = {"id": name, "question": question, "context": context}
        yield f"{file.path}, question {name!r}", row


def _texts(task: str, file: TextFile, shared: Shared) -> Iterator[Row]:
    found = read_examples(
        file,
        text_column=shared.columns.text,
        text_pair_column=shared.columns.pair,
        pairs=task in OF_PAIRS,
        allow_empty=True,
        labels=False,
    )
    seconds: Sequence[str | None] = found.sentence2 or [None] * len(found)
    for line, one, two in zip(found.lines, found.sentence1, seconds, strict=True):
        yield f"{file.path}, line {line}", one if two is None else {"text": one, "text_pair": two}
