"""Question-answering files: what is read, and what is said of a file that is wrong."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from folders import data_file

from minibert.data.splits import hold_out
from minibert.data.squad import Answer, QuestionExamples, read_squad
from minibert.errors import InputError

CONTEXT = "Rome is old. Paris is on the Seine."
SQUAD: dict[str, Any] = {
    "version": "v2.0",
    "data": [
        {
            "title": "Cities",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "a",
                            "question": "What is old?",
                            "is_impossible": False,
                            "answers": [
                                {"text": "Rome", "answer_start": 0},
                                {"text": "Rome is", "answer_start": 0},
                            ],
                        },
                        {
                            "id": "b",
                            "question": "Who is young?",
                            "is_impossible": True,
                            "answers": [],
                            "plausible_answers": [{"text": "Paris", "answer_start": 13}],
                        },
                    ],
                }
            ],
        }
    ],
}
ROW = {
    "id": "a",
    "title": "Cities",
    "context": CONTEXT,
    "question": "What is old?",
    "answers": {"text": ["Rome", "Seine"], "answer_start": [0, 29]},
}


def write(directory: Path, content: Any, name: str = "toy.json") -> Path:
    path = directory / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def read(directory: Path, content: Any, name: str = "toy.json", **options: Any) -> QuestionExamples:
    return read_squad(write(directory, content, name), **options)


def changed(**changes: Any) -> dict[str, Any]:
    """SQUAD with changes to its first question; ... takes a key away."""
    document = copy.deepcopy(SQUAD)
    question = document["data"][0]["paragraphs"][0]["qas"][0]
    for key, value in changes.items():
        question.pop(key, None)
        if value is not ...:
            question[key] = value
    return document


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["toy.json", "toy.json.gz"])
def test_squad(tmp_path, name):
    examples = read(tmp_path, SQUAD, name)
    assert examples.ids == ["a", "b"]
    assert examples.questions == ["What is old?", "Who is young?"]
    assert examples.contexts == [CONTEXT, CONTEXT]
    assert examples.contexts[0] is examples.contexts[1]
    assert examples.answers == [[Answer("Rome", 0), Answer("Rome is", 0)], []]
    assert examples.unanswerable == 1
    assert len(examples) == 2


@pytest.mark.parametrize("name", ["toy.jsonl", "toy.json", "toy.ndjson.gz"])
@pytest.mark.parametrize("count", [1, 2])
def test_json_lines(tmp_path, name, count):
    rows = [ROW, {**ROW, "id": 7, "answers": {"text": [], "answer_start": []}}][:count]
    examples = read(tmp_path, "\n\n".join(map(json.dumps, rows)) + "\n", name)
    assert examples.ids == ["a", "7"][:count]
    assert examples.answers == [[Answer("Rome", 0), Answer("Seine", 29)], []][:count]


def test_a_file_to_predict_has_no_answers(tmp_path):
    rows = [{"question": "Where?", "context": CONTEXT}] * 2
    examples = read(tmp_path, "\n".join(map(json.dumps, rows)), "toy.jsonl")
    assert examples.ids == ["1", "2"]
    assert examples.answers is None
    assert examples.unanswerable == 0


def test_questions_are_taken_and_held_out(tmp_path):
    examples = read(tmp_path, SQUAD)
    taken = examples.take([1])
    assert (taken.ids, taken.questions, taken.answers) == (["b"], ["Who is young?"], [[]])
    assert examples.head(1).ids == ["a"]
    assert examples.head(9) == examples
    rest, held = hold_out(examples, 0.5, 0)
    assert sorted(rest.ids + held.ids) == ["a", "b"]
    with pytest.raises(InputError, match="give at least 1"):
        examples.head(0)
    assert str(examples.error(1, "no")) == f"{examples.path}, question 'b': no"


def test_the_published_files():
    for name, questions, answers in [
        ("squad/dev-v1.1.json", 10570, 34726),
        ("squad/train-new-wiki.json", 7938, 22794),
        ("xquad/xquad.zh.json", 1190, 1190),
    ]:
        examples = read_squad(data_file(name))
        assert len(examples) == questions
        assert sum(map(len, examples.answers)) == answers


# --- an answer that does not stand where the file says -------------------------------------------

WRONG = [{"text": "Rome", "answer_start": 1}, {"text": "Seine", "answer_start": 29}]


def test_a_mismatched_answer_is_refused_by_name(tmp_path):
    with pytest.raises(InputError) as caught:
        read(tmp_path, changed(answers=WRONG))
    assert str(caught.value) == (
        f"{tmp_path / 'toy.json'}: 1 of 2 answers do not stand at their answer_start in the "
        "context: question 'a' ('Rome'); correct them, or skip them: --on_mismatch skip"
    )


def test_a_skipped_answer_loses_its_place_and_keeps_its_text(tmp_path, capsys):
    examples = read(tmp_path, changed(answers=WRONG), on_mismatch="skip")
    assert examples.answers == [[Answer("Rome", None), Answer("Seine", 29)], []]
    assert "1 of 2 answers" in (said := capsys.readouterr().err)
    assert said.startswith("warning: ")
    assert said.endswith("question 'a' ('Rome'); skipped\n")


@pytest.mark.parametrize("start", [-4, -len(CONTEXT), 10**9])
def test_a_place_outside_the_context_is_a_mismatch(tmp_path, start):
    wrong = [{"text": CONTEXT[-4:], "answer_start": start}, WRONG[1]]
    examples = read(tmp_path, changed(answers=wrong), on_mismatch="skip")
    assert examples.answers[0][0].start is None


def test_many_mismatches_are_counted_and_the_first_named(tmp_path):
    rows = [{**ROW, "id": f"r{i}", "answers": {"text": ["is"], "answer_start": [0]}}
            for i in range(5)]  # fmt: skip
    text = "\n".join(map(json.dumps, rows))
    with pytest.raises(InputError, match=r"5 of 5 .*'r0' .*'r1' .*'r2' \('is'\), …; correct"):
        read(tmp_path, text, "toy.jsonl")
    with pytest.raises(InputError, match=r"5 of 5 .*; nothing is left: is answer_start counted"):
        read(tmp_path, text, "toy.jsonl", on_mismatch="skip")


def test_an_unknown_flag_is_refused(tmp_path):
    with pytest.raises(InputError, match='on_mismatch must be "refuse" or "skip", got \'drop\''):
        read(tmp_path, SQUAD, on_mismatch="drop")


# --- files that are wrong ------------------------------------------------------------------------

BAD_QUESTIONS = {
    "question 'a': 'question' is empty": {"question": " \n"},
    "question 'a': 'question' is missing": {"question": ...},
    "question 'a': 'question' must be a text, got 3": {"question": 3},
    "question 'a': 'question' holds half of a surrogate pair at character 2": {
        "question": "ab\ud83d"
    },
    "question 'b': the id occurs twice": {"id": "b"},
    "paragraph 1, question 1: 'id' must be a text, got None": {"id": ...},
    "paragraph 1, question 1: 'id' must be a text, got True": {"id": True},
    "question 'a': 'answers' is missing, which others have": {"answers": ...},
    "question 'a': 'answers' must be a list, got 'Rome'": {"answers": "Rome"},
    "question 'a': an answer must be an object {...}, got 'Rome'": {"answers": ["Rome"]},
    "question 'a', answer: 'text' is empty": {"answers": [{"text": "", "answer_start": 0}]},
    "question 'a': 'answer_start' must be a whole number, got '0'": {
        "answers": [{"text": "Rome", "answer_start": "0"}]
    },
    "question 'a': 'answer_start' must be a whole number, got True": {
        "answers": [{"text": "Rome", "answer_start": True}]
    },
    "question 'a': 'answer_start' must be a whole number, got None": {
        "answers": [{"text": "Rome"}]
    },
    "two lists of one length, 'text' and 'answer_start', got {'text': ['Rome']}": {
        "answers": {"text": ["Rome"]}
    },
    "two lists of one length": {"answers": {"text": ["Rome"], "answer_start": [0, 1]}},
    "'is_impossible' is true, but it has answers": {"is_impossible": True},
    "'is_impossible' is false, but it has no answers": {"answers": []},
    "'is_impossible' must be true or false, got 'no'": {"is_impossible": "no"},
}  # fmt: skip


@pytest.mark.parametrize("message", BAD_QUESTIONS)
def test_a_wrong_question_is_named(tmp_path, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path, changed(**BAD_QUESTIONS[message]))
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "toy.json"))
    assert message in said
    assert "\n" not in said


BAD_DOCUMENTS = {
    "'data' is missing; SQuAD has data, paragraphs and qas, each in the one before it; got ['x']": (
        {"x": 1}
    ),
    "'data' is missing": [],
    "'data' must be a list, got 3": {"data": 3},
    "article 1: 'paragraphs' is missing": {"data": [{}]},
    "article 1, paragraph 1: 'qas' is missing": {"data": [{"paragraphs": [{"context": "a"}]}]},
    "article 1, paragraph 1: 'context' is missing": {"data": [{"paragraphs": [{"qas": []}]}]},
    "article 1, paragraph 1: 'context' is empty": {
        "data": [{"paragraphs": [{"context": "\u3000", "qas": []}]}]
    },
    "question 1: an object {...} is wanted, got 5": {
        "data": [{"paragraphs": [{"context": "a", "qas": [5]}]}]
    },
    "the file holds no question": {"data": []},
}


@pytest.mark.parametrize("message", BAD_DOCUMENTS)
def test_a_wrong_document_is_named(tmp_path, message):
    with pytest.raises(InputError) as caught:
        read(tmp_path, BAD_DOCUMENTS[message])
    assert message in str(caught.value)


def test_an_empty_context_of_a_row_is_named(tmp_path):
    with pytest.raises(InputError, match="question 'a': 'context' is empty"):
        read(tmp_path, {**ROW, "context": ""}, "toy.jsonl")


def test_a_file_that_ends_in_the_middle(tmp_path):
    with pytest.raises(InputError, match=r"toy.json: not JSON .*ends in the middle: fetch it"):
        read(tmp_path, json.dumps(SQUAD)[:-40] + "  ")
    with pytest.raises(InputError, match=r"toy.json: not JSON .*ends in the middle: fetch it"):
        read(tmp_path, '{"data": [')
    lines = f"{json.dumps(ROW)}\n{json.dumps({**ROW, 'id': 'b'})[:50]}"
    for name in ("toy.jsonl", "toy.json"):
        with pytest.raises(InputError, match=r"line 2: not a JSON object.*ends in the middle of"):
            read(tmp_path, lines, name)
    with pytest.raises(InputError, match=r"line 2: not a JSON object on one line \(.*\)$"):
        read(tmp_path, lines + "\n" + json.dumps({**ROW, "id": "c"}), "toy.jsonl")


@pytest.mark.parametrize("text", ["{]", "[" * 10**5, '{"a": ' + "1" * 5000 + "}"])
def test_malformed_json(tmp_path, text):
    with pytest.raises(InputError, match=r"toy.json: (not JSON|'data' is missing)"):
        read(tmp_path, text)
    with pytest.raises(InputError, match="line 1: not a JSON object on one line"):
        read(tmp_path, text, "toy.jsonl")


def test_a_line_that_is_no_object(tmp_path):
    with pytest.raises(InputError, match=r"line 1: an object \{...\} is wanted, got list"):
        read(tmp_path, "[1]", "toy.jsonl")


def test_missing_empty_and_binary_files(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_squad(tmp_path / "no.json")
    with pytest.raises(InputError, match="the file is empty"):
        read(tmp_path, "")
    (tmp_path / "latin.json").write_bytes(b'{"data": "\xe9"}')
    with pytest.raises(InputError, match="line 1: byte 11 of the line"):
        read_squad(tmp_path / "latin.json")
