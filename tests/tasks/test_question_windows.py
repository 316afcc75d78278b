"""Windows over contexts: what they hold, whose a token is, where an answer lies."""

from __future__ import annotations

import numpy as np
import pytest
from folders import data_file
from hypothesis import example, given
from hypothesis import strategies as st
from questions import answer_of, examples, labelled_text, tokenizer

from minibert.data.squad import read_squad
from minibert.errors import InputError
from minibert.tasks.question_answering import QuestionAnswering
from minibert.tasks.question_windows import Window, max_context, question_features, spans

SIZES = st.integers(1, 600), st.integers(1, 384), st.integers(1, 400)


def plain_spans(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """The loop of google's run_squad.py, in its own words: offset += min(length, stride)."""
    found, offset = [], 0
    while True:
        length = min(tokens - offset, room)
        found.append((offset, length))
        if offset + length == tokens:
            return found
        offset += min(length, stride)


@given(*SIZES)
def test_windows_are_those_of_run_squad(tokens, room, stride):
    assert spans(tokens, room, stride) == plain_spans(tokens, room, stride)


@given(*SIZES)
@example(
    301, 300, 250
)  # a last window so short that tokens it centres are the first's all the same
def test_every_token_is_in_some_window_and_owned_by_one_that_holds_it(tokens, room, stride):
    windows = [Window(0, first, size, 3) for first, size in spans(tokens, room, stride)]
    held = [set(range(w.first, w.first + w.size)) for w in windows]
    assert set().union(*held) == set(range(tokens))
    owner = max_context(windows, tokens)
    assert owner.shape == (tokens,)
    for token in range(tokens):
        scores = [
            min(token - w.first, w.first + w.size - 1 - token) + 0.01 * w.size
            if token in inside
            else -1.0
            for w, inside in zip(windows, held, strict=True)
        ]
        assert owner[token] == scores.index(max(scores))


def features(rows, *, length=384, tokens=None, **settings):
    task = QuestionAnswering(**settings)
    return task.features(examples(*rows), tokens or tokenizer(), length)


def test_a_window_is_cls_question_sep_context_sep():
    made, cut = features([("who", "a bc d.", None)], length=8, max_query_length=2, doc_stride=1)
    assert cut == 1
    decode = tokenizer().convert_ids_to_tokens
    assert [" ".join(decode(ids)) for ids in made.ids] == [
        "[CLS] w ##h [SEP] a b ##c [SEP]",
        "[CLS] w ##h [SEP] b ##c d [SEP]",
        "[CLS] w ##h [SEP] ##c d . [SEP]",
    ]
    assert [types.tolist() for types in made.type_ids] == [[0] * 4 + [1] * 4] * 3
    assert {array.dtype for array in (*made.ids, *made.type_ids)} == {np.dtype(np.int32)}
    assert made.labels is None
    assert made.windows == [(0, 0, 3, 4), (0, 1, 3, 4), (0, 2, 3, 4)]
    assert made.contexts[0].offsets.tolist() == [[0, 1], [2, 3], [3, 4], [5, 6], [6, 7]]


def test_windows_of_a_question_are_neighbours():
    made, cut = features([("a", "b" * 9, None), ("a", "b", None), ("a", "b" * 5, None)], length=8)
    assert cut == 0
    assert made.of_questions() == [range(3), range(3, 4), range(4, 6)]
    assert len(made) == 6


def test_a_paragraph_is_tokenized_once():
    made, _ = features([("a", "b c", None), ("d", "b c", None)])
    assert made.contexts[0] is made.contexts[1]


def test_labels_are_where_the_answer_lies():
    context = "ab cd ef gh"
    rows = [("q", context, [answer]) for answer in
            [("cd", 3), ("ef gh", 6), ("d e", 4), ("ab cd ef gh", 0)]]  # fmt: skip
    made, _ = features(rows, length=9, doc_stride=2)
    # Room for five of the eight tokens: windows begin at tokens 0, 2, 4 (which holds four).
    assert made.labels.tolist() == [
        [5, 6], [3, 4], [0, 0],
        [0, 0], [0, 0], [3, 6],
        [6, 7], [4, 5], [0, 0],
        [0, 0], [0, 0], [0, 0],
    ]  # fmt: skip


def test_labels_of_questions_without_a_place():
    context = "ab \u200b cd"
    rows = [
        ("q", context, []),  # unanswerable
        ("q", context, [("ab", None)]),  # the file's place was wrong
        ("q", context, [("ab", None), ("cd", 5)]),
        ("q", context, [("\u200b", 3)]),  # the tokenizer drops it
        ("q", context, [("\u200b cd", 3)]),
    ]
    made, _ = features(rows)
    assert made.labels.tolist() == [[0, 0], [-100, -100], [5, 6], [-100, -100], [5, 6]]


WORDS = st.lists(st.text("abcxyz", min_size=1, max_size=5), min_size=1, max_size=30)


@given(WORDS, st.data())
def test_labels_round_trip(words, data):
    """In a window that holds the answer the labels give its text; in any other they are [CLS]."""
    context = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    start = len(" ".join([*words[:first], ""]))
    answer = " ".join(words[first : last + 1])
    length, stride = data.draw(st.integers(6, 40)), data.draw(st.integers(1, 40))
    made, _ = features([("who", context, [(answer, start)])], length=length, doc_stride=stride,
                       max_query_length=2)  # fmt: skip
    letters = [len("".join(words[:i])) for i in (first, last + 1)]
    for row, window in enumerate(made.windows):
        held = window.first <= letters[0] and letters[1] <= window.first + window.size
        assert labelled_text(made, row) == (answer if held else None)


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("他住在中国北京。", "北京"),
        ("ein café\u0301 und", "café\u0301"),  # an accent of its own at the end
        ("ein cafe\u0301\u0323, und", "cafe\u0301\u0323"),
        ("ein cafe\u0301", "cafe\u0301"),
        ("naïve Ünïcode", "Ünïcode"),
        ("so 😀👍🏽 ok", "😀👍🏽"),
        ("heart ❤\ufe0f here", "❤\ufe0f"),  # emoji presentation
        ("한국어 text", "한국어"),
        ("\ufeffa\u200bb end", "a\u200bb"),
        ("İstanbul ﬁne Straße", "İstanbul"),
    ],
)
def test_answers_are_slices_of_the_context_as_it_was_given(context, answer):
    made, _ = features([("q", context, [answer_of(answer, context)])])
    assert labelled_text(made, 0) == answer


