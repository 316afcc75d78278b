"""What every reader of text files shares."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from minibert.data.text_files import (
    brief,
    error_at,
    json_objects,
    other_form,
    read_text,
    suffix_of,
)
from minibert.errors import InputError


def test_text_is_decompressed_and_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.GZ"
    path.write_bytes(gzip.compress("\ufeffé\r\n\u2028".encode()))
    assert read_text(path) == "é\r\n\u2028"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.gz", b"plain", "a.gz: the file cannot be read: Not a gzipped file"),
        ("a.gz", gzip.compress(b"a" * 99, mtime=0)[:-9], "a.gz: the file cannot be read"),
        ("a.txt", b"\xef\xbb\xbf", "a.txt: the file is empty"),
        ("a.txt", b"\xef\xbb\xbfa\nb\xff", r"a.txt, line 2: byte 2 of the line \(0xff\) is not"),
    ],
)
def test_text_that_cannot_be_read(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_text(tmp_path / name)


def test_suffixes() -> None:
    names = ["a.TSV", "a.b.jsonl.gz", "a", "a.gz", ".gz"]
    assert [suffix_of(Path(name)) for name in names] == [".tsv", ".jsonl", "", "", ""]


def test_files_that_are_no_text_are_known_by_their_first_bytes() -> None:
    """Those of the forms as their programs write them; of a text that speaks of one, none."""
    for start, word in (
        (b"PK\x03\x04\x14\0", ".docx"), (b"%PDF-1.4", "PDF"), (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"Rar!\x1a\x07\x01", "rar"), (b"PAR1\x15\x04", "Parquet"), (b"{\\rtf1", "RTF"),
        (gzip.compress(b"a", mtime=0), "gzip"), (bz2.compress(b"a"), "bzip2"),
        (lzma.compress(b"a"), "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xd0\xcf\x11\xe0", "Office"),
    ):  # fmt: skip
        assert word in str(other_form(start[:16]))
    for text in (b"", b"PK is a zip", b"%PDF", b"7z", b"PAR1 is a protein", b"BZh9", b'{"text'):
        assert other_form(text) is None


def test_objects_and_their_lines() -> None:
    assert list(json_objects(Path("a"), '{"a": 1}\n \n{}\n')) == [(1, {"a": 1}), (3, {})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{}\n{"a": [1, 2', "a, line 2: not a JSON object on one line"),
        ("{}\n\n[1]", "a, line 3: an object {...} is wanted, got list; write what it holds one a"),
        ("\n \n", "a: the file holds blank lines only"),
    ],
)
def test_objects_that_are_none(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        list(json_objects(Path("a"), text))
    assert message in str(caught.value)


def test_messages_stay_short() -> None:
    assert brief([1, "a"]) == "[1, 'a']"
    assert len(brief("x" * 1000)) == 120
    assert str(error_at(Path("a"), 3, "why")) == "a, line 3: why"
