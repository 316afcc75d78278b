"""What people write → inputs: every form for every task, and errors with their place."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from minibert.data.columns import Named
from minibert.errors import InputError
from minibert.pipelines import PIPELINES
from minibert.pipelines.inputs import (
    FORMS,
    OF_TASK,
    Item,
    Items,
    items_of_file,
    items_of_stream,
    items_of_texts,
)
from minibert.pipelines.outputs import SHOWN
from minibert.pipelines.values import VALUES, Shared

NONE = Shared()
QUESTION = {"question": "q", "context": "c"}


def whole(items: Items) -> list[Item]:
    return [item for part in items for item in part]


def values(task: str, path: Path, shared: Shared = NONE, form: str | None = None) -> list[Any]:
    return [item.value for item in whole(items_of_file(task, path, shared, form))]


def piped(task: str, data: str | bytes, form: str | None = None) -> list[Item]:
    stream = io.BytesIO(data if isinstance(data, bytes) else data.encode())
    return whole(items_of_stream(task, stream, NONE, form))


def written(tmp_path: Path, name: str, *rows: Any) -> Path:
    is_json = name.endswith((".jsonl", ".json"))
    lines = [json.dumps(row) if is_json else row for row in rows]
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / name


def test_every_pipeline_has_its_inputs() -> None:
    assert VALUES.keys() == SHOWN.keys() == PIPELINES.keys()


@pytest.mark.parametrize(
    ("task", "text", "value"),
    [
        ("fill-mask", "a\tb", "a\tb"),
        ("token-classification", "a\tb", "a\tb"),
        ("text-classification", "a\tb\tc", {"text": "a", "text_pair": "b\tc"}),
        ("next-sentence-prediction", "a\tb", {"text": "a", "text_pair": "b"}),
        ("sentence-similarity", "a\tb", {"source_sentence": "a", "sentences": ["b"]}),
        ("question-answering", "q\tc", {"question": "q", "context": "c"}),
    ],
)
def test_a_tab_separates_where_there_are_two_texts(task: str, text: str, value: Any) -> None:
    assert whole(items_of_texts(task, [text], NONE)) == [("text 1", text, value)]


def test_what_all_inputs_share() -> None:
    shared = Shared("the context", ["x", "y"])
    (asked,) = whole(items_of_texts("question-answering", ["q\tr"], shared))
    assert asked.value == {"question": "q\tr", "context": "the context"}
    (asked,) = whole(items_of_texts("multiple-choice", ["q"], shared))
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
    (item,) = whole(items_of_file("sentence-similarity", written(tmp_path, "m.jsonl", many), NONE))
    assert item.given == many
    assert item.value == {"source_sentence": "a", "sentences": ["b", "c"]}


def test_plain_text_keeps_its_empty_lines(tmp_path: Path) -> None:
    file = tmp_path / "texts.log"
    file.write_bytes(b"a\r\n\r\nb")
    assert values("text-classification", file) == ["a", "", "b"]


def test_words_of_a_training_file(tmp_path: Path) -> None:
    file = written(tmp_path, "a.conll", "Ada B-PER", "lives O", "", "Rome B-LOC")
    items = whole(items_of_file("token-classification", file, NONE))
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
    with pytest.raises(InputError, match="line 1: question-answering: 'context' is missing; pass"):
        values("question-answering", without)
    squad = {"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "i", "question": "q"}]}]}]}
    (item,) = whole(items_of_file("question-answering", written(tmp_path, "a.json", squad), NONE))
    assert [item.value] == want
    assert item.given["id"] == "i"
    assert item.place.endswith("a.json, question 'i'")


def test_choices_of_every_file(tmp_path: Path) -> None:
    rows = [{"context": "a", "choices": ["x", "y"]}, {"question": "b", "endings": ["x", "y", "z"]}]
    assert values("multiple-choice", written(tmp_path, "a.jsonl", *rows)) == [
        {"question": "a", "choices": ["x", "y"]}, {"question": "b", "choices": ["x", "y", "z"]},
    ]  # fmt: skip
    both = {"context": "a", "question": "b", "choices": ["x", "y"], "answer": "A"}
    want = [{"question": "a", "choices": ["b x", "b y"]}]  # as in training
    assert values("multiple-choice", written(tmp_path, "b.jsonl", both)) == want
    table = written(tmp_path, "a.csv", "sent1,sent2,ending0,ending1", "a,b,x,y")
    assert values("multiple-choice", table) == want


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("text-classification", {"text": 1}, "'text' must be a text, got 1"),
        ("sentence-similarity", "a", "there is no second text after a tab to compare"),
        (
            "sentence-similarity",
            {"sentences": ["a"]},
            "'source_sentence' is missing; got ['sentences']",
        ),
        ("question-answering", "q", "there is no context after a tab; pass --context"),
        ("question-answering", {"context": "c"}, "'question' is missing; got ['context']"),
        ("multiple-choice", "q", "there are no choices; pass --choices"),
        (
            "multiple-choice",
            {"question": "q", "choices": ["x", 1]},
            "'choices', choice 1: a text is",
        ),
        ("multiple-choice", {"question": "q"}, "there are no choices; pass --choices"),
        ("next-sentence-prediction", "a", "two texts are wanted, a tab between them, got one"),
        ("fill-mask", ["a"], "a text or an object {...} is wanted, got ['a']"),
        (
            "fill-mask",
            [{"text": "a"}],
            "a text or an object {...} is wanted, got [{'text': 'a'}]; write what it holds one a",
        ),
        ("fill-mask", 1, "a text in quotes or an object {...} is wanted, got 1"),
        ("fill-mask", {"label": 1}, 'an object {"text": …} is wanted, got'),
        ("token-classification", {"tokens": []}, "'tokens' must be a list of texts"),
    ],
)
def test_a_problem_has_its_place(task: str, row: Any, message: str, tmp_path: Path) -> None:
    file = written(tmp_path, "bad.jsonl", row)
    with pytest.raises(InputError) as caught:
        values(task, file)
    assert str(caught.value).startswith(f"{file}, line 1: {task}: {message}")


LINES: dict[str, list[Any]] = {
    "text-classification": [{"text": "a"}, "b", {"review": "c", "stars": 5}],
    "token-classification": [["Ada", "lives"], {"tokens": ["Rome"], "ner_tags": [1]}],
    "question-answering": [{"question": "q", "context": "c"}],
    "multiple-choice": [{"question": "q", "choices": ["x", "y"]}],
    "sentence-similarity": [{"source_sentence": "a", "sentences": ["b", "c"]}],
    "next-sentence-prediction": [{"sentence1": "a", "sentence2": "b"}],
}


@pytest.mark.parametrize("task", LINES)
def test_json_is_understood_the_same_everywhere(task: str, tmp_path: Path) -> None:
    """As arguments, in a pipe, in a file with the suffix and in one without."""
    lines = [json.dumps(row) for row in LINES[task]]
    want = values(task, written(tmp_path, "a.jsonl", *LINES[task]))
    assert len(want) == len(lines)
    assert [item.value for item in whole(items_of_texts(task, lines, NONE))] == want
    found = piped(task, "\n\n".join(lines))
    assert [item.value for item in found] == want
    assert [item.given for item in found] == LINES[task]
    assert values(task, written(tmp_path, "a.log", *lines)) == want


def test_text_may_begin_like_json() -> None:
    line = '{"a"} is a set, [MASK] is not'
    (item,) = piped("fill-mask", line, "text")
    assert item.value == line
    (item,) = whole(items_of_texts("fill-mask", [line], NONE, "text"))
    assert item.value == line
    for other in ("[MASK] is it", "{a} is it", '"quoted" is it'):
        assert piped("fill-mask", other)[0].value == other
    with pytest.raises(InputError, match=r"^the input holds blank lines only"):
        piped("fill-mask", "\n \n", "jsonl")
    (item,) = piped("fill-mask", '"quoted"\n', "jsonl")
    assert item.value == "quoted"


def test_a_stream_that_ends_in_the_middle_of_a_line() -> None:
    """What stands before it comes first."""
    stream = io.BytesIO(b'{"text": "a"}\n\n{"text": "b')
    items = items_of_stream("fill-mask", stream, NONE)
    assert [item.value for item in next(items)] == ["a"]
    assert next(items) == []
    with pytest.raises(InputError) as caught:
        next(items)
    assert str(caught.value) == (
        "standard input, line 3: not JSON on one line (Unterminated string, column 10); the input "
        "ends in the middle of it; if these are texts, pass --format text"
    )


@pytest.mark.parametrize(
    ("form", "task", "data", "value"),
    [
        ("tsv", "text-classification", "label\tsentence\n1\ta\n\tb\n", ["a", "b"]),
        ("csv", "text-classification", '"a,\nb",1\n', ["a,\nb"]),
        ("csv", "sentence-similarity", "a,b\n", [{"source_sentence": "a", "sentences": ["b"]}]),
        ("csv", "question-answering", "question,context\nq,c\n", [QUESTION]),
        ("tsv", "token-classification", "a film\n", ["a film"]),
        ("conll", "token-classification", "Ada PER\n\nRome O\n", [["Ada"], ["Rome"]]),
        ("squad", "question-answering",
         '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "i", "question": "q"}]}]}]}',
         [QUESTION]),
    ],
)  # fmt: skip
def test_files_of_training_through_a_pipe(form: str, task: str, data: str, value: Any) -> None:
    assert [item.value for item in piped(task, data, form)] == value


def test_a_form_is_said_where_the_suffix_does_not(tmp_path: Path) -> None:
    tagged = written(tmp_path, "words.txt", "Ada B-PER", "lives O")
    assert values("token-classification", tagged, form="conll") == [["Ada", "lives"]]
    assert values("token-classification", tagged) == ["Ada B-PER", "lives O"]
    for form, task in OF_TASK.items():
        with pytest.raises(InputError, match=f"^--format {form} is for {task}; the task is fill"):
            values("fill-mask", tagged, form=form)
    for form in FORMS[2:]:
        with pytest.raises(InputError, match=f"^--format {form} is for a --file or standard input"):
            items_of_texts("fill-mask", ["a"], NONE, form)
    with pytest.raises(InputError, match="standard input, line 2: 1 field, wanted 2: "):
        piped("text-classification", "a\t1\nb\n", "tsv")


@pytest.mark.parametrize(
    "text", ["Ada\tB-PER", "Ada NNP B-PER", "-DOCSTART- O\n\nAda O", "\nAda O"]
)
def test_words_are_known_by_the_tag_in_the_first_line(tmp_path: Path, text: str) -> None:
    """WNUT-17's files are called .annotated."""
    tagged = written(tmp_path, "words.annotated", text)
    assert values("token-classification", tagged) == [["Ada"]]
    assert values("token-classification", written(tmp_path, "words.data", "Ada was")) == ["Ada was"]


def test_columns_are_named_in_tables_and_objects(tmp_path: Path) -> None:
    shared = Shared(columns=Named("review", "answer"))
    rows = [{"label": 1, "sentence": "x", "answer": "b", "review": "a"}]
    want = [{"text": "a", "text_pair": "b"}]
    assert values("text-classification", written(tmp_path, "a.jsonl", *rows), shared) == want
    table = written(tmp_path, "a.tsv", "answer\tsentence\treview", "b\tx\ta")
    assert values("text-classification", table, shared) == want
    other = written(tmp_path, "b.jsonl", {"text": "a"})
    with pytest.raises(InputError, match=r"line 1: .*there is no column 'review'; the columns are"):
        values("text-classification", other, shared)
