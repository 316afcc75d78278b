"""Schemes of tags: what breaks them, and which one a file is in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.data.tags import Tag, detect_scheme, has_prefix, invalid_tags, is_plain, parse
from minibert.tasks.entities import Entity, tags_of

SCHEMES = ["IOB1", "IOB2", "BIOES"]


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        ("O", ("O", "")),
        ("B-creative-work", ("B", "creative-work")),
        ("I", ("I", "_")),
        ("E-", ("E", "_")),
        ("NNP", ("S", "NNP")),
        ("B2", ("S", "B2")),
        ("", ("S", "")),
    ],
)
def test_a_tag_in_its_parts(tag, parts):
    assert parse(tag) == Tag(*parts)


def test_prefixes():
    assert [tag for tag in ("B-x", "S", "O", "x-B", "", "Bx", "L-x") if has_prefix(tag)] == [
        "B-x",
        "S",
    ]
    assert not is_plain(["O", "B-x", "I"])
    assert is_plain(["O", "B-x", "NN"])


@pytest.mark.parametrize(
    ("scheme", "tags", "places"),
    [
        ("IOB2", "O B-x I-x O B-x B-y", []),
        ("IOB2", "I-x I-x O I-y B-x I-y", [0, 3, 5]),
        ("IOB2", "B-x E-x S-x", [1, 2]),
        ("IOB1", "I-x I-x B-x I-x I-y O B-y", [6]),
        ("IOB1", "B-x O I-y B-x", [0, 3]),
        ("IOB1", "I-x E-x S-x", [1, 2]),
        ("BIOES", "S-x B-y I-y E-y B-x E-x O", []),
        ("BIOES", "B-x O I-y E-y E-x B-x", [0, 2, 4, 5]),
        ("BIOES", "B-x I-x S-x B-x B-x E-y", [1, 3, 4, 5]),
        ("plain", "I-x E-x NN", []),
    ],
)
def test_tags_that_break_their_scheme(scheme, tags, places):
    assert invalid_tags(tags.split(), scheme) == places


@pytest.mark.parametrize(
    ("scheme", "sentences"),
    [
        ("IOB2", ["O O"]),
        ("IOB2", ["B-x I-x O", "B-x B-y"]),
        ("IOB2", ["B-x I-x O", "B-x B-x", "B-y I-y", "I-x O"]),  # one mistake in it
        ("IOB1", ["I-x I-x O", "O I-y"]),
        ("IOB1", ["I-x B-x O", "O I-y"]),
        ("BIOES", ["S-x O", "O O"]),
        ("BIOES", ["B-x E-x"]),
        ("BIOES", ["B-x I-x E-x S-y", "B-x O"]),  # and here
        ("plain", ["NN VB", "O O"]),
    ],
)
def test_the_scheme_shows(scheme, sentences):
    assert detect_scheme([tags.split() for tags in sentences]) == scheme


@st.composite
def spans(draw):
    """Entities of one sentence, and its length."""
    entities, place = [], 0
    for kind in draw(st.lists(st.sampled_from("xy"), max_size=5)):
        start = place + draw(st.integers(0, 2))
        place = start + draw(st.integers(1, 3))
        entities.append(Entity(kind, start, place))
    return entities, place + draw(st.integers(0, 2))


@pytest.mark.parametrize("scheme", SCHEMES)
@given(spans())
def test_what_we_write_is_valid(scheme, sentence):
    assert invalid_tags(tags_of(*sentence, scheme), scheme) == []
