"""Text → answer: a fine-tuned model with its tokenizer, ready to be called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from minibert.data.features import Features
from minibert.errors import InputError
from minibert.hub import resolve_model
from minibert.models import BertForSequenceClassification
from minibert.tasks.classification import Classification
from minibert.tokenization import BertTokenizer
from minibert.training.evaluation import predict_logits


class TextClassificationPipeline:
    """classify("some text") → {"label": …, "score": …}, as transformers' pipeline does."""

    def __init__(self, model: BertForSequenceClassification, tokenizer: BertTokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.task = Classification.of_config(model.config)

    @classmethod
    def from_pretrained(cls, name_or_directory: str | Path, **model_arguments: Any) -> Self:
        """From a directory that `scripts/finetune.py` or transformers wrote, or a hub name."""
        directory = resolve_model(str(name_or_directory))
        model = BertForSequenceClassification.from_pretrained(directory, **model_arguments)
        report = model.load_report
        if report is not None and any(name.startswith("classifier") for name in report.missing):
            raise InputError(
                f"{name_or_directory} has no trained classifier: fine-tune it first, "
                f"python scripts/finetune.py --model_name_or_path {name_or_directory}"
            )
        return cls(model, BertTokenizer.from_pretrained(directory))

    def __call__(
        self,
        texts: str | Sequence[str],
        text_pairs: str | Sequence[str] | None = None,
        *,
        top_k: int | None = 1,
        quiet: bool = True,
    ) -> Any:
        """One result a text, in order: {"label", "score"}, or a list of the `top_k` best.

        `top_k=None`: every label. One text (with its pair) instead of a list of them gives one
        result. Texts longer than the model's position table are truncated; unless `quiet`, a
        warning says how many.
        """
        if isinstance(texts, str):
            pairs = [text_pairs] if isinstance(text_pairs, str) else text_pairs
            return self([texts], pairs, top_k=top_k, quiet=quiet)[0]
        limit = self.model.config.max_position_embeddings
        encodings, truncated = self.tokenizer.encode(texts, text_pairs, limit)
        if truncated and not quiet:
            cut = f"warning: {truncated} of {len(encodings)} texts were cut to {limit} tokens"
            print(cut, file=sys.stderr)
        features = Features([e.ids for e in encodings], [e.type_ids for e in encodings])
        logits, _ = predict_logits(self.model, features, description="predicting", quiet=quiet)
        return self.task.decode(logits, top_k)
