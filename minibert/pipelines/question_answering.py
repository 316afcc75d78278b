"""Question and context → the part of the context that answers it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from minibert.data.squad import QuestionExamples
from minibert.errors import InputError
from minibert.models import BertForQuestionAnswering, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.pipelines.options import AS_USUAL, Reading, check_whole
from minibert.tasks.best_spans import best_spans
from minibert.tasks.question_windows import question_features


class QuestionAnsweringPipeline(Pipeline):
    """answer(question="…", context="…") → {"score", "start", "end", "answer"}.

    Arguments and results are those of transformers' pipeline, version 4, which version 5 no longer
    has. Two things are simpler: a list of questions gives a list, of one too, and `top_k` > 1 gives
    a list, of one answer too.
    """

    task = "question-answering"
    model_class: ClassVar[type[BertPreTrainedModel]] = BertForQuestionAnswering
    head = "qa_outputs"

    def __call__(
        self, inputs: Any = None, *, question: Any = None, context: Any = None, **options: Any
    ) -> Any:
        """One result a question, in order: a dict, or with `top_k` > 1 a list of them.

        A `question` with its `context`; a list of questions with one context for all, or one for
        each; or `inputs`, each {"question": …, "context": …}: one, a list, or a stream. `options`:
        see `answers`.
        """
        if inputs is not None:
            if question is not None or context is not None:
                raise InputError("pass either question and context, or inputs that hold both")
            return super().__call__(inputs, **options)
        if question is None or context is None:
            lacking = "question" if question is None else "context"
            raise InputError(f"{lacking} is missing: pass question=… and context=…")
        single = isinstance(question, str)
        questions = [question] if single else list(question)
        contexts = [context] * len(questions) if isinstance(context, str) else list(context)
        if len(contexts) != len(questions):
            raise InputError(
                f"{len(questions)} questions and {len(contexts)} contexts: wanted one context for "
                "all questions, or one for each"
            )
        pairs = [{"question": q, "context": c} for q, c in zip(questions, contexts, strict=True)]
        results = super().__call__(pairs, **options)
        return results[0] if single else results

    def answers(
        self,
        inputs: list[Any],
        reading: Reading = AS_USUAL,
        *,
        top_k: int = 1,
        doc_stride: int | None = None,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        max_question_len: int = 64,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
    ) -> list[Any]:
        """The best answers to each {"question", "context"}; "start" and "end" count characters.

        max_seq_len: tokens of a window; where it is not given max_length, or 384 at most.
        doc_stride: tokens that a window shares with the next (here this is the overlap, as in
        transformers; default 128, at most half a window). Nothing of a context is cut off; longer
        questions are cut to `max_question_len` tokens. The other options are those of
        `minibert.tasks.best_spans`.
        """
        length = min(self.limit(reading), 384) if max_seq_len is None else max_seq_len
        check_whole("max_seq_len", length)
        check_whole("doc_stride", doc_stride or 0, 0)
        check_whole("top_k", top_k)
        check_whole("max_answer_len", max_answer_len)
        check_whole("max_question_len", max_question_len)
        if length > self.max_length:
            raise InputError(f"max_seq_len must be at most {self.max_length}, got {length}")
        if not inputs:
            return []

        examples = _examples(inputs)
        features, cut = question_features(
            examples, self.tokenizer, length, max_question_len, partial(_step, length, doc_stride)
        )
        if cut:
            self.warn(f"{cut} of {len(inputs)} questions were cut to {max_question_len} tokens")
        outputs = self.predict(features, reading)
        best = best_spans(
            features,
            outputs["start_logits"],
            outputs["end_logits"],
            top_k=top_k,
            max_answer_len=max_answer_len,
            handle_impossible_answer=handle_impossible_answer,
            align_to_words=align_to_words,
        )
        return [found[0] for found in best] if top_k == 1 else list(best)


def _step(length: int, doc_stride: int | None, room: int) -> int:
    """How far on the next window begins; at least one token where no `doc_stride` is given."""
    if doc_stride is not None:
        return room - doc_stride
    shared = min(length // 2, 128)
    return room - (shared if shared < room else room // 2)  # a long question leaves little room


def _examples(inputs: list[Any]) -> QuestionExamples:
    """Inputs that go by their numbers."""
    for number, item in enumerate(inputs):
        for key in ("question", "context"):
            value = item.get(key) if isinstance(item, Mapping) else None
            if not isinstance(value, str) or not value.strip():
                raise InputError(
                    f'input {number}: wanted {{"question": …, "context": …}} with two texts that '
                    f"are not empty, got {key} = {value!r:.80}"
                )
    return QuestionExamples(
        path=Path("input"),
        ids=[str(number) for number in range(len(inputs))],
        questions=[item["question"] for item in inputs],
        contexts=[item["context"] for item in inputs],
        answers=None,
    )
