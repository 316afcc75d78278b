"""Three traces that everybody can make: nano, minilm and base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minibert.config import BertConfig
from minibert.models import BertForSequenceClassification
from minibert.models.base import BertPreTrainedModel, Run
from minibert.parameters import Layout
from minibert.verify.trace.ordered import OrderedBackend
from minibert.verify.trace.rule import WEIGHTS, pieces, rule_weights
from minibert.verify.trace.setup import Recipe, Setup
from minibert.verify.trace.writing import Weights, write_trace

SEED = 1
DROPOUT = Run(seed=2, step=3)
NANO = BertConfig(
    vocab_size=19,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=7,
    num_labels=3,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.2,
    classifier_dropout=0.3,
)
NANO_INPUTS = {
    "input_ids": np.array([[1, 7, 7, 11, 18, 2], [1, 5, 9, 2, 0, 0], [1, 16, 7, 4, 12, 2]]),
    "attention_mask": np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]),
    "token_type_ids": np.array([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]),
    "labels": np.array([2, 0, -100]),
}
"""A full row with a repeated token, a padded row, and a row that the loss ignores."""

TEXTS = (
    "A quiet, beautifully acted film that never once raises its voice.",
    "Dreadful.",
    "It runs for two and a half hours, and I looked at my watch after ten minutes.",
    "Not bad at all!",
    "The first half is a comedy and the second is not, which is a pity: the jokes were good.",
    "Good, good, good.",
    "Who thought that 94 minutes could feel so cheap?",
    "One for the fans; everybody else may wait for the book.",
)


def nano() -> Setup:
    """2 layers, 1,4xx parameters; in ordered arithmetic, so that its bytes are fixed."""
    weights = rule_weights(_layout(BertForSequenceClassification, NANO), SEED, 2.0**-1)
    return Setup(
        BertForSequenceClassification, NANO, weights, NANO_INPUTS,
        dropout=DROPOUT, recipe=Recipe(), xp=OrderedBackend(),
    )  # fmt: skip


def _layout(kind: type[BertPreTrainedModel], config: BertConfig) -> Layout:
    return Layout(kind.shapes(config))
