from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.data.columns import Columns
from minibert.data.readers import Examples, read_examples
from minibert.data.text_files import TextFile
from minibert.errors import InputError


def read(directory: Path, name: str, data: bytes | str, **options) -> Examples:
    path = directory / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_examples(path, **options)


# --- which columns are taken -------------------------------------------------------------------

HEADERS = {
    "sentence label": Columns("sentence", None, "label"),
    "text label": Columns("text", None, "label"),
    "label sentence": Columns("sentence", None, "label"),
    "sentence label rating": Columns("sentence", None, "label"),
    "sentence rating": Columns("sentence", None, "rating"),
    "index sentence1 sentence2 label": Columns("sentence1", "sentence2", "label"),
    "sentence2 sentence1 label": Columns("sentence1", "sentence2", "label"),
    "index genre source1 sentence1 sentence2 score": Columns("sentence1", "sentence2", "score"),
    "index question sentence label": Columns("question", "sentence", "label"),
    "id qid1 qid2 question1 question2 is_duplicate": Columns(
        "question1", "question2", "is_duplicate"
    ),
    "index sentence": Columns("sentence"),
    "index sentence1 sentence2": Columns("sentence1", "sentence2"),
    "id review stars": Columns("review", None, "stars"),
    "id review title stars": Columns("review", "title", "stars"),
    "review label": Columns("review", None, "label"),
    "a b c label": Columns("a", "b", "label"),
    "ID Sentence Label": Columns("Sentence", None, "Label"),
    "id review": Columns("review"),
}


@pytest.mark.parametrize("header", HEADERS)
def test_columns_of_a_header(header: str, tmp_path: Path) -> None:
    names = header.split()
    rows = "\t".join(names) + "\n" + "\t".join(f"cell of {name}" for name in names) + "\n"
    examples = read(tmp_path, "a.tsv", rows)
    expected = HEADERS[header]
    assert examples.columns == expected
    assert examples.sentence1 == [f"cell of {expected.sentence1}"]
    assert (examples.sentence2 is None) == (expected.sentence2 is None)
    assert examples.labels == (None if expected.label is None else [f"cell of {expected.label}"])
    assert examples.lines == [2]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ("a plane,an air plane,5.0", Columns("sentence1", "sentence2", "label")),
        ('"a, b",1', Columns("sentence1", None, "label")),
        ("a plane", Columns("sentence1")),
    ],
)
def test_a_file_without_a_header(row: str, columns: Columns, tmp_path: Path) -> None:
    examples = read(tmp_path, "a.csv", f"{row}\n{row}\n")
    assert examples.columns == columns
    assert examples.lines == [1, 2]


def test_two_columns_without_a_header_may_be_a_pair(tmp_path: Path) -> None:
    examples = read(tmp_path, "a.csv", "a plane,an air plane\n", pairs=True)
    assert examples.columns == Columns("sentence1", "sentence2")
    examples = read(tmp_path, "a.csv", "title,label\na plane,1\n", pairs=True)
    assert examples.columns == Columns("title", None, "label")


STARS = "stars,body,title,x\n5,good,Great,\n"


def test_named_columns(tmp_path: Path) -> None:
    names = {"text_column": "title", "text_pair_column": "body", "label_column": "stars"}
    examples = read(tmp_path, "a.csv", STARS, **names)
    assert (examples.sentence1, examples.sentence2) == (["Great"], ["good"])
    assert examples.labels == ["5"]
    with pytest.raises(InputError, match=r"line 1: there is no column 'boby'; .*'body'"):
        read(tmp_path, "a.csv", STARS, text_column="boby")
    with pytest.raises(InputError, match="'body': --text_column must name the first"):
        read(tmp_path, "a.csv", STARS, text_pair_column="body")


