"""The question-answering pipeline: its arguments, its results, its errors.

A stand-in for the model points at capital letters, which the tokenizer here keeps apart.
"""

from __future__ import annotations

import string
from types import SimpleNamespace

import numpy as np
import pytest
from questions import SPECIALS

from minibert import BertTokenizer
from minibert.errors import InputError
from minibert.pipelines.question_answering import QuestionAnsweringPipeline

LETTERS = string.ascii_letters + "."
VOCABULARY = [*SPECIALS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
CONTEXT = "ab Cd ef. gh Ij kl"


@pytest.fixture
def calls():
    """(windows, longest window) of each call of the model."""
    return []


@pytest.fixture
def answer(monkeypatch, calls):
    tokenizer = BertTokenizer.from_vocab(VOCABULARY, do_lower_case=False)
    capitals = [piece.strip("#") in string.ascii_uppercase for piece in VOCABULARY]

    def predict(model, features, **options):
        calls.append((len(features), features.lengths.max()))
        logits = [np.where(np.array(capitals)[ids], ids / 10, 0.0) for ids in features.ids]
        return {"start_logits": logits, "end_logits": logits}, None

    monkeypatch.setattr("minibert.pipelines.base.predict", predict)
    config = SimpleNamespace(max_position_embeddings=24)
    return QuestionAnsweringPipeline(SimpleNamespace(config=config), tokenizer)


def test_one_question(answer):
    found = answer(question="q", context=CONTEXT)
    assert found == {"score": found["score"], "start": 13, "end": 15, "answer": "Ij"}
    assert 0 < found["score"] < 1
    assert answer({"question": "q", "context": CONTEXT}) == found


def test_several_questions(answer, calls):
    found = answer(question="q", context=CONTEXT)
    other = answer(question="q", context="x Y")
    calls.clear()
    assert answer(question=["q", "r"], context=CONTEXT) == [found, found]
    assert answer(question=["q", "r"], context=[CONTEXT, "x Y"]) == [found, other]
    pairs = [{"question": "q", "context": context} for context in (CONTEXT, "x Y")]
    assert answer(pairs) == [found, other]
    assert len(calls) == 3
    assert answer(question=["q"], context=CONTEXT) == [found]
    assert answer(question=[], context=CONTEXT) == answer([]) == []


def test_an_iterator_gives_an_iterator(answer, calls):
    taken = []

    def pairs():
        for number in range(150):
            taken.append(number)
            yield {"question": "q", "context": CONTEXT if number % 2 else "x Y"}

    results = answer(pairs(), top_k=1)
    assert taken == []
    first = next(results)
    assert len(taken) == 64
    rest = list(results)
    assert len(calls) == 3
    assert [found["answer"] for found in [first, *rest]] == ["Y", "Ij"] * 75


def test_top_k(answer):
    found = answer(question="q", context=CONTEXT, top_k=3, max_answer_len=2)
    assert [a["answer"] for a in found] == ["Ij", "Cd", "gh Ij"]
    assert found[0]["score"] > found[1]["score"] > found[2]["score"]
    assert len(answer(question="q", context="x", top_k=3)) == 1


def test_impossible_answers(answer):
    certain = answer(question="q", context="Z", handle_impossible_answer=True)
    assert certain["answer"] == "Z"
    found = answer(question="q", context="ab", handle_impossible_answer=True, top_k=9)
    (none,) = (a for a in found if not a["answer"])
    assert none == {"score": none["score"], "start": 0, "end": 0, "answer": ""}
    assert none["score"] == pytest.approx(1 / 9)  # [CLS] and two tokens, all alike
    assert "" not in [a["answer"] for a in answer(question="q", context="ab", top_k=9)]


def test_words_and_lengths(answer):
    assert answer(question="q", context=CONTEXT, align_to_words=False)["answer"] == "I"
    long = answer(question="q", context="Aaa bbb Zzz", max_answer_len=12, top_k=20)
    short = answer(question="q", context="Aaa bbb Zzz", max_answer_len=2, top_k=20)
    assert "Aaa bbb Zzz" in [a["answer"] for a in long]
    assert "Aaa bbb Zzz" not in [a["answer"] for a in short]


def test_windows(answer, calls):
    context = "ab " * 30
    answer(question="q", context=context)  # windows of 24 tokens have room for 20, 12 are shared
    answer(question="q", context=context, max_seq_len=14, doc_stride=0)
    answer(question="q", context=context, max_length=14, truncation=True, doc_stride=0)
    answer(question="q" * 40, context=context, max_seq_len=14, max_question_len=1)
    answer(question="q" * 15, context=context)  # room for 6: windows share 3
    answer(question="q", context="ab", doc_stride=99)  # one window shares nothing
    assert calls == [(6, 24), (6, 14), (6, 14), (18, 14), (19, 24), (1, 6)]
    alike = answer(question="q", context="ab " * 30 + "Cd"), answer(question="q", context="ab Cd")
    assert {found["answer"] for found in alike} == {"Cd"}


def test_offsets_index_the_context_as_it_was_given(answer):
    context = "他 cafe\u0301 😀 X\u0301y\u0323 z"
    found = answer(question="q", context=context)
    assert context[found["start"] : found["end"]] == found["answer"]


BAD_SETTINGS = {
    "top_k must be a whole number of at least 1, got 0": {"top_k": 0},
    "max_answer_len must be a whole number of at least 1, got 0": {"max_answer_len": 0},
    "max_question_len must be a whole number of at least 1, got 0": {"max_question_len": 0},
    "doc_stride must be a whole number of at least 0, got -1": {"doc_stride": -1},
    "max_seq_len must be a whole number of at least 1, got 0": {"max_seq_len": 0},
    "max_seq_len must be at most 24, got 25": {"max_seq_len": 25},
    "top_k must be a whole number of at least 1, got '2'": {"top_k": "2"},
    "would share 20 with the next: lower doc_stride, or raise max_seq_len": {
        "doc_stride": 20,
        "context": "ab " * 11,
    },
    "leaves no room for the context": {"question": "q" * 21},
    "questions and 1 context: wanted one context for all questions": {
        "question": ["q", "q"],
        "context": ["x"],
    },
    "got context = '  '": {"context": "  "},
    "got question = ''": {"question": ""},
    "got question = 3": {"question": [3]},
    "context is missing": {"context": None},
    "question: wanted a text or a list of texts, got 3": {"question": 3},
    "context: wanted a text or a list of texts, got {'text': 'x'}": {"context": {"text": "x"}},
    "question is missing": {"question": None},
    "pass either question and context, or inputs": {"inputs": [{}]},
    'input 0: \'question\' is missing: wanted {"question": …, "context": …}, got nothing': {
        "inputs": [{}],
        "question": None,
        "context": None,
    },
    "input 0: 'context' is missing: wanted {": {
        "inputs": {"question": "q", "id": 3},
        "question": None,
        "context": None,
    },
    'input 0: wanted {"question": …, "context": …}, got \'text\'': {
        "inputs": "text",
        "question": None,
        "context": None,
    },
}


def test_a_question_that_fills_a_window_gets_the_empty_answer(answer, capsys):
    """It is counted; where there is no other it is an error, see above."""
    found = answer(question="q", context=CONTEXT)
    assert capsys.readouterr().err == ""
    none = {"score": 0.0, "start": 0, "end": 0, "answer": ""}
    assert answer(question=["q" * 30, "q"], context=CONTEXT) == [none, found]
    line = "warning: 1 of {} questions got the empty answer: the question fills a window"
    assert capsys.readouterr().err.startswith(line.format(2))
    pairs = [{"question": "q" * 30, "context": CONTEXT}, {"question": "q", "context": CONTEXT}]
    assert list(answer(iter(pairs), batch_size=1)) == [none, found]
    assert capsys.readouterr().err.startswith(line.format(2))
    assert answer(pairs, top_k=2)[0] == [none]


@pytest.mark.parametrize("message", BAD_SETTINGS)
def test_wrong_arguments_are_named(answer, message):
    with pytest.raises(InputError) as caught:
        answer(**{"question": "q", "context": CONTEXT} | BAD_SETTINGS[message])
    assert message in str(caught.value)
