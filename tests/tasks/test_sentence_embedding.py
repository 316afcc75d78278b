from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import toy

from minibert.errors import InputError
from minibert.models import BertForSentenceEmbedding
from minibert.tasks import sentence_embedding
from minibert.tasks.sentence_embedding import SentenceEmbedding, retrieval, unit_rows
from minibert.training.arguments import TrainingArguments
from minibert.training.trainer import Trainer

SCORED = [("good film", "a great film", "5.0"), ("dull", "the plot was very fine", "1.25")]


def unlabelled():
    return replace(toy.examples(SCORED), labels=None)


def test_scores_become_cosines():
    task = SentenceEmbedding.of(toy.examples(SCORED))
    features, truncated = task.features(toy.examples(SCORED), toy.tokenizer(), 6)
    assert truncated == 1
    assert (len(features), features.group, len(features.ids)) == (2, 2, 4)
    np.testing.assert_allclose(features.labels, [1.0, 0.25])
    single = toy.tokenizer().encode(["a great film"])[0][0]
    np.testing.assert_array_equal(features.ids[1], single.ids)
    assert not features.type_ids[1].any()
    assert task.metric_names == ["pearson", "spearman"]
    assert task.best_metric in task.metric_names
    assert task.config_changes() == {}


def test_scores_up_to_1_are_cosines_already():
    task = SentenceEmbedding.of(toy.examples([("a", "b", "0.5"), ("a", "c", "-0.25")]))
    features, _ = task.features(toy.examples([("a", "b", "0.5")]), toy.tokenizer(), 9)
    np.testing.assert_array_equal(features.labels, [0.5])


def test_pairs_without_scores():
    task = SentenceEmbedding.of(unlabelled())
    features, _ = task.features(unlabelled(), toy.tokenizer(), 9)
    assert features.labels is None
    assert features.group == 2
    assert task.metric_names == ["accuracy", "mrr"]
    assert task.best_metric in task.metric_names


def test_single_texts_can_be_embedded_but_not_learnt_from():
    single = toy.examples([("good film", "1")])
    with pytest.raises(InputError, match=r"toy.tsv: got single texts, wanted pairs"):
        SentenceEmbedding.of(single)
    features, _ = SentenceEmbedding().features(single, toy.tokenizer(), 9)
    assert (features.group, features.labels) == (1, None)


def test_scores_of_another_scale_are_named():
    task = SentenceEmbedding.of(toy.examples(SCORED))
    with pytest.raises(
        InputError,
        match=r"toy.tsv, line 2: the score 9.0 divided by 5 \(--score_scale\) is no cosine",
    ):
        task.features(toy.examples([("a", "b", "9.0")]), toy.tokenizer(), 9)
    with pytest.raises(InputError, match="--score_scale must be positive, got 0"):
        SentenceEmbedding.of(toy.examples(SCORED), 0.0)


@pytest.mark.parametrize(
    ("highest", "given", "scale"),
    [("0.9", None, 1), ("4.8", None, 5), ("5.5", None, 10), ("62.0", None, 100),
     ("250.0", None, 250), ("3.5", 4.0, 4), ("0.5", 5.0, 5)],
)  # fmt: skip
def test_the_scale_is_a_usual_one_unless_given(highest, given, scale):
    rows = [("a", "b", "0.1"), ("a", "c", highest)]
    task = SentenceEmbedding.of(toy.examples(rows), given)
    assert task.scale == scale
    higher = toy.examples([("a", "b", f"{scale:.1f}")])
    np.testing.assert_array_equal(task.labels(higher), [1.0])  # beyond the training file's highest


def test_metrics_of_scores():
    task = SentenceEmbedding.of(toy.examples(SCORED))
    rows = toy.examples([("a", "b", "1.0"), ("a", "b", "2.0"), ("a", "b", "4.0")])
    features, _ = task.features(rows, toy.tokenizer(), 9)
    angles = np.array([0, 1.2, 0, 0.9, 0, 0.1])  # cosines that rise with the scores
    y = np.stack([np.cos(angles), np.sin(angles)], 1) * np.arange(1, 7)[:, None]
    metrics = task.metrics({"sentence_embedding": y}, features)
    assert metrics.keys() == set(task.metric_names)
    assert metrics["spearman"] == pytest.approx(1)
    want = np.corrcoef(np.cos([1.2, 0.9, 0.1]), [1, 2, 4])[0, 1]
    assert metrics["pearson"] == pytest.approx(want)


@pytest.mark.parametrize("block", [1, 2, 4096])
def test_retrieval(monkeypatch, block):
    monkeypatch.setattr(sentence_embedding, "BLOCK", block)
    first = np.eye(3)
    second = unit_rows(np.array([[1.0, 0, 0], [0, 1, 2], [0, 0, 1]]))
    assert retrieval(first, second) == {"accuracy": 1.0, "mrr": 1.0}
    # The second finds the third's partner before its own, the third finds its own.
    second = unit_rows(np.array([[1.0, 0, 0], [0, 1, 2], [0, 2, 1]]))
    result = retrieval(first, second)
    assert result == {"accuracy": pytest.approx(1 / 3), "mrr": pytest.approx((1 + 0.5 + 0.5) / 3)}


def test_equal_texts_do_not_count_against_each_other():
    first = unit_rows(np.array([[1.0, 1], [1, 1], [0, 1]]))
    assert retrieval(first, first)["accuracy"] == 1.0


def test_unit_rows():
    y = np.array([[3.0, 4], [0, 0]], np.float32)
    np.testing.assert_allclose(unit_rows(y), [[0.6, 0.8], [0, 0]])
    assert unit_rows(y).dtype == np.float32


def train(directory, examples, **arguments):
    """Metrics on the training examples, before and after training on them."""
    task = SentenceEmbedding.of(examples)
    model = BertForSentenceEmbedding(toy.config(), backend="numpy", seed=1, threads=2)
    features, _ = task.features(examples, toy.tokenizer(), 24)
    args = TrainingArguments(output_dir=str(directory), **toy.SETTINGS | arguments)
    trainer = Trainer(model, args, task, features, None, toy.tokenizer())
    before = trainer.evaluate(features)
    trainer.train()
    return before, trainer.evaluate(features)


def test_texts_of_one_kind_learn_to_be_alike(tmp_path):
    reviews, others = toy.reviews(64, seed=1), toy.reviews(65, seed=2)[1:]
    random.Random(0).shuffle(others)
    rows = [(a, b, f"{5.0 * (x == y)}") for (a, x), (b, y) in zip(reviews, others, strict=True)]
    before, after = train(tmp_path, toy.examples(rows), num_train_epochs=16.0)
    assert before["spearman"] < 0.5
    assert after["spearman"] > 0.8
    assert after["loss"] < 0.1


def test_pairs_learn_to_find_each_other(tmp_path):
    rows = [(*pair, "") for pair in zip(toy.OTHERS, toy.GOOD + toy.BAD, strict=False)]
    pairs = replace(toy.examples(rows), labels=None)
    before, after = train(tmp_path, pairs, per_device_train_batch_size=7, num_train_epochs=30.0)
    assert before["accuracy"] < 0.6
    assert after["accuracy"] == after["mrr"] == 1.0
    assert after["loss"] < before["loss"] / 5
