"""What the tags of words mean: the schemes IOB1, IOB2 and BIOES, and where a tag breaks its scheme.

A tag is "O" (outside of every entity), or a prefix, "-" and the entity's type: B-person. A bare
prefix is a tag of the type "_". The prefixes, by scheme:

  IOB2   B begins every entity, I continues it
  IOB1   I begins and continues; B begins an entity right after another of the same type
  BIOES  S is an entity of one word; of longer ones B is the first, I an inner, E the last word
  plain  no prefixes (parts of speech): every tag but O stands for its word alone
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

Scheme = Literal["IOB1", "IOB2", "BIOES", "plain"]

PREFIXES = "BIES"


class Tag(NamedTuple):
    """A tag in its parts."""

    prefix: str  # one of PREFIXES, or O
    type: str


OUTSIDE = Tag("O", "")


@lru_cache(maxsize=4096)
def parse(tag: str) -> Tag:
    """A tag in its parts; one without a known prefix stands for its word alone, as S- does."""
    if tag == "O":
        return OUTSIDE
    return Tag(tag[0], tag[2:] or "_") if has_prefix(tag) else Tag("S", tag)


def has_prefix(tag: str) -> bool:
    """Whether `tag` is a prefix alone, or a prefix, "-" and a type."""
    return tag.startswith(tuple(PREFIXES)) and tag[1:2] in ("", "-")


def is_plain(tags: Iterable[str]) -> bool:
    """Whether one of these tags at least is neither O nor prefixed: then prefixes mean nothing."""
    return any(tag != "O" and not has_prefix(tag) for tag in tags)


def continues(before: Tag, tag: Tag) -> bool:
    """Whether `tag` continues the entity that the tag `before` it is in.

    The lenient rule of conlleval, one for all schemes: I and E continue B and I of their own type.
    Every other tag but O begins an entity, be it right in its scheme or not.
    """
    return tag.prefix in "IE" and before.prefix in "BI" and before.type == tag.type


def invalid_tags(tags: Sequence[str], scheme: Scheme) -> list[int]:
    """The places of the tags of one sentence that `scheme` does not allow where they stand."""
    if scheme == "plain":
        return []
    allowed = _ALLOWED[scheme]
    parsed = [OUTSIDE, *map(parse, tags), OUTSIDE]
    around = zip(parsed, parsed[1:], parsed[2:], strict=False)
    return [i for i, (before, tag, after) in enumerate(around) if not allowed(before, tag, after)]


def detect_scheme(sentences: Sequence[Sequence[str]]) -> Scheme:
    """The scheme under which fewest tags are invalid; IOB2, IOB1, BIOES is the order in a tie."""
    if is_plain({tag for tags in sentences for tag in tags}):
        return "plain"
    schemes: tuple[Scheme, ...] = ("IOB2", "IOB1", "BIOES")
    return min(schemes, key=lambda s: sum(len(invalid_tags(tags, s)) for tags in sentences))


def _iob2(before: Tag, tag: Tag, after: Tag) -> bool:
    return tag.prefix in "OB" or (tag.prefix == "I" and continues(before, tag))


def _iob1(before: Tag, tag: Tag, after: Tag) -> bool:
    return tag.prefix in "OI" or (
        tag.prefix == "B" and before.prefix in "BI" and before.type == tag.type
    )


def _bioes(before: Tag, tag: Tag, after: Tag) -> bool:
    begun = tag.prefix in "OBS" or continues(before, tag)
    ended = tag.prefix in "OES" or continues(tag, after)
    return begun and ended


_ALLOWED: dict[Scheme, Callable[[Tag, Tag, Tag], bool]] = {
    "IOB1": _iob1,
    "IOB2": _iob2,
    "BIOES": _bioes,
}
