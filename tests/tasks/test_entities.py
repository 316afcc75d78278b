"""Entities and their scores, beside conlleval's rules and seqeval itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.data.tags import invalid_tags
from minibert.errors import InputError
from minibert.tasks.entities import Entity, Score, entities_of, score_entities, tags_of

SCHEMES = ["IOB1", "IOB2", "BIOES"]


def tags_in(prefixes: str) -> Any:
    """A sentence of tags of two types."""
    known = ["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("x", "y-z"))]
    return st.lists(st.sampled_from(known), max_size=12)


def corpus_of(sentences: Any) -> Any:
    """Two taggings of the same sentences."""
    pairs = st.tuples(sentences, sentences).map(lambda two: list(zip(*two, strict=False)))
    corpora = st.lists(pairs, min_size=1, max_size=4)
    return corpora.map(lambda rows: [[[pair[k] for pair in row] for row in rows] for k in (0, 1)])


ANY = tags_in("BIES")


# ---- Spans ----

# conlleval.pl's endOfChunk and startOfChunk: prefixes before and here, where the types agree.
ENDS = {
    *("BB", "BO", "BS", "IB", "IO", "IS"),
    *("EE", "EI", "EO", "EB", "ES", "SE", "SI", "SO", "SB", "SS"),
}
STARTS = {
    *("BB", "IB", "OB", "EB", "SB", "BS", "IS", "OS", "ES", "SS"),
    *("OE", "OI", "EE", "EI", "SE", "SI"),
}


def by_conlleval(tags: list[str]) -> list[Entity]:
    """The entities by conlleval's tables: from each start to the next end."""
    cells = [("O", ""), *((tag[0], tag[2:]) for tag in tags), ("O", "")]
    starts, ends = set(), set()
    for i, ((p, a), (q, b)) in enumerate(pairwise(cells)):
        if p + q in ENDS or (p != "O" and a != b):
            ends.add(i)
        if p + q in STARTS or (q != "O" and a != b):
            starts.add(i)
    found = []
    for start in sorted(starts):
        end = min(end for end in ends if end > start)
        found.append(Entity(tags[start][2:], start, end))
    return found


@given(ANY)
def test_entities_are_those_of_conlleval(tags):
    assert entities_of(tags) == by_conlleval(tags)


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("O O", []),
        ("B-x I-x O B-y", [("x", 0, 2), ("y", 3, 4)]),
        ("I-x I-x B-x I-y", [("x", 0, 2), ("x", 2, 3), ("y", 3, 4)]),
        ("S-x E-x B-x E-x I-x", [("x", 0, 1), ("x", 1, 2), ("x", 2, 4), ("x", 4, 5)]),
        ("B I O I", [("_", 0, 2), ("_", 3, 4)]),
    ],
)
def test_entities(tags, entities):
    assert entities_of(tags.split()) == entities


def test_tags_without_prefixes_are_entities_of_a_word():
    assert entities_of(["NN", "NN", "O", "I"], "plain") == [("NN", 0, 1), ("NN", 1, 2), ("I", 3, 4)]


@pytest.mark.parametrize("scheme", SCHEMES)
@given(tags=ANY)
def test_strict_entities_are_those_without_an_invalid_tag(scheme, tags):
    wrong = set(invalid_tags(tags, scheme))
    want = [e for e in by_conlleval(tags) if wrong.isdisjoint(range(e.start, e.end))]
    assert entities_of(tags, scheme, strict=True) == want


def test_strict_needs_a_scheme():
    with pytest.raises(InputError, match="strict entities need a scheme"):
        entities_of(["B-x"], strict=True)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(tags=ANY)
def test_spans_to_tags_and_back(scheme, tags):
    entities = entities_of(tags)
    written = tags_of(entities, len(tags), scheme)
    assert entities_of(written) == entities
    assert entities_of(written, scheme, strict=True) == entities


def test_tags_of_spans():
    entities = [Entity("y", 3, 4), Entity("x", 0, 2), Entity("x", 2, 3)]
    assert " ".join(tags_of(entities, 5, "IOB2")) == "B-x I-x B-x B-y O"
    assert " ".join(tags_of(entities, 5, "IOB1")) == "I-x I-x B-x I-y O"
    assert " ".join(tags_of(entities, 5, "BIOES")) == "B-x E-x S-x S-y O"
    assert " ".join(tags_of(entities, 5, "plain")) == "x x x y O"


@pytest.mark.parametrize(
    "entities", [[("x", 0, 2), ("y", 1, 3)], [("x", 2, 2)], [("x", 3, 6)], [("x", -1, 1)]]
)
def test_spans_that_are_no_entities(entities):
    with pytest.raises(InputError, match="inside of the sentence and apart from each other"):
        tags_of([Entity(*entity) for entity in entities], 5)


