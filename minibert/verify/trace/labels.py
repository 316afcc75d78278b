"""Labels for texts that come without: of each head the kind it learns from, the same every time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.layers.losses import IGNORE_INDEX

Inputs = dict[str, Any]


def labelled(head: str, config: BertConfig, inputs: Inputs) -> Inputs:
    """Inputs (B, S) of B texts as those of the model class `head`, with labels.

    Multiple choice takes the texts as the choices of one question, (1, B, S), sentence embedding
    every two as a pair, (B/2, 2, S). InputError where there are too few, or an odd one.
    """
    B = len(inputs["input_ids"])
    match head:
        case "BertModel":
            return inputs
        case "BertForMultipleChoice":
            if B < 2:
                raise InputError(f"{head}: got {B} text, want the choices of a question: 2 or more")
            return _grouped(inputs, B) | {"labels": np.array([B - 1])}
        case "BertForSentenceEmbedding":
            if B % 2:
                raise InputError(f"{head}: want pairs of texts, got {B}: an odd number")
            return _grouped(inputs, 2) | {"labels": 1.0 - np.arange(B // 2) % 2}  # cosines
        case "BertForQuestionAnswering":
            last = inputs["attention_mask"].sum(axis=1) - 1
            return inputs | {"start_positions": np.ones_like(last), "end_positions": last}
        case "BertForTokenClassification":
            columns = np.indices(inputs["input_ids"].shape)[1]
            named = _where_real(inputs, columns > 0, columns % config.num_labels)
            return inputs | {"labels": named}
        case "BertForMaskedLM":
            return inputs | {"labels": _every_third(inputs)}
        case "BertForPreTraining":
            return inputs | {"labels": _every_third(inputs), "next_sentence_label": _alternate(B)}
        case "BertForSequenceClassification" if _wants_numbers(config):
            numbers = np.arange(B * config.num_labels) % 2.0
            return inputs | {"labels": numbers.reshape(B, config.num_labels)}
    return inputs | {"labels": _alternate(B)}


def _alternate(B: int) -> NDArray[Any]:
    """(B,) classes 0, 1, 0, …, the last one ignored if there are more."""
    labels = np.arange(B) % 2
    labels[-1] = IGNORE_INDEX if B > 1 else 0
    return labels


def _every_third(inputs: Inputs) -> NDArray[Any]:
    """(B, S): the token itself in columns 1, 4, …; [CLS] stands in column 0 and is never asked."""
    ids = inputs["input_ids"]
    return _where_real(inputs, np.indices(ids.shape)[1] % 3 == 1, ids)


def _where_real(inputs: Inputs, wanted: Any, labels: Any) -> NDArray[Any]:
    real: NDArray[Any] = inputs["attention_mask"].astype(bool)
    return np.where(real & wanted, labels, IGNORE_INDEX)


def _grouped(inputs: Inputs, size: int) -> Inputs:
    return {name: rows.reshape(-1, size, rows.shape[-1]) for name, rows in inputs.items()}


def _wants_numbers(config: BertConfig) -> bool:
    """Regression and multi-label classification: (B, num_labels) floats."""
    if config.problem_type is None:
        return config.num_labels == 1
    return config.problem_type != "single_label_classification"
