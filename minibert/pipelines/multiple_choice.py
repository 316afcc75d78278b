"""A question or a beginning, and several choices → the right one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar

from minibert.data.features import Features
from minibert.data.multiple_choice import asked
from minibert.data.text_files import Problem
from minibert.errors import InputError
from minibert.models import BertForMultipleChoice, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.pipelines.options import AS_USUAL, Reading, check_whole
from minibert.tasks.multiple_choice import MultipleChoice
from minibert.tokenization.checks import check_texts


class MultipleChoicePipeline(Pipeline):
    """choose({"question": …, "choices": […]}) → {"label": 2, "score": 0.9, "choice": …}.

    transformers has no such pipeline; the inputs are rows of `scripts/finetune.py`'s files
    (`minibert.data.multiple_choice`), and "label" is the number of a choice, from 0.
    """

    task = "multiple-choice"
    model_class: ClassVar[type[BertPreTrainedModel]] = BertForMultipleChoice

    def answers(
        self, inputs: list[Any], reading: Reading = AS_USUAL, *, top_k: int | None = 1
    ) -> list[Any]:
        """The best choice of each input, or with `top_k` ≠ 1 a list of them, best first."""
        if top_k is not None:
            check_whole("top_k", top_k, 0)
        rows = [_asked(*numbered) for numbered in enumerate(inputs)]
        firsts = [first for first, choices in rows for _ in choices]
        encodings = iter(self.encode(firsts, [c for _, choices in rows for c in choices], reading))
        results: list[Any] = []
        for _, choices in rows:
            # One by one: they may have different numbers of choices.
            own = list(islice(encodings, len(choices)))
            features = Features([e.ids for e in own], [e.type_ids for e in own], group=len(own))
            (best,) = MultipleChoice().decode(self.predict(features, reading), top_k)
            chosen = [row | {"choice": choices[row["label"]]} for row in best]
            results.append(chosen[0] if top_k == 1 else chosen)
        return results


def _asked(number: int, value: Any) -> tuple[str, list[str]]:
    try:
        if isinstance(value, Mapping):
            first, choices = asked(value)
            check_texts(f"input {number}, text", [first])
            check_texts(f"input {number}, choice", choices)
            return first, choices
    except Problem as problem:
        raise InputError(f"input {number}: {problem}") from None
    wanted = '{"question" (or "context"): text, "choices": [2 or more texts]}'
    raise InputError(f"input {number}: wanted {wanted}, got {value!r:.80}")
