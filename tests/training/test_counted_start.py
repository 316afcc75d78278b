"""Tables begin equally wide, and are narrowed in the end to the same function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import toy_corpus

from minibert import BertConfig, BertForPreTraining
from minibert.training.counted_start import (
    POSITIONS,
    TYPES,
    WORDS,
    attend_to_the_alike,
    narrow_embeddings,
    start_from_counts,
)
from minibert.training.pretraining_sources import Sources


def test_words_positions_and_types_begin_equally_wide(tmp_path: Path) -> None:
    store = toy_corpus.make_store(tmp_path)
    documents = np.arange(store.num_documents)
    model = BertForPreTraining(toy_corpus.config(), backend="numpy", seed=5)
    start_from_counts(model, Sources(store, documents, store, documents[:0]), 6, quiet=True)
    for name in (WORDS, POSITIONS, TYPES):
        table = model.parameters[name]
        assert np.sqrt(np.mean(table**2)) == pytest.approx(
            3 * model.config.initializer_range, rel=0.3
        )
    assert model.parameters[WORDS][1:].any(axis=1).all()  # also of pieces that do not occur
    for layer in range(model.config.num_hidden_layers):
        name = f"bert.encoder.layer.{layer}.attention.self"
        key, query = (model.parameters[f"{name}.{part}.weight"] for part in ("key", "query"))
        assert np.array_equal(key, query)


def test_attention_begins_with_the_alike() -> None:
    """In every layer and head a token looks at its like more than at others, on the mean."""
    config = BertConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=40, initializer_range=0.1,
    )  # fmt: skip
    model = BertForPreTraining(config, backend="numpy", seed=3, threads=1)
    attend_to_the_alike(model)
    model.parameters[POSITIONS][...] = 0
    ids = np.array([[*range(11, 21), *range(11, 21)]])
    for probabilities in model(ids, output_attentions=True).attentions:  # (1, N, S, S)
        for head in probabilities[0]:
            assert np.diagonal(head, 10).mean() > 1.3 * head.mean()


@pytest.mark.parametrize(
    ("width", "power"), [(0.13, 16), (0.05, 4), (0.02, 2), (0.011, 1), (0.004, 1)]
)
def test_narrow_tables_compute_the_same(width: float, power: int) -> None:
    config = BertConfig(
        vocab_size=211, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=40,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.3,
    )  # fmt: skip
    model = BertForPreTraining(config, backend="numpy", seed=3)
    rng = np.random.default_rng(4)
    for name, value in model.parameters.items():  # a trained model's: nothing is 0 or 1
        value[...] += 0.05 * rng.standard_normal(value.shape).astype(np.float32)
        if "_embeddings.weight" in name:
            value[...] *= width / value.std()
    batch = {
        "input_ids": rng.integers(0, 211, (5, 23)),
        "token_type_ids": rng.integers(0, 2, (5, 23)),
        "attention_mask": np.arange(23) < rng.integers(7, 24, (5, 1)),
    }
    before = model(**batch)
    words = model.parameters[WORDS].copy()

    assert narrow_embeddings(model) == power

    after = model(**batch)
    assert np.array_equal(model.parameters[WORDS], words / power)
    np.testing.assert_allclose(after.prediction_logits, before.prediction_logits, atol=2e-5)
    np.testing.assert_allclose(
        after.seq_relationship_logits, before.seq_relationship_logits, atol=2e-6
    )
    assert narrow_embeddings(model) == 1.0
