"""Features, metrics and answers of multiple choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy

from minibert.data.multiple_choice import MultipleChoiceExamples
from minibert.errors import InputError
from minibert.tasks.multiple_choice import MultipleChoice

EXAMPLES = MultipleChoiceExamples(
    path=Path("toy.jsonl"),
    first=["the film", "a story was"],
    choices=[["good", "very bad", "plot"], ["dull", "the plot the plot", "fine"]],
    labels=[2, 0],
    lines=[1, 2],
)


def test_the_choices_of_an_example_are_neighbours():
    tokenizer = toy.tokenizer()
    features, truncated = MultipleChoice.of(EXAMPLES).features(EXAMPLES, tokenizer, 24)
    assert [tokenizer.decode(ids) for ids in features.ids] == [
        "[CLS] the film [SEP] good [SEP]",
        "[CLS] the film [SEP] very bad [SEP]",
        "[CLS] the film [SEP] plot [SEP]",
        "[CLS] a story was [SEP] dull [SEP]",
        "[CLS] a story was [SEP] the plot the plot [SEP]",
        "[CLS] a story was [SEP] fine [SEP]",
    ]
    assert features.type_ids[1].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert features.labels.tolist() == [2, 0]
    assert (len(features), features.group, truncated) == (2, 3, 0)


def test_examples_that_were_cut_are_counted_once():
    features, truncated = MultipleChoice().features(EXAMPLES, toy.tokenizer(), 6)
    assert max(map(len, features.ids)) == 6
    assert truncated == 2  # of which the second in all three sequences


def test_without_labels():
    unlabelled = replace(EXAMPLES, labels=None)
    features, _ = MultipleChoice().features(unlabelled, toy.tokenizer(), 24)
    assert features.labels is None
    with pytest.raises(InputError, match=r'toy.jsonl: there are no labels; a column "label" is'):
        MultipleChoice.of(unlabelled)
    with pytest.raises(InputError, match="need features with labels"):
        MultipleChoice().metrics({"logits": np.zeros((2, 3))}, features)


def test_accuracy():
    task = MultipleChoice()
    features, _ = task.features(EXAMPLES, toy.tokenizer(), 24)
    logits = np.array([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    assert task.metrics({"logits": logits}, features) == {"accuracy": 0.5}
    assert tuple(task.metrics({"logits": logits}, features)) == task.metric_names
    assert task.best_metric in task.metric_names


def test_a_configuration_has_nothing_to_say():
    task = MultipleChoice.of_config(toy.config())
    assert task == MultipleChoice() == task.in_the_order_of(toy.config())
    assert task.config_changes() == {}


def test_answers():
    logits = np.log(np.array([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]]))
    best = MultipleChoice().decode({"logits": logits}, top_k=1)
    assert best == [
        [{"label": 1, "score": pytest.approx(0.7)}],
        [{"label": 0, "score": pytest.approx(0.6)}],
    ]
    features, _ = MultipleChoice().features(EXAMPLES, toy.tokenizer(), 24)
    assert MultipleChoice().predictions({"logits": logits}, features) == [row[0] for row in best]
    two, everything = (MultipleChoice().decode({"logits": logits}, top_k) for top_k in (2, None))
    assert [[answer["label"] for answer in row] for row in two] == [[1, 0], [0, 1]]
    assert [[answer["label"] for answer in row] for row in everything] == [[1, 0, 2], [0, 1, 2]]
    with pytest.raises(InputError, match="top_k must be at least 0, got -1"):
        MultipleChoice().decode({"logits": logits}, top_k=-1)
    (row,) = MultipleChoice().decode({"logits": np.array([[1e30, -1e30]])})
    assert row == [{"label": 0, "score": 1.0}, {"label": 1, "score": 0.0}]
