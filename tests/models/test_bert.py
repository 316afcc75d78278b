"""BertModel: the encoder and its pooler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minibert import BertForSequenceClassification, BertModel
from minibert.errors import InputError

Maker = Callable[..., Any]


def test_a_classifier_stands_on_the_same_encoder(make_model: Maker, inputs: dict[str, Any]) -> None:
    classifier = make_model()
    bert = BertModel(
        classifier.config, arrays=dict(classifier.parameters), backend="numpy", dtype="float64"
    )
    p = classifier.parameters
    pooled = bert(**inputs).pooler_output
    want = classifier(**inputs).logits
    np.testing.assert_allclose(pooled @ p["classifier.weight"].T + p["classifier.bias"], want)


def test_the_pooler_takes_the_first_token(make_model: Maker, inputs: dict[str, Any]) -> None:
    bert = make_model(kind=BertModel)
    out = bert(**inputs)
    W, b = (bert.parameters[f"bert.pooler.dense.{kind}"] for kind in ("weight", "bias"))
    want = np.tanh(out.last_hidden_state[:, 0] @ W.T + b)
    np.testing.assert_allclose(out.pooler_output, want, atol=1e-14)


def test_it_has_no_loss(make_model: Maker, inputs: dict[str, Any]) -> None:
    bert = make_model(kind=BertModel)
    for call in (bert, bert.loss_and_gradients):
        with pytest.raises(InputError, match="BertModel has no loss, and takes no labels"):
            call(**inputs, labels=np.zeros(5, int))


def test_its_parameters_are_those_of_a_classifier_without_the_head(make_model: Maker) -> None:
    bert, classifier = make_model(kind=BertModel), make_model()
    assert isinstance(classifier, BertForSequenceClassification)
    extra = classifier.parameters.keys() - bert.parameters.keys()
    assert extra == {"classifier.weight", "classifier.bias"}
