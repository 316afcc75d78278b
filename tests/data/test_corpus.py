"""Files of all kinds → the same paragraphs; what is no text is refused by name."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest

from minibert.data.corpus import PIECE, Corpus
from minibert.errors import InputError

TEXT = "One line\nand its end. Two.\n\n  Three.\n"
PARAGRAPHS = ["One line and its end. Two.", "Three."]


def read(path: Path, **options: Any) -> list[tuple[int, str]]:
    return [tuple(paragraph) for paragraph in Corpus([path], **options).paragraphs()]


def tar(path: Path, members: dict[str, bytes], mode: str) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2"])
def test_a_file_plain_and_compressed(suffix: str, tmp_path: Path) -> None:
    compress = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(compress[suffix](b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode()))
    assert read(path) == [(0, text) for text in PARAGRAPHS]


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz"), ("a.TAR.XZ", "w:xz")]
)
def test_an_archive_has_a_document_for_each_member(name: str, mode: str, tmp_path: Path) -> None:
    members = {
        "books/b.txt": b"B." + b" " * 510,  # 512 bytes: the next header follows at once
        "books/.hidden": b"\0",
        "books/a.txt.gz": gzip.compress(TEXT.encode()),
        "c.jsonl": b'{"text": "C."}\n{"text": "D."}\n',
        "e.txt": b"E.",
    }
    path = tar(tmp_path / name, members, mode)
    assert read(path) == [
        (0, "B."),
        *((1, text) for text in PARAGRAPHS),
        (2, "C."),
        (3, "D."),
        (4, "E."),
    ]


def test_a_folder_in_the_order_of_names_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", ".git/x", "a/.y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [text for _, text in read(tmp_path)] == ["a/z.txt", "b.txt"]


def test_links_are_followed_to_each_folder_once_and_broken_ones_counted(tmp_path: Path) -> None:
    for name in ("corpus/b.txt", "elsewhere/a.txt", "elsewhere/deep/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "corpus/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus/e.txt").symlink_to(tmp_path / "corpus/b.txt")
    (tmp_path / "corpus/gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "elsewhere/deep/up").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus/again").symlink_to(tmp_path / "elsewhere/deep")
    corpus = Corpus([tmp_path / "corpus"])
    assert [paragraph.text for paragraph in corpus.paragraphs()] == [
        *("elsewhere/deep/d.txt", "corpus/b.txt", "elsewhere/a.txt", "corpus/b.txt")
    ]
    assert (corpus.skipped, corpus.first_skipped) == (1, str(tmp_path / "corpus/gone.txt"))
    real = {tmp_path / name for name in ("corpus", "elsewhere", "elsewhere/deep")}
    assert corpus.folders.keys() == {path.resolve() for path in real}
    assert set(corpus.folders.values()) == {tmp_path / "corpus"}


def test_documents_at_blank_lines_and_sentences_on_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("A one.\nA two.\n\n\nB one.\n  \nC one.\nC two.\n")
    found = read(path, documents="blank_lines", sentences="lines")
    assert [text for _, text in found] == ["A one.", "A two.", "B one.", "C one.", "C two."]
    numbers = [number for number, _ in found]
    assert [numbers.index(n) for n in numbers] == [0, 0, 2, 3, 3]
    assert numbers == sorted(numbers)
    both = Corpus([path, path], documents="blank_lines").paragraphs()
    assert len({paragraph.document for paragraph in both}) == 6


def test_json_lines_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    records = [{"body": TEXT}, {"body": "Half \ud800 a pair."}]
    lines = "\n\n".join(json.dumps(record) for record in records)
    path.write_bytes(gzip.compress(lines.encode()))
    found = read(path, text_field="body")
    assert [text for _, text in found] == [*PARAGRAPHS, "Half ? a pair."]
    assert found[0][0] == found[1][0] < found[2][0]


def test_invalid_utf8_is_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("caf\ufffd ".encode() + b"caf\xe9 na\xc3\xafve \xff\xfe.\n")
    corpus = Corpus([path])
    assert [text for _, text in corpus.paragraphs()] == ["caf\ufffd caf\ufffd naïve \ufffd\ufffd."]
    assert corpus.replaced == {str(path): 3}
    list(corpus.paragraphs())
    assert corpus.replaced == {str(path): 3}  # of the last reading, not of all


def test_a_file_of_which_much_is_not_utf8_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Привет, мир. ".encode("cp1251") * 100)
    with pytest.raises(InputError, match=r"a\.txt: \d\d% of it is not UTF-8: .* save it as UTF-8"):
        list(Corpus([path]).paragraphs())
    path.write_bytes("Ein schöner Tag, wie überall. ".encode("latin-1") * 100)
    corpus = Corpus([path])
    assert len(list(corpus.paragraphs())) == 1
    assert corpus.replaced == {str(path): 200}


@pytest.mark.parametrize("sentences", ["rule", "lines"])
def test_no_word_of_a_long_line_is_cut(tmp_path: Path, sentences: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("wonderful " * 20_000 + "end")
    texts = [text for _, text in Corpus([path], sentences=sentences).paragraphs()]
    words = " ".join(texts).split()
    assert len(texts) > 1
    assert words == ["wonderful"] * 20_000 + ["end"]
    path.write_text("字" * (PIECE + 7))
    texts = [text for _, text in Corpus([path], sentences=sentences).paragraphs()]
    assert sum(text.count("字") for text in texts) == PIECE + 7


def test_long_lines_and_paragraphs_come_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("word " * PIECE + "\n" + "short line\n" * PIECE)
    texts = [text for _, text in read(path)]
    assert max(map(len, texts)) < 2.1 * PIECE
    assert sum(text.count("short line") for text in texts) == PIECE


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"the corpus holds no text: .*a\.txt is empty"),
        ("a.jsonl", b'{"text": null}', r"the corpus holds no text: .*a\.jsonl, line 1 is empty"),
        ("a.txt", b"PK\3\4 docx", r"a\.txt: it is a zip archive, or a \.docx.*; unpack it, or"),
        ("a.txt.gz", gzip.compress(b"%PDF-1.7\n", mtime=0), r"a\.txt\.gz: it is a PDF; .*are read"),
        ("a.jsonl", b"7z\xbc\xaf\x27\x1c", r"a\.jsonl: it is a 7z archive;"),
        (
            "a.txt",
            gzip.compress(b"sun", mtime=0),
            r"a\.txt: it is compressed by gzip, though its name",
        ),
        ("a.jsonl", b'"A."', r"line 1: wanted an object with a text in 'text', got 'A\.'"),
        ("a.jsonl", b"null", r"line 1: wanted an object with a text in 'text', got None"),
        ("a.txt", b"text\nmore \0 text", r"a\.txt: it holds a zero byte; a UTF-8 text"),
        ("a.txt.gz", b"no gzip", r"a\.txt\.gz: the file cannot be read"),
        (
            "a.txt.gz",
            gzip.compress(TEXT.encode(), mtime=0)[:-9],
            r"a\.txt\.gz: the file cannot be read",
        ),
        ("a.txt.xz", lzma.compress(TEXT.encode())[:-9], r"a\.txt\.xz: the file cannot be read"),
        ("a.tar", b"no archive" * 99, r"a\.tar: the file cannot be read"),
        ("a.jsonl", b'{"text": "A."}\n{"text"', r"a\.jsonl, line 2: not a JSON object"),
        (
            "a.jsonl",
            b'{"body": 1}',
            r"line 1: .* with a text in 'text', got one with \['body'\]; --text_field",
        ),
        ("a.jsonl", b'["A."]', r"line 1: wanted an object with a text in 'text', got \['A\.'\]"),
    ],
)
def test_what_is_no_text_is_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_what_has_no_text_is_left_out_and_counted(tmp_path: Path) -> None:
    """In folders, archives and JSON lines, as often as it is there; the first is named."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "b.txt").write_bytes(b"\xef\xbb\xbf")
    (folder / "c.txt").write_text("C.")
    (folder / "d.jsonl").write_text('{"text": null}\n\n{"text": "D."}\n{"text": " "}\n')
    (folder / "e.txt").write_text("\n \n")
    (folder / "f.jsonl").touch()
    tar(folder / "g.tar", {"one": b"", "two": b"G."}, "w")
    corpus = Corpus([folder])
    for _ in range(2):
        found = list(corpus.paragraphs())
        assert [text for _, text in found] == ["C.", "D.", "G."]
        assert len({document for document, _ in found}) == 3
        assert (corpus.skipped, corpus.first_skipped) == (6, str(folder / "b.txt"))


def test_an_empty_file_that_is_named_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A.")
    (tmp_path / "b.txt").touch()
    assert len(read(tmp_path)) == 1
    with pytest.raises(InputError, match=r"b\.txt: the file is empty; leave it out of the corpus"):
        list(Corpus([tmp_path / "a.txt", tmp_path / "b.txt"]).paragraphs())


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: there is no such file or folder"):
        Corpus([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="the corpus has no file"):
        Corpus([tmp_path])
    with pytest.raises(InputError, match="documents 'pages' and sentences 'rule': choose one of"):
        Corpus([tmp_path], documents="pages")
