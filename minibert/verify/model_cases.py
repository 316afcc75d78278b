"""Random models to check: small ones whose sizes all differ, and one of BERT-base's size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from minibert.config import BertConfig
from minibert.layers.losses import IGNORE_INDEX
from minibert.models import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSentenceEmbedding,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertPreTrainedModel,
    Run,
)
from minibert.packing import PackedBatch, pack_sequences

DROPOUT = Run(seed=3, step=4)
SHARP = 2.5
"""Scale of query and key at which their gradients are not lost in finite differences' rounding."""
LENGTHS = (5, 3, 9, 9, 1, 4)

KINDS: dict[str, tuple[type[BertPreTrainedModel], dict[str, Any]]] = {
    "single-label classification": (BertForSequenceClassification, {}),
    "regression": (BertForSequenceClassification, {"num_labels": 1, "hidden_act": "gelu_new"}),
    "multi-label classification": (
        BertForSequenceClassification,
        {"problem_type": "multi_label_classification", "num_labels": 5, "classifier_dropout": 0.3},
    ),
    "token classification": (BertForTokenClassification, {"classifier_dropout": 0.3}),
    "question answering": (BertForQuestionAnswering, {}),
    "multiple choice": (BertForMultipleChoice, {}),
    "masked LM": (BertForMaskedLM, {"hidden_act": "gelu_new"}),
    "next sentence": (BertForNextSentencePrediction, {}),
    "pre-training": (BertForPreTraining, {}),
    "sentence embedding": (BertForSentenceEmbedding, {}),
}
"""Every head: model class, and what its small configuration changes."""


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


def random_model(
    kind: type[BertPreTrainedModel],
    config: BertConfig,
    lengths: tuple[int, ...],
    seed: int = 0,
    attention: float = 1.0,
) -> tuple[Any, PackedBatch]:
    """A float64 model with every parameter random (layer norms and biases too), and a batch.

    `attention` scales query and key: at SHARP it prefers some tokens to others.
    """
    rng = np.random.default_rng(seed)
    model = kind(config, backend="numpy", dtype="float64")
    _ = model.parameters.flat
    for name, array in model.parameters.items():
        array[...] = rng.normal(size=array.shape) / np.sqrt(
            array.shape[-1] if array.ndim > 1 else 9
        )
        if "query" in name or "key" in name:
            array[...] *= attention
    ids = [rng.integers(1, config.vocab_size, n) for n in lengths]
    types = [rng.integers(0, config.type_vocab_size, n) for n in lengths]
    return model, _labelled(kind, config, pack_sequences(ids, types), rng)


def _labelled(
    kind: type[BertPreTrainedModel], config: BertConfig, batch: PackedBatch, rng: Any
) -> PackedBatch:
    """The batch with labels as this kind of model takes them; some tokens have none."""
    B = batch.num_sequences
    if kind is BertForSentenceEmbedding:
        return replace(batch, group=2)
    if kind is BertForMultipleChoice:
        return replace(batch, group=2, labels=rng.integers(0, 2, B // 2))
    if kind is BertForQuestionAnswering:
        lengths = np.diff(batch.offsets)
        return replace(batch, labels=rng.integers(0, lengths[:, None], (B, 2)))
    if kind in (BertForTokenClassification, BertForMaskedLM, BertForPreTraining):
        classes = config.num_labels if kind is BertForTokenClassification else config.vocab_size
        token_labels = rng.integers(0, classes, batch.num_tokens)
        token_labels[rng.random(batch.num_tokens) < 0.4] = IGNORE_INDEX
        batch = replace(batch, token_labels=token_labels)
    if kind in (BertForNextSentencePrediction, BertForPreTraining):
        return replace(batch, labels=rng.integers(0, 2, B))
    if kind is BertForSequenceClassification:
        return replace(batch, labels=_sequence_labels(config, B, rng))
    return batch


def _sequence_labels(config: BertConfig, B: int, rng: np.random.Generator) -> Any:
    K = config.num_labels
    if config.problem_type == "regression" or K == 1:
        return rng.normal(size=(B, K))
    if config.problem_type == "multi_label_classification":
        return rng.integers(0, 2, (B, K)).astype(float)
    return rng.integers(0, K, B)
