"""BertForSequenceClassification: which problem it is, which labels it takes, its dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minibert import BertConfig
from minibert.errors import InputError

Maker = Callable[..., Any]
Inputs = dict[str, Any]
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem"),
    [
        (1, np.zeros(5), "regression"),
        (1, np.zeros(5, int), "regression"),
        (3, np.zeros(5, np.int32), "single_label_classification"),
        (3, np.zeros((5, 3)), "multi_label_classification"),
    ],
)
def test_labels_say_which_problem_it_is(
    num_labels: int, labels: Any, problem: str, tiny: BertConfig, make_model: Maker, inputs: Inputs
) -> None:
    config = tiny.replace(num_labels=num_labels)
    inferred, told = make_model(config), make_model(config.replace(problem_type=problem))
    assert inferred.problem_type(labels) == problem
    loss = told(**inputs, labels=labels).loss
    assert inferred(**inputs, labels=labels).loss == loss
    assert inferred.config.problem_type is None  # nothing is written back


def test_training_and_evaluation_have_the_same_loss(
    problem: tuple[str, Any], problem_model: Maker, inputs: Inputs
) -> None:
    model, labels = problem_model(), problem[1]
    trained, _ = model.loss_and_gradients(**inputs, labels=labels)
    evaluated = model(**inputs, labels=labels)
    np.testing.assert_allclose(trained.loss, evaluated.loss, rtol=1e-14)
    np.testing.assert_allclose(trained.logits, evaluated.logits, atol=1e-14)


def test_labels_may_be_flat_or_columns(make_model: Maker, inputs: Inputs) -> None:
    model, labels = make_model(), np.array([0, 2, 1, 1, 0])
    assert model(**inputs, labels=labels).loss == model(**inputs, labels=labels[:, None]).loss


def test_an_ignored_sequence_takes_no_part(make_model: Maker, inputs: Inputs) -> None:
    model, labels = make_model(), np.array([0, -100, 1, 1, -100])
    out, gradients = model.loss_and_gradients(**inputs, labels=labels)
    kept = {name: array[labels >= 0] for name, array in inputs.items()}
    want, want_gradients = model.loss_and_gradients(**kept, labels=labels[labels >= 0])
    np.testing.assert_allclose(out.loss, want.loss, rtol=1e-14)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, want_gradients[name], atol=1e-14)


@pytest.mark.parametrize(
    ("problem_type", "labels", "message"),
    [
        ("single_label_classification", [0, 1, 3, 0, 0], r"label 3 is out of range: .* \(0 … 2\)"),
        ("single_label_classification", [0, 1, -1, 0, 0], "label -1 is out of range"),
        ("single_label_classification", [-100] * 5, "every label is -100"),
        ("single_label_classification", [0, 1], r"shape \(2,\) .* want \(5,\) integers"),
        ("single_label_classification", [0.0, 1, 2, 1, 0], "dtype float64"),
        ("single_label_classification", [NAN, 1, 2, 1, 0], "dtype float64"),
        ("multi_label_classification", [0, 1, 1, 0, 1], r"shape \(5,\), want \(5, 3\)"),
        ("multi_label_classification", [[0, 1, NAN]] * 5, "labels hold NaN or infinity"),
        ("regression", [[0.0] * 2] * 5, r"shape \(5, 2\), want \(5, 3\)"),
        ("regression", [[0, INF, 1]] * 5, "labels hold NaN or infinity"),
    ],
)
def test_bad_labels_are_named(
    problem_type: str, labels: Any, message: str, tiny: BertConfig, make_model: Maker,
    inputs: Inputs,
) -> None:  # fmt: skip
    model = make_model(tiny.replace(problem_type=problem_type))
    for call in (model, model.loss_and_gradients):
        with pytest.raises(InputError, match=message):
            call(**inputs, labels=labels)


def test_the_head_has_its_own_dropout(tiny: BertConfig, make_model: Maker, inputs: Inputs) -> None:
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

    def dropped(**changes: Any) -> bool:
        model = make_model(tiny.replace(**changes))
        out, _ = model.loss_and_gradients(**inputs, labels=np.zeros(5, int), dropout=(1, 1))
        return bool((out.logits != model(**inputs).logits).any())

    assert dropped(**off, classifier_dropout=0.5)
    assert not dropped(**off)
    assert make_model(tiny).config.head_dropout == tiny.hidden_dropout_prob
    assert make_model(tiny.replace(classifier_dropout=0.0)).config.head_dropout == 0


def test_what_has_no_effect_has_no_gradient(make_model: Maker, inputs: Inputs) -> None:
    _, gradients = make_model().loss_and_gradients(**inputs, labels=np.arange(5) % 3)
    real = inputs["attention_mask"] == 1
    word = gradients["bert.embeddings.word_embeddings.weight"]
    seen = set(inputs["input_ids"][real].tolist()) - {0}  # 0 is the padding row
    assert set(np.flatnonzero(word.any(axis=1)).tolist()) == seen
    position = gradients["bert.embeddings.position_embeddings.weight"]
    assert np.flatnonzero(position.any(axis=1)).tolist() == list(range(9))
    for name, gradient in gradients.items():
        if name.endswith("key.bias"):
            assert np.abs(gradient).max() < 1e-15
        else:
            assert gradient.any(), name
