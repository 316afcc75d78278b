"""Files of words and their tags: CoNLL columns, or JSON lines → sentences.

Columns, under any suffix but those of JSON: a word a row, the word in the first column and its tag
in the last unless others are asked for, a blank line between sentences. A row with a tab in it is
split at tabs, another one at blanks. Rows whose word is -DOCSTART- are skipped. A file of a single
column has words alone. There are no comments unless `comment` says how they begin: "#" is a word
in many files.

JSON lines (.jsonl, .json, .ndjson): an object a sentence, its words under "tokens" or "words", its
tags under "ner_tags", "tags" or "labels", if anywhere. Tags that are numbers need `label_names`.

All of it UTF-8, and also with .gz after the suffix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from minibert.data.tags import Scheme, detect_scheme, has_prefix, invalid_tags, is_plain
from minibert.data.text_files import JSON_LINES, Source, brief, error_at, json_objects, opened
from minibert.errors import InputError
from minibert.io.numbers import counted

WORDS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "labels")
DOCUMENT_START = "-DOCSTART-"


class InvalidTag(NamedTuple):
    """A tag that breaks its scheme where it stands."""

    line: int
    word: str
    tag: str


@dataclass(frozen=True)
class TaggedSentences:
    """The sentences of one file; all lists have one entry a sentence, each with one a word."""

    path: Path
    words: list[list[str]]
    labels: list[list[str]] | None  # the tag of each word
    lines: list[list[int]]  # the line of the file, from 1, that each word stands in
    scheme: Scheme = "IOB2"
    invalid: tuple[InvalidTag, ...] = ()  # of the whole file

    def __len__(self) -> int:
        return len(self.words)

    def take(self, numbers: Sequence[int]) -> TaggedSentences:
        """The sentences with these numbers."""
        labels = None if self.labels is None else [self.labels[i] for i in numbers]
        words, lines = [self.words[i] for i in numbers], [self.lines[i] for i in numbers]
        return replace(self, words=words, labels=labels, lines=lines)

    def head(self, count: int) -> TaggedSentences:
        """The first `count` sentences."""
        if count < 1:
            raise InputError(f"wanted the first {count} sentences of {self.path}; give at least 1")
        return self.take(range(min(count, len(self))))

    @property
    def warning(self) -> str | None:
        """A line about the tags that break their scheme, where there are any."""
        if not self.invalid:
            return None
        line, word, tag = self.invalid[0]
        return (
            f"{self.path}: {counted(len(self.invalid), 'tag')} against the scheme {self.scheme}, "
            f"first {tag!r} of {brief(word)} in line {line}; read as conlleval reads them"
        )

    def error(self, sentence: int, word: int, problem: str) -> InputError:
        """An error about one word, with the place where its user will find it."""
        return error_at(self.path, self.lines[sentence][word], problem)


class _Sentence(NamedTuple):
    words: list[str]
    tags: list[str] | None
    lines: list[int]


def read_tagged(
    source: Source,
    *,
    word_column: int = 0,
    tag_column: int = -1,
    comment: str | None = None,
    label_names: Sequence[str] | None = None,
    scheme: Scheme | None = None,
    refuse_invalid: bool = False,
) -> TaggedSentences:
    """Read a file of tagged words; the module's docstring says which forms there are.

    word_column, tag_column: from 0, or from −1 backwards. comment: lines that begin with it are
    skipped. label_names: what the numbers of JSON's tags mean. scheme: of the tags, found by
    `detect_scheme` unless given. Tags that break it are listed in `invalid` and read as conlleval
    reads them, or refused where `refuse_invalid` says so.

    Raises InputError, with file and line, for a file that is missing, empty or not UTF-8, a row
    with a missing column or more columns than the first, an empty word, tags that are more or fewer
    than the words, and a tag without a prefix among others that have one.
    """
    if scheme is not None and scheme not in get_args(Scheme):
        wanted = ", ".join(get_args(Scheme))
        raise InputError(f"scheme must be one of {wanted}, got {scheme!r}")
    file = opened(source)
    path, text = file.path, file.read()
    if file.suffix in JSON_LINES:
        sentences = list(_json_sentences(path, text, label_names))
    else:
        sentences = list(_column_sentences(path, text, word_column, tag_column, comment))
    if not sentences:
        raise InputError(f"{path}: there is no sentence in it; a word and its tag a line is wanted")
    words, _, lines = map(list, zip(*sentences, strict=True))
    found = TaggedSentences(path, words, None, lines)
    if sentences[0].tags is None:
        return found
    tags = [sentence.tags or [] for sentence in sentences]
    return _checked(replace(found, labels=tags), scheme, refuse_invalid)


def _checked(
    sentences: TaggedSentences, scheme: Scheme | None, refuse_invalid: bool
) -> TaggedSentences:
    """With the scheme of the tags, and the list of those that break it."""
    tags = sentences.labels or []
    found = {tag for row in tags for tag in row}
    mixed = any(has_prefix(tag) and len(tag) > 1 for tag in found)
    if scheme != "plain" and is_plain(found) and (scheme or mixed):
        i, j = next(
            (i, j) for i, row in enumerate(tags) for j, tag in enumerate(row)
            if tag != "O" and not has_prefix(tag)
        )  # fmt: skip
        problem = (
            f"the tag {brief(tags[i][j])} of {brief(sentences.words[i][j])} is not O, nor a prefix "
            "B-, I-, E- or S- and a type, as others are; correct it, choose another tag column, or "
            "say --tag_scheme plain (in Python scheme='plain')"
        )
        raise sentences.error(i, j, problem)
    scheme = scheme or detect_scheme(tags)
    invalid = tuple(
        InvalidTag(lines[j], words[j], row[j])
        for words, row, lines in zip(sentences.words, tags, sentences.lines, strict=True)
        for j in invalid_tags(row, scheme)
    )
    if invalid and refuse_invalid:
        line, word, tag = invalid[0]
        more = f" ({len(invalid)} such tags in the file)" if len(invalid) > 1 else ""
        problem = f"the tag {tag!r} of {brief(word)} breaks the scheme {scheme} here{more}"
        raise error_at(
            sentences.path, line, f"{problem}; correct it, or go without --refuse_invalid_tags"
        )
    return replace(sentences, scheme=scheme, invalid=invalid)


def _column_sentences(
    path: Path, text: str, word_column: int, tag_column: int, comment: str | None
) -> Iterator[_Sentence]:
    words: list[str] = []
    tags: list[str] = []
    lines: list[int] = []
    width = 0  # columns of the first row, and so of all
    for number, cells in _rows(text, comment):
        if cells is None:
            if words:
                yield _Sentence(words, tags if width > 1 else None, lines)
                words, tags, lines = [], [], []
            continue
        if not width:
            width = len(cells)
            for column in (word_column, tag_column):
                if not -width <= column < width:
                    problem = f"there is no column {column}, only {width} (counted from 0)"
                    raise error_at(path, number, problem)
        if len(cells) != width:
            raise error_at(path, number, _ragged(cells, width))
        word, tag = cells[word_column], cells[tag_column]
        if not word or not tag:
            what = "tag" if word else "word"
            raise error_at(path, number, f"the {what} is empty in {brief(cells)}; remove the row")
        words.append(word)
        tags.append(tag)
        lines.append(number)
    if words:
        yield _Sentence(words, tags if width > 1 else None, lines)


def _rows(text: str, comment: str | None) -> Iterator[tuple[int, list[str] | None]]:
    """Each row's line and cells; None for a blank line, which ends a sentence."""
    # Not splitlines() nor a bare split(): words hold U+0085, U+00A0 and U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        row = line.rstrip(" \t\r")
        if not row:
            yield number, None
        elif comment is None or not row.startswith(comment):
            if "\t" in row:
                cells = [cell.strip(" ") for cell in row.split("\t")]
            else:
                cells = [cell for cell in row.split(" ") if cell]
            yield number, None if cells[0] == DOCUMENT_START else cells


