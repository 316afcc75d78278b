"""Question answering: the part of a context that answers a question, or that there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from minibert.config import BertConfig
from minibert.data.features import Features
from minibert.data.squad import QuestionExamples
from minibert.errors import InputError
from minibert.models import BertForQuestionAnswering, BertPreTrainedModel
from minibert.tasks.base import Outputs
from minibert.tasks.best_spans import best_spans
from minibert.tasks.n_best import NBest, n_best
from minibert.tasks.question_windows import QuestionFeatures, question_features
from minibert.tasks.squad_metrics import score_squad
from minibert.tokenization import BertTokenizer


@dataclass(frozen=True)
class QuestionAnswering:
    """The settings of windows and answers, by the names of transformers' run_qa.py."""

    version_2_with_negative: bool = False  # a question may have no answer
    doc_stride: int = 128  # where the next window begins; not transformers' overlap
    max_query_length: int = 64
    n_best_size: int = 20
    max_answer_length: int = 30
    null_score_diff_threshold: float = 0.0

    model_class: ClassVar[type[BertPreTrainedModel]] = BertForQuestionAnswering

    def __post_init__(self) -> None:
        for name in ("doc_stride", "max_query_length", "n_best_size", "max_answer_length"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, got {getattr(self, name)}")

    @classmethod
    def of(
        cls, train: QuestionExamples, version_2_with_negative: bool | None = None, **settings: Any
    ) -> Self:
        """The task of a training file: version 2 where it has questions without an answer."""
        if train.answers is None:
            raise InputError(f"{train.path}: no question has 'answers'; training wants them")
        if version_2_with_negative is False and train.unanswerable:
            raise InputError(
                f"{train.path}: {train.unanswerable} of {len(train)} questions have no answer; "
                "drop `--version_2_with_negative false`, or remove them"
            )
        return cls(version_2_with_negative or train.unanswerable > 0, **settings)

    @classmethod
    def of_config(cls, config: BertConfig, **settings: Any) -> Self:
        """The task of a fine-tuned model, whose configuration says nothing of it."""
        return cls(**settings)

    def config_changes(self) -> dict[str, Any]:
        """What a model's configuration has to say for this task: a start and an end logit."""
        return {"num_labels": 2}

    def features(
        self, examples: QuestionExamples, tokenizer: BertTokenizer, max_length: int = 384
    ) -> tuple[QuestionFeatures, int]:
        """The windows of a file, and how many questions were cut to `max_query_length`."""
        return question_features(
            examples, tokenizer, max_length, self.max_query_length, lambda room: self.doc_stride
        )

    def n_best(self, outputs: Outputs, features: QuestionFeatures) -> list[NBest]:
        """The best answers of each question, as SQuAD's evaluation looks for them."""
        return n_best(
            features,
            outputs["start_logits"],
            outputs["end_logits"],
            n_best_size=self.n_best_size,
            max_answer_length=self.max_answer_length,
            version_2_with_negative=self.version_2_with_negative,
        )

    def answers(self, outputs: Outputs, features: QuestionFeatures) -> dict[str, str]:
        """{question id: answer}, what SQuAD's official scorers read."""
        best = self.n_best(outputs, features)
        settings = self.version_2_with_negative, self.null_score_diff_threshold
        ids = features.examples.ids
        return {name: found.answer(*settings) for name, found in zip(ids, best, strict=True)}

    def predictions(self, outputs: Outputs, features: Features) -> list[dict[str, str]]:
        """A row for each question, as predictions.jsonl has it: {"id", "answer"}."""
        assert isinstance(features, QuestionFeatures)  # which `features` makes
        answers = self.answers(outputs, features)
        return [{"id": name, "answer": text} for name, text in answers.items()]

    def metrics(self, outputs: Outputs, features: Features) -> dict[str, float]:
        """exact_match and f1 in percent; in version 2 also those of either kind of question."""
        assert isinstance(features, QuestionFeatures)  # which `features` makes
        answers = self.answers(outputs, features)
        return score_squad(features.examples, answers, self.version_2_with_negative)

    @property
    def metric_names(self) -> list[str]:
        """The names that `metrics` gives for every file."""
        return ["exact_match", "f1"]

    @property
    def best_metric(self) -> str:
        """The metric that chooses the best checkpoint."""
        return "f1"

    def decode(
        self, outputs: Outputs, features: QuestionFeatures, **settings: Any
    ) -> list[list[dict[str, Any]]]:
        """The best {"score", "start", "end", "answer"} a question, best first.

        settings: those of `minibert.tasks.best_spans`.
        """
        starts, ends = outputs["start_logits"], outputs["end_logits"]
        return best_spans(features, starts, ends, **settings)
