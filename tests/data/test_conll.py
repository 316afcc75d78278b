"""Columns and JSON lines of tagged words, and what is wrong with those that cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from folders import data_file

from minibert.data.conll import InvalidTag, TaggedSentences, read_tagged
from minibert.errors import InputError

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""


def read(directory: Path, name: str, data: bytes | str, **options: Any) -> TaggedSentences:
    path = directory / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_tagged(path, **options)


# --- columns -----------------------------------------------------------------------------------


FORMS = {
    "blanks": CONLL,
    "many blanks": CONLL.replace(" ", "  "),
    "tabs": CONLL.replace(" ", "\t"),
    "carriage returns": CONLL.replace("\n", "\r\n"),
    "no last line end": CONLL.rstrip("\n"),
    "byte order mark": "\ufeff" + CONLL,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_first_column_and_the_last(form: str, tmp_path: Path) -> None:
    sentences = read(tmp_path, "eng.train", FORMS[form])
    assert sentences.words == [["EU", "rejects"], ["Peter", "Blackburn"]]
    assert sentences.labels == [["B-ORG", "O"], ["B-PER", "I-PER"]]
    assert sentences.lines == [[3, 4], [6, 7]]
    assert sentences.scheme == "IOB2"
    assert sentences.invalid == ()
    assert len(sentences) == 2


def test_other_columns(tmp_path: Path) -> None:
    sentences = read(tmp_path, "a.conll", CONLL, tag_column=2)
    assert sentences.labels == [["B-NP", "B-VP"], ["B-NP", "I-NP"]]
    sentences = read(tmp_path, "a.conll", CONLL, tag_column=1)
    assert (sentences.labels, sentences.scheme) == ([["NNP", "VBZ"], ["NNP", "NNP"]], "plain")
    swapped = read(tmp_path, "a.conll", "O\tthe\nB-x\tsea\n", word_column=1, tag_column=0)
    assert (swapped.words, swapped.labels) == ([["the", "sea"]], [["O", "B-x"]])


def test_words_alone(tmp_path: Path) -> None:
    sentences = read(tmp_path, "a.txt", "the\nsea\n\n\n\t\nfilm\n")
    assert (sentences.words, sentences.labels) == ([["the", "sea"], ["film"]], None)
    assert sentences.take([1]).labels is None


def test_only_tabs_and_blanks_separate(tmp_path: Path) -> None:
    rows = "New York\tB-x\na\u00a0b\tO\nc\u2028d O\ne\u0085 O\n #\tO\n"
    sentences = read(tmp_path, "a.conll", rows)
    assert sentences.words == [["New York", "a\u00a0b", "c\u2028d", "e\u0085", "#"]]


def test_comments_are_words_unless_asked_for(tmp_path: Path) -> None:
    rows = "# O\n#a O\nb O\n"
    assert read(tmp_path, "a.conll", rows).words == [["#", "#a", "b"]]
    sentences = read(tmp_path, "a.conll", "# id = 1\na O\n# x\nb O\n", comment="# ")
    assert (sentences.words, sentences.lines) == ([["a", "b"]], [[2, 4]])
    with pytest.raises(InputError, match=r'line 2: 4 columns where .* have 2: .*comment="#"'):
        read(tmp_path, "a.conll", "a O\n# id = 1\nb O\n")


# --- JSON lines --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "tags"), [("tokens", "tags"), ("tokens", "ner_tags"), ("words", "labels")]
)
def test_json_lines(words: str, tags: str, tmp_path: Path) -> None:
    rows = [{words: ["a b", "c"], tags: ["B-x", "I-x"]}, {words: ["d"], tags: ["O"], "id": 3}]
    data = "\n\n".join(map(json.dumps, rows))
    sentences = read(tmp_path, "a.jsonl.gz", gzip.compress(data.encode()))
    assert sentences.words == [["a b", "c"], ["d"]]
    assert sentences.labels == [["B-x", "I-x"], ["O"]]
    assert sentences.lines == [[1, 1], [3]]


def test_json_without_tags(tmp_path: Path) -> None:
    sentences = read(tmp_path, "a.json", '{"tokens": ["a"], "pos_tags": [3]}')
    assert (sentences.words, sentences.labels) == ([["a"]], None)


def test_numbers_as_tags_need_names(tmp_path: Path) -> None:
    data = '{"tokens": ["a", "b"], "ner_tags": [0, 2]}'
    names = ["O", "B-x", "B-y"]
    assert read(tmp_path, "a.jsonl", data, label_names=names).labels == [["O", "B-y"]]
    with pytest.raises(
        InputError, match="line 1: the tags are numbers; --label_names O B-PER … must"
    ):
        read(tmp_path, "a.jsonl", data)
    with pytest.raises(InputError, match="line 1: the tag 2 is not a number from 0 to 1, for"):
        read(tmp_path, "a.jsonl", data, label_names=names[:2])


# --- schemes -----------------------------------------------------------------------------------

BROKEN = "a B-x\nb I-y\n\nc I-x\nd I-x\ne B-x\nf B-x\n"


def test_invalid_tags_are_read_and_listed(tmp_path: Path) -> None:
    sentences = read(tmp_path, "a.conll", BROKEN, scheme="IOB2")
    assert sentences.labels == [["B-x", "I-y"], ["I-x", "I-x", "B-x", "B-x"]]
    assert sentences.invalid == (InvalidTag(2, "b", "I-y"), InvalidTag(4, "c", "I-x"))
    assert sentences.warning == (
        f"{tmp_path / 'a.conll'}: 2 tags against the scheme IOB2, first 'I-y' of 'b' in line 2; "
        "read as conlleval reads them"
    )
    assert read(tmp_path, "a.conll", CONLL).warning is None


def test_invalid_tags_are_refused_by_a_flag(tmp_path: Path) -> None:
    message = r"a.conll, line 2: the tag 'I-y' of 'b' breaks the scheme IOB2 here \(2 such tags"
    with pytest.raises(InputError, match=message):
        read(tmp_path, "a.conll", BROKEN, scheme="IOB2", refuse_invalid=True)
    with pytest.raises(InputError, match="line 1: the tag 'I-x' of 'b' breaks the scheme IOB2"):
        read(
            tmp_path, "a.jsonl", '{"tokens": ["a", "b"], "tags": ["O", "I-x"]}',
            scheme="IOB2", refuse_invalid=True,
        )  # fmt: skip
    read(tmp_path, "a.conll", CONLL, refuse_invalid=True)


def test_the_scheme_is_found(tmp_path: Path) -> None:
    assert read(tmp_path, "a", "a I-x\nb B-x\n").scheme == "IOB1"
    assert read(tmp_path, "a", "a S-x\n\nb B-x\nc E-x\n").scheme == "BIOES"
    assert read(tmp_path, "a", "a I-x\n", scheme="IOB1").scheme == "IOB1"
    with pytest.raises(InputError, match=r"scheme must be one of IOB1, .*, got 'BILOU'"):
        read(tmp_path, "a", "a I-x\n", scheme="BILOU")


def test_a_tag_without_prefix_among_others(tmp_path: Path) -> None:
    message = r"a.conll, line 4: the tag 'PER' of 'c' is not O, nor a prefix"
    with pytest.raises(InputError, match=message):
        read(tmp_path, "a.conll", "a B-x\nb O\n\nc PER\n")
    with pytest.raises(InputError, match="line 1: the tag 'NN' of 'a' is not O"):
        read(tmp_path, "a.conll", "a NN\n", scheme="IOB2")
    assert read(tmp_path, "a.conll", "a B-x\nb PER\n", scheme="plain").scheme == "plain"


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a O\nb\n", r"line 2: a column is missing: 1 of 2 are there, \['b'\]"),
        ("a\tO\n\nb\t\n", "line 3: a column is missing"),
        ("a O\nb c O\n", "line 2: 3 columns where the rows above have 2"),
        ("a\tO\n\tO\n", "line 2: the word is empty"),
        (b"a O\n\nb\xe9 O\n", r"line 3: byte 2 of the line \(0xe9\) is not UTF-8"),
        ("", "the file is empty"),
        ("\n\n \n", "there is no sentence in it"),
        ("-DOCSTART- O\n\n", "there is no sentence in it"),
    ],
)
def test_columns_that_cannot_be_read(
    data: bytes | str, message: str | None, tmp_path: Path
) -> None:
    if message is None:
        read(tmp_path, "a.conll", data)
        return
    with pytest.raises(InputError, match=rf"a.conll(, |: ){message}"):
        read(tmp_path, "a.conll", data)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3: there is no column 4, only 4 \(counted from 0"):
        read(tmp_path, "a.conll", CONLL, tag_column=4)
    with pytest.raises(InputError, match="there is no column -5"):
        read(tmp_path, "a.conll", CONLL, word_column=-5)
    with pytest.raises(InputError, match="there is no such file"):
        read_tagged(tmp_path / "b.conll")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"tokens": ["a", "b"], "tags": ["O"]}', "1 tag for 2 words; wanted one for each"),
        ('{"tokens": ["a", "b"], "tags": ["O", "O"', "not a JSON object on one line"),
        ('{"tokens": ["a", "b"]}', "'tags': a list is wanted, got None"),
        ('{"tokens": [], "tags": []}', "the sentence has no words"),
        ('{"tokens": ["a", 5], "tags": ["O", "O"]}', "'tokens', item 1: a text is wanted, got 5"),
        ('{"tokens": ["a", " "], "tags": ["O", "O"]}', "'tokens', item 1: a text is wanted"),
        ('{"tokens": "a b", "tags": ["O", "O"]}', "'tokens': a list is wanted, got 'a b'"),
        ('{"tokens": ["a"], "tags": [null]}', "'tags', item 0: a text is wanted, got None"),
    ],
)
def test_json_that_cannot_be_read(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"a.jsonl, line 3: {message}"):
        read(tmp_path, "a.jsonl", f'{{"tokens": ["a"], "tags": ["O"]}}\n\n{line}\n')


def test_json_without_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 1: a key 'tokens' or 'words' is wanted, got \['a"):
        read(tmp_path, "a.jsonl", '{"a": 1}')


# --- parts of a file ---------------------------------------------------------------------------


def test_some_of_the_sentences(tmp_path: Path) -> None:
    sentences = read(tmp_path, "a.conll", CONLL)
    taken = sentences.take([1])
    assert (taken.words, taken.lines) == ([["Peter", "Blackburn"]], [[6, 7]])
    assert sentences.head(1) == sentences.take([0])
    assert sentences.head(9) == sentences
    assert str(taken.error(0, 1, "why")) == f"{sentences.path}, line 7: why"
    with pytest.raises(InputError, match="give at least 1"):
        sentences.head(0)


# --- real files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentences", "words", "entities"),
    [
        ("wnut17train.conll", 3394, 62730, 1975),
        ("emerging.dev.conll", 1009, 15733, 836),
        ("emerging.test.annotated", 1287, 23394, 1079),
    ],
)
def test_wnut17(name: str, sentences: int, words: int, entities: int) -> None:
    found = read_tagged(data_file(f"wnut17/{name}"))
    assert (len(found), sum(map(len, found.words))) == (sentences, words)
    assert (found.scheme, found.invalid) == ("IOB2", ())
    assert sum(tag.startswith("B-") for row in found.labels or [] for tag in row) == entities
