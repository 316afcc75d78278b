"""Windows and labels beside transformers' tokenizer and the rules of its run_qa.py, on SQuAD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from folders import data_file
from questions import labelled_text

from minibert import BertTokenizer
from minibert.data.squad import read_squad
from minibert.hub import DEFAULT_MODEL, resolve_model
from minibert.tasks.question_answering import QuestionAnswering

pytestmark = pytest.mark.crosscheck


@pytest.fixture(scope="module")
def minilm() -> Path:
    return resolve_model(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def theirs(minilm) -> Any:
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    return transformers.BertTokenizerFast.from_pretrained(minilm)


def label_of(encoding: Any, row: int, start: int, end: int) -> list[int]:
    """The tokens of the characters start … end − 1; [CLS] where the window lacks some of them."""
    offsets = encoding["offset_mapping"][row]
    tokens = [k for k, side in enumerate(encoding.sequence_ids(row)) if side == 1]
    if offsets[tokens[0]][0] > start or offsets[tokens[-1]][1] < end:
        return [0, 0]
    first = max(k for k in tokens if offsets[k][0] <= start)
    return [first, min(k for k in tokens if offsets[k][1] >= end)]


@pytest.mark.parametrize(
    ("name", "length", "stride"),
    [
        ("squad/train-new-wiki.json", 384, 128),
        ("squad/dev-v1.1.json", 128, 48),
        ("xquad/xquad.zh.json", 256, 100),
    ],
)
def test_windows_and_labels_are_theirs(minilm, theirs, name, length, stride):
    """Their `stride` is what two windows share; ours, as google's, the way from one to the next."""
    questions = read_squad(data_file(name))
    questions = questions.take(range(0, len(questions), len(questions) // 300))
    task = QuestionAnswering(doc_stride=stride)
    features, cut = task.features(questions, BertTokenizer.from_pretrained(minilm), length)
    assert cut == 0  # they cut no question
    assert len(features) > len(questions)
    for q, rows in enumerate(features.of_questions()):
        room = length - features.windows[rows[0]].prefix - 1
        want = theirs(
            questions.questions[q],
            questions.contexts[q],
            truncation="only_second",
            max_length=length,
            stride=max(room - stride, 0),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        assert [features.ids[r].tolist() for r in rows] == want["input_ids"]
        assert [features.type_ids[r].tolist() for r in rows] == want["token_type_ids"]
        text, start = questions.answers[q][0]
        labels = [label_of(want, k, start, start + len(text)) for k in range(len(rows))]
        assert [features.labels[r].tolist() for r in rows] == labels


@pytest.mark.parametrize(
    ("name", "share"), [("squad/train-new-wiki.json", 0.9984), ("squad/dev-v1.1.json", 0.9936)]
)
def test_answers_round_trip_unless_they_end_inside_a_token(minilm, name, share):
    """As "Japan" does in "Japanese", which is one token."""
    questions = read_squad(data_file(name))
    features, _ = QuestionAnswering().features(questions, BertTokenizer.from_pretrained(minilm))
    found = {window.question: text for row, window in enumerate(features.windows)
             if (text := labelled_text(features, row)) is not None}  # fmt: skip
    assert len(found) == len(questions)
    wrong = [q for q, text in found.items() if text != questions.answers[q][0].text]
    assert 1 - len(wrong) / len(questions) >= share
    for q in wrong:
        assert questions.answers[q][0].text in found[q]
