"""Files of multiple choice → questions, their choices and the number of the right one.

JSON lines (.jsonl, .json, .ndjson), or TSV and CSV with a header; all also with .gz after it.

What stands before the choices: a context ("context", "article", "passage", "ctx", "sent1",
"premise"), a question ("question", "sent2"), or both. The model sees [CLS] context [SEP] question
choice [SEP], or [CLS] the one there is [SEP] choice [SEP].

The choices: a list under "choices", "endings", "options" or "answers"; or a column each, as
ending0, ending1, … (SWAG), choice1, choice2, … (COPA) or answerA, answerB, …. A list may also be
one of {"label": "A", "text": …}, or an object {"label": ["A", …], "text": [...]} of both.

The right one, where the file says it, under "label", "answer", "answerKey" or "gold": the number of
a choice from 0, the choice's own label, its text, or its letter, A for the first. A number under
"label" is always the choice's number; elsewhere a choice's label or text comes first. null, an
empty text or −1 says that it is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from minibert.data.tables import read_table
from minibert.data.text_files import Problem, Source, brief, error_at, opened
from minibert.errors import InputError
from minibert.io.numbers import counted

CONTEXTS = ("context", "article", "passage", "ctx", "sent1", "premise")
QUESTIONS = ("question", "sent2")
CHOICES = ("choices", "endings", "options", "answers")
LABELS = ("label", "answer", "answerKey", "gold")

_NUMBERED = re.compile(r"(?:ending|choice|option|answer)_?(\d{1,3}|[A-Z])", re.ASCII)
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class MultipleChoiceExamples:
    """The examples of one file; all lists have one entry an example."""

    path: Path
    first: list[str]  # what stands before [SEP]
    choices: list[list[str]]  # C for each: what stands after it, the question before the choice
    labels: list[int] | None  # 0 … C − 1
    lines: list[int]  # the line of the file, from 1, at which each example begins

    def __len__(self) -> int:
        return len(self.first)

    @property
    def num_choices(self) -> int:
        """C, the same for all examples."""
        return len(self.choices[0])

    def take(self, numbers: Sequence[int]) -> MultipleChoiceExamples:
        """The examples with these numbers."""
        return replace(
            self,
            first=[self.first[i] for i in numbers],
            choices=[self.choices[i] for i in numbers],
            labels=None if self.labels is None else [self.labels[i] for i in numbers],
            lines=[self.lines[i] for i in numbers],
        )

    def head(self, count: int) -> MultipleChoiceExamples:
        """The first `count` examples."""
        if count < 1:
            raise InputError(f"wanted the first {count} examples of {self.path}; give at least 1")
        return self.take(range(min(count, len(self))))

    def error(self, example: int, problem: str) -> InputError:
        """An error about one example, with the place where its user will find it."""
        return error_at(self.path, self.lines[example], problem)


class _Example(NamedTuple):
    first: str
    choices: list[str]
    label: int | None


def read_multiple_choice(source: Source) -> MultipleChoiceExamples:
    """Read a file of multiple choice; the module's docstring says which forms there are.

    Raises InputError, with file and line, for a file that is missing, empty, not UTF-8 or ragged,
    an example without context, question or choices, an empty text, fewer than two choices or a
    different number of them than in the first example, and a label that is none of the choices or
    is there for some examples only.
    """
    file = opened(source)
    path = file.path
    examples: list[_Example] = []
    lines: list[int] = []
    for line, values in read_table(file):
        try:
            examples.append(_example(values, examples[0] if examples else None))
        except Problem as problem:
            raise error_at(path, line, str(problem)) from None
        lines.append(line)
    labels = [example.label for example in examples if example.label is not None]
    return MultipleChoiceExamples(
        path=path,
        first=[example.first for example in examples],
        choices=[example.choices for example in examples],
        labels=labels or None,
        lines=lines,
    )


def asked(values: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What the model reads of an example, before and after [SEP]; Problem where there is none."""
    return _asked(values, _choices(values)[0])


