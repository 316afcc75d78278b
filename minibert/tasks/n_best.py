"""Logits of windows → the best answers, by the rules of google-research/bert's run_squad.py.

Unlike there, where an answer's pieces are projected back to words, an answer begins and ends where
its tokens do and is a slice of the context, as in transformers' run_qa.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.tasks.question_windows import QuestionFeatures, Window, max_context

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Candidate(NamedTuple):
    """A possible answer; "" at 0 … 0 says that there is none."""

    text: str
    start: int  # in characters: text = context[start:end]
    end: int
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        return self.start_logit + self.end_logit


class NBest(NamedTuple):
    """What one question's windows say."""

    candidates: list[Candidate]  # best first, no text twice; in version 2 "" is among them
    null_score: float  # the least start + end logit of [CLS] of any window

    def answer(self, version_2_with_negative: bool = False, threshold: float = 0.0) -> str:
        """The best text; in version 2 "" where null_score − its score is above `threshold`.

        "" also where no span is valid (run_squad.py writes the word "empty").
        """
        best = next((candidate for candidate in self.candidates if candidate.text), None)
        if best is None:
            return ""
        impossible = version_2_with_negative and self.null_score - best.score > threshold
        return "" if impossible else best.text


def n_best(
    features: QuestionFeatures,
    start_logits: Sequence[NDArray[Any]],
    end_logits: Sequence[NDArray[Any]],
    *,
    n_best_size: int = 20,
    max_answer_length: int = 30,
    version_2_with_negative: bool = False,
) -> list[NBest]:
    """The best answers of each question over all its windows; logits: R arrays (tokens,).

    In a window the `n_best_size` best starts meet the `n_best_size` best ends. Dropped are spans
    that do not lie in the context, start at a token that has more context in another window, end
    before they start, or are longer than `max_answer_length` tokens. A question without a window
    has no candidate.
    """
    results = []
    for q, rows in enumerate(features.of_questions()):
        if not rows:
            results.append(NBest([], 0.0))
            continue
        context, windows = features.contexts[q], [features.windows[r] for r in rows]
        starts, ends = (
            [np.asarray(side[r], np.float64) for r in rows] for side in (start_logits, end_logits)
        )
        owner = max_context(windows, len(context.ids))
        found = [
            _valid_spans(window, start, end, owner == w, n_best_size, max_answer_length)
            for w, (window, start, end) in enumerate(zip(windows, starts, ends, strict=True))
        ]
        tokens, logits = (np.concatenate(parts) for parts in zip(*found, strict=True))
        spans = np.stack([context.offsets[tokens[:, side], side] for side in (0, 1)], axis=1)
        nulls = [(start[0], end[0]) for start, end in zip(starts, ends, strict=True)]
        null = Candidate("", 0, 0, *map(float, min(nulls, key=sum)))
        if version_2_with_negative:
            spans, logits = np.append(spans, [null[1:3]], 0), np.append(logits, [null[3:]], 0)
        candidates = _ranked(features.examples.contexts[q], spans, logits, n_best_size)
        if version_2_with_negative and null not in candidates:
            candidates.append(null)
        results.append(NBest(candidates, null.score))
    return results


def _valid_spans(
    window: Window,
    start: Floats,
    end: Floats,
    own: NDArray[np.bool_],
    n_best_size: int,
    max_answer_length: int,
) -> tuple[Ints, Floats]:
    """n spans (n, 2) in tokens of the context, and their logits (n, 2); better starts first."""
    rows, columns = (np.argsort(-side, kind="stable")[:n_best_size] for side in (start, end))
    s, e = rows[:, None] - window.prefix, columns - window.prefix
    valid = (s >= 0) & (s <= e) & (e < window.size) & (e < s + max_answer_length)
    i, j = np.nonzero(valid)
    kept = own[window.first + s[i, 0]]
    i, j = i[kept], j[kept]
    tokens = np.stack([s[i, 0], e[j]], axis=1) + window.first
    return tokens, np.stack([start[rows[i]], end[columns[j]]], axis=1)


def _ranked(context: str, spans: Ints, logits: Floats, most: int) -> list[Candidate]:
    """The best of n spans (n, 2) of characters with logits (n, 2), no text twice."""
    order = np.argsort(-logits.sum(axis=1), kind="stable")
    chosen: dict[str, Candidate] = {}
    for (start, end), pair in zip(spans[order].tolist(), logits[order].tolist(), strict=True):
        if len(chosen) == most:
            break
        text = context[start:end]
        if text not in chosen:
            chosen[text] = Candidate(text, start, end, *pair)
    return list(chosen.values())
