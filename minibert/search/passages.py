"""Files → passages: a text file line by line, a folder of text and code in overlapping chunks."""

from __future__ import annotations

import gzip
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from minibert.errors import InputError
from minibert.io.json_io import error_text

WAYS = ("lines", "paragraphs", "chunks")
BIGGEST = 1 << 20  # bytes of a file in a folder; what is larger is rarely written by hand
IGNORED = frozenset(
    {"__pycache__", "node_modules", "venv", "env", "build", "dist", "target", "site-packages"}
)


class Passage(NamedTuple):
    """A piece of a file, as it stands there."""

    line: int  # of the file, from 1, at which it begins
    text: str


@dataclass(frozen=True)
class Cut:
    """How a text becomes passages.

    lines: every line that is not blank. paragraphs: lines up to a blank one. chunks: up to `lines`
    lines or about `characters` characters, of which the last `overlap` lines begin the next chunk,
    so that what stands at a seam is found whole. (MiniLM reads 256 tokens of a passage.)
    """

    way: str = "chunks"
    lines: int = 12
    overlap: int = 3
    characters: int = 800

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise InputError(f"cut {self.way!r}: choose one of {', '.join(WAYS)}")
        if not 0 <= self.overlap < self.lines:
            raise InputError(
                f"overlap must be from 0 to lines - 1 = {self.lines - 1}, got {self.overlap}"
            )

    def passages(self, text: str) -> list[Passage]:
        """The passages of a text; a blank one is none."""
        # Not splitlines(): editors count lines by "\n", and so must we.
        rows = [row.removesuffix("\r") for row in text.removeprefix("\ufeff").split("\n")]
        spans = {"lines": _each, "paragraphs": _between_blanks, "chunks": self._chunks}[self.way]
        found = (_trimmed(rows, start, stop) for start, stop in spans(rows))
        return [passage for passage in found if passage is not None]

    def _chunks(self, rows: list[str]) -> Iterator[tuple[int, int]]:
        start = 0
        while start < len(rows):
            stop, size = start + 1, len(rows[start])
            while (
                stop < min(start + self.lines, len(rows))
                and size + len(rows[stop]) <= self.characters
            ):
                size += len(rows[stop])
                stop += 1
            yield start, stop
            if stop == len(rows):
                return
            start = max(start + 1, stop - self.overlap)


def _each(rows: list[str]) -> Iterator[tuple[int, int]]:
    return ((i, i + 1) for i in range(len(rows)))


def _between_blanks(rows: list[str]) -> Iterator[tuple[int, int]]:
    start = 0
    for i, row in enumerate([*rows, ""]):
        if not row.strip():
            yield start, i
            start = i + 1


def _trimmed(rows: list[str], start: int, stop: int) -> Passage | None:
    """Lines start … stop − 1 without the blank ones at both ends; None if all are blank."""
    filled = [i for i in range(start, stop) if rows[i].strip()]
    if not filled:
        return None
    return Passage(filled[0] + 1, "\n".join(rows[filled[0] : filled[-1] + 1]).rstrip())


def find_files(source: Path, skipped: Counter[str]) -> list[Path]:
    """The file `source`, or the files of that folder in the order of their names.

    What is left out is counted in `skipped`: hidden or generated folders and hidden files, links
    (what they point at lies elsewhere), files over BIGGEST bytes.
    """
    if not source.exists():
        raise InputError(f"{source}: there is no such file or folder")
    if source.is_file():
        return [source]
    found: list[Path] = []

    def unreadable(_: OSError) -> None:
        skipped["unreadable folders"] += 1

    for name, folders, files in os.walk(source, onerror=unreadable):
        folder = Path(name)
        kept = sorted(f for f in folders if not f.startswith(".") and f not in IGNORED)
        _count(skipped, "hidden or generated folders", len(folders) - len(kept))
        folders[:] = kept
        for path in (folder / file for file in sorted(files)):
            if reason := _reason_to_skip(path):
                skipped[reason] += 1
            else:
                found.append(path)
    return found


def _count(counts: Counter[str], name: str, more: int) -> None:
    if more:
        counts[name] += more


def _reason_to_skip(path: Path) -> str | None:
    if path.name.startswith("."):
        return "hidden files"
    if path.is_symlink() or not path.is_file():
        return "links and special files"
    if path.stat().st_size > BIGGEST:
        return f"files larger than {BIGGEST >> 20} MB"
    return None


def read_text(path: Path, skipped: Counter[str], *, must: bool = False) -> str | None:
    """A text file's content; None, and counted in `skipped`, for a binary or unreadable one.

    Binary is what holds a zero byte or is not UTF-8. With `must` that is an InputError, and a .gz
    file is decompressed; in a folder it is binary.
    """
    try:
        data = path.read_bytes()
        if must and path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        problem = "it holds a zero byte" if b"\0" in data else ""
        if not problem:
            return data.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 ({error.reason} at byte {error.start})"
    except (OSError, EOFError, zlib.error) as error:  # the last two: a damaged .gz
        if must:
            raise InputError(f"cannot read {path}: {error_text(error)}") from error
        skipped["unreadable files"] += 1
        return None
    if must:
        raise InputError(f"{path}: {problem}; a UTF-8 text file is wanted")
    skipped["binary files"] += 1
    return None
