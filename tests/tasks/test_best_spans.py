"""The most probable spans, against a plain reading of what transformers' pipeline did."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from questions import examples, tokenizer

from minibert.tasks.best_spans import best_spans
from minibert.tasks.question_answering import QuestionAnswering


def windows(*contexts, length=9, stride=2):
    rows = [("q", context, None) for context in contexts]
    return QuestionAnswering(doc_stride=stride).features(examples(*rows), tokenizer(), length)[0]


def draw_logits(features, seed):
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=n).astype(np.float32) * 3 for n in features.lengths] for _ in range(2)]


def softmax(values):
    weights = np.exp(np.array(values, np.float64))
    return (weights / weights.sum()).tolist()


def plain_spans(features, question, logits, top_k, longest, impossible, to_words):
    pieces, context = features.contexts[question], features.examples.contexts[question]
    answers: list = []
    least = 1.0
    for row in features.of_questions()[question]:
        window = features.windows[row]
        rows = [0, *range(window.prefix, window.prefix + window.size)]
        start, end = (softmax([side[row][k] for k in rows]) for side in logits)
        least = min(least, start[0] * end[0])
        found = [
            (start[1 + i] * end[1 + j], window.first + i, window.first + j)
            for i in range(window.size)
            for j in range(i, min(i + longest, window.size))
        ]
        found.sort(key=lambda span: -span[0])
        for score, first, last in found[: 2 * top_k + 10 if to_words else top_k]:
            tokens = [first, last]
            if to_words:
                words = pieces.word_ids.tolist()
                tokens = [words.index(words[first])]
                tokens.append(len(words) - 1 - words[::-1].index(words[last]))
            begin, stop = pieces.offsets[tokens[0]][0], pieces.offsets[tokens[1]][1]
            text = context[begin:stop]
            same = [answer for answer in answers if answer["answer"].lower() == text.lower()]
            if same:
                same[0]["score"] += score
            else:
                answers.append({"score": score, "start": begin, "end": stop, "answer": text})
    if impossible:
        answers.append({"score": least, "start": 0, "end": 0, "answer": ""})
    return sorted(answers, key=lambda answer: -answer["score"])[:top_k]


CONTEXTS = st.lists(st.text("abAB", min_size=1, max_size=3), min_size=1, max_size=12).map(" ".join)


@given(
    st.lists(CONTEXTS, min_size=1, max_size=3),
    st.integers(5, 14), st.integers(1, 6), st.integers(0, 10**6), st.integers(1, 7),
    st.integers(1, 9), st.booleans(), st.booleans(),
)  # fmt: skip
def test_spans_are_those_of_the_plain_loops(
    contexts, length, stride, seed, top_k, longest, impossible, to_words
):
    features = windows(*contexts, length=length, stride=stride)
    logits = draw_logits(features, seed)
    results = best_spans(
        features, *logits, top_k=top_k, max_answer_len=longest,
        handle_impossible_answer=impossible, align_to_words=to_words,
    )  # fmt: skip
    assert len(results) == len(contexts)
    for question, found in enumerate(results):
        want = plain_spans(features, question, logits, top_k, longest, impossible, to_words)
        assert [a["score"] for a in found] == pytest.approx([a["score"] for a in want])
        for answer, plain in zip(found, want, strict=True):
            assert answer == plain | {"score": answer["score"]}


def test_results_are_plain_python():
    features = windows("ab c")
    ((answer,),) = best_spans(features, *draw_logits(features, 0))
    assert [type(answer[key]) for key in ("score", "start", "end", "answer")] == [
        float, int, int, str,
    ]  # fmt: skip


def test_spans_widen_to_words():
    features = windows("abc de")
    logits = [[np.zeros(n) for n in features.lengths] for _ in range(2)]
    logits[0][0][4], logits[1][0][4] = 20.0, 20.0  # the b of abc
    ((whole,),) = best_spans(features, *logits)
    ((part,),) = best_spans(features, *logits, align_to_words=False)
    assert (whole["start"], whole["end"], whole["answer"]) == (0, 3, "abc")
    assert (part["start"], part["end"], part["answer"]) == (1, 2, "b")


def test_huge_logits_make_no_nan():
    features = windows("ab c")
    logits = [[np.full(n, 1e30, np.float32) for n in features.lengths] for _ in range(2)]
    ((answer,),) = best_spans(features, *logits)
    assert 0 < answer["score"] <= 1
