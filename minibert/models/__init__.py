"""Layers composed into models: the encoder, and one file for each head."""

from __future__ import annotations

from minibert.models.base import BertPreTrainedModel, ModelOutput, Run
from minibert.models.bert import BertModel
from minibert.models.sequence_classification import BertForSequenceClassification

__all__ = [
    "BertForSequenceClassification",
    "BertModel",
    "BertPreTrainedModel",
    "ModelOutput",
    "Run",
]
