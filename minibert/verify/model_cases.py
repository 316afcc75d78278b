"""Random models to check: small ones whose sizes all differ, and one of BERT-base's size."""

from __future__ import annotations

import numpy as np

from minibert.config import BertConfig
from minibert.models import BertForSequenceClassification, Run
from minibert.packing import PackedBatch, pack_sequences

DROPOUT = Run(seed=3, step=4)


def small_config(**changes: object) -> BertConfig:
    """2 layers, every size different."""
    sizes = {
        "vocab_size": 53,
        "hidden_size": 24,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "intermediate_size": 40,
        "max_position_embeddings": 13,
        "num_labels": 4,
    }
    return BertConfig.from_dict({}).replace(**(sizes | changes))


def random_classifier(
    config: BertConfig, lengths: tuple[int, ...], seed: int = 0
) -> tuple[BertForSequenceClassification, PackedBatch]:
    """A float64 model with every parameter random (layer norms and biases too), and a batch."""
    rng = np.random.default_rng(seed)
    model = BertForSequenceClassification(config, backend="numpy", dtype="float64")
    _ = model.parameters.flat
    for array in model.parameters.values():
        array[...] = rng.normal(size=array.shape) / np.sqrt(
            array.shape[-1] if array.ndim > 1 else 9
        )
    ids = [rng.integers(1, config.vocab_size, n) for n in lengths]
    types = [rng.integers(0, config.type_vocab_size, n) for n in lengths]
    return model, pack_sequences(ids, types, _labels(config, len(lengths), rng))


def _labels(config: BertConfig, B: int, rng: np.random.Generator) -> object:
    K = config.num_labels
    if config.problem_type == "regression" or K == 1:
        return rng.normal(size=(B, K))
    if config.problem_type == "multi_label_classification":
        return rng.integers(0, 2, (B, K)).astype(float)
    return rng.integers(0, K, B)
