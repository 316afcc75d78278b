"""Question-answering examples of any shape, and a tokenizer that splits words into letters."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minibert import BertTokenizer
from minibert.data.squad import Answer, QuestionExamples
from minibert.tasks.question_windows import QuestionFeatures

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer(characters: Iterable[str] = string.ascii_lowercase) -> BertTokenizer:
    """One piece a character; what is not among them makes its word [UNK]."""
    letters = sorted({".", *characters})
    return BertTokenizer.from_vocab([*SPECIALS, *letters, *(f"##{c}" for c in letters)])


def examples(*rows: tuple[str, str, Sequence[tuple[str, int | None]] | None]) -> QuestionExamples:
    """Rows of (question, context, answers as (text, start)); ids are q0, q1, …"""
    questions, contexts, answers = (list(column) for column in zip(*rows, strict=True))
    known = answers[0] is not None
    return QuestionExamples(
        path=Path("toy.json"),
        ids=[f"q{i}" for i in range(len(rows))],
        questions=questions,
        contexts=contexts,
        answers=[[Answer(*answer) for answer in found] for found in answers] if known else None,
    )


def answer_of(text: str, context: str) -> tuple[str, int]:
    """`text` as an answer, at its first place in the context."""
    return text, context.index(text)


def labelled_text(features: QuestionFeatures, row: int) -> str | None:
    """The slice of the context that a window's labels point to; None at [CLS]."""
    window = features.windows[row]
    if not features.labels[row].any():
        return None
    start, end = features.labels[row] - window.prefix + window.first
    offsets = features.contexts[window.question].offsets
    return features.examples.contexts[window.question][offsets[start, 0] : offsets[end, 1]]


def certain(features: QuestionFeatures) -> dict[str, Any]:
    """Logits that say what the labels say, and nothing else."""
    sides = [[np.zeros(n, np.float32) for n in features.lengths] for _ in range(2)]
    for row, label in enumerate(features.labels):
        for side, position in zip(sides, label, strict=True):
            side[row][position] = 9.0
    return {"start_logits": sides[0], "end_logits": sides[1]}
