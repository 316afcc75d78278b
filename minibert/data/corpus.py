"""A corpus: files of text, one after the other, as paragraphs of numbered documents.

It is read as a stream, so it may be larger than memory.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from minibert.data.text_files import JSON_LINES, Problem, brief, other_form, parse_json
from minibert.errors import InputError
from minibert.io.json_io import error_text

DOCUMENTS = ("files", "blank_lines")
SENTENCES = ("rule", "lines")
FEW = 100  # bytes of a file that are not UTF-8; of more, a tenth of it makes it no text
PIECE = 1 << 16  # characters: a longer line or paragraph is handed on in pieces

Item = TypeVar("Item")

_OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_ARCHIVE = re.compile(r"\.(tar(\.\w+)?|tgz|txz|tbz2?)$")
_ADVICE = "unpack it, or save its text (plain text, .gz, .xz, .bz2, .tar and JSON lines are read)"
_INVALID = re.compile("[\udc80-\udcff]")


class Paragraph(NamedTuple):
    """Text that lies within one document; a single sentence where the corpus has one a line."""

    document: int
    text: str


class FileState(NamedTuple):
    """What shows that a file has changed."""

    name: str
    size: int
    modified: int  # ns


class Corpus:
    """Text files, folders of them, .gz, .xz, .bz2 and .tar archives, JSON lines.

    documents: "files": each file (of an archive: each member) is one; "blank_lines": they are
    separated by blank lines. A JSON record is always one: its `text_field`.
    sentences: "lines": one a line; "rule": found by `split_sentences`, in paragraphs that end at a
    blank line.

    Invalid UTF-8 is replaced by U+FFFD, and counted in `replaced` by file when it has been read.
    What has no text (a file in a folder, a link that leads nowhere, a member of an archive, a JSON
    record whose field is null) is left out: `skipped` says how many, `first_skipped` what the first
    is called. A folder that links lead to more than once is read once.
    Raises InputError, naming the file, for what is missing, damaged, binary (a zero byte, or more
    than a tenth that is not UTF-8) or in a form that is not read (.zip, .pdf, …), for a file of
    `paths` that is empty, and where there is no text.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        documents: str = "files",
        sentences: str = "rule",
        text_field: str = "text",
    ) -> None:
        if documents not in DOCUMENTS or sentences not in SENTENCES:
            raise InputError(
                f"documents {documents!r} and sentences {sentences!r}: choose one of "
                f"{', '.join(DOCUMENTS)}, and one of {', '.join(SENTENCES)}"
            )
        self.files: list[Path] = []
        self.folders: dict[Path, Path] = {}  # real ones that are read → which of `paths` led there
        self._broken: list[Path] = []  # links that lead nowhere
        for path in map(Path, paths):
            seen = set[Path]()
            for file in _files(path, seen):
                (self.files if file.is_file() else self._broken).append(file)
            self.folders |= dict.fromkeys(seen, path)
        self._named = {str(Path(path)) for path in paths}
        if not self.files:
            raise InputError("the corpus has no file: name text files, folders or archives")
        self.documents, self.sentences, self.text_field = documents, sentences, text_field
        self.replaced: Counter[str] = Counter()
        self._forget()

    def state(self) -> list[FileState]:
        """Name, size and time of every file."""
        found = ((str(file.resolve()), file.stat()) for file in self.files)
        return [FileState(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]

    def paragraphs(self) -> Iterator[Paragraph]:
        """Every paragraph, in order; the numbers of documents rise over the whole corpus."""
        self._forget()
        document = 0
        for file in self.files:
            for name, stream in _guarded(str(file), _texts(file)):
                read = self._records if _form(name).endswith(JSON_LINES) else self._text
                before = document, self.skipped
                for paragraph in read(name, stream, document):
                    yield paragraph
                    document = paragraph.document + 1
                if before == (document, self.skipped):
                    self._skip(name)
        if not document:
            what = f": {self.first_skipped} is empty" if self.skipped else ""
            raise InputError(f"the corpus holds no text{what}; name files that have some")

    def _text(self, name: str, stream: IO[bytes], document: int) -> Iterator[Paragraph]:
        """The paragraphs of a text file; its first document has that number."""
        for blanks, text in self._parts(_whole_words(self._lines(name, stream, PIECE))):
            yield Paragraph(document + (blanks if self.documents == "blank_lines" else 0), text)

    def _records(self, name: str, stream: IO[bytes], document: int) -> Iterator[Paragraph]:
        """The paragraphs of JSON lines, each of them a document."""
        for number, line in enumerate(self._lines(name, stream, -1)):
            if not line.strip():
                continue
            rows = self._record(name, number + 1, line).split("\n")
            found = False
            for _, text in self._parts(rows):
                yield Paragraph(document + number, text)
                found = True
            if not found:
                self._skip(f"{name}, line {number + 1}")

    def _record(self, name: str, number: int, line: str) -> str:
        try:
            record = parse_json(line, wanted="a JSON object")
        except Problem as problem:
            raise InputError(f"{name}, line {number}: {problem}") from None
        is_object = isinstance(record, dict)
        text = record.get(self.text_field) if is_object else None
        if text is None and is_object and self.text_field in record:  # an empty cell of a table
            return ""
        if not isinstance(text, str):
            lacks_it = is_object and self.text_field not in record
            has = f"one with {brief(list(record))}" if lacks_it else brief(record)
            raise InputError(
                f"{name}, line {number}: wanted an object with a text in {self.text_field!r}, got "
                f"{has}; --text_field names another field"
            )
        return text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text

    def _forget(self) -> None:
        """Nothing has been read."""
        self.replaced.clear()
        self.skipped, self.first_skipped = 0, ""
        for link in self._broken:
            self._skip(str(link))

    def _skip(self, name: str) -> None:
        self.skipped += 1
        self.first_skipped = self.first_skipped or name

    def _lines(self, name: str, stream: IO[bytes], limit: int) -> Iterator[str]:
        """The lines of a file, or pieces of `limit` characters, as valid text."""
        empty, characters = True, 0
        with io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape") as text:
            for line in _guarded(name, iter(lambda: text.readline(limit), "")):
                if empty and (form := other_form(line[:16].encode("utf-8", "surrogateescape"))):
                    raise InputError(f"{name}: it is {form}; {_ADVICE}")
                empty = False
                if "\0" in line:
                    raise InputError(f"{name}: it holds a zero byte; a UTF-8 text file is wanted")
                yield line if line.isascii() else self._valid(name, line)
                characters += len(line)
        invalid = self.replaced[name]
        if invalid > max(FEW, characters // 10):
            raise InputError(
                f"{name}: {invalid / characters:.0%} of it is not UTF-8: it is binary, or text in "
                "another encoding; leave it out, or save it as UTF-8"
            )
        if empty and name in self._named:
            raise InputError(f"{name}: the file is empty; leave it out of the corpus")

    def _valid(self, name: str, line: str) -> str:
        valid, count = _INVALID.subn("\ufffd", line)
        if count:
            self.replaced[name] += count
        return valid

    def _parts(self, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
        """(blank lines before it, text) of each paragraph, or of each line."""
        blanks, size = 0, 0
        rows: list[str] = []
        for line in lines:
            row = line.strip()
            if rows and (not row or size > PIECE or self.sentences == "lines"):
                yield blanks, " ".join(rows)
                rows, size = [], 0
            if row:
                rows.append(row)
                size += len(row)
            else:
                blanks += 1
        if rows:
            yield blanks, " ".join(rows)


def _files(path: Path, seen: set[Path]) -> Iterable[Path]:
    """A file itself, or a folder's files in the order of their names, without hidden ones."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if path.is_file():
        return [path]
    return _within(path, seen)


def _within(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Files, and links that lead nowhere, of a folder and those in it, which are added to `seen`.

    Links to folders are followed, to each once.
    """
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    for path in sorted(path for path in folder.iterdir() if not is_hidden(Path(path.name))):
        if path.is_dir():
            yield from _within(path, seen)
        elif path.is_file() or not path.exists():
            yield path


def _whole_words(lines: Iterable[str]) -> Iterator[str]:
    """The same, but the pieces of a longer line end at a blank, where there is one."""
    rest = ""
    for line in lines:
        text, rest = rest + line, ""
        if len(line) == PIECE and not line.endswith("\n"):
            head, _, tail = text.rpartition(" ")
            text, rest = (head, tail) if head.strip() else (text, "")
        yield text
    if rest:
        yield rest


def is_hidden(path: Path) -> bool:
    """Whether it, or a folder that it lies in, begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def _texts(file: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, decompressed stream) of a file, or of the members of an archive."""
    if not _ARCHIVE.search(file.name.lower()):
        with open(file, "rb") as stream:
            yield str(file), _decompressed(file.name, stream)
        return
    with tarfile.open(file, "r|*") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None and not is_hidden(Path(member.name)):
                stream = io.BufferedReader(_Forward(content))
                yield f"{file}/{member.name}", _decompressed(member.name, stream)


class _Forward(io.RawIOBase):
    """A member of an archive that is read as a stream, which before Python 3.13 has no `seekable`.

    An archive that can seek goes back one byte after some members, and decompresses all anew.
    """

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._content.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _decompressed(name: str, stream: IO[bytes]) -> IO[bytes]:
    opener: Any = _OPENERS.get(Path(name).suffix.lower())
    return stream if opener is None else opener(stream)


def _form(name: str) -> str:
    """A file's name in small letters, without the suffix of its compression."""
    stem, _, suffix = name.lower().rpartition(".")
    return stem if f".{suffix}" in _OPENERS else name.lower()


def _guarded(name: str, items: Iterator[Item]) -> Iterator[Item]:
    """The items; what goes wrong in reading them is said under the file's name."""
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (EOFError, OSError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
            raise InputError(f"{name}: the file cannot be read: {error_text(error)}") from error
        yield item
