"""Every gradient against numerical derivatives, and the checker against planted errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minibert.checkpoint.sentence_transformers import SentenceSettings
from minibert.config import BertConfig
from minibert.layers.linear import linear_backward
from minibert.models import BertForSentenceEmbedding, BertForSequenceClassification
from minibert.verify.coverage import differentiable_arguments, layer_functions
from minibert.verify.derivatives import METHODS
from minibert.verify.gradcheck import check_layer, check_model
from minibert.verify.layer_cases import layer_cases
from minibert.verify.model_cases import (
    DROPOUT,
    KINDS,
    LENGTHS,
    SHARP,
    random_model,
    small_config,
)

CASES = {case.layer: case for case in layer_cases()}


def assert_passed(checks):
    assert checks
    failed = [str(check) for check in checks if not check.passed]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("layer", CASES)
def test_complex_step_on_every_element_of_every_tensor(layer):
    assert_passed(check_layer(CASES[layer]))


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if name != "complex-step"])
@pytest.mark.parametrize("layer", CASES)
def test_finite_differences(layer, method):
    assert_passed(check_layer(CASES[layer], method))


def test_finite_differences_of_a_layer_norm():
    assert_passed(check_layer(CASES["layer_norm"], "central-difference"))
    assert_passed(check_layer(CASES["layer_norm"], "ridders"))


@pytest.mark.parametrize("kind", KINDS)
def test_two_layer_model_with_head_and_dropout(kind):
    model_class, changes = KINDS[kind]
    model, batch = random_model(model_class, small_config(**changes), LENGTHS, attention=SHARP)
    checks = check_model(model, batch, DROPOUT)
    assert {check.tensor for check in checks} == set(model.parameters)
    assert_passed(checks)


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in METHODS if name != "complex-step"])
@pytest.mark.parametrize("kind", KINDS)
def test_finite_differences_of_models(kind, method):
    model_class, changes = KINDS[kind]
    model, batch = random_model(model_class, small_config(**changes), LENGTHS, attention=SHARP)
    assert_passed(check_model(model, batch, DROPOUT, method))


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
@pytest.mark.parametrize("labels", [None, (0.9, -0.3, 0.4)], ids=["contrastive", "cosine"])
def test_sentence_embeddings(pooling, labels):
    model, batch = random_model(BertForSentenceEmbedding, small_config(), LENGTHS)
    model.settings = SentenceSettings(pooling, normalize=pooling != "max")
    batch = dataclasses.replace(batch, labels=labels and np.array(labels))
    assert_passed(check_model(model, batch, DROPOUT))


@pytest.mark.slow
def test_model_of_bert_base_size():
    model, batch = random_model(BertForSequenceClassification, BertConfig(num_labels=3), (7, 12))
    (check,) = check_model(model, batch, DROPOUT, tensors=False)
    assert check.bound <= 1e-12
    assert_passed([check])


def test_every_layer_and_every_differentiable_argument_has_a_check():
    functions = layer_functions()
    wanted = {
        (name.removesuffix("_forward"), argument)
        for name, forward in functions.items()
        if name.endswith("_forward")
        for argument in differentiable_arguments(forward)
    }
    assert {(layer, "x") for layer in ("linear", "gelu", "relu", "layer_norm")} <= wanted
    checked = {(name.partition("[")[0], a) for name, case in CASES.items() for a in case.arrays}
    assert wanted == checked


def test_every_forward_has_its_backward_directly_below():
    functions = layer_functions()
    for name, function in functions.items():
        if name.endswith("_forward"):
            backward = functions[name.removesuffix("_forward") + "_backward"]
            first = function.plain.__code__.co_firstlineno
            between = [
                other
                for other in functions.values()
                if other.__module__ == function.__module__
                and first
                < other.plain.__code__.co_firstlineno
                < backward.plain.__code__.co_firstlineno
            ]
            assert not between, name


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_gradient_is_caught(method):
    """An error of one part in ten million of one tensor, in the size every method must see."""

    def wrong(xp, dy, cache):
        dx, dW, db = linear_backward(xp, dy, cache)
        return dx, dW * (1 + 1e-7), db

    checks = check_layer(CASES["linear"]._replace(backward=wrong), method)
    assert [check.tensor for check in checks if not check.passed] == ["W"]


def test_a_gradient_that_is_zero_or_nan_fails():
    for value in (0.0, np.nan):

        def wrong(xp, dy, cache, value=value):
            return tuple(value * g for g in linear_backward(xp, dy, cache))

        checks = check_layer(CASES["linear"]._replace(backward=wrong))
        assert not any(check.passed for check in checks)
