"""Tokens to entities: each strategy on scores made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from minibert.errors import InputError
from minibert.tasks.aggregation import Token, aggregate, checked_strategy, without_overlaps

NAMES = ["B-x", "I-x", "I-y", "O"]
# "Ada Lovelace in Paris.": (piece, B-x, I-x, I-y, O)
TABLE = [
    ("Ada", 0.7, 0.1, 0.1, 0.1),
    ("Love", 0.1, 0.4, 0.2, 0.3),
    ("##lace", 0.0, 0.1, 0.8, 0.1),
    ("in", 0.1, 0.1, 0.1, 0.7),
    ("Paris", 0.2, 0.1, 0.6, 0.1),
    (".", 0.0, 0.3, 0.2, 0.5),
]
PLACES = [(0, 3), (4, 8), (8, 12), (13, 15), (16, 21), (21, 22)]


def tokens() -> list[Token]:
    rows = enumerate(zip(TABLE, PLACES, strict=True), start=1)
    return [
        Token(i, word, np.array(scores), *place, word.startswith("##"))
        for i, ((word, *scores), place) in rows
    ]


def join(words: list[str]) -> str:
    return " ".join(words).replace(" ##", "").replace(" .", ".")


def test_none_gives_every_token():
    entities = aggregate(tokens(), "none", NAMES, join)
    assert [entity["entity"] for entity in entities] == ["B-x", "I-x", "I-y", "O", "I-y", "O"]
    assert entities[2] == {
        "entity": "I-y", "score": 0.8, "index": 3, "word": "##lace", "start": 8, "end": 12
    }  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "groups"),
    [
        ("simple", [
            ("x", (0.7 + 0.4) / 2, "Ada Love", 0, 8), ("y", 0.8, "##lace", 8, 12),
        ]),
        ("first", [("x", (0.7 + 0.4) / 2, "Ada Lovelace", 0, 12)]),
        ("average", [("x", 0.7, "Ada", 0, 3), ("y", (0.2 + 0.8) / 2, "Lovelace", 4, 12)]),
        ("max", [("x", 0.7, "Ada", 0, 3), ("y", 0.8, "Lovelace", 4, 12)]),
    ],
)  # fmt: skip
def test_groups(strategy, groups):
    entities = aggregate(tokens(), strategy, NAMES, join)
    groups = [
        *groups,
        ("O", 0.7, "in", 13, 15),
        ("y", 0.6, "Paris", 16, 21),
        ("O", 0.5, ".", 21, 22),
    ]
    keys = ["entity_group", "score", "word", "start", "end"]
    assert [list(entity) for entity in entities] == [keys] * len(groups)
    for entity, group in zip(entities, groups, strict=True):
        assert entity == dict(zip(keys, group, strict=True)) | {"score": pytest.approx(group[1])}


def test_b_begins_anew_and_a_bare_label_goes_on():
    def found(*labels):
        names = sorted(set(labels))
        rows = [
            Token(i, "w", np.eye(len(names))[names.index(label)], i, i + 1)
            for i, label in enumerate(labels)
        ]
        groups = aggregate(rows, "simple", names, join)
        return [(group["entity_group"], group["start"], group["end"]) for group in groups]

    assert found("B-x", "I-x", "B-x", "I-y") == [("x", 0, 2), ("x", 2, 3), ("y", 3, 4)]
    assert found("I-x", "O", "O", "I-x") == [("x", 0, 1), ("O", 1, 3), ("x", 3, 4)]
    assert found("x", "x", "I-x", "E-x", "E-x") == [("x", 0, 3), ("x", 3, 5)]
    assert found("B-x-y", "I-x-y") == [("x-y", 0, 2)]
    assert found() == []


def test_a_text_may_begin_inside_a_word():
    (group,) = aggregate(tokens()[2:3], "first", NAMES, join)
    assert (group["word"], group["start"]) == ("##lace", 8)


def test_of_overlapping_entities_the_longest_stays():
    def entity(start, end, score=0.5):
        return {"start": start, "end": end, "score": score}

    assert without_overlaps([]) == []
    rows = [
        entity(4, 8),
        entity(0, 3),
        entity(4, 9),
        entity(6, 7),
        entity(9, 12),
        entity(9, 12, 0.6),
    ]
    assert without_overlaps(rows) == [entity(0, 3), entity(4, 9), entity(9, 12, 0.6)]


def test_strategies_by_name():
    assert checked_strategy("SIMPLE") == "simple"
    with pytest.raises(InputError, match=r"aggregation_strategy: got 'all', wanted one of none, "):
        checked_strategy("all")
