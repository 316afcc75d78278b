"""The first tensor that is not finite, planted in each place in turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import toy

from minibert.packing import pack_sequences
from minibert.training.diagnosis import first_not_finite

NAN, INF = float("nan"), float("inf")
WORD = "bert.embeddings.word_embeddings.weight"


@pytest.fixture
def batch():
    return pack_sequences([np.array([2, 5, 6, 3]), np.array([2, 7, 3])], labels=np.array([0, 1]))


@pytest.fixture
def model():
    model = toy.model()
    _ = model.parameters.flat  # writable
    return model


def found(model, batch, **planted):
    gradients = model.parameters.zeros_like()
    for name, value in planted.items():
        gradients[name.replace("__", ".")].reshape(-1)[0] = value
    return first_not_finite(model, batch, gradients)


def test_nothing_is_wrong(model, batch):
    assert found(model, batch).startswith("none: it appears with this step's dropout only")


@pytest.mark.parametrize(("value", "kind"), [(NAN, "NaN"), (INF, "infinity"), (-INF, "infinity")])
@pytest.mark.parametrize("name", ["bert.encoder.layer.1.output.dense.bias", "classifier.bias"])
def test_a_parameter(name, value, kind, model, batch):
    model.parameters[name][1] = value
    size = model.parameters[name].size
    assert found(model, batch) == f"parameter {name} ({kind} in 1 of {size} elements)"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("bert.encoder.layer.0.intermediate.dense.weight", "the output of layer 0"),
        ("bert.encoder.layer.1.intermediate.dense.weight", "the output of layer 1"),
        ("classifier.weight", "the logits"),
    ],
)
def test_an_overflow_on_the_way(name, where, model, batch):
    model.parameters["bert.pooler.dense.bias"][...] = 10.0  # the pooler gives 1, or nearly so
    model.parameters[name][...] = 3e38
    assert found(model, batch).startswith(f"{where} (")


def test_the_loss(batch):
    model = toy.model(problem_type="regression")
    far = replace(batch, labels=np.full((2, 2), 3e38))
    assert found(model, far) == "the loss (infinity in 1 of 1 elements)"


def test_gradients_are_searched_from_the_head_backwards(model, batch):
    planted = {"bert__pooler__dense__bias": NAN, WORD.replace(".", "__"): NAN}
    assert found(model, batch, **planted).startswith("the gradient of bert.pooler.dense.bias (NaN")
    assert found(model, batch, **{WORD.replace(".", "__"): INF}).startswith(
        f"the gradient of {WORD} (infinity in 1"
    )
