"""Exact match and F1 of answers, equal to SQuAD's official scorers, v1.1 and v2.0.

Source: Rajpurkar et al., arXiv 1606.05250, section 6.1, and 1806.03822; evaluate-v1.1.py and
evaluate-v2.0.py of the data set's site.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from minibert.data.squad import QuestionExamples
from minibert.errors import InputError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without a, an, the, words one space apart."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(predicted: str, truths: Sequence[str]) -> float:
    """1 if a truth is equal after `normalize_answer`, else 0."""
    normal = normalize_answer(predicted)
    return float(any(normal == normalize_answer(truth) for truth in truths))


def f1(predicted: str, truths: Sequence[str]) -> float:
    """The best F1 over the words of any truth, as bags."""
    words = normalize_answer(predicted).split()
    return max(_f1(words, normalize_answer(truth).split()) for truth in truths)


def _f1(words: list[str], truth: list[str]) -> float:
    common = sum((Counter(words) & Counter(truth)).values())
    if not common:
        return 0.0
    precision, recall = common / len(words), common / len(truth)
    return 2 * precision * recall / (precision + recall)


def score_squad(
    examples: QuestionExamples,
    predictions: Mapping[str, str],
    version_2_with_negative: bool = False,
) -> dict[str, float]:
    """exact_match and f1 of {question id: answer}, in percent over all questions.

    A question takes the best score over all its answers; one without a prediction scores 0. With
    `version_2_with_negative` the right answer of a question that has none is "", two answers of
    which nothing is left after normalizing are equal, and HasAns_ and NoAns_ stand beside the
    totals where the file has such questions.
    """
    if examples.answers is None:
        raise InputError(f"{examples.path}: no question has 'answers'; scoring wants them")
    truths = [[answer.text for answer in found] for found in examples.answers]
    if version_2_with_negative:
        truths = [[text for text in texts if normalize_answer(text)] or [""] for texts in truths]
    scores = np.zeros((len(examples), 2))
    for row, name, texts in zip(scores, examples.ids, truths, strict=True):
        predicted = predictions.get(name)
        if predicted is not None and texts:
            row[0] = exact_match(predicted, texts)
            both_empty = version_2_with_negative and not normalize_answer(predicted)
            row[1] = row[0] if both_empty else f1(predicted, texts)
    results = dict(zip(("exact_match", "f1"), _percent(scores), strict=True))
    if version_2_with_negative:
        answered = np.array([bool(found) for found in examples.answers])
        for prefix, chosen in (("HasAns", answered), ("NoAns", ~answered)):
            if chosen.any():
                exact, overlap = _percent(scores[chosen])
                results |= {f"{prefix}_exact": exact, f"{prefix}_f1": overlap}
    return results


def _percent(scores: NDArray[np.float64]) -> list[float]:
    return [100.0 * float(mean) for mean in scores.mean(axis=0)]