# ---- Scores ----


def scored(truth: Any, guess: Any, scheme: Any = None) -> Any:
    strict = scheme is not None
    found = [[entities_of(row, scheme, strict=strict) for row in rows] for rows in (truth, guess)]
    return score_entities(*found)


def test_scores_counted_by_hand():
    truth = ["B-x I-x O B-y O", "B-y O B-x", "O O"]
    guess = ["B-x I-x O B-x O", "B-y O B-x", "B-z O"]
    scores = score_entities(
        *([entities_of(row.split()) for row in rows] for rows in (truth, guess))
    )
    # x: 2 in the truth, 3 guessed, 2 found; y: 2, 1, 1; z: 0, 1, 0. Together 4, 5, 3.
    assert scores.by_type == {
        "x": Score(2 / 3, 1.0, 4 / 5, 2),
        "y": Score(1.0, 1 / 2, 2 / 3, 2),
        "z": Score(0.0, 0.0, 0.0, 0),
    }
    assert list(scores.by_type) == ["x", "y", "z"]
    assert scores.micro == Score(3 / 5, 3 / 4, 2 / 3, 4)
    assert scores.macro == pytest.approx((5 / 9, 1 / 2, 22 / 45, 4))


def test_both_ends_and_the_type_must_be_right():
    truth = [[Entity("x", 1, 3)]]
    for guess in (("x", 1, 2), ("x", 0, 3), ("y", 1, 3), ("x", 1, 4)):
        assert score_entities(truth, [[Entity(*guess)]]).micro == Score(0.0, 0.0, 0.0, 1)
    assert score_entities(truth, truth).micro == Score(1.0, 1.0, 1.0, 1)
    # the same span in another sentence is another entity
    assert score_entities([*truth, []], [[], *truth]).micro.f1 == 0


def test_nothing_to_find_and_nothing_found():
    scores = score_entities([[]], [[]])
    assert scores.micro == scores.macro == Score(0.0, 0.0, 0.0, 0)
    assert scores.by_type == {}


# ---- seqeval ----


@pytest.fixture(scope="module")
def seqeval() -> Any:
    return pytest.importorskip("seqeval.metrics.sequence_labeling", reason="the oracle is seqeval")


def assert_equal_to_seqeval(ours: Any, score: Any) -> None:
    """score(average) → seqeval's precision, recall, F1 and support."""
    if ours.by_type:
        want = np.array(score(None)).T
        np.testing.assert_allclose(list(ours.by_type.values()), want, rtol=1e-12)
        np.testing.assert_allclose(ours.macro, score("macro"), rtol=1e-12)
    np.testing.assert_allclose(ours.micro, score("micro"), rtol=1e-12)


@pytest.mark.crosscheck
@given(corpus=corpus_of(ANY))
def test_scores_are_those_of_seqeval(corpus, seqeval):
    truth, guess = corpus
    ours = scored(truth, guess)
    assert_equal_to_seqeval(
        ours,
        lambda average: seqeval.precision_recall_fscore_support(
            truth, guess, average=average, zero_division=0
        ),
    )


@pytest.mark.crosscheck
@pytest.mark.parametrize(("scheme", "prefixes"), [("IOB2", "BI"), ("BIOES", "BIES")])
@given(data=st.data())
def test_strict_scores_are_those_of_seqeval(scheme, prefixes, data, seqeval):
    from seqeval.metrics.v1 import precision_recall_fscore_support
    from seqeval.scheme import IOB2, IOBES

    truth, guess = data.draw(corpus_of(tags_in(prefixes)))
    ours = scored(truth, guess, scheme)
    theirs = {"IOB2": IOB2, "BIOES": IOBES}[scheme]
    assert_equal_to_seqeval(
        ours,
        lambda average: precision_recall_fscore_support(
            truth, guess, average=average, zero_division=0, scheme=theirs
        ),
    )


@pytest.mark.crosscheck
@given(sentences=st.lists(ANY, min_size=1, max_size=4))
def test_valid_iob1_is_read_as_seqeval_reads_it(sentences, seqeval):
    """On invalid IOB1 they differ: seqeval takes an entity apart at a B- that begins nothing."""
    from seqeval.scheme import IOB1, Entities

    valid = [tags_of(entities_of(tags), len(tags), "IOB1") for tags in sentences]
    theirs = [
        [(entity.tag, entity.start, entity.end) for entity in row]
        for row in Entities(valid, IOB1).entities
    ]
    assert [entities_of(tags, "IOB1", strict=True) for tags in valid] == theirs
