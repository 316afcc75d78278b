"""Questions with long contexts → overlapping windows, each short enough for the model.

    [CLS] question [SEP] a part of the context [SEP]

The rules are those of google-research/bert's run_squad.py: a window holds as many tokens of the
context as there is room for, and the next begins `doc_stride` tokens further on (transformers'
`stride` is the overlap of two windows instead). Tokens know their characters in the context as it
was given, so an answer is always a slice of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.data.features import Features
from minibert.data.squad import Answer, QuestionExamples
from minibert.tokenization import BertTokenizer, Pieces

NOT_LABELLED = -100
UNREAD = (
    "the question fills a window (--max_seq_length, in a pipeline max_seq_len), or the tokenizer "
    "makes no token of the context"
)
"""Why a question has no window."""


class Window(NamedTuple):
    """One sequence of the model: part of a question's context."""

    question: int  # the question's number
    first: int  # the number of its first token in the context
    size: int  # tokens of the context
    prefix: int  # tokens before them: [CLS] question [SEP]


@dataclass(frozen=True, kw_only=True)
class QuestionFeatures(Features):
    """R windows of Q questions, and what turns their logits into answers.

    `labels` (R, 2): the positions in the window at which the answer starts and ends; (0, 0), that
    is [CLS], where the window does not hold all of it; −100 where the answer's place is not known.
    """

    examples: QuestionExamples
    windows: list[Window]  # R; those of a question are neighbours
    contexts: list[Pieces]  # Q

    def of_questions(self) -> list[range]:
        """The numbers of each question's windows."""
        counts = np.bincount([w.question for w in self.windows], minlength=len(self.examples))
        ends = np.cumsum(counts).tolist()
        return [range(end - count, end) for end, count in zip(ends, counts.tolist(), strict=True)]

    @property
    def unread(self) -> list[int]:
        """The numbers of the questions without a window; their answer is the empty text."""
        return [q for q, rows in enumerate(self.of_questions()) if not rows]

    def check_read(self) -> None:
        """InputError where no question at all has a window."""
        if self.windows or not len(self.examples):
            return
        problem = (
            "the question fills a window and leaves no room for the context: shorten it, or make "
            "the windows longer (--max_seq_length, in a pipeline max_seq_len)"
            if len(self.contexts[0].ids)
            else "the tokenizer makes no token of the context; remove the question"
        )
        others = "; and none of the others can be read" if len(self.examples) > 1 else ""
        raise self.examples.error(0, problem + others)


def question_features(
    examples: QuestionExamples,
    tokenizer: BertTokenizer,
    max_seq_length: int,
    max_query_length: int,
    step: Callable[[int], int],
) -> tuple[QuestionFeatures, int]:
    """The windows of all questions, and how many questions were cut to `max_query_length` tokens.

    step: how far on the next window begins, given the room for the context. A question that leaves
    no room for its context, or of whose context the tokenizer makes no token, has no window: one
    such question among a hundred thousand is no reason to stop, see `QuestionFeatures.unread`.
    Raises InputError for windows that do not advance.
    """
    texts = list(dict.fromkeys(examples.contexts))  # a paragraph is tokenized once
    known = dict(zip(texts, context_pieces(tokenizer, texts), strict=True))
    contexts = [known[context] for context in examples.contexts]
    questions = [pieces.ids for pieces in tokenizer.pieces(examples.questions)]
    windows, ids, type_ids = [], [], []
    cls, sep = (np.array([i], np.int32) for i in (tokenizer.cls_token_id, tokenizer.sep_token_id))
    for q, (question, context) in enumerate(zip(questions, contexts, strict=True)):
        before = np.concatenate([cls, question[:max_query_length], sep])
        room = max_seq_length - len(before) - 1
        if room < 1 or not len(context.ids):
            continue
        _check_advance(examples, q, room, step(room), len(context.ids))
        for first, size in spans(len(context.ids), room, step(room)):
            windows.append(Window(q, first, size, len(before)))
            ids.append(np.concatenate([before, context.ids[first : first + size], sep]))
            type_ids.append((np.arange(len(ids[-1])) >= len(before)).astype(np.int32))
    labels = None if examples.answers is None else _labels(examples.answers, windows, contexts)
    features = QuestionFeatures(
        ids, type_ids, labels, examples=examples, windows=windows, contexts=contexts
    )
    return features, sum(len(question) > max_query_length for question in questions)


