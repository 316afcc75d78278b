"""What people write, on a command line, into a pipe or a file → the inputs of a task's pipeline.

A line is a text; a tab in it separates the texts of a pair, or a question from its context. A file
whose suffix says what it holds is read as training reads it, without its labels:
  .jsonl .json .ndjson  a text in quotes or an object a line. Names are those of transformers'
                        pipelines or of training files; what else an object holds is ignored.
                        For question-answering .json is SQuAD's.
  .tsv .csv             a header with the names of training files, or no header and the text first
                        (`minibert.data.readers`); for token-classification .tsv is .conll
  .conll .bio .iob      for token-classification: a word a row
  others                a line is a text, an empty one too, so that answers stay beside their texts
All of them also with .gz after the suffix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

from minibert.data.conll import WORDS, read_tagged
from minibert.data.multiple_choice import read_multiple_choice
from minibert.data.readers import PAIRS, SINGLES, read_examples, read_table
from minibert.data.squad import read_squad
from minibert.data.text_files import JSON_LINES, brief, error_at, json_values, read_text, suffix_of
from minibert.errors import InputError

TABLES = (".tsv", ".csv")
TAGGED = (".conll", ".bio", ".iob", ".iob2", ".tsv")
PORTION = 1 << 20  # bytes that are read at once, if so many have arrived
MIXED = {
    "text-classification": ("no second text after a tab", "a second text"),
    "token-classification": ("a text, not words", "words, not a text"),
}


class Item(NamedTuple):
    """One input."""

    place: str  # where it stands, as errors name it: "texts.txt, line 3"
    given: Any  # a text, words or an object, as it stands there
    value: Any  # what the pipeline takes


class Shared(NamedTuple):
    """What all inputs have in common."""

    context: str | None = None  # of questions
    choices: Sequence[str] | None = None


class _Problem(ValueError):
    """What is wrong with one input; who knows its place adds it."""


def items_of_texts(task: str, texts: Sequence[str], shared: Shared) -> list[Item]:
    """Texts that count from 1."""
    return _alike(task, [_item(task, f"text {i}", t, shared) for i, t in enumerate(texts, 1)])


def items_of_stream(
    task: str, stream: BufferedIOBase, shared: Shared, name: str = "standard input"
) -> Iterator[list[Item]]:
    """The lines of a stream, as many at a time as have arrived: nobody waits for an answer."""
    first: list[Item] = []
    for lines in _arriving(stream):
        items, problem = [], None
        try:
            for n, t in lines:
                items.append(_item(task, f"{name}, line {n}", _decoded(name, n, t), shared))
        except InputError as error:
            problem = error  # after the answers to what stands before it
        first = first or items[:1]
        _alike(task, [*first, *items])
        yield items
        if problem is not None:
            raise problem
    if not first:
        raise InputError(f"{name} is empty")


def items_of_file(task: str, path: Path, shared: Shared) -> list[Item]:
    """All of a file; the module's docstring says which forms there are."""
    suffix = suffix_of(path)
    if suffix in JSON_LINES and (task, suffix) != ("question-answering", ".json"):
        rows = list(_json_rows(path))
        if not all(isinstance(row, str) or _is_known(task, row, shared) for _, row in rows):
            rows = list(_training_rows(task, path))
    elif suffix in (*JSON_LINES, *TABLES) or (task == "token-classification" and suffix in TAGGED):
        rows = list(_training_rows(task, path))
    else:
        lines = read_text(path).removesuffix("\n").split("\n")
        rows = [(f"line {n}", line.removesuffix("\r")) for n, line in enumerate(lines, 1)]
    return _alike(task, [_item(task, f"{path}, {place}", row, shared) for place, row in rows])


def _item(task: str, place: str, given: Any, shared: Shared) -> Item:
    try:
        return Item(place, given, VALUES[task](given, shared))
    except _Problem as problem:
        raise InputError(f"{place}: {task}: {problem}") from None


def _alike(task: str, items: list[Item]) -> list[Item]:
    """The items; InputError where one is of another kind than the first, if a batch must agree."""
    for item in items if task in MIXED else ():
        if type(item.value) is not type(items[0].value):
            one, other = MIXED[task][:: 1 if isinstance(item.value, str) else -1]
            raise InputError(f"{item.place} has {one}, but {items[0].place} has {other}")
    return items


# ---- Lines and rows ----


def _arriving(stream: BufferedIOBase) -> Iterator[list[tuple[int, bytes]]]:
    """Numbered lines, as they arrive."""
    rest, number = b"", 1
    while data := stream.read1(PORTION):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield list(enumerate(lines, number))
        number += len(lines)
    if rest:
        yield [(number, rest)]


def _decoded(name: str, number: int, line: bytes) -> str:
    line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    try:
        return line.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}, line {number}: not UTF-8 ({error.reason})") from None


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    for number, value in json_values(path, read_text(path)):
        if not isinstance(value, str | dict):
            wanted = "a text in quotes or an object {...} is wanted"
            raise error_at(path, number, f"{wanted}, got {brief(value)}")
        yield f"line {number}", value