def _asked(values: Mapping[str, Any], texts: list[str]) -> tuple[str, list[str]]:
    if len(texts) < 2:
        raise Problem(f"two choices at least are wanted, got {brief(texts)}")
    context, question = (_text(values, names) for names in (CONTEXTS, QUESTIONS))
    if context is None and question is None:
        names = ", ".join((*CONTEXTS, *QUESTIONS))
        raise Problem(f"there is no context or question, of {names}, only {brief(list(values))}")
    if context is None:
        return question or "", texts
    return context, [f"{question} {text}" for text in texts] if question else texts


def _example(values: Mapping[str, Any], model: _Example | None) -> _Example:
    """One example; `model` is the first of its file, which it must be like."""
    texts, own_labels = _choices(values)
    if model and len(texts) != len(model.choices):
        raise Problem(
            f"{counted(len(texts), 'choice')}, wanted {len(model.choices)} as in the file's first "
            f"example: {brief(texts)}"
        )
    first, choices = _asked(values, texts)
    label = _label(values, texts, own_labels)
    if model and (label is None) != (model.label is None):
        here, there = ("no", "a") if label is None else ("a", "no")
        raise Problem(f"{here} label here, but {there} label in the file's first example")
    return _Example(first, choices, label)


def _choices(values: Mapping[str, Any]) -> tuple[list[str], list[str] | None]:
    """The choices' texts, and their own labels where they have some."""
    key = next((name for name in CHOICES if name in values), None)
    if key is None:
        key, given = "the choices", list(_numbered(values))
        if not given:
            names = ", ".join(CHOICES)
            raise Problem(f"there are no choices, of {names}, ending0, …: {brief(list(values))}")
        return _checked(key, given), None
    found = values[key]
    if isinstance(found, list) and found and all(isinstance(item, dict) for item in found):
        found = {name: [item.get(name) for item in found] for name in ("label", "text")}
    if not isinstance(found, dict):
        return _checked(key, found), None
    if not found.keys() >= {"label", "text"}:
        raise Problem(
            f'{key!r}: a list of texts, or {{"label": […], "text": […]}}, is wanted, got '
            f"{brief(found)}"
        )
    texts, labels = _checked(key, found["text"]), _checked(key, found["label"])
    if len(texts) != len(labels) or len(set(labels)) != len(labels):
        raise Problem(f"{key!r}: a label for each text is wanted, all different: {brief(found)}")
    return texts, labels


def _numbered(values: Mapping[str, Any]) -> Iterator[Any]:
    """The columns ending0, ending1, … in the order of their numbers."""
    numbered = [(m[1].rjust(3, "0"), name) for name in values if (m := _NUMBERED.fullmatch(name))]
    return (values[name] for _, name in sorted(numbered))


def _checked(key: str, texts: Any) -> list[str]:
    if not isinstance(texts, list | tuple):
        raise Problem(f"{key!r}: a list of texts is wanted, got {brief(texts)}")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise Problem(f"{key!r}, choice {i}: a text is wanted, got {brief(text)}")
    return list(texts)


def _text(values: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of these columns that there is."""
    key = next((name for name in names if name in values), None)
    if key is None:
        return None
    text = values[key]
    if not isinstance(text, str) or not text.strip():
        raise Problem(f"{key!r}: a text is wanted, got {brief(text)}; remove the example")
    return text


def _label(values: Mapping[str, Any], texts: list[str], own_labels: list[str] | None) -> int | None:
    """The number of the right choice, or None where the file does not say it."""
    key = next((name for name in LABELS if name in values), None)
    if key is None or values[key] in (None, "", -1, "-1"):
        return None
    value = values[key]
    written = str(value).strip()
    number = int(written) if _WHOLE.fullmatch(written) else None
    letter = ord(written.upper()) - ord("A") if re.fullmatch("[A-Za-z]", written) else None
    names = [own.index(written) if written in own else None for own in (own_labels or [], texts)]
    certain = [number] if isinstance(value, int) or key == "label" else []
    for found in (*certain, *names, number, letter):
        if not isinstance(value, bool) and found is not None and 0 <= found < len(texts):
            return found
    raise Problem(
        f"{key!r}: the number of a choice (0 to {len(texts) - 1}), its letter, label or text is "
        f"wanted, got {brief(value)}"
    )