def _check_advance(examples: QuestionExamples, q: int, room: int, step: int, tokens: int) -> None:
    if step < 1 and tokens > room:
        raise examples.error(
            q,
            f"a window has room for {room} tokens of the context and would share {room - step} "
            "with the next: lower doc_stride, or raise max_seq_len",
        )


def spans(tokens: int, room: int, step: int) -> list[tuple[int, int]]:
    """(first token, size) of the windows over a context of `tokens` tokens.

    Full windows, each `step` after the one before it, until one reaches the end; no step is longer
    than a window, so no token is left out. One window where all tokens fit, whatever the step.
    """
    if tokens <= room:
        return [(0, tokens)]
    step = min(step, room)
    starts = range(0, tokens - room + step, step)
    return [(start, min(room, tokens - start)) for start in starts]


def max_context(windows: Sequence[Window], tokens: int) -> NDArray[np.int64]:
    """(n,) for each token of a context the number of the window in which it has most context.

    Most context: the largest min(tokens to its left, tokens to its right) + 0.01 · window length,
    the first window where several are equal (google-research/bert's run_squad.py).
    """
    first, size = (np.array([window[i] for window in windows])[:, None] for i in (1, 2))
    left = np.arange(tokens) - first  # (W, n)
    right = size - 1 - left
    score = np.where((left >= 0) & (right >= 0), np.minimum(left, right) + 0.01 * size, -np.inf)
    owner: NDArray[np.int64] = score.argmax(axis=0)
    return owner


def _labels(
    answers: list[list[Answer]], windows: list[Window], contexts: list[Pieces]
) -> NDArray[np.int64]:
    """(R, 2) the positions of the first answer whose place is known."""
    tokens = [_tokens_of(*pair) for pair in zip(answers, contexts, strict=True)]
    labels = np.zeros((len(windows), 2), np.int64)
    for label, window in zip(labels, windows, strict=True):
        start, end = tokens[window.question]
        if start == NOT_LABELLED:
            label[:] = NOT_LABELLED
        elif window.first <= start and end < window.first + window.size:
            label[:] = start - window.first + window.prefix, end - window.first + window.prefix
    return labels


def _tokens_of(answers: list[Answer], context: Pieces) -> tuple[int, int]:
    """The first and the last token that an answer touches, (−1, −1) where there is no answer."""
    if not answers:
        return -1, -1
    begins, ends = context.offsets.T
    for answer in answers:
        if answer.start is not None:
            start = int(np.searchsorted(ends, answer.start, side="right"))
            end = int(np.searchsorted(begins, answer.start + len(answer.text), side="left")) - 1
            if start <= end:  # else it is made of characters that the tokenizer drops
                return start, end
    return NOT_LABELLED, NOT_LABELLED


def context_pieces(tokenizer: BertTokenizer, contexts: Sequence[str]) -> list[Pieces]:
    """Tokens whose ends take in the accents that follow them.

    An uncased tokenizer drops accents; where they are characters of their own, the last of them
    would be cut off the end of an answer.
    """
    encoded = tokenizer.pieces(contexts)
    for text, pieces in zip(contexts, encoded, strict=True):
        if text.isascii() or not len(pieces.ids):
            continue
        ends = pieces.offsets[:, 1]
        limits = np.append(pieces.offsets[1:, 0], len(text))
        for token in np.nonzero(ends < limits)[0].tolist():
            end = int(ends[token])
            while end < limits[token] and unicodedata.category(text[end]) in ("Mn", "Me"):
                end += 1
            ends[token] = end
    return encoded