@pytest.mark.parametrize(
    ("header", "named", "columns"),
    [
        ("label,review,stars", {"text_column": "review"}, Columns("review", None, "label")),
        ("id,review,stars", {"text_column": "review"}, Columns("review", None, "stars")),
        ("stars,id,review", {"text_column": "review"}, Columns("review")),
        ("review,title,x", {"label_column": "x"}, Columns("review", "title", "x")),
        ("text,label,stars", {"label_column": "stars"}, Columns("text", None, "stars")),
        ("text,b,c", {"label_column": "stars"}, Columns("text")),  # a file to predict
        ("a,b", {"text_column": "b", "label_column": "stars"}, Columns("b")),
    ],
)
def test_some_columns_are_named(
    header: str, named: dict[str, str], columns: Columns, tmp_path: Path
) -> None:
    examples = read(
        tmp_path, "a.csv", header + "\n" + ",".join("abc"[: header.count(",") + 1]), **named
    )
    assert examples.columns == columns
    assert examples.header


def test_what_was_taken_for_what_is_described(tmp_path: Path) -> None:
    def described(name: str, data: str) -> str:
        return read(tmp_path, name, data).description.removeprefix(f"{tmp_path}/")

    assert described("a.csv", "a,1\nb,2\n") == (
        "a.csv: columns text 'sentence1', label 'label', by position: there is no header"
    )
    assert described("a.csv", "a,b,label\nx,y,2\n") == (
        "a.csv: columns texts 'a' and 'b', label 'label', as the first row names them"
    )
    assert described("a.txt", "a\n") == "a.txt: text 'text', no labels"


def test_a_first_row_that_must_be_a_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"line 1: the label 'stars' is no number.*--text_column … --label_column"
    ):
        read(tmp_path, "a.csv", "review,stars\ngood,5\nbad,1\n")
    assert read(tmp_path, "a.csv", "review,stars\ngood,5\n", text_column="review").labels == ["5"]


def test_a_first_row_that_may_be_a_header_is_named(tmp_path: Path) -> None:
    def warning(data: str) -> str | None:
        return read(tmp_path, "a.csv", data).warning

    found = warning("review,mood\na,pos\nb,neg\nc,pos\n")
    assert found is not None
    assert "is the first row a header? No other has its label 'mood'" in found
    assert warning("a,pos\nb,neg\nc,pos\n") is None
    assert warning("a,meh\nb,neg\nc,pos\n") is None  # every label is new
    assert warning("a,3\nb,1\nc,1\n") is None
    assert warning("review,label\na,pos\nb,pos\n") is None


# --- the forms ---------------------------------------------------------------------------------


def test_a_quote_in_tsv_is_a_character(tmp_path: Path) -> None:
    examples = read(tmp_path, "a.tsv", 'sentence\tlabel\n"open\t1\nsay "hi"\t 0 \r\n')
    assert examples.sentence1 == ['"open', 'say "hi"']
    assert examples.labels == ["1", "0"]


def test_csv_lines_are_counted_where_they_begin(tmp_path: Path) -> None:
    examples = read(tmp_path, "a.csv", 'text,label\n"two\nlines",1\n\nplain,0\n')
    assert examples.sentence1 == ["two\nlines", "plain"]
    assert examples.lines == [2, 5]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".ndjson", ".JSONL"])
def test_json_lines(suffix: str, tmp_path: Path) -> None:
    data = '{"text": "a", "label": 1}\n\n{"label": 2.5, "text": "b", "more": {}}\n'
    examples = read(tmp_path, f"a{suffix}", data)
    assert (examples.sentence1, examples.labels, examples.lines) == (["a", "b"], ["1", 2.5], [1, 3])


def test_json_labels_keep_their_kind(tmp_path: Path) -> None:
    values = [0, 1.0, "x", True, ["a", "b"], [], [1, 2]]
    data = "\n".join(json.dumps({"text": "t", "label": value}) for value in values)
    labels = read(tmp_path, "a.jsonl", data).labels
    assert labels == ["0", 1.0, "x", "true", ["a", "b"], [], ["1", "2"]]


def test_plain_text(tmp_path: Path) -> None:
    examples = read(tmp_path, "a.txt", "label\tone\r\ntwo")
    assert examples.sentence1 == ["label\tone", "two"]
    assert examples.labels is None
    assert examples.columns == Columns("text")


