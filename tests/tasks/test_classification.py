"""Labels, features, metrics and answers of the four kinds of text classification."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toy

from minibert.data.features import Features
from minibert.errors import InputError
from minibert.tasks.classification import BEST, METRICS, Classification

SINGLE, MULTI = "single_label_classification", "multi_label_classification"


def test_the_labels_say_which_task_it_is():
    assert Classification.of(toy.examples(toy.reviews(4))) == Classification(
        SINGLE, {"neg": 0, "pos": 1}
    )
    assert Classification.of(toy.examples([("a", "0.5"), ("b", "2")])) == Classification(
        "regression", {}
    )
    several = toy.examples([("a", ["y"]), ("b", []), ("c", ["x", "y"])])
    assert Classification.of(several) == Classification(MULTI, {"x": 0, "y": 1})
    grades = toy.examples([("a", "1"), ("b", "2")])
    assert Classification.of(grades).label2id == {"1": 0, "2": 1}
    assert Classification.of(grades, "regression") == Classification("regression", {})


@pytest.mark.parametrize(
    ("rows", "num_labels"),
    [
        ([("a", "x"), ("b", "y"), ("c", "z")], 3),
        ([("a", 0.5), ("b", 1.5)], 1),
        ([("a", ["x"]), ("b", [])], 1),
        ([("a", ["x", "y"]), ("b", [])], 2),
    ],
)
def test_a_configuration_carries_the_task(rows, num_labels):
    task = Classification.of(toy.examples(rows))
    config = toy.config().replace(**task.config_changes())
    assert config.num_labels == num_labels
    assert Classification.of_config(config) == task


def test_a_configuration_of_another_program_names_no_problem():
    assert Classification.of_config(toy.config(num_labels=1)) == Classification(
        MULTI, {"LABEL_0": 0}
    )
    task = Classification.of_config(toy.config(num_labels=3))
    assert task == Classification(SINGLE, {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2})


def test_a_model_that_knows_the_labels_keeps_its_order():
    task = Classification(SINGLE, {"neg": 0, "pos": 1})
    trained = toy.config(label2id={"pos": 0, "neg": 1})
    assert task.in_the_order_of(trained).label2id == {"pos": 0, "neg": 1}
    assert task.in_the_order_of(toy.config()) == task
    more = toy.config(label2id={"pos": 0, "neutral": 1, "neg": 2})  # the file has two of its three
    assert task.in_the_order_of(more).label2id == more.label2id
    regression = Classification("regression", {})
    assert regression.in_the_order_of(trained) == regression


def test_features_of_texts_and_pairs():
    task, tokenizer = Classification(SINGLE, {"neg": 0, "pos": 1}), toy.tokenizer()
    single = toy.examples([("good film", "pos"), ("a a a a a a", "neg")])
    features, truncated = task.features(single, tokenizer, 6)
    assert truncated == 1
    assert tokenizer.decode(features.ids[0]) == "[CLS] good film [SEP]"
    assert features.lengths.tolist() == [4, 6]
    assert features.labels.tolist() == [1, 0]
    pairs = toy.examples([("good film", "bad plot story", "neg")])
    features, truncated = task.features(pairs, tokenizer, 24)
    assert truncated == 0
    assert tokenizer.decode(features.ids[0]) == "[CLS] good film [SEP] bad plot story [SEP]"
    assert features.type_ids[0].tolist() == [0] * 4 + [1] * 4


def test_features_without_labels_have_none():
    unlabelled = dataclasses.replace(toy.examples(toy.reviews(3)), labels=None)
    features, _ = Classification(SINGLE, {"neg": 0, "pos": 1}).features(
        unlabelled, toy.tokenizer(), 24
    )
    assert features.labels is None


def test_a_label_unseen_in_training_names_its_line():
    task = Classification(SINGLE, {"neg": 0, "pos": 1})
    other = toy.examples([("a", "pos"), ("b", "meh")])
    with pytest.raises(InputError, match=r"toy.tsv, line 3: the label 'meh' was not seen"):
        task.features(other, toy.tokenizer(), 24)


@pytest.mark.parametrize("problem", METRICS)
def test_metric_names_are_those_that_metrics_gives(problem):
    labels = {} if problem == "regression" else {"a": 0, "b": 1, "c": 2}
    task = Classification(problem, labels)
    logits = np.random.default_rng(0).normal(size=(6, len(labels) or 1))
    truth = logits.argmax(1) if problem == SINGLE else (logits > 0).astype(np.float32)
    features = Features([], [], labels=truth)
    assert list(task.metrics({"logits": logits.astype(np.float32)}, features)) == task.metric_names
    assert task.best_metric == BEST[problem]
    assert task.best_metric in task.metric_names


def test_answers_of_one_label():
    task = Classification(SINGLE, {"neg": 0, "meh": 1, "pos": 2})
    outputs = {"logits": np.log(np.array([[0.2, 0.1, 0.7], [0.6, 0.3, 0.1]], np.float64))}
    best = task.decode(outputs, top_k=1)
    assert [row[0]["label"] for row in best] == ["pos", "neg"]
    np.testing.assert_allclose([row[0]["score"] for row in best], [0.7, 0.6])
    two = task.decode(outputs, top_k=2)
    assert [[a["label"] for a in row] for row in two] == [["pos", "neg"], ["neg", "meh"]]
    everything = task.decode(outputs)
    assert all(len(row) == 3 for row in everything)
    np.testing.assert_allclose([sum(a["score"] for a in row) for row in everything], 1)
    with pytest.raises(InputError, match="top_k must be at least 0, got -1"):
        task.decode(outputs, top_k=-1)


def test_huge_logits_make_no_nan():
    task = Classification(SINGLE, {"a": 0, "b": 1})
    huge = {"logits": np.array([[1e30, -1e30]])}
    assert task.decode(huge, top_k=1) == [[{"label": "a", "score": 1.0}]]
    (row,) = Classification(MULTI, {"a": 0, "b": 1}).decode(huge)
    assert [answer["score"] for answer in row] == [1.0, 0.0]


def test_answers_of_several_labels_are_all_of_them():
    task = Classification(MULTI, {"a": 0, "b": 1})
    (row,) = task.decode({"logits": np.array([[0.0, 2.0]])})
    assert [answer["label"] for answer in row] == ["b", "a"]
    np.testing.assert_allclose([a["score"] for a in row], [1 / (1 + np.exp(-2.0)), 0.5])


def test_an_answer_of_regression_is_the_number():
    rows = Classification("regression", {}).decode({"logits": np.array([[1.5], [-2.0]])})
    assert rows == [[{"label": "LABEL_0", "score": 1.5}], [{"label": "LABEL_0", "score": -2.0}]]
    (row,) = Classification("regression", {}).decode({"logits": np.array([[1.5, 2.0]])})
    assert row == [{"label": "LABEL_1", "score": 2.0}, {"label": "LABEL_0", "score": 1.5}]
