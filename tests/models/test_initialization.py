"""New weights: what Hugging Face's BERT draws, reproducible name by name."""

from __future__ import annotations

import numpy as np
import pytest

from minibert import BertConfig, BertForSequenceClassification
from minibert.errors import InputError
from minibert.models.initialization import initialize, sinusoids

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


def test_google_s_are_cut_off_at_two_deviations_and_not_rescaled() -> None:
    """std of a normal between −2 and 2: √(1 − 4·φ(2) / (2·Φ(2) − 1)) = 0.8796."""
    values = initialize("classifier.weight", (300, 400), CONFIG, 1, "google")
    assert values.dtype == np.float32
    assert 0.0399 < np.abs(values).max() <= np.float32(0.04)
    assert abs(values.std() / (0.02 * 0.8796) - 1) < 4 / (2 * values.size) ** 0.5
    assert abs(values.mean()) < 4 * 0.02 / values.size**0.5
    plain = initialize("classifier.weight", (300, 400), CONFIG, 1)
    inside = np.abs(plain) <= np.float32(0.04)
    assert (values[inside] == plain[inside]).all()
    table = initialize("bert.embeddings.word_embeddings.weight", (300, 8), CONFIG, 1, "google")
    assert table.any(axis=1).all()  # the padding row too


def test_a_model_is_drawn_as_it_is_asked(tiny: BertConfig) -> None:
    name = "bert.encoder.layer.0.output.dense.weight"
    ours, google = (
        BertForSequenceClassification(tiny, backend="numpy", seed=5, **how).parameters[name]
        for how in ({}, {"initialization": "google"})
    )
    assert np.abs(ours).max() > 0.04 >= np.abs(google).max()
    with pytest.raises(InputError, match="'apple': choose one of huggingface, google"):
        BertForSequenceClassification(tiny, backend="numpy", initialization="apple")


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


def test_sinusoids_turn_by_the_same_angles_everywhere() -> None:
    """Row t + k is one rotation of row t, for every t; their mean square is what was asked for."""
    waves = sinusoids(512, 64, 0.06).astype(np.float64)
    sine, cosine = waves[:, :32], waves[:, 32:]
    np.testing.assert_allclose(sine**2 + cosine**2, 2 * 0.06**2, rtol=1e-5)
    angle = 5 / 10000 ** (np.arange(32) / 32)
    np.testing.assert_allclose(
        sine[5:], sine[:-5] * np.cos(angle) + cosine[:-5] * np.sin(angle), atol=1e-6
    )
    assert sinusoids(3, 5, 1.0).shape == (3, 5)