def _training_rows(task: str, path: Path) -> Iterator[tuple[str, Any]]:
    """A file as `scripts/finetune.py` reads it for this task."""
    if task == "question-answering":
        yield from _questions(path)
    elif task == "multiple-choice":
        asked = read_multiple_choice(path)
        for line, first, choices in zip(asked.lines, asked.first, asked.choices, strict=True):
            yield f"line {line}", {"context": first, "choices": choices}
    elif task == "token-classification" and suffix_of(path) != ".csv":
        tagged = read_tagged(path)
        for lines, words in zip(tagged.lines, tagged.words, strict=True):
            yield f"line {lines[0]}", words
    else:
        examples = read_examples(path, allow_empty=True)
        seconds: Sequence[str | None] = examples.sentence2 or [None] * len(examples)
        for line, one, two in zip(examples.lines, examples.sentence1, seconds, strict=True):
            yield f"line {line}", one if two is None else {"text": one, "text_pair": two}


def _questions(path: Path) -> Iterator[tuple[str, Any]]:
    if suffix_of(path) in TABLES:
        yield from ((f"line {line}", row) for line, row in read_table(path))
        return
    squad = read_squad(path, on_mismatch="skip")
    for name, question, context in zip(squad.ids, squad.questions, squad.contexts, strict=True):
        yield f"question {name!r}", {"id": name, "question": question, "context": context}


# ---- A text, words or an object → what the pipeline takes ----


def _is_known(task: str, given: Mapping[str, Any], shared: Shared) -> bool:
    """Whether an object's names say all; else its file must be one to train from."""
    if task == "question-answering":
        return "question" in given and ("context" in given or shared.context is not None)
    if task == "multiple-choice":
        return ("question" in given) != ("context" in given) and (
            isinstance(given.get("choices", given.get("endings")), list)
            or shared.choices is not None
        )
    if task == "token-classification" and any(name in given for name in WORDS):
        return True
    return _names(given) is not None or (task == "sentence-similarity" and "sentences" in given)


def _names(given: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The names of an object's text and second text, of those that training files have."""
    names = {name.casefold(): name for name in reversed(list(given))}
    for one, two in PAIRS:
        if one in names and two in names and given[names[two]] is not None:
            return names[one], names[two]
    return next(((names[name], None) for name in SINGLES if name in names), None)


def _pair(given: Any) -> tuple[str, str | None]:
    """The text, and the second one if there is one."""
    if isinstance(given, str):
        one, tab, two = given.partition("\t")
        return one, two if tab else None
    names = _names(given)
    if names is None:
        raise _Problem(f'an object {{"text": …}} is wanted, got {brief(given)}')
    return _text(given, names[0]), None if names[1] is None else _text(given, names[1])


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if isinstance(value, str):
        return value
    raise _Problem(f"{name!r} must be a text, got {brief(value)}")


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    value = given.get(name)
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return value
    raise _Problem(f"{name!r} must be a list of texts, got {brief(value)}")


def _one_text(given: Any, shared: Shared) -> Any:
    if isinstance(given, str):
        return given
    one, two = _pair(given)
    if two is not None:
        raise _Problem("one text is wanted, got a pair of texts")
    return one


def _text_or_pair(given: Any, shared: Shared) -> Any:
    one, two = _pair(given)
    return one if two is None else {"text": one, "text_pair": two}


def _text_or_words(given: Any, shared: Shared) -> Any:
    if isinstance(given, list):
        return given
    names = [name for name in WORDS if name in given] if isinstance(given, dict) else []
    return _texts(given, names[0]) if names else _one_text(given, shared)


def _compared(given: Any, shared: Shared) -> Any:
    if isinstance(given, dict) and "sentences" in given:
        source, others = _text(given, "source_sentence"), _texts(given, "sentences")
        return {"source_sentence": source, "sentences": others}
    one, two = _pair(given)
    if two is None:
        raise _Problem("there is no second text after a tab to compare the first with")
    return {"source_sentence": one, "sentences": [two]}


def _question(given: Any, shared: Shared) -> Any:
    if isinstance(given, dict):
        own = {"context": shared.context} | given
        return {name: _text(own, name) for name in ("question", "context")}
    if shared.context is not None:
        return {"question": given, "context": shared.context}
    question, tab, context = given.partition("\t")
    if not tab:
        raise _Problem("there is no context after a tab; pass --context or --context_file for all")
    return {"question": question, "context": context}


def _choice(given: Any, shared: Shared) -> Any:
    if isinstance(given, str):
        if shared.choices is None:
            raise _Problem('there are no choices; pass --choices "one" "another" for all')
        return {"question": given, "choices": list(shared.choices)}
    name = "endings" if "endings" in given else "choices"
    own = {name: shared.choices and list(shared.choices)} | given
    first = "question" if "question" in given else "context"
    return {"question": _text(given, first), "choices": _texts(own, name)}


VALUES: dict[str, Callable[[Any, Shared], Any]] = {
    "feature-extraction": _one_text,
    "fill-mask": _one_text,
    "multiple-choice": _choice,
    "question-answering": _question,
    "sentence-similarity": _compared,
    "text-classification": _text_or_pair,
    "token-classification": _text_or_words,
}
