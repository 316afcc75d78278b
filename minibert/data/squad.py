"""Question-answering files: SQuAD's JSON, v1.1 and v2.0, and JSON lines → questions with answers.

Forms, by what the file holds (each also with `.gz` after its name), always UTF-8:
  SQuAD        one JSON object: data → paragraphs (context) → qas (id, question, answers)
  JSON lines   an object a line with question, context, and where known id and answers; answers are
               a list as in SQuAD, or {"text": [...], "answer_start": [...]} as in Hugging Face's
               data set `squad`; a row without id goes by its line number

A question without answers is one that its context does not answer (`is_impossible` in v2.0). A file
none of whose questions has the key `answers` is one to predict.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from minibert.data.text_files import Source, TextFile, brief, json_objects, opened
from minibert.errors import InputError

OnMismatch = Literal["refuse", "skip"]
_NAMED = 3  # mismatched answers that a message names


class Answer(NamedTuple):
    """What one annotator marked."""

    text: str
    start: int | None  # its first character in the context; None: the file's offset was wrong


@dataclass(frozen=True)
class QuestionExamples:
    """The questions of one file; all lists have one entry a question."""

    path: Path
    ids: list[str]
    questions: list[str]
    contexts: list[str]  # the questions of a paragraph share one string
    answers: list[list[Answer]] | None  # all annotators'; an empty list: the question has none

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unanswerable(self) -> int:
        """How many questions have no answer in their context."""
        return sum(not answers for answers in self.answers or ())

    def take(self, numbers: Sequence[int]) -> QuestionExamples:
        """The questions with these numbers."""
        return replace(
            self,
            ids=[self.ids[i] for i in numbers],
            questions=[self.questions[i] for i in numbers],
            contexts=[self.contexts[i] for i in numbers],
            answers=None if self.answers is None else [self.answers[i] for i in numbers],
        )

    def head(self, count: int) -> QuestionExamples:
        """The first `count` questions."""
        if count < 1:
            raise InputError(f"wanted the first {count} questions of {self.path}; give at least 1")
        return self.take(range(min(count, len(self))))

    def error(self, question: int, problem: str) -> InputError:
        """An error about one question, with the id by which its user will find it."""
        return InputError(f"{self.path}, question {self.ids[question]!r}: {problem}")


class _Row(NamedTuple):
    id: str
    question: str
    context: str
    answers: list[Answer] | None


def read_squad(source: Source, *, on_mismatch: OnMismatch = "refuse") -> QuestionExamples:
    """Read a question-answering file; the module's docstring says which forms there are.

    on_mismatch: what to do with an answer whose text does not stand at its `answer_start`.
    "refuse" raises; "skip" trains nothing from its place (its text still counts where predictions
    are scored, as in the official scorer) and prints how many there are, and the first ids. Raises
    InputError, naming file and question, for anything that is missing, empty or of a wrong kind.
    """
    if on_mismatch not in ("refuse", "skip"):
        raise InputError(f'on_mismatch must be "refuse" or "skip", got {on_mismatch!r}')
    file = opened(source)
    path, rows = file.path, list(_rows(file))
    if not rows:
        raise InputError(f"{path}: the file holds no question; one at least is wanted")
    answers = _answers_of_all(path, rows)
    if answers is not None:
        _report_mismatches(path, rows, on_mismatch)
    return QuestionExamples(
        path=path,
        ids=_unique_ids(path, rows),
        questions=[row.question for row in rows],
        contexts=[row.context for row in rows],
        answers=answers,
    )


def _unique_ids(path: Path, rows: list[_Row]) -> list[str]:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise InputError(f"{path}, question {row.id!r}: the id occurs twice; ids must differ")
        seen.add(row.id)
    return [row.id for row in rows]


def _answers_of_all(path: Path, rows: list[_Row]) -> list[list[Answer]] | None:
    """Every question's answers; None where no question has the key."""
    answers = [row.answers for row in rows if row.answers is not None]
    if not answers:
        return None
    if len(answers) < len(rows):
        lacking = next(row.id for row in rows if row.answers is None)
        raise InputError(f"{path}, question {lacking!r}: 'answers' is missing, which others have")
    return answers


def _report_mismatches(path: Path, rows: list[_Row], on_mismatch: OnMismatch) -> None:
    """Refuse, or print, the answers that do not stand where the file says."""
    all_answers = [(row.id, answer) for row in rows for answer in row.answers or ()]
    wrong = [(name, answer.text) for name, answer in all_answers if answer.start is None]
    if not wrong:
        return
    shown = ", ".join(f"question {name!r} ({brief(text)})" for name, text in wrong[:_NAMED])
    more = ", …" if len(wrong) > _NAMED else ""
    found = (
        f"{path}: {len(wrong)} of {len(all_answers)} answers do not stand at their answer_start in "
        f"the context: {shown}{more}"
    )
    if on_mismatch == "refuse":
        raise InputError(f"{found}; correct them, or skip them: --on_mismatch skip")
    if len(wrong) == len(all_answers):
        raise InputError(f"{found}; nothing is left: is answer_start counted in characters from 0?")
    print(f"warning: {found}; skipped", file=sys.stderr)


