"""New weights: what Hugging Face's BERT draws, reproducible name by name."""

from __future__ import annotations

import numpy as np
import pytest

from minibert import BertConfig, BertForSequenceClassification
from minibert.models.initialization import initialize

CONFIG = BertConfig(vocab_size=300, pad_token_id=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bert.embeddings.LayerNorm.weight", 1),
        ("bert.embeddings.LayerNorm.bias", 0),
        ("bert.encoder.layer.0.output.dense.bias", 0),
        ("classifier.bias", 0),
    ],
)
def test_layer_norms_start_as_the_identity_and_biases_at_zero(name: str, value: float) -> None:
    np.testing.assert_array_equal(initialize(name, (7,), CONFIG, 1), np.full(7, value))


def test_weights_are_normal_with_the_configured_deviation() -> None:
    values = initialize("classifier.weight", (300, 400), CONFIG, 1)
    assert values.dtype == np.float32
    n = values.size
    assert abs(values.mean()) < 4 * 0.02 / n**0.5
    assert abs(values.std() / 0.02 - 1) < 4 / (2 * n) ** 0.5
    assert abs((np.abs(values) < 0.02).mean() - 0.6827) < 4 * 0.5 / n**0.5
    assert np.abs(values).max() > 0.06  # not cut off at 2σ, as Google's are


def test_the_padding_row_alone_is_zero() -> None:
    table = initialize("bert.embeddings.word_embeddings.weight", (300, 8), CONFIG, 1)
    assert np.flatnonzero(~table.any(axis=1)).tolist() == [2]
    without = initialize(
        "bert.embeddings.word_embeddings.weight", (300, 8), CONFIG.replace(pad_token_id=None), 1
    )
    assert without.any(axis=1).all()


def test_each_parameter_has_a_stream_of_its_own() -> None:
    def draw(name: str, seed: int) -> list[float]:
        return initialize(name, (50,), CONFIG, seed).tolist()

    assert draw("a.weight", 1) == draw("a.weight", 1)
    assert draw("a.weight", 1) != draw("a.weight", 2)
    assert draw("a.weight", 1) != draw("b.weight", 1)


def test_models_with_different_heads_have_the_same_encoder(tiny: BertConfig) -> None:
    two, nine = (
        BertForSequenceClassification(tiny.replace(num_labels=n), backend="numpy", seed=5)
        for n in (2, 9)
    )
    for name in two.parameters:
        same = two.parameters[name].tolist() == nine.parameters[name].tolist()
        assert same == (not name.startswith("classifier"))
