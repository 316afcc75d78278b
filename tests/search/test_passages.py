from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.errors import InputError
from minibert.search.passages import BIGGEST, Cut, find_files, read_text


def test_lines_and_paragraphs() -> None:
    text = "\ufeffone\r\n\r\n two\nthree \n\n\n four\n"
    assert Cut("lines").passages(text) == [(1, "one"), (3, " two"), (4, "three"), (7, " four")]
    assert Cut("paragraphs").passages(text) == [(1, "one"), (3, " two\nthree"), (7, " four")]
    assert [Cut(way).passages(" \n\t\n") for way in ("lines", "paragraphs", "chunks")] == [[]] * 3


def test_chunks_overlap() -> None:
    text = "\n".join("abcdefg")
    found = Cut("chunks", lines=4, overlap=1).passages(text)
    assert found == [(1, "a\nb\nc\nd"), (4, "d\ne\nf\ng")]


def test_chunks_stay_short() -> None:
    rows = ["x" * 30, "y" * 30, "z" * 90, "w"]
    found = Cut("chunks", lines=4, overlap=1, characters=64).passages("\n".join(rows))
    assert found == [(1, "\n".join(rows[:2])), (2, rows[1]), (3, rows[2]), (4, rows[3])]


_rows = st.lists(st.sampled_from(["", " ", "a", "  bb", "c" * 9, "d" * 50]), max_size=30)


@given(rows=_rows, lines=st.integers(1, 6), overlap=st.integers(0, 5), size=st.integers(1, 60))
def test_every_line_is_in_a_passage_and_where_it_says(
    rows: list[str], lines: int, overlap: int, size: int
) -> None:
    cut = Cut("chunks", lines, min(overlap, lines - 1), size)
    seen: set[int] = set()
    for line, text in cut.passages("\n".join(rows)):
        held = text.split("\n")
        assert len(held) <= lines
        for i, row in enumerate(held, start=line - 1):
            assert row.rstrip() == rows[i].rstrip()
            seen.add(i)
    assert {i for i, row in enumerate(rows) if row.strip()} <= seen


def test_bad_cuts_are_refused() -> None:
    with pytest.raises(InputError, match="cut 'words': choose one of lines, paragraphs, chunks"):
        Cut("words")
    with pytest.raises(InputError, match="overlap must be from 0 to lines - 1 = 2, got 3"):
        Cut("chunks", lines=3, overlap=3)


def test_what_is_left_out_of_a_folder_is_counted(tmp_path: Path) -> None:
    for name in ("a.py", "sub/b.md", ".git/x", "node_modules/y", ".hidden", "big", "zero", "latin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"text")
    (tmp_path / "big").write_bytes(b"x" * (BIGGEST + 1))
    (tmp_path / "zero").write_bytes(b"a\0b")
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    (tmp_path / "link").symlink_to("a.py")
    (tmp_path / "broken").symlink_to("nowhere")
    skipped: Counter[str] = Counter()
    found = find_files(tmp_path, skipped)
    texts = [path.name for path in found if read_text(path, skipped) is not None]
    assert texts == ["a.py", "b.md"]
    assert skipped == {
        "hidden or generated folders": 2,
        "hidden files": 1,
        "links and special files": 2,
        "files larger than 1 MB": 1,
        "binary files": 2,
    }


def test_one_file_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file or folder"):
        find_files(tmp_path / "absent", Counter())
    (tmp_path / "zero").write_bytes(b"a\0b")
    with pytest.raises(InputError, match="it holds a zero byte; a UTF-8 text file is wanted"):
        read_text(tmp_path / "zero", Counter(), must=True)
    (tmp_path / "latin").write_bytes(b"ab\xe9")
    with pytest.raises(InputError, match=r"not UTF-8 \(unexpected end of data at byte 2\)"):
        read_text(tmp_path / "latin", Counter(), must=True)


def test_one_compressed_file_is_read(tmp_path: Path) -> None:
    whole = gzip.compress("naïve text\n".encode())
    (tmp_path / "a.txt.gz").write_bytes(whole)
    assert read_text(tmp_path / "a.txt.gz", Counter(), must=True) == "naïve text\n"
    for data in (whole[:-3], b"plain text", whole[:10] + b"\xff" + whole[11:]):
        (tmp_path / "b.gz").write_bytes(data)
        with pytest.raises(InputError, match=r"cannot read .*b\.gz: "):
            read_text(tmp_path / "b.gz", Counter(), must=True)
    skipped: Counter[str] = Counter()
    assert read_text(tmp_path / "a.txt.gz", skipped) is None
    assert skipped == {"binary files": 1}
