"""Text → answer: a fine-tuned model with its tokenizer, ready to be called; one file a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.models import BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.pipelines.feature_extraction import FeatureExtractionPipeline
from minibert.pipelines.fill_mask import FillMaskPipeline
from minibert.pipelines.loading import named, not_ours
from minibert.pipelines.multiple_choice import MultipleChoicePipeline
from minibert.pipelines.next_sentence import NextSentencePipeline
from minibert.pipelines.question_answering import QuestionAnsweringPipeline
from minibert.pipelines.sentence_similarity import SentenceSimilarityPipeline
from minibert.pipelines.text_classification import TextClassificationPipeline
from minibert.pipelines.token_classification import TokenClassificationPipeline
from minibert.pipelines.trained_for import task_of, task_of_architectures
from minibert.tokenization import BertTokenizer

PIPELINES: dict[str, type[Pipeline]] = {
    kind.task: kind
    for kind in (
        FeatureExtractionPipeline,
        FillMaskPipeline,
        MultipleChoicePipeline,
        NextSentencePipeline,
        QuestionAnsweringPipeline,
        SentenceSimilarityPipeline,
        TextClassificationPipeline,
        TokenClassificationPipeline,
    )
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}


def pipeline(
    task: str | None = None,
    model: str | Path | BertPreTrainedModel | None = None,
    config: str | Path | BertConfig | None = None,
    tokenizer: str | Path | BertTokenizer | None = None,
    *,
    revision: str | None = None,
    **arguments: Any,
) -> Pipeline:
    """The pipeline of a task's name ("sentiment-analysis", "ner", …) over a model.

    model: a directory, a hub name or a model that is loaded; feature-extraction and
    sentence-similarity have a default. Without a task, the one that the model was trained for.
    config, tokenizer, revision and further arguments: those of `Pipeline.from_pretrained` (device,
    backend, threads, dtype, …), and the options of a call, which then hold for every call.
    """
    arguments |= {"config": config, "tokenizer": tokenizer}
    kind = None if task is None else _kind(task)
    if model is None:
        model = _default_model(task, kind)
    if kind is None and isinstance(model, str | Path):
        with named(model, revision) as directory:
            return _kind(task_of(directory)).from_pretrained(directory, **arguments)
    kind = kind or _kind_of(model)
    return kind.from_pretrained(model, revision=revision, **arguments)


def _default_model(task: str | None, kind: type[Pipeline] | None) -> str:
    if kind is None:
        raise InputError('name a task or a model, such as pipeline("sentence-similarity")')
    if kind.default_model is None:
        raise InputError(
            f"{task}: name a model: pipeline({task!r}, model=a directory or a hub name); "
            "there is no default one for this task"
        )
    return kind.default_model


def _kind_of(model: object) -> type[Pipeline]:
    """The pipeline of a model that is loaded."""
    if not isinstance(model, BertPreTrainedModel):
        raise not_ours("model", model, "model of minibert")
    name = type(model).__name__
    return _kind(task_of_architectures(name, [name]))


def _kind(task: str) -> type[Pipeline]:
    kind = PIPELINES.get(ALIASES.get(task, task)) if isinstance(task, str) else None
    if kind is None:
        known = ", ".join(sorted([*PIPELINES, *ALIASES]))
        is_model = isinstance(task, str) and "/" in task
        hint = f"; if it is a model: pipeline(model={task!r})" if is_model else ""
        raise InputError(f"task {task!r} is unknown: choose one of {known}{hint}")
    return kind


__all__ = [
    "FeatureExtractionPipeline",
    "FillMaskPipeline",
    "MultipleChoicePipeline",
    "NextSentencePipeline",
    "Pipeline",
    "QuestionAnsweringPipeline",
    "SentenceSimilarityPipeline",
    "TextClassificationPipeline",
    "TokenClassificationPipeline",
    "pipeline",
    "task_of",
]
