"""Text → answer: a fine-tuned model with its tokenizer, ready to be called; one file a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.hub import DEFAULT_MODEL, resolve_model
from minibert.pipelines.base import Pipeline
from minibert.pipelines.feature_extraction import FeatureExtractionPipeline
from minibert.pipelines.fill_mask import FillMaskPipeline
from minibert.pipelines.multiple_choice import MultipleChoicePipeline
from minibert.pipelines.question_answering import QuestionAnsweringPipeline
from minibert.pipelines.sentence_similarity import SentenceSimilarityPipeline
from minibert.pipelines.text_classification import TextClassificationPipeline
from minibert.pipelines.token_classification import TokenClassificationPipeline

PIPELINES: dict[str, type[Pipeline]] = {
    "feature-extraction": FeatureExtractionPipeline,
    "fill-mask": FillMaskPipeline,
    "multiple-choice": MultipleChoicePipeline,
    "question-answering": QuestionAnsweringPipeline,
    "sentence-similarity": SentenceSimilarityPipeline,
    "text-classification": TextClassificationPipeline,
    "token-classification": TokenClassificationPipeline,
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
OF_ARCHITECTURE = {
    "BertForMaskedLM": "fill-mask",
    "BertForMultipleChoice": "multiple-choice",
    "BertForPreTraining": "fill-mask",
    "BertForQuestionAnswering": "question-answering",
    "BertForSequenceClassification": "text-classification",
    "BertForTokenClassification": "token-classification",
    "BertModel": "feature-extraction",
}


def pipeline(
    task: str | None = None, model: str | Path = DEFAULT_MODEL, **arguments: Any
) -> Pipeline:
    """The pipeline of a task's name ("sentiment-analysis", "ner", …) over a directory or hub name.

    Without a name, the one that the model was trained for. Further arguments: batch_size, and
    those of `from_pretrained` (backend, threads, dtype, …).
    """
    directory = resolve_model(str(model))
    task = task_of(directory) if task is None else task
    kind = PIPELINES.get(ALIASES.get(task, task))
    if kind is None:
        known = ", ".join(sorted([*PIPELINES, *ALIASES]))
        raise InputError(f"task {task!r} is unknown: choose one of {known}")
    return kind.from_pretrained(directory, **arguments)


def task_of(directory: Path) -> str:
    """The task that config.json's `architectures` names."""
    names = BertConfig.from_pretrained(directory).architectures or ()
    for name in names:
        if name in OF_ARCHITECTURE:
            return OF_ARCHITECTURE[name]
    raise InputError(
        f"{directory}: config.json does not say what the model was trained for (architectures: "
        f"{', '.join(names) or 'none'}); name the task"
    )


__all__ = [
    "FeatureExtractionPipeline",
    "FillMaskPipeline",
    "MultipleChoicePipeline",
    "Pipeline",
    "QuestionAnsweringPipeline",
    "SentenceSimilarityPipeline",
    "TextClassificationPipeline",
    "TokenClassificationPipeline",
    "pipeline",
]