def test_gzip_and_byte_order_mark(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbfsentence\tlabel\na\t1\n"
    assert read(tmp_path, "a.tsv", data).columns.sentence1 == "sentence"
    assert read(tmp_path, "a.TSV.gz", gzip.compress(data)).sentence1 == ["a"]


def test_unicode_line_breaks_stay_in_the_text(tmp_path: Path) -> None:
    text = "a\u2028b\x0bc\x85d\x0ce"
    assert read(tmp_path, "a.tsv", f"{text}\t1\n").sentence1 == [text]
    assert read(tmp_path, "a.txt", text).sentence1 == [text]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
LINE = TEXT.map(lambda text: text.replace("\t", " ").replace("\n", " ").replace("\r", " "))
ROWS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5)


def round_trip(name: str, data: str) -> Examples:
    with tempfile.TemporaryDirectory() as directory:
        return read(Path(directory), name, data)


@given(st.lists(st.tuples(LINE.filter(str.strip), LINE.filter(str.strip)), min_size=1, max_size=5))
def test_odd_texts_survive_tsv(rows: list[tuple[str, str]]) -> None:
    data = "sentence1\tsentence2\tlabel\n" + "".join(f"{a}\t{b}\t1\n" for a, b in rows)
    examples = round_trip("a.tsv", data)
    assert list(zip(examples.sentence1, examples.sentence2 or [], strict=True)) == rows


@given(ROWS)
def test_odd_texts_survive_csv(rows: list[tuple[str, str]]) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerows([("sentence1", "sentence2", "label"), *((a, b, "1") for a, b in rows)])
    examples = round_trip("a.csv", stream.getvalue())
    assert list(zip(examples.sentence1, examples.sentence2 or [], strict=True)) == rows


@given(ROWS, st.booleans())
def test_odd_texts_survive_json_lines(rows: list[tuple[str, str]], ascii_only: bool) -> None:
    objects = [{"sentence1": a, "sentence2": b, "label": "1"} for a, b in rows]
    data = "\n".join(json.dumps(item, ensure_ascii=ascii_only) for item in objects)
    examples = round_trip("a.jsonl", data)
    assert list(zip(examples.sentence1, examples.sentence2 or [], strict=True)) == rows


@given(st.binary(max_size=60), st.sampled_from([".tsv", ".csv", ".jsonl", ".txt", ".csv.gz"]))
def test_any_bytes_are_read_or_refused(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            examples = read(Path(directory), f"a{suffix}", data)
        except InputError:
            return
    assert len(examples) == len(examples.lines) >= 1


# --- bad input ---------------------------------------------------------------------------------

BAD = [
    ("a.tsv", b"", "the file is empty"),
    ("a.tsv", b"\xef\xbb\xbf", "the file is empty"),
    ("a.csv", b"\n\r\n", "blank lines only"),
    ("a.jsonl", b"\n \n", "blank lines only"),
    ("a.tsv", b"sentence\tlabel\n", "line 1: there is a header and no example"),
    ("a.tsv", b"sentence\tlabel\na\t1\nb\n", r"line 3: 1 field, wanted 2: \["),
    ("a.tsv", b"sentence\tlabel\na\t1\n\nb\t1\t2\n", r"line 4: 3 fields, wanted 2"),
    ("a.csv", b'text,label\n"a\nb",1\nc\n', r"line 4: 1 field, wanted 2"),
    ("a.csv", b'text,label\nok,1\n"a,1\n', r"line 3: not valid CSV .* quote not closed"),
    ("a.tsv", b"text\tlabel\nok\t1\nna\xefve\t0\n", r"line 3: byte 3 .*0xef.* not UTF-8"),
    ("a.tsv", b"a\tb\tc\td\n", "line 1: 4 columns and no header"),
    ("a.tsv", b"text\ttext\na\tb\n", "line 1: the header names a column twice"),
    ("a.tsv", b"index\tsentence2\tlabel\n1\ta\t0\n", "no column 'sentence1'"),
    ("a.tsv", b"index\tlabel\n1\t0\n", "no column 'sentence1'"),
    ("a.tsv", b"text\tlabel\na\t \n", "line 2: a label is wanted"),
    ("a.tsv", b"text\tlabel\na\tNaN\n", "line 2: a label is wanted"),
    (
        "a.jsonl",
        b'{"text": "a", "label": 1}\n{"text": "b", "label": null}',
        "line 2: a label is wanted",
    ),
    ("a.jsonl", b'{"text": "a", "label": NaN}', "line 1: a label is wanted"),
    ("a.jsonl", b'{"text": "a", "label": {"x": 1}}', "line 1: a label is wanted"),
    ("a.jsonl", b'{"text": "a", "label": [1.5]}', "line 1: a list of labels holds names"),
    ("a.jsonl", b'{"text": "a", "label": [null]}', "line 1: a label is wanted"),
    ("a.jsonl", b'{"text": 3, "label": 1}', "line 1: 'text' must be a text, got int"),
    ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}', "line 2: 'label' is missing"),
    ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": ', "line 2: not a JSON object"),
    ("a.jsonl", b"[" * 100_000, "line 1: not a JSON object"),
    ("a.jsonl", b"[1]", "line 1: an object .* got list"),
    ("a.jsonl", b"{}", "no column 'sentence1'"),
    ("a.tsv", b"text\tlabel\nok\t1\n  \t1\n", "line 3: the text in 'text' is empty"),
    ("a.txt", b"a\n\nb\n", "line 2: the text in 'text' is empty"),
    ("a.tsv.gz", b"not gzip", "cannot be read"),
    ("a.tsv.gz", gzip.compress(b"a\t1\n" * 99, mtime=0)[:-9], "cannot be read"),
    ("a.xlsx", b"PK", "suffix"),
    ("a", b"text", "suffix"),
]


