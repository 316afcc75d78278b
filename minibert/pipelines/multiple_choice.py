"""A question or a beginning, and several choices → the right one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from minibert.data.features import Features
from minibert.errors import InputError
from minibert.models import BertForMultipleChoice, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.tasks.multiple_choice import MultipleChoice


class MultipleChoicePipeline(Pipeline):
    """choose({"question": …, "choices": […]}) → {"label": 2, "score": 0.9, "choice": …}.

    transformers has no such pipeline; the inputs are rows of `scripts/finetune.py`'s files, and
    "label" is the number of a choice, from 0.
    """

    model_class: ClassVar[type[BertPreTrainedModel]] = BertForMultipleChoice
    head = "classifier"

    def answers(self, inputs: list[Any], *, top_k: int | None = 1) -> list[Any]:
        """The best choice of each input, or with `top_k` ≠ 1 a list of them, best first."""
        results = []
        for value in inputs:  # one by one: they may have different numbers of choices
            first, choices = _fields(value)
            encodings, truncated = self.tokenizer.encode(
                [first] * len(choices), choices, self.max_length
            )
            if truncated:
                self.warn(f"{truncated} choices of {first!r:.40} were cut with it")
            features = Features(
                [e.ids for e in encodings], [e.type_ids for e in encodings], group=len(choices)
            )
            (best,) = MultipleChoice().decode(self.predict(features), top_k)
            rows = [row | {"choice": choices[row["label"]]} for row in best]
            results.append(rows[0] if top_k == 1 else rows)
        return results


def _fields(value: Any) -> tuple[str, list[str]]:
    if isinstance(value, Mapping):
        first = value.get("question", value.get("context"))
        choices = value.get("choices", value.get("endings"))
        if isinstance(first, str) and isinstance(choices, list | tuple) and len(choices) > 1:
            return first, list(choices)
    raise InputError(
        'multiple-choice: wanted {"question" (or "context"): text, "choices" (or "endings"): '
        f"[2 or more texts]}}, got {value!r:.80}"
    )
