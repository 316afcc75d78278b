"""Classifying a text, or a pair of texts: one label, several labels, or a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from minibert.config import BertConfig
from minibert.data.features import Features
from minibert.data.labels import ProblemType, encode_labels, label_vocabulary, problem_type_of
from minibert.data.readers import Examples
from minibert.errors import InputError
from minibert.models import BertForSequenceClassification, BertPreTrainedModel
from minibert.tasks.base import Outputs
from minibert.tasks.label_sets import in_the_order_of
from minibert.tasks.metrics import classification_metrics, multi_label_metrics, regression_metrics
from minibert.tokenization import BertTokenizer


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (R, K) of host logits (R, K)."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), np.float64)


METRICS: dict[str, Callable[[NDArray[Any], NDArray[Any]], dict[str, float]]] = {
    "single_label_classification": classification_metrics,
    "regression": regression_metrics,
    "multi_label_classification": multi_label_metrics,
}
SCORES = {
    "single_label_classification": "softmax",
    "regression": "none",
    "multi_label_classification": "sigmoid",
}
BEST = {
    "single_label_classification": "accuracy",
    "regression": "spearman",
    "multi_label_classification": "f1",
}


@dataclass(frozen=True)
class Classification:
    """What the training file says about the task; every other file must agree with it."""

    problem_type: ProblemType
    label2id: dict[str, int]  # empty for regression

    model_class: ClassVar[type[BertPreTrainedModel]] = BertForSequenceClassification

    @classmethod
    def of(cls, train: Examples, problem_type: ProblemType | None = None) -> Classification:
        """The task of a training file, as `minibert.data.labels` reads its labels."""
        problem_type = problem_type or problem_type_of(train)
        return cls(problem_type, label_vocabulary(train, problem_type))

    @classmethod
    def of_config(cls, config: BertConfig) -> Classification:
        """The task that a fine-tuned model was trained for.

        One logit of which nothing is said answers yes or no: its score is a sigmoid, as in
        transformers' pipeline.
        """
        one = config.num_labels == 1
        inferred = "multi_label_classification" if one else "single_label_classification"
        problem = cast(ProblemType, config.problem_type or inferred)
        return cls(problem, {} if problem == "regression" else dict(config.label2id))

    def in_the_order_of(self, config: BertConfig) -> Classification:
        """With the label numbers of a model that was trained for these labels already."""
        return replace(self, label2id=in_the_order_of(config, self.label2id))

    def config_changes(self) -> dict[str, Any]:
        """What a model's configuration has to say for this task."""
        changes: dict[str, Any] = {"problem_type": self.problem_type}
        if not self.label2id:
            return changes | {"num_labels": 1}
        return changes | {"label2id": self.label2id}

    def features(
        self, examples: Examples, tokenizer: BertTokenizer, max_length: int
    ) -> tuple[Features, int]:
        """Ids and labels of a file, and how many texts were longer than `max_length`."""
        encodings, truncated = tokenizer.encode(
            examples.sentence1, examples.sentence2, max_length, "longest_first"
        )
        ids, type_ids = [e.ids for e in encodings], [e.type_ids for e in encodings]
        return Features(ids, type_ids, self.labels(examples)), truncated

    def labels(self, examples: Examples) -> NDArray[Any] | None:
        """A file's labels as arrays, where it has some; InputError for one that is unknown."""
        if examples.labels is None:
            return None
        return encode_labels(examples, self.label2id or None, self.problem_type)

    def metrics(self, outputs: Outputs, features: Features) -> dict[str, float]:
        """Scores of logits (R, K) against the features' labels, by name."""
        assert features.labels is not None
        logits = np.asarray(outputs["logits"], np.float64)
        return METRICS[self.problem_type](logits, features.labels)

    @property
    def metric_names(self) -> list[str]:
        """The names that `metrics` gives."""
        classes = self.problem_type == "single_label_classification"
        one = np.zeros((1, len(self.label2id) or 1))
        return list(METRICS[self.problem_type](one, np.zeros(1, np.int64) if classes else one))

    @property
    def best_metric(self) -> str:
        """The metric that chooses the best checkpoint."""
        return BEST[self.problem_type]

    def decode(
        self, outputs: Outputs, top_k: int | None = None, function_to_apply: str | None = None
    ) -> list[list[dict[str, Any]]]:
        """Logits (R, K) → for each row its `top_k` best {"label", "score"} (None: all of them).

        Scores are softmax (single-label), sigmoid (multi-label) or the number itself (regression,
        whose labels are "LABEL_0", …), as transformers' pipeline has them; or `function_to_apply`.
        """
        if top_k is not None and top_k < 0:
            raise InputError(f"top_k must be at least 0, got {top_k}")
        scores = self._scores(np.asarray(outputs["logits"], np.float64), function_to_apply)
        names = {index: name for name, index in self.label2id.items()}
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        return [
            [{"label": names.get(k, f"LABEL_{k}"), "score": float(row[k])} for k in best.tolist()]
            for row, best in zip(scores, order, strict=True)
        ]

    def predictions(self, outputs: Outputs, features: Features) -> list[Any]:
        """A row for each text, as predictions.jsonl has it: {"label", "score"}.

        Multi-label: all labels, best first; regression: {"score"} alone.
        """
        if self.problem_type == "regression":
            return [{"score": row[0]["score"]} for row in self.decode(outputs)]
        if self.problem_type == "multi_label_classification":
            return self.decode(outputs)
        return [row[0] for row in self.decode(outputs, top_k=1)]

    def _scores(self, logits: NDArray[np.float64], function: str | None) -> NDArray[np.float64]:
        function = (function or SCORES[self.problem_type]).lower()
        if function == "none":
            return logits
        if function == "sigmoid":
            return 0.5 * (1.0 + np.tanh(0.5 * logits))
        if function == "softmax":
            return softmax(logits)
        raise InputError(f"function_to_apply {function!r}: choose softmax, sigmoid or none")
