"""What people write → inputs: every form for every task, and errors with their place."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from minibert.errors import InputError
from minibert.pipelines import PIPELINES
from minibert.pipelines.inputs import (
    VALUES,
    Shared,
    items_of_file,
    items_of_stream,
    items_of_texts,
)

NONE = Shared()


def values(task: str, path: Path, shared: Shared = NONE) -> list[Any]:
    return [item.value for item in items_of_file(task, path, shared)]


def written(tmp_path: Path, name: str, *rows: Any) -> Path:
    is_json = name.endswith((".jsonl", ".json"))
    lines = [json.dumps(row) if is_json else row for row in rows]
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / name


def test_every_pipeline_has_its_inputs() -> None:
    assert VALUES.keys() == PIPELINES.keys()


@pytest.mark.parametrize(
    ("task", "text", "value"),
    [
        ("fill-mask", "a\tb", "a\tb"),
        ("token-classification", "a\tb", "a\tb"),
        ("text-classification", "a\tb\tc", {"text": "a", "text_pair": "b\tc"}),
        ("sentence-similarity", "a\tb", {"source_sentence": "a", "sentences": ["b"]}),
        ("question-answering", "q\tc", {"question": "q", "context": "c"}),
    ],
)
def test_a_tab_separates_where_there_are_two_texts(task: str, text: str, value: Any) -> None:
    assert items_of_texts(task, [text], NONE) == [("text 1", text, value)]


def test_what_all_inputs_share() -> None:
    shared = Shared("the context", ["x", "y"])
    (asked,) = items_of_texts("question-answering", ["q\tr"], shared)
    assert asked.value == {"question": "q\tr", "context": "the context"}
    (asked,) = items_of_texts("multiple-choice", ["q"], shared)
    assert asked.value == {"question": "q", "choices": ["x", "y"]}


def test_a_line_is_answered_when_it_has_arrived() -> None:
    class Slow(io.BytesIO):
        portions = iter([b"\xef\xbb\xbfone\r\ntw", b"o", b"\n\nlast", b""])

        def read1(self, size: int | None = -1, /) -> bytes:
            return next(self.portions)

    parts = items_of_stream("fill-mask", Slow(), NONE)
    assert [[(i.place[-6:], i.value) for i in part] for part in parts] == [
        [("line 1", "one")], [("line 2", "two"), ("line 3", "")], [("line 4", "last")],
    ]  # fmt: skip
    with pytest.raises(InputError, match="standard input is empty"):
        list(items_of_stream("fill-mask", io.BytesIO(), NONE))
    mixed = items_of_stream("text-classification", io.BytesIO(b"a\tb\nc\n"), NONE)
    with pytest.raises(InputError, match="standard input, line 2 has no second text after a tab"):
        list(mixed)


def test_objects_keep_what_is_known(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jsonl", {"Sentence": "a", "label": 1}, "b", {"text": "c", "x": []})
    for task in ("text-classification", "fill-mask", "feature-extraction", "token-classification"):
        assert values(task, file) == ["a", "b", "c"]
    pairs = written(
        tmp_path, "p.jsonl", {"premise": "a", "hypothesis": "b"}, {"text": "c", "text_pair": "d"}
    )
    assert values("text-classification", pairs)[1] == {"text": "c", "text_pair": "d"}
    assert values("sentence-similarity", pairs)[0] == {"source_sentence": "a", "sentences": ["b"]}
    with pytest.raises(InputError, match="line 1: fill-mask: one text is wanted, got a pair"):
        values("fill-mask", pairs)
    one = written(tmp_path, "one.jsonl", {"text": "a", "text_pair": None})
    assert values("text-classification", one) == ["a"]
    many = {"source_sentence": "a", "sentences": ["b", "c"], "id": 1}
    (item,) = items_of_file("sentence-similarity", written(tmp_path, "m.jsonl", many), NONE)
    assert item.given == many
    assert item.value == {"source_sentence": "a", "sentences": ["b", "c"]}


def test_plain_text_keeps_its_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "texts.log"
    file.write_bytes(b"a\r\n\r\nb")
    assert values("text-classification", file) == ["a", "", "b"]


def test_words_of_a_training_file(tmp_path: Path) -> None:
    file = written(tmp_path, "a.conll", "Ada B-PER", "lives O", "", "Rome B-LOC")
    items = items_of_file("token-classification", file, NONE)
    assert [item.value for item in items] == [["Ada", "lives"], ["Rome"]]
    assert [item.place for item in items] == [f"{file}, line 1", f"{file}, line 4"]


def test_questions_of_every_file(tmp_path: Path) -> None:
    want = [{"question": "q", "context": "c"}]
    answers = {"text": ["not there"], "answer_start": [0]}
    row = {"id": 1, "question": "q", "context": "c", "answers": answers}
    assert values("question-answering", written(tmp_path, "a.jsonl", row)) == want
    table = written(tmp_path, "a.tsv", "id\tquestion\tcontext", "1\tq\tc")
    assert values("question-answering", table) == want
    without = written(tmp_path, "b.jsonl", {"question": "q"}, "q")
    assert values("question-answering", without, Shared("c")) == want * 2
    with pytest.raises(InputError, match="question '1': 'context' is missing"):
        values("question-answering", without)
    squad = {"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "i", "question": "q"}]}]}]}
    (item,) = items_of_file("question-answering", written(tmp_path, "a.json", squad), NONE)
    assert [item.value] == want
    assert item.given["id"] == "i"
    assert item.place.endswith("a.json, question 'i'")


def test_choices_of_every_file(tmp_path: Path) -> None:
    rows = [{"context": "a", "choices": ["x", "y"]}, {"question": "b", "endings": ["x", "y", "z"]}]
    assert values("multiple-choice", written(tmp_path, "a.jsonl", *rows)) == [
        {"question": "a", "choices": ["x", "y"]}, {"question": "b", "choices": ["x", "y", "z"]},
    ]  # fmt: skip
    both = {"context": "a", "question": "b", "choices": ["x", "y"], "answer": "A"}
    want = [{"question": "a", "choices": ["b x", "b y"]}]
    assert values("multiple-choice", written(tmp_path, "b.jsonl", both)) == want
    table = written(tmp_path, "a.csv", "sent1,sent2,ending0,ending1", "a,b,x,y")
    assert values("multiple-choice", table) == want


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("text-classification", {"text": 1}, "'text' must be a text, got 1"),
        ("sentence-similarity", "a", "there is no second text after a tab to compare"),
        ("sentence-similarity", {"sentences": ["a"]}, "'source_sentence' must be a text, got None"),
        ("question-answering", "q", "there is no context after a tab; pass --context"),
        ("multiple-choice", "q", "there are no choices; pass --choices"),
        ("multiple-choice", {"question": "q", "choices": [1]}, "'choices' must be a list of texts"),
        ("token-classification", {"tokens": []}, "'tokens' must be a list of texts"),
    ],
)
def test_a_problem_has_its_place(task: str, row: Any, message: str, tmp_path: Path) -> None:
    file = written(tmp_path, "bad.jsonl", row)
    with pytest.raises(InputError) as caught:
        values(task, file)
    assert str(caught.value).startswith(f"{file}, line 1: {task}: {message}")
