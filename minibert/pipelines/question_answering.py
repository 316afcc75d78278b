"""Question and context → the part of the context that answers it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from minibert.data.squad import QuestionExamples
from minibert.errors import InputError
from minibert.io.numbers import counted
from minibert.models import BertForQuestionAnswering, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.pipelines.options import AS_USUAL, Notes, Reading, check_whole
from minibert.tasks.base import Outputs
from minibert.tasks.best_spans import best_spans
from minibert.tasks.question_windows import QuestionFeatures, question_features

NO_OUTPUTS: Outputs = {"start_logits": [], "end_logits": []}
WANTED = '{"question": …, "context": …}'


class QuestionAnsweringPipeline(Pipeline):
    """answer(question="…", context="…") → {"score", "start", "end", "answer"}.

    Arguments and results are those of transformers' pipeline, version 4, which version 5 no longer
    has. Two things are simpler: a list of questions gives a list, of one too, and `top_k` > 1 gives
    a list, of one answer too.
    """

    task = "question-answering"
    model_class: ClassVar[type[BertPreTrainedModel]] = BertForQuestionAnswering
    cut = "questions"
    remedy = "shorten them, or raise max_question_len"

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
        for name, value in (("question", question), ("context", context)):
            if isinstance(value, Mapping) or not isinstance(value, Iterable):
                raise InputError(f"{name}: wanted a text or a list of texts, got {value!r:.80}")
        single = isinstance(question, str)
        questions = [question] if single else list(question)
        contexts = [context] * len(questions) if isinstance(context, str) else list(context)
        if len(contexts) != len(questions):
            raise InputError(
                f"{counted(len(questions), 'question')} and {counted(len(contexts), 'context')}: "
                "wanted one context for all questions, or one for each"
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
        questions are cut to `max_question_len` tokens. One that fills a window all the same gets
        the empty answer, with a warning, and is an error where the call has no other. The other
        options are those of `minibert.tasks.best_spans`.
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
        reading.note(len(inputs), cut, max_question_len)
        self._note_unread(features, reading.notes)
        outputs = self.predict(features, reading) if features.windows else NO_OUTPUTS
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

    @staticmethod
    def _note_unread(features: QuestionFeatures, notes: Notes) -> None:
        notes.unread += len(features.unread)
        try:
            features.check_read()
        except InputError as problem:
            notes.problem = notes.problem or problem


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
            if not isinstance(item, Mapping):
                raise InputError(f"input {number}: wanted {WANTED}, got {item!r:.80}")
            if key not in item:
                found = ", ".join(map(repr, item)) or "nothing"
                raise InputError(
                    f"input {number}: {key!r} is missing: wanted {WANTED}, got {found}"
                )
            value = item[key]
            if not isinstance(value, str) or not value.strip():
                raise InputError(
                    f"input {number}: wanted {WANTED} with two texts that are not empty, got "
                    f"{key} = {value!r:.80}"
                )
    return QuestionExamples(
        path=Path("input"),
        ids=[str(number) for number in range(len(inputs))],
        questions=[item["question"] for item in inputs],
        contexts=[item["context"] for item in inputs],
        answers=None,
    )
