"""Choosing the one right continuation or answer among several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minibert.config import BertConfig
from minibert.data.features import Features
from minibert.data.multiple_choice import MultipleChoiceExamples
from minibert.errors import InputError
from minibert.models import BertForMultipleChoice, BertPreTrainedModel
from minibert.tasks.base import Outputs
from minibert.tasks.classification import softmax
from minibert.tasks.metrics import accuracy
from minibert.tokenization import BertTokenizer


@dataclass(frozen=True)
class MultipleChoice:
    """The task needs to know nothing: the model scores a choice at a time, be there 2 or 5."""

    model_class: ClassVar[type[BertPreTrainedModel]] = BertForMultipleChoice
    metric_names: ClassVar[tuple[str, ...]] = ("accuracy",)
    best_metric: ClassVar[str] = "accuracy"

    @classmethod
    def of(cls, train: MultipleChoiceExamples) -> MultipleChoice:
        """The task of a training file, which must have labels."""
        if train.labels is None:
            raise InputError(f'{train.path}: there are no labels; a column "label" is wanted')
        return cls()

    @classmethod
    def of_config(cls, config: BertConfig) -> MultipleChoice:
        """The task that a fine-tuned model was trained for."""
        return cls()

    def in_the_order_of(self, config: BertConfig) -> MultipleChoice:
        """The same: choices have no names whose order a model could know."""
        return self

    def config_changes(self) -> dict[str, Any]:
        """What a model's configuration has to say for this task: nothing."""
        return {}

    def features(
        self, examples: MultipleChoiceExamples, tokenizer: BertTokenizer, max_length: int
    ) -> tuple[Features, int]:
        """R · C sequences, [CLS] first [SEP] choice [SEP], those of an example neighbours.

        Also how many examples had a sequence longer than `max_length`; the longer text is cut.
        """
        count = examples.num_choices
        firsts = [text for text in examples.first for _ in range(count)]
        choices = [choice for row in examples.choices for choice in row]
        encodings, _ = tokenizer.encode(firsts, choices, max_length, "longest_first")
        cut = np.array([encoding.truncated for encoding in encodings]).reshape(-1, count)
        features = Features(
            ids=[encoding.ids for encoding in encodings],
            type_ids=[encoding.type_ids for encoding in encodings],
            labels=None if examples.labels is None else np.array(examples.labels, np.int64),
            group=count,
        )
        return features, int(cut.any(axis=1).sum())

    def metrics(self, outputs: Outputs, features: Features) -> dict[str, float]:
        """The share of examples whose right choice has the highest of the logits (R, C)."""
        if features.labels is None:
            raise InputError("metrics of multiple choice need features with labels")
        return {"accuracy": accuracy(np.argmax(outputs["logits"], axis=1), features.labels)}

    def decode(self, outputs: Outputs, top_k: int | None = None) -> list[list[dict[str, Any]]]:
        """Logits (R, C) → for each row its `top_k` best (None: all of them).

        Each is {"label": the number of a choice from 0, "score": its softmax over the choices}.
        """
        if top_k is not None and top_k < 0:
            raise InputError(f"top_k must be at least 0, got {top_k}")
        scores = softmax(np.asarray(outputs["logits"], np.float64))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return [
            [{"label": c, "score": float(row[c])} for c in best.tolist()]
            for row, best in zip(scores, order, strict=True)
        ]

    def predictions(self, outputs: Outputs, features: Features) -> list[dict[str, Any]]:
        """The best {"label", "score"} of each example."""
        return [row[0] for row in self.decode(outputs, top_k=1)]