def _ragged(cells: list[str], width: int) -> str:
    if len(cells) < width:
        problem = f"a column is missing: {len(cells)} of {width} are there, {brief(cells)}"
    else:
        problem = (
            f"{counted(len(cells), 'column')} where the rows above have {width}: {brief(cells)}"
        )
    hint = (
        '; if this is a comment, remove it (in Python: comment="#")'
        if cells[0].startswith("#")
        else ""
    )
    return problem + hint


def _json_sentences(
    path: Path, text: str, label_names: Sequence[str] | None
) -> Iterator[_Sentence]:
    words_key = tags_key = None
    for line, value in json_objects(path, text):
        if words_key is None:
            words_key = next((key for key in WORDS if key in value), None)
            tags_key = next((key for key in TAGS if key in value), None)
        if words_key is None:
            wanted = " or ".join(map(repr, WORDS))
            raise error_at(path, line, f"a key {wanted} is wanted, got {brief(list(value))}")
        words = _strings(path, line, words_key, value.get(words_key))
        if not words:
            raise error_at(path, line, "the sentence has no words; remove it")
        tags = None
        if tags_key is not None:
            names = _named(path, line, value.get(tags_key), label_names)
            tags = _strings(path, line, tags_key, names)
            if len(tags) != len(words):
                problem = f"{counted(len(tags), 'tag')} for {counted(len(words), 'word')}"
                raise error_at(path, line, f"{problem}; wanted one for each")
        yield _Sentence(words, tags, [line] * len(words))


def _strings(path: Path, line: int, key: str, values: Any) -> list[str]:
    """A list of texts, none of them blank."""
    if not isinstance(values, list):
        raise error_at(path, line, f"{key!r}: a list is wanted, got {brief(values)}")
    for i, item in enumerate(values):
        if not isinstance(item, str) or not item.strip():
            raise error_at(path, line, f"{key!r}, item {i}: a text is wanted, got {brief(item)}")
    return values


def _named(path: Path, line: int, tags: Any, label_names: Sequence[str] | None) -> Any:
    """Tags that are numbers → their names."""
    if not isinstance(tags, list) or not any(type(tag) is int for tag in tags):
        return tags
    if label_names is None:
        raise error_at(path, line, "the tags are numbers; --label_names O B-PER … must name them")
    for tag in tags:
        if type(tag) is not int or not 0 <= tag < len(label_names):
            wanted = f"a number from 0 to {len(label_names) - 1}"
            raise error_at(path, line, f"the tag {brief(tag)} is not {wanted}, for --label_names")
    return [label_names[tag] for tag in tags]
