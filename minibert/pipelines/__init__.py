"""Text → answer: a fine-tuned model with its tokenizer, ready to be called; one file a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minibert.errors import InputError
from minibert.pipelines.base import Pipeline
from minibert.pipelines.feature_extraction import FeatureExtractionPipeline
from minibert.pipelines.fill_mask import FillMaskPipeline
from minibert.pipelines.sentence_similarity import SentenceSimilarityPipeline
from minibert.pipelines.text_classification import TextClassificationPipeline

PIPELINES: dict[str, type[Pipeline]] = {
    "feature-extraction": FeatureExtractionPipeline,
    "fill-mask": FillMaskPipeline,
    "sentence-similarity": SentenceSimilarityPipeline,
    "text-classification": TextClassificationPipeline,
}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}


def pipeline(task: str, model: str | Path, **arguments: Any) -> Pipeline:
    """The pipeline of a task's name ("sentiment-analysis", "ner", …) over a directory or hub name.

    Further arguments: batch_size, and those of `from_pretrained` (backend, threads, dtype, …).
    """
    kind = PIPELINES.get(ALIASES.get(task, task))
    if kind is None:
        known = ", ".join(sorted([*PIPELINES, *ALIASES]))
        raise InputError(f"task {task!r} is unknown: choose one of {known}")
    return kind.from_pretrained(model, **arguments)


__all__ = ["Pipeline", "TextClassificationPipeline", "pipeline"]
