"""Tokens and their scores → entities, by the rules of transformers' TokenClassificationPipeline.

The strategies: "none" gives every token. "simple" joins neighbours of one type. "first", "average"
and "max" settle a word before that: by its first token, by the mean of its tokens' scores, or by
the token with the highest score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from minibert.errors import InputError

AggregationStrategy = Literal["none", "simple", "first", "average", "max"]
Join = Callable[[list[str]], str]  # pieces as text


@dataclass(frozen=True)
class Token:
    """One token of a window, or one word."""

    index: int  # its place in the window, of which [CLS] is 0
    word: str  # the piece; the text itself where the piece is [UNK]
    scores: NDArray[np.float64]  # (K,) probabilities; of a settled word, those it was settled by
    start: int  # in the text
    end: int
    is_subword: bool = False  # it continues the word of the token before


def checked_strategy(name: object) -> AggregationStrategy:
    """`name` if it is a strategy, in small letters."""
    known = get_args(AggregationStrategy)
    if not isinstance(name, str) or name.lower() not in known:
        raise InputError(f"aggregation_strategy: got {name!r}, wanted one of {', '.join(known)}")
    return name.lower()  # type: ignore[return-value]  # checked above


def aggregate(
    tokens: Sequence[Token], strategy: AggregationStrategy, names: Sequence[str], join: Join
) -> list[dict[str, Any]]:
    """The entities of one window, those named "O" among them; names: of the K labels.

    Each is {"entity_group", "score", "word", "start", "end"}; under "none" a token,
    {"entity", "score", "index", "word", "start", "end"}.
    """
    if strategy in ("first", "average", "max"):
        tokens = [_settled(word, strategy, join) for word in _words(tokens)]
    entities = [_entity(token, names) for token in tokens]
    if strategy == "none":
        return entities
    groups: list[list[dict[str, Any]]] = []
    before = None
    for entity in entities:
        prefix, kind = _prefix_and_type(entity["entity"])
        if kind != before or prefix == "B":
            groups.append([])
        groups[-1].append(entity)
        before = kind
    return [_joined(group, join) for group in groups]


def without_overlaps(entities: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the entities of several windows that overlap, the longest; of equal ones, the surest."""
    kept: list[dict[str, Any]] = []
    for entity in sorted(entities, key=lambda entity: int(entity["start"])):
        if not kept or not kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept.append(entity)
        elif _weight(entity) > _weight(kept[-1]):
            kept[-1] = entity
    return kept


def _weight(entity: dict[str, Any]) -> tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"]


def _words(tokens: Sequence[Token]) -> list[list[Token]]:
    words: list[list[Token]] = []
    for token in tokens:
        if token.is_subword and words:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _settled(word: list[Token], strategy: AggregationStrategy, join: Join) -> Token:
    """The tokens of one word as one token."""
    if strategy == "first":
        scores = word[0].scores
    elif strategy == "max":
        scores = max((token.scores for token in word), key=lambda scores: float(scores.max()))
    else:
        scores = np.mean([token.scores for token in word], axis=0)
    text = join([token.word for token in word])
    return Token(word[0].index, text, scores, word[0].start, word[-1].end)


def _entity(token: Token, names: Sequence[str]) -> dict[str, Any]:
    best = int(token.scores.argmax())
    score = float(token.scores[best])
    place = {"index": token.index, "word": token.word, "start": token.start, "end": token.end}
    return {"entity": names[best], "score": score, **place}


def _prefix_and_type(label: str) -> tuple[str, str]:
    """A label without B- or I- is its own type, and continues one like it."""
    return (label[0], label[2:]) if label.startswith(("B-", "I-")) else ("I", label)


def _joined(group: list[dict[str, Any]], join: Join) -> dict[str, Any]:
    return {
        "entity_group": group[0]["entity"].split("-", 1)[-1],
        "score": float(np.mean([entity["score"] for entity in group])),
        "word": join([entity["word"] for entity in group]),
        "start": group[0]["start"],
        "end": group[-1]["end"],
    }
