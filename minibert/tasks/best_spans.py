"""Logits of windows → the most probable answers, as transformers' question-answering pipeline.

That pipeline left transformers with version 5; this is what version 4.57 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.tasks.question_windows import QuestionFeatures
from minibert.tokenization import Pieces

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def best_spans(
    features: QuestionFeatures,
    start_logits: Sequence[NDArray[Any]],
    end_logits: Sequence[NDArray[Any]],
    *,
    top_k: int = 1,
    max_answer_len: int = 15,
    handle_impossible_answer: bool = False,
    align_to_words: bool = True,
) -> list[list[dict[str, Any]]]:
    """At most `top_k` {"score", "start", "end", "answer"} a question, best first; R logits (n,).

    A span's score is softmax(start) · softmax(end), each over the context of its window and [CLS].
    A text found twice, in whatever case, is one answer, with the sum of its scores (which may
    exceed 1) and its first place. "" is an answer where `handle_impossible_answer`; its score is
    that of [CLS] in the window which rates it least. It is the answer, with a score of 0, of a
    question without a window as well. `align_to_words` widens spans to whole words.
    """
    results: list[list[dict[str, Any]]] = []
    candidates = 2 * top_k + 10 if align_to_words else top_k
    for q, rows in enumerate(features.of_questions()):
        if not rows:
            results.append([{"score": 0.0, "start": 0, "end": 0, "answer": ""}])
            continue
        pieces, context = features.contexts[q], features.examples.contexts[q]
        begins, ends = _words(pieces) if align_to_words else pieces.offsets.T
        answers: dict[str, dict[str, Any]] = {}
        nulls = []
        for r in rows:
            window = features.windows[r]
            start, end = (
                _probabilities(side[r], window.prefix) for side in (start_logits, end_logits)
            )
            nulls.append(float(start[0] * end[0]))
            tokens, scores = _spans(start[1:], end[1:], max_answer_len, candidates)
            first, last = (tokens + window.first).T
            columns = (values.tolist() for values in (begins[first], ends[last], scores))
            for a, b, score in zip(*columns, strict=True):
                new = {"score": 0.0, "start": a, "end": b, "answer": context[a:b]}
                answers.setdefault(context[a:b].lower(), new)["score"] += score
        found = list(answers.values())
        if handle_impossible_answer:
            found.append({"score": min(nulls), "start": 0, "end": 0, "answer": ""})
        results.append(sorted(found, key=lambda answer: -answer["score"])[:top_k])
    return results


def _probabilities(logits: NDArray[Any], prefix: int) -> Floats:
    """(1 + size,) softmax over [CLS] and the window's context."""
    x = np.append(logits[:1], logits[prefix:-1]).astype(np.float64)
    e = np.exp(x - x.max())
    probabilities: Floats = e / e.sum()
    return probabilities


def _spans(start: Floats, end: Floats, longest: int, most: int) -> tuple[Ints, Floats]:
    """The `most` best spans (m, 2) of at most `longest` tokens, and their scores (m,)."""
    longest = min(longest, len(start))
    padded = np.append(end, np.full(longest - 1, -1.0))  # no span ends behind the context
    scores = start[:, None] * np.lib.stride_tricks.sliding_window_view(padded, longest)
    best = np.argsort(-scores, axis=None, kind="stable")[:most]
    s, length = np.unravel_index(best, scores.shape)
    kept = s + length < len(start)
    return np.stack([s, s + length], axis=1)[kept], scores.ravel()[best][kept]


def _words(pieces: Pieces) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(n,) (n,) where the word of each token begins and ends, in characters."""
    first = np.searchsorted(pieces.word_ids, pieces.word_ids, side="left")
    last = np.searchsorted(pieces.word_ids, pieces.word_ids, side="right") - 1
    return pieces.offsets[first, 0], pieces.offsets[last, 1]
