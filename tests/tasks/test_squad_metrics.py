"""Exact match and F1 as SQuAD's official scorers have them."""

from __future__ import annotations

import json

import pytest
from folders import data_file
from questions import examples

from minibert.data.squad import read_squad
from minibert.errors import InputError
from minibert.tasks.squad_metrics import exact_match, f1, normalize_answer, score_squad

CONTEXT = "the tall oak of an old man"


@pytest.mark.parametrize(
    ("system", "exact", "overlap"),
    [("bert-ensemble", 86.206, 92.196), ("logistic-regression", 40.142, 50.982)],
)
def test_published_systems_get_their_published_scores(system, exact, overlap):
    predictions = json.loads(data_file(f"squad/predictions/{system}.json").read_text())
    scores = score_squad(read_squad(data_file("squad/dev-v1.1.json")), predictions)
    assert {name: round(value, 3) for name, value in scores.items()} == {
        "exact_match": exact,
        "f1": overlap,
    }


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat's\tan-them, a.", "cats anthem"),  # punctuation goes before the articles do
        ("a an the", ""),
        ("Theatre and another", "theatre and another"),
        ("«Ünï» – 中文。", "«ünï» – 中文。"),  # only ASCII punctuation
        ("a_b", "ab"),
        ("x–the–y", "x– –y"),
        ("é\u0301\u00a0x\u3000y", "é\u0301 x y"),
    ],
)
def test_normalizing(text, normal):
    assert normalize_answer(text) == normal


def test_the_best_truth_counts():
    assert exact_match("The oak!", ["tall oak", "oak"]) == 1
    assert exact_match("oaks", ["tall oak", "oak"]) == 0
    assert f1("the tall oak", ["oak", "man"]) == pytest.approx(2 / 3)
    assert f1("oak oak man", ["oak man man"]) == pytest.approx(2 / 3)  # words as a bag
    assert f1("", ["oak"]) == f1("oak", ["the"]) == 0


def test_a_question_without_a_prediction_scores_nothing():
    questions = examples(*[("w", CONTEXT, [("oak", 9)])] * 4)
    assert score_squad(questions, {"q0": "oak", "q1": "tall oak", "other": "x"}) == {
        "exact_match": 25.0,
        "f1": pytest.approx(100 * (1 + 2 / 3) / 4),
    }


def test_version_2():
    questions = examples(
        ("w", CONTEXT, [("oak", 9)]),
        ("w", CONTEXT, [("oak", 9), ("old man", 19)]),
        ("w", CONTEXT, []),
        ("w", CONTEXT, []),
        ("w", CONTEXT, []),
        ("w", CONTEXT, [("the", 0)]),  # nothing is left of it: as if there were no answer
    )
    predictions = {"q0": "", "q1": "man", "q2": "", "q3": "the", "q4": "oak", "q5": ""}
    assert score_squad(questions, predictions, version_2_with_negative=True) == {
        "exact_match": 50.0,
        "f1": pytest.approx(100 * (2 / 3 + 3) / 6),
        "HasAns_exact": pytest.approx(100 / 3),
        "HasAns_f1": pytest.approx(100 * (2 / 3 + 1) / 3),
        "NoAns_exact": pytest.approx(200 / 3),
        "NoAns_f1": pytest.approx(200 / 3),
    }
    article = examples(("w", CONTEXT, [("the", 0), ("oak", 9)]))  # that one of two is no truth
    assert score_squad(article, {"q0": ""}, version_2_with_negative=True)["exact_match"] == 0
    answered = score_squad(questions.take([0, 1]), predictions, version_2_with_negative=True)
    assert list(answered) == ["exact_match", "f1", "HasAns_exact", "HasAns_f1"]


def test_a_file_without_answers_cannot_be_scored():
    with pytest.raises(InputError, match=r"toy.json: no question has 'answers'"):
        score_squad(examples(("w", CONTEXT, None)), {"q0": "oak"})