@pytest.mark.parametrize(("name", "data", "message"), BAD)
def test_bad_input_is_named(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, name, data)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_examples(tmp_path / "a.tsv")
    (tmp_path / "b.tsv").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_examples(tmp_path / "b.tsv")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"text,label\na,\nb,\n"),
        ("a.jsonl", b'{"text": "a", "label": null}\n{"text": "b", "label": null}\n'),
    ],
)
def test_a_label_column_without_a_label_is_a_file_to_predict(
    name: str, data: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    examples = read_examples(path)
    assert examples.sentence1 == ["a", "b"]
    assert examples.labels is None


def test_empty_texts_where_they_are_allowed(tmp_path: Path) -> None:
    examples = read(tmp_path, "a.txt", "a\n\nb\n", allow_empty=True)
    assert examples.sentence1 == ["a", "", "b"]


def test_an_error_about_an_example_names_its_line(tmp_path: Path) -> None:
    examples = read(tmp_path, "a.tsv", "text\tlabel\n\na\t1\n")
    assert str(examples.error(0, "bad")) == f"{tmp_path / 'a.tsv'}, line 3: bad"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.conll", "a O\n", "must be .tsv, .csv, .*got .conll; or is it a file of another --task"),
        ("a.jsonl", '{"tokens": ["a"], "ner_tags": ["O"]}', "must be a text, got list; or is"),
        ("a.jsonl", '{"question": "q", "context": "c", "answers": {}}', "a label .*; or is"),
    ],
)  # fmt: skip
def test_a_file_of_another_task_is_asked_after(name, content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read(tmp_path, name, content)


def test_labels_may_be_left_unread(tmp_path):
    content = "sentence\tlabel\na\t1\nb\t\n"
    with pytest.raises(InputError, match="line 3: a label is wanted"):
        read(tmp_path, "a.tsv", content)
    examples = read(tmp_path, "a.tsv", content, labels=False)
    assert (examples.sentence1, examples.labels) == (["a", "b"], None)


def test_what_came_through_a_pipe(tmp_path):
    """It has no path, and somebody says what it is."""
    file = TextFile(Path("standard input"), ".csv", b"\xef\xbb\xbfsentence,label\na,1\nb\n")
    with pytest.raises(InputError, match=r"^standard input, line 3: 1 field, wanted 2: "):
        read_examples(file)
    file = TextFile(tmp_path / "a.data", ".tsv")
    file.path.write_text("a\tx\nb\ty\n")
    assert read_examples(file).sentence1 == ["a", "b"]
