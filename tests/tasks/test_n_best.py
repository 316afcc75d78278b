"""The best answers over all windows, against a plain reading of run_squad.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from questions import examples, tokenizer

from minibert.tasks.n_best import Candidate, NBest, n_best
from minibert.tasks.question_answering import QuestionAnswering

CONTEXT = "ab c dd c ab eee f"


def windows(*contexts, length=9, stride=2):
    rows = [("q", context, None) for context in contexts]
    return QuestionAnswering(doc_stride=stride).features(examples(*rows), tokenizer(), length)[0]


def draw_logits(features, seed, levels):
    """Two sides of R arrays with values of few levels, so that many are equal."""
    rng = np.random.default_rng(seed)
    return [[rng.integers(0, levels, n).astype(np.float32) for n in features.lengths]
            for _ in range(2)]  # fmt: skip


def has_most_context(windows, window, token):
    def context(w):
        if not w.first <= token < w.first + w.size:
            return -1.0
        return min(token - w.first, w.first + w.size - 1 - token) + 0.01 * w.size

    return max(windows, key=context) is window  # the first of equal ones


def plain_n_best(features, question, logits, n_best_size, max_answer_length, version_2):
    """(text, start, end, start logit, end logit), best first, and the null score; one by one."""
    rows = features.of_questions()[question]
    here = [features.windows[row] for row in rows]
    offsets, context = features.contexts[question].offsets, features.examples.contexts[question]
    found, null = [], None
    for row, window in zip(rows, here, strict=True):
        start, end = logits[0][row].tolist(), logits[1][row].tolist()
        if null is None or start[0] + end[0] < null[3] + null[4]:
            null = ("", 0, 0, start[0], end[0])
        best = [sorted(range(len(side)), key=lambda k, side=side: -side[k])[:n_best_size]
                for side in (start, end)]  # fmt: skip
        for i in best[0]:
            for j in best[1]:
                first, last = (k - window.prefix + window.first for k in (i, j))
                part = range(window.first, window.first + window.size)
                if first not in part or last not in part or j < i:
                    continue
                if j - i + 1 > max_answer_length or not has_most_context(here, window, first):
                    continue
                begin, stop = int(offsets[first][0]), int(offsets[last][1])
                found.append((context[begin:stop], begin, stop, start[i], end[j]))
    if version_2:
        found.append(null)
    found.sort(key=lambda c: -(c[3] + c[4]))
    kept: list = []
    for candidate in found:
        if len(kept) < n_best_size and candidate[0] not in [k[0] for k in kept]:
            kept.append(candidate)
    if version_2 and null not in kept:
        kept.append(null)
    return kept, null[3] + null[4]


CONTEXTS = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=12).map(" ".join)


@given(
    st.lists(CONTEXTS, min_size=1, max_size=3),
    st.integers(5, 14), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([2, 5, 10**6]),
    st.integers(1, 8), st.integers(1, 6), st.booleans(),
)  # fmt: skip
def test_n_best_is_that_of_the_plain_loops(
    contexts, length, stride, seed, levels, n_best_size, max_answer_length, version_2
):
    features = windows(*contexts, length=length, stride=stride)
    logits = draw_logits(features, seed, levels)
    settings = n_best_size, max_answer_length, version_2
    names = ("n_best_size", "max_answer_length", "version_2_with_negative")
    results = n_best(features, *logits, **dict(zip(names, settings, strict=True)))
    assert len(results) == len(contexts)
    for question, result in enumerate(results):
        want, null = plain_n_best(features, question, logits, *settings)
        assert [tuple(candidate) for candidate in result.candidates] == want
        assert result.null_score == null


def test_the_standard_sizes_on_long_contexts():
    context = " ".join(chr(97 + i * i % 26) + chr(97 + i % 26) for i in range(300))
    features = windows(context, length=120, stride=40)
    logits = draw_logits(features, 0, 10**6)
    (result,) = n_best(features, *logits, version_2_with_negative=True)
    want, _ = plain_n_best(features, 0, logits, 20, 30, True)
    assert [tuple(candidate) for candidate in result.candidates] == want
    assert len(want) in (20, 21)


def peaks(features, *places, level=5.0):
    """Logits 0 but at (window, start position, end position)."""
    sides = [[np.zeros(n) for n in features.lengths] for _ in range(2)]
    for row, *positions in places:
        for side, position in zip(sides, positions, strict=True):
            side[row][position] = level
    return sides


@pytest.mark.parametrize(
    ("start", "end", "want"),
    [
        (3, 5, "ab c"),
        (0, 5, None),  # [CLS], the question, the last [SEP]
        (1, 5, None),
        (3, 8, None),
        (5, 4, None),  # ends before it starts
        (3, 7, None),  # longer than four tokens
        (3, 6, "ab c d"),
    ],
)
def test_what_is_dropped(start, end, want):
    features = windows("ab c dd")
    (result,) = n_best(features, *peaks(features, (0, start, end)), max_answer_length=4)
    best = result.candidates[0]
    assert (best.score, best.text) == (10.0, want) if want else best.score < 10


def test_an_answer_comes_from_the_window_with_most_context():
    features = windows("abcdefghij")
    assert [tuple(window[1:3]) for window in features.windows] == [(0, 5), (2, 5), (4, 5), (6, 4)]
    # Token 3 has min(left, right) = 1 in the first two windows: it is the first's.
    for row, position, score in [(0, 6, 10.0), (1, 4, 0.0)]:
        (result,) = n_best(features, *peaks(features, (row, position, position)))
        assert result.candidates[0].score == score


def test_the_null_score_is_the_least_of_all_windows():
    features = windows(CONTEXT)
    starts, ends = peaks(features)
    for row in range(len(features)):
        starts[row][0], ends[row][0] = 7.0 - row, 1.0
    (result,) = n_best(features, starts, ends, version_2_with_negative=True)
    assert result.null_score == 8.0 - (len(features) - 1)
    null = next(candidate for candidate in result.candidates if not candidate.text)
    assert null.score == result.null_score


def test_the_threshold_decides():
    found = NBest([Candidate("", 0, 0, 3.0, 2.0), Candidate("ab", 1, 3, 2.0, 2.0)], 5.0)
    assert found.answer() == "ab"
    assert found.answer(True) == ""
    assert found.answer(True, 0.99) == ""
    assert found.answer(True, 1.0) == "ab"  # more than the threshold is wanted
    assert found.answer(True, -2.0) == ""


def test_no_valid_span_is_no_answer():
    features = windows("ab")
    starts, ends = peaks(features, (0, 0, 0))
    (result,) = n_best(features, starts, ends, n_best_size=1)
    assert result.candidates == []
    assert result.answer() == result.answer(True) == ""
