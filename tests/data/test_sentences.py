"""Where sentences end, and where a point ends none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.data.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('"Is it?" he said. "Yes!" It was.', ['"Is it?" he said.', '"Yes!"', "It was."]),
        ("He met Mr. Brown and Dr. J. H. Watson. They left.",
         ["He met Mr. Brown and Dr. J. H. Watson.", "They left."]),
        ("About 3.5 per cent. of it … and so on... or so.",
         ["About 3.5 per cent. of it … and so on... or so."]),
        ("So said I. And he too.", ["So said I.", "And he too."]),
        ("In 1850. 12 men came.", ["In 1850.", "12 men came."]),
        ("“Go!” ‘No.’ (Well.) ¿Qué?", ["“Go!”", "‘No.’", "(Well.)", "¿Qué?"]),
        ("今日は。元気？はい", ["今日は。", "元気？", "はい"]),
        ("वह गया। वे आए॥ १२", ["वह गया।", "वे आए॥", "१२"]),
        ("كيف حالك؟ بخير.", ["كيف حالك؟", "بخير."]),
        ("وہ گیا۔ ایم۔اے۔ iPhone", ["وہ گیا۔", "ایم۔اے۔", "iPhone"]),
        ("he came. she left! why? dr. j. smith, i.e. him. so said i. and he.",
         ["he came.", "she left!", "why?", "dr. j. smith, i.e. him.", "so said i.", "and he."]),
        ("he came. she Left.", ["he came. she Left."]),
        ("第一. x. 第二", ["第一.", "x. 第二"]),
        ("no end", ["no end"]),
        (" \n ", []),
    ],
)  # fmt: skip
def test_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.text(alphabet="aB1 .!?。।؟\"')\n", max_size=60))
def test_nothing_but_blanks_is_lost(text: str) -> None:
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)
