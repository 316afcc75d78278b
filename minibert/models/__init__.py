"""Layers composed into models: the encoder, and one file for each head."""

from __future__ import annotations

from minibert.models.base import BertPreTrainedModel
from minibert.models.bert import BertModel
from minibert.models.masked_lm import BertForMaskedLM
from minibert.models.multiple_choice import BertForMultipleChoice
from minibert.models.next_sentence import BertForNextSentencePrediction
from minibert.models.pre_training import BertForPreTraining
from minibert.models.question_answering import BertForQuestionAnswering
from minibert.models.sentence_embedding import BertForSentenceEmbedding
from minibert.models.sequence_classification import BertForSequenceClassification
from minibert.models.shards import ModelOutput, Run
from minibert.models.token_classification import BertForTokenClassification

__all__ = [
    "BertForMaskedLM",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSentenceEmbedding",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "BertPreTrainedModel",
    "ModelOutput",
    "Run",
]