def test_an_accent_is_not_taken_from_the_next_token():
    cased = tokenizer("a\u0301b")
    cased = type(cased).from_vocab(list(cased._tokenizer.get_vocab()), do_lower_case=False)
    made, _ = features([("q", "a\u0301b", [("a", 0)])], tokens=cased)
    assert all(begin < end for begin, end in made.contexts[0].offsets.tolist())
    assert (np.diff(made.contexts[0].offsets.ravel()) >= 0).all()


def test_every_answer_of_the_published_files_round_trips_by_letters():
    """With a piece a character no answer ends inside a token."""
    for name in ("squad/train-new-wiki.json", "xquad/xquad.zh.json", "xquad/xquad.en.json"):
        questions = read_squad(data_file(name))
        letters = tokenizer("".join(set(questions.contexts)).lower())
        made, _ = QuestionAnswering(doc_stride=400).features(questions, letters, 1000)
        found: dict[int, str] = {}
        for row, window in enumerate(made.windows):
            if text := labelled_text(made, row):
                found[window.question] = text
        wrong = [q for q, answers in enumerate(questions.answers) if found[q] != answers[0].text]
        assert [(questions.ids[q], found[q]) for q in wrong] == []


def test_questions_that_leave_no_room_have_no_window():
    """Nor has one whose context has no token; the others are as they would be without them."""
    made, cut = features(
        [("a", "b", None), ("abcdef", "b", None), ("c", "\u200b", None), ("d", "bb", None)],
        length=9,
    )
    made.check_read()
    assert (made.unread, cut) == ([1, 2], 0)
    assert [window.question for window in made.windows] == [0, 3]
    assert made.of_questions() == [range(1), range(1, 1), range(1, 1), range(1, 2)]
    made, cut = features([("abcdef", "bb", None)], length=9, max_query_length=5)
    assert (len(made), made.unread, cut) == (2, [], 1)


def test_where_all_questions_leave_no_room_the_first_is_named():
    made, _ = features([("abcdef", "b", None)], length=9)
    with pytest.raises(InputError, match=r"question 'q0': .*no room for the context: shorten it"):
        made.check_read()
    made, _ = features([("abcdef", "b", None), ("abcdefg", "b", None)], length=9)
    with pytest.raises(InputError, match=r"question 'q0': .*; and none of the others can be read"):
        made.check_read()


def test_windows_that_do_not_advance_are_refused():
    questions = examples(("a", "bbbb", None))
    with pytest.raises(InputError, match=r"'q0': .*room for 3 tokens .* share 3 with the next"):
        question_features(questions, tokenizer(), 7, 64, lambda room: room - 3)


def test_a_context_without_a_token_is_named():
    made, _ = features([("a", "\u200b\ufffd", None)])
    with pytest.raises(InputError, match="question 'q0': the tokenizer makes no token"):
        made.check_read()


def test_a_question_may_be_without_a_token():
    made, _ = features([("\u200b", "b", None)])
    assert made.windows == [(0, 0, 1, 2)]
