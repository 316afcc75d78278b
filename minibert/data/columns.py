"""Which columns of a table, or keys of an object, hold the texts and the label."""

from __future__ import annotations

from typing import NamedTuple

from minibert.data.text_files import Problem, brief

PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("text", "text_pair"),
)
SINGLES = ("sentence", "sentence1", "text")
LABELS = ("label", "labels", "gold_label", "score", "is_duplicate")
IGNORED = ("index", "idx", "id", "guid")
HEADER_WORDS = frozenset({*(name for pair in PAIRS for name in pair), *SINGLES, *LABELS, *IGNORED})


class Columns(NamedTuple):
    """Which columns of a file hold the texts and the labels; None where there is none."""

    sentence1: str
    sentence2: str | None = None
    label: str | None = None


class Named(NamedTuple):
    """Columns that the user names."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None


def choose_columns(header: list[str], named: Named) -> Columns:
    """The columns of a header by the rule of `read_examples`; Problem where there is no text."""
    for name in (named.text, named.pair):
        if name is not None and name not in header:
            raise _missing(name, header)
    if named.pair is not None and named.text is None:
        raise Problem(f"the second text is {named.pair!r}: --text_column must name the first")
    names = {name.casefold(): name for name in reversed(header) if name != named.label}
    if named.label is not None and named.label in (named.text, named.pair):
        raise Problem(f"the column {named.label!r} is named as a text and as the label: choose one")
    known = [names[name] for name in LABELS if name in names]
    label = next((name for name in known if name not in (named.text, named.pair)), None)
    if named.label is not None:  # "": there is none, and none is to be guessed
        label = named.label if named.label in header else ""
    if named.text is not None:
        return _columns(header, named.text, named.pair, label)
    for first, second in PAIRS:
        if first in names and second in names:
            return _columns(header, names[first], names[second], label)
    for single in SINGLES:
        if single in names:
            return _columns(header, names[single], None, label)
    free = [name for name in header if name != label and name.casefold() not in IGNORED]
    if label is None and len(free) > 1:
        label = free.pop()
    if not free or free[0].casefold() == "sentence2":
        raise _missing("sentence1", header)
    return Columns(free[0], free[1] if len(free) > 1 else None, label or None)


def made_up(count: int, pairs: bool) -> list[str]:
    """The names of so many columns of a table without a header; `pairs`: two are two texts."""
    two = ["sentence1", "sentence2" if pairs else "label"]
    names = {1: ["sentence1"], 2: two, 3: ["sentence1", "sentence2", "label"]}
    if count not in names:
        raise Problem(
            f"{count} columns and no header: which are the texts? Add a first row such as "
            "sentence1, sentence2, label, or name the columns of this one (--text_column …)"
        )
    return names[count]


def _columns(header: list[str], first: str, second: str | None, label: str | None) -> Columns:
    """With the last column as the label, where none is known."""
    if label is None:
        label = _last(header, *(name.casefold() for name in (first, second) if name))
    return Columns(first, second, label or None)


def _last(header: list[str], *texts: str) -> str | None:
    """The last column, if it is free to be the label."""
    taken = header[-1].casefold() in (*texts, *IGNORED, "sentence2")
    return None if taken else header[-1]


def _missing(name: str, header: list[str]) -> Problem:
    return Problem(f"there is no column {name!r}; the columns are {brief(header)}")
