"""Files of multiple choice, in the forms that data sets have."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from minibert.data.multiple_choice import MultipleChoiceExamples, read_multiple_choice
from minibert.errors import InputError


def read(directory: Path, *rows: dict[str, Any], name: str = "a.jsonl") -> MultipleChoiceExamples:
    path = directory / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_multiple_choice(path)


SWAG = {
    "video-id": "v",
    "startphrase": "She sits. She",
    "sent1": "She sits.",
    "sent2": "She",
    "ending0": "plays.",
    "ending1": "flies.",
    "ending10": "sings.",
    "ending2": "swims.",
    "label": "3",
}
FORMS: dict[str, tuple[dict[str, Any], str, list[str], int | None]] = {
    "SWAG": (SWAG, "She sits.", ["She plays.", "She flies.", "She swims.", "She sings."], 3),
    "HellaSwag": (
        {"ctx_a": "x", "ctx": "A man", "endings": ["runs", "sits"], "label": "1"},
        "A man", ["runs", "sits"], 1,
    ),
    "RACE": (
        {"article": "Long.", "question": "Who?", "options": ["A cat", "A dog"], "answer": "B"},
        "Long.", ["Who? A cat", "Who? A dog"], 1,
    ),
    "ARC": (
        {
            "question": "How many?", "answerKey": "2",
            "choices": {"label": ["1", "2", "3"], "text": ["3", "2", "1"]},
        },
        "How many?", ["3", "2", "1"], 1,
    ),
    "a list of objects": (
        {
            "question": "Which?", "answerKey": "B",
            "choices": [{"label": "A", "text": "b"}, {"label": "B", "text": "c"}],
        },
        "Which?", ["b", "c"], 1,
    ),
    "COPA": (
        {"premise": "It rained.", "choice1": "a", "choice2": "b", "label": 0},
        "It rained.", ["a", "b"], 0,
    ),
    "SocialIQa": (
        {"context": "C", "question": "Q", "answerA": "a", "answerB": "b", "answerC": "c"},
        "C", ["Q a", "Q b", "Q c"], None,
    ),
    "the text of the answer": (
        {"question": "Q", "choices": ["2", "1"], "answer": "1"}, "Q", ["2", "1"], 1
    ),
    "a number under label": (
        {"question": "Q", "choices": ["2", "1"], "label": "1"}, "Q", ["2", "1"], 1
    ),
    "an integer": ({"question": "Q", "choices": ["1", "0"], "answer": 1}, "Q", ["1", "0"], 1),
    "a small letter": ({"question": "Q", "choices": ["x", "y"], "label": "b"}, "Q", ["x", "y"], 1),
    "unknown": ({"question": "Q", "choices": ["x", "y"], "label": -1}, "Q", ["x", "y"], None),
    "null": ({"question": "Q", "choices": ["x", "y"], "label": None}, "Q", ["x", "y"], None),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, tmp_path: Path) -> None:
    row, first, choices, label = FORMS[form]
    examples = read(tmp_path, row, row)
    assert examples.first == [first] * 2
    assert examples.choices == [choices] * 2
    assert examples.labels == (None if label is None else [label] * 2)
    assert examples.lines == [1, 2]
    assert examples.num_choices == len(choices)
    assert len(examples) == 2


def test_a_table(tmp_path: Path) -> None:
    with open(tmp_path / "a.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, SWAG)
        writer.writeheader()
        writer.writerows([SWAG | {"sent1": "She\nsits."}, SWAG])
    examples = read_multiple_choice(tmp_path / "a.csv")
    assert examples.first == ["She\nsits.", "She sits."]
    assert (examples.labels, examples.lines) == ([3, 3], [2, 4])
    (tmp_path / "a.tsv").write_text("question\tchoice1\tchoice2\nQ\ta\tb\n", encoding="utf-8")
    examples = read_multiple_choice(tmp_path / "a.tsv")
    assert (examples.first, examples.choices, examples.labels) == (["Q"], [["a", "b"]], None)


GOOD = {"question": "Q", "choices": ["x", "y"], "label": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": ["x", "y", "z"]}, "3 choices, wanted 2 as in the file's first ex"),
        ({"choices": ["x", " "]}, "'choices', choice 1: a text is wanted, got ' '"),
        ({"choices": "x"}, "'choices': a list of texts is wanted, got 'x'"),
        ({"choices": {"text": ["x", "y"]}}, 'a list of texts, or {"label": […], "text": […]}, is'),
        ({"choices": {"text": ["x", "y"], "label": ["A", "A"]}}, "a label for each text is want"),
        ({"question": ""}, "'question': a text is wanted, got ''"),
        ({"question": 5}, "'question': a text is wanted, got 5"),
        ({"label": 2}, "'label': the number of a choice (0 to 1), its letter, label or text is"),
        ({"label": "C"}, "'label': the number of a choice (0 to 1)"),
        ({"label": True}, "got True"),
        ({"label": 0.5}, "got 0.5"),
        ({"label": None}, "no label here, but a label in the file's first example"),
    ],
)
def test_examples_that_cannot_be_read(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, GOOD, GOOD | change)
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'}, line 2: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Q", "label": 0}, "there are no choices, of choices, endings, "),
        ({"text": "Q", "choices": ["x", "y"]}, "there is no context or question, of context, "),
        ({"question": "Q", "choices": ["x"]}, "two choices at least are wanted, got ['x']"),
        ({"question": "Q", "choices": []}, "two choices at least are wanted, got []"),
    ],
)
def test_files_of_something_else(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, row)
    assert message in str(caught.value)


def test_plain_text_has_no_choices(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Q\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a.txt: columns or JSON lines are wanted"):
        read_multiple_choice(tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("question,choice1,choice2\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1: there is a header and no example below it"):
        read_multiple_choice(tmp_path / "a.csv")


def test_some_of_the_examples(tmp_path: Path) -> None:
    examples = read(tmp_path, GOOD, GOOD | {"question": "R", "label": 1})
    taken = examples.take([1])
    assert (taken.first, taken.labels, taken.lines) == (["R"], [1], [2])
    assert examples.head(1) == examples.take([0])
    assert str(taken.error(0, "why")) == f"{examples.path}, line 2: why"
    with pytest.raises(InputError, match="give at least 1"):
        examples.head(0)
