"""Entities: spans of words that tags mark, and precision, recall and F1 of finding them.

An entity is found when both its ends and its type are right. Tags are read leniently, as conlleval
(Tjong Kim Sang & Buchholz, CoNLL-2000) and seqeval by default do; in strict mode an entity that
holds a tag which breaks the scheme does not count, as in seqeval's for IOB2 and BIOES.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from minibert.data.tags import OUTSIDE, Scheme, continues, invalid_tags, parse
from minibert.errors import InputError


class Entity(NamedTuple):
    """The words start … end − 1 of a sentence."""

    type: str
    start: int
    end: int


class Score(NamedTuple):
    """Of one type, or averaged; 0 where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float
    support: int  # entities in the truth


@dataclass(frozen=True)
class EntityScores:
    """Scores of the types that occur in the truth or among the predictions, sorted by name."""

    by_type: dict[str, Score]
    micro: Score  # of all entities together
    macro: Score  # the mean of the types


def entities_of(
    tags: Sequence[str], scheme: Scheme | None = None, *, strict: bool = False
) -> list[Entity]:
    """The entities of one sentence, in order.

    The lenient rule needs no scheme, but "plain" makes an entity of every word that is not O.
    """
    if scheme == "plain":
        return [Entity(tag, i, i + 1) for i, tag in enumerate(tags) if tag != "O"]
    if strict and scheme is None:
        raise InputError("strict entities need a scheme: pass IOB1, IOB2 or BIOES")
    found: list[Entity] = []
    before, start = OUTSIDE, 0
    for i, tag in enumerate([*map(parse, tags), OUTSIDE]):
        if not continues(before, tag):
            if before != OUTSIDE:
                found.append(Entity(before.type, start, i))
            start = i
        before = tag
    wrong = invalid_tags(tags, scheme) if strict and scheme else []
    return [entity for entity in found if not any(entity.start <= i < entity.end for i in wrong)]


def tags_of(entities: Iterable[Entity], length: int, scheme: Scheme = "IOB2") -> list[str]:
    """The tags of a sentence of `length` words. InputError where entities overlap or stick out."""
    tags, previous = ["O"] * length, Entity("", 0, 0)
    for entity in sorted(entities, key=lambda entity: entity.start):
        kind, start, end = entity
        if not previous.end <= start < end <= length:
            raise InputError(
                f"entities: got {entity} after {previous} in {length} words, wanted spans of one "
                "word at least, inside of the sentence and apart from each other"
            )
        if scheme == "plain":
            tags[start:end] = [kind] * (end - start)
        else:
            touching = previous.end == start and previous.type == kind
            prefixes = _prefixes(end - start, scheme, touching)
            tags[start:end] = [f"{prefix}-{kind}" for prefix in prefixes]
        previous = entity
    return tags


def _prefixes(length: int, scheme: Scheme, touching: bool) -> str:
    """Of one entity; `touching`: it follows one of its own type at once."""
    if scheme == "BIOES":
        return "S" if length == 1 else "B" + "I" * (length - 2) + "E"
    first = "B" if scheme == "IOB2" or touching else "I"
    return first + "I" * (length - 1)


def score_entities(
    truth: Sequence[Iterable[Entity]], predicted: Sequence[Iterable[Entity]]
) -> EntityScores:
    """Scores of the entities of R sentences."""
    hits, wanted, given = Counter[str](), Counter[str](), Counter[str]()
    for right, guess in zip(map(set, truth), map(set, predicted), strict=True):
        wanted.update(entity.type for entity in right)
        given.update(entity.type for entity in guess)
        hits.update(entity.type for entity in right & guess)
    types = sorted(wanted | given)
    by_type = {kind: _score(hits[kind], wanted[kind], given[kind]) for kind in types}
    micro = _score(hits.total(), wanted.total(), given.total())
    return EntityScores(by_type, micro, _mean(by_type))


def _score(hits: int, wanted: int, given: int) -> Score:
    precision = hits / given if given else 0.0
    recall = hits / wanted if wanted else 0.0
    f1 = 2 * hits / (wanted + given) if wanted + given else 0.0
    return Score(precision, recall, f1, wanted)


def _mean(by_type: dict[str, Score]) -> Score:
    scores, count = list(by_type.values()), len(by_type) or 1
    precision, recall, f1 = (sum(score[i] for score in scores) / count for i in range(3))
    return Score(precision, recall, f1, sum(score.support for score in scores))