def _rows(file: TextFile) -> Iterator[_Row]:
    """The questions of either form."""
    path, text = file.path, file.read()
    if file.suffix in (".jsonl", ".ndjson"):
        return _line_rows(path, text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if getattr(error, "msg", "") == "Extra data":  # a second object: JSON lines
            return _line_rows(path, text)
        ending = _ending(error, text) or "; SQuAD's JSON or an object a line is wanted"
        raise InputError(f"{path}: not JSON ({error}){ending}") from None
    one_line = isinstance(document, dict) and "question" in document
    return _line_rows(path, text) if one_line else _squad_rows(path, document)


def _ending(error: Exception, text: str) -> str:
    """What a file that was cut off needs."""
    cut = isinstance(error, json.JSONDecodeError) and (
        error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
    )
    return "; the file ends in the middle: fetch it again" if cut else ""


def _squad_rows(path: Path, document: Any) -> Iterator[_Row]:
    for a, article in enumerate(_list(document, "data", str(path)), start=1):
        place = f"{path}, article {a}"
        for p, paragraph in enumerate(_list(article, "paragraphs", place), start=1):
            below = f"{place}, paragraph {p}"
            questions = _list(paragraph, "qas", below)
            context = _text(paragraph, "context", below)
            for q, record in enumerate(questions, start=1):
                yield _row(path, record, context, f"{below}, question {q}", None)


def _line_rows(path: Path, text: str) -> Iterator[_Row]:
    for number, record in json_objects(path, text):
        yield _row(path, record, None, f"{path}, line {number}", str(number))


def _row(path: Path, record: Any, context: str | None, place: str, default_id: str | None) -> _Row:
    """One question; without a `context` of its paragraph it brings its own."""
    if not isinstance(record, dict):
        raise InputError(f"{place}: an object {{...}} is wanted, got {brief(record)}")
    name = record.get("id", default_id)
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise InputError(f"{place}: 'id' must be a text, got {brief(name)}")
    place = f"{path}, question {str(name)!r}"
    context = _text(record, "context", place) if context is None else context
    question = _text(record, "question", place)
    return _Row(str(name), question, context, _answers(record, context, place))


def _answers(record: dict[str, Any], context: str, place: str) -> list[Answer] | None:
    """The answers of one question, each with its place, None where it does not stand there."""
    impossible = record.get("is_impossible")
    if impossible is not None and not isinstance(impossible, bool):
        raise InputError(f"{place}: 'is_impossible' must be true or false, got {brief(impossible)}")
    if "answers" not in record:
        return [] if impossible else None
    given = record["answers"]
    if isinstance(given, dict):
        given = _from_columns(given, place)
    if not isinstance(given, list):
        raise InputError(f"{place}: 'answers' must be a list, got {brief(given)}")
    if impossible is not None and impossible == bool(given):
        says = "true, but it has" if impossible else "false, but it has no"
        raise InputError(f"{place}: 'is_impossible' is {says} answers; correct either")
    return [_answer(answer, context, place) for answer in given]


def _from_columns(columns: dict[str, Any], place: str) -> list[dict[str, Any]]:
    """{"text": [...], "answer_start": [...]} → a list of answers."""
    texts, starts = columns.get("text"), columns.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise InputError(
            f"{place}: 'answers' must hold two lists of one length, 'text' and 'answer_start', "
            f"got {brief(columns)}"
        )
    return [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]


def _answer(answer: Any, context: str, place: str) -> Answer:
    if not isinstance(answer, dict):
        raise InputError(f"{place}: an answer must be an object {{...}}, got {brief(answer)}")
    text, start = _text(answer, "text", f"{place}, answer"), answer.get("answer_start")
    if isinstance(start, bool) or not isinstance(start, int):
        raise InputError(f"{place}: 'answer_start' must be a whole number, got {brief(start)}")
    # A negative start would count from the end.
    return Answer(text, start if start >= 0 and context.startswith(text, start) else None)


def _list(record: Any, key: str, place: str) -> list[Any]:
    if not isinstance(record, dict) or key not in record:
        found = sorted(record) if isinstance(record, dict) else record
        raise InputError(
            f"{place}: {key!r} is missing; SQuAD has data, paragraphs and qas, each in the one "
            f"before it; got {brief(found)}"
        )
    value = record[key]
    if not isinstance(value, list):
        raise InputError(f"{place}: {key!r} must be a list, got {brief(value)}")
    return value


def _text(record: dict[str, Any], key: str, place: str) -> str:
    """A text that is not blank; JSON can write half of a surrogate pair, which is no text."""
    value = record.get(key)
    if key not in record:
        raise InputError(f"{place}: {key!r} is missing; got {brief(sorted(record))}")
    if not isinstance(value, str):
        raise InputError(f"{place}: {key!r} must be a text, got {brief(value)}")
    if not value.strip():
        raise InputError(f"{place}: {key!r} is empty; correct it, or remove the question")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place}: {key!r} holds half of a surrogate pair at character {error.start}"
        ) from None
    return value
