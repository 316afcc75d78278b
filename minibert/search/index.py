"""The index of a text file or a folder: passages, their vectors, and what they were made from.

A directory of two files:
  index.safetensors  "embeddings" (P, H) float32, a row of length 1 for each passage
  index.json         begins with MARK, by which an index is known; the source, the model with its
                     sha256, how texts were cut, and for each file its size, time of change and
                     passages, in the order of the rows
A file that has not changed is not read again, and a passage whose text was there before keeps its
vector, wherever it has moved to within its file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from minibert.checkpoint.safetensors_io import open_safetensors, write_safetensors
from minibert.errors import CheckpointError, InputError
from minibert.io.files import staged
from minibert.io.json_io import read_json_object
from minibert.io.progress import tracked
from minibert.search.passages import Cut, Passage, find_files, read_text

MATRIX, TABLE = "index.safetensors", "index.json"
MARK = b'{"minibert_search_index":'
FORMAT = 2
PORTION = 128  # passages that are embedded at a time: what Ctrl-C loses at most
BLOCK = 1 << 16  # rows of a product with the queries: no large temporary array

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts → (R, H) unit rows."""


class Hit(NamedTuple):
    """A passage that was found."""

    score: float  # the cosine with the query
    path: Path
    passage: Passage


@dataclass
class IndexedFile:
    """A file, as it was when its passages were cut."""

    path: str  # below the source; "" if the source is that file
    size: int
    mtime_ns: int
    passages: list[Passage]


@dataclass
class Changes:
    """What an update did."""

    embedded: int = 0  # passages that were new
    reused: int = 0
    removed: int = 0  # files that are no longer there
    any: bool = False  # whether the index has to be saved
    interrupted: KeyboardInterrupt | None = None  # what kept out files that the next will add
    skipped: Counter[str] = field(default_factory=Counter)  # reason → how many


@dataclass
class SearchIndex:
    """Passages and their vectors; `update` makes them, `search` finds among them."""

    source: Path
    model: str
    model_sha256: str
    cut: Cut
    files: list[IndexedFile] = field(default_factory=list)
    embeddings: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def __len__(self) -> int:
        return sum(len(file.passages) for file in self.files)

    @staticmethod
    def is_index(directory: Path) -> bool:
        """Whether a directory holds an index, and not a stranger's file of the same name."""
        try:
            with open(directory / TABLE, "rb") as file:
                return file.read(len(MARK)) == MARK
        except OSError:
            return False

    @classmethod
    def check_place(cls, directory: Path) -> None:
        """InputError unless an index may be written there: nothing, an empty folder, an index.

        What a killed `save` left behind is nothing; the next one removes it.
        """
        if directory.is_dir():
            names = [path.name for path in directory.iterdir()]
            if cls.is_index(directory) or all(name.startswith(".minibert-") for name in names):
                return
            problem = "the folder is not empty, and no search index (or a damaged one)"
        elif directory.exists() or directory.is_symlink():
            problem = "there is a file of this name"
        else:
            return
        raise InputError(f"{directory}: {problem}; choose a new place for the index")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The index in a directory; CheckpointError for a damaged one. The matrix stays mapped."""
        table: dict[str, Any] = {}
        try:
            table = read_json_object(directory / TABLE)
            if table["minibert_search_index"] != FORMAT:
                raise ValueError(f"format {table['minibert_search_index']}, wanted {FORMAT}")
            files = [
                IndexedFile(**{**file, "passages": [Passage(*p) for p in file["passages"]]})
                for file in table["files"]
            ]
            index = cls(
                Path(table["source"]), table["model"], table["model_sha256"], Cut(**table["cut"]),
                files, open_safetensors(directory / MATRIX)["embeddings"].read(),
            )  # fmt: skip
            if index.embeddings.shape[:1] != (len(index),):
                raise ValueError(f"{len(index.embeddings)} vectors for {len(index)} passages")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # What to do with a model's file is of no use here: nobody fetched it.
            reason = str(error).partition(";")[0] if isinstance(error, InputError) else error
            raise CheckpointError(
                f"{directory}: not an index this version can read ({reason}); make it again: "
                f"{_command(directory, table)}"
            ) from error
        return index

    def save(self, directory: Path) -> None:
        """Write the index; the old one stays until the new one is whole.

        InputError for a folder that holds anything but an index.
        """
        self.check_place(directory)
        table = {
            "minibert_search_index": FORMAT,  # first: MARK
            "source": str(self.source),
            "model": self.model,
            "model_sha256": self.model_sha256,
            "cut": asdict(self.cut),
            "files": [vars(file) for file in self.files],
        }
        with staged(directory) as stage:
            write_safetensors(stage / MATRIX, {"embeddings": self.embeddings})
            # In ASCII: a file's name may be bytes that are not UTF-8 (half surrogates in Python).
            text = json.dumps(table, separators=(",", ":"))
            (stage / TABLE).write_text(text + "\n", encoding="utf-8")

    def update(self, embed: Embed, *, quiet: bool = True) -> Changes:
        """Bring the index up to the state of the source, embedding only what is new.

        Ctrl-C leaves an index of the files that were done by then: `changes.interrupted`.
        """
        changes = Changes()
        old = {file.path: file for file in self.files}
        starts = dict(zip(old, self._starts(), strict=True))
        files: list[IndexedFile] = []
        vectors: list[Any] = []
        new: list[str] = []
        for path in find_files(self.source, changes.skipped):
            file = self._read(path, old, changes)
            if file is None:
                continue
            before = old.get(file.path)
            known = {
                passage.text: self.embeddings[starts[file.path] + i]
                for i, passage in enumerate(before.passages if before else ())
            }
            rows = [known.get(passage.text) for passage in file.passages]
            new += [p.text for p, row in zip(file.passages, rows, strict=True) if row is None]
            vectors += rows
            files.append(file)
        fresh, changes.interrupted = _embed_in_portions(embed, new, quiet)
        changes.embedded, changes.reused = len(fresh), len(vectors) - len(new)
        changes.removed = len(old.keys() - {file.path for file in files})
        changes.any = files != self.files
        self._fill(files, vectors, iter(fresh))
        return changes

    def _fill(
        self, files: list[IndexedFile], vectors: list[Any], fresh: Iterator[NDArray[np.float32]]
    ) -> None:
        """Take over files with their vectors, those that are None from `fresh` while it lasts."""
        kept: list[Any] = []
        self.files, rest = [], iter(vectors)
        for file in files:
            rows = [next(rest) for _ in file.passages]
            rows = [next(fresh, None) if row is None else row for row in rows]
            if all(row is not None for row in rows):
                self.files.append(file)
                kept += rows
        self.embeddings = np.array(kept, np.float32).reshape(len(kept), -1 if kept else 0)

    def search(self, queries: NDArray[np.float32], top_k: int) -> list[list[Hit]]:
        """The `top_k` passages nearest to each row of `queries` (Q, H), the best first."""
        if top_k < 1:
            raise InputError(f"top_k must be at least 1, got {top_k}")
        scores, rows = top_rows(self.embeddings, queries, top_k)
        where = [
            (self.source / file.path, passage) for file in self.files for passage in file.passages
        ]
        return [
            [Hit(float(score), *where[row]) for score, row in zip(*pair, strict=True)]
            for pair in zip(scores, rows, strict=True)
        ]

    def _starts(self) -> list[int]:
        """The row of each file's first passage."""
        counts = [len(file.passages) for file in self.files]
        return list(itertools.accumulate(counts, initial=0))[:-1]

    def _read(
        self, path: Path, old: Mapping[str, IndexedFile], changes: Changes
    ) -> IndexedFile | None:
        """A file with its passages: the old ones, if it is as it was."""
        is_source = path == self.source
        name = "" if is_source else path.relative_to(self.source).as_posix()
        status = path.stat()
        stamp = status.st_size, status.st_mtime_ns
        before = old.get(name)
        if before and (before.size, before.mtime_ns) == stamp:
            return before
        text = read_text(path, changes.skipped, must=is_source)
        return None if text is None else IndexedFile(name, *stamp, self.cut.passages(text))


def _command(directory: Path, table: Mapping[str, Any]) -> str:
    """What makes an index again, with the choices of the old one as far as they are known."""
    model, source = table.get("model"), table.get("source", "SOURCE")
    words = ["python", "scripts/search.py", "--index", directory, "--rebuild", source]
    words += ["--model", model] if model else []
    return shlex.join(map(str, words))


def _embed_in_portions(
    embed: Embed, texts: list[str], quiet: bool
) -> tuple[list[NDArray[np.float32]], KeyboardInterrupt | None]:
    """A vector for each text, or for the first of them and the Ctrl-C that came."""
    vectors: list[NDArray[np.float32]] = []
    portions = [texts[i : i + PORTION] for i in range(0, len(texts), PORTION)]
    try:
        for portion in tracked(
            portions, len(texts), "embedding", size=len, unit=" passages", disable=quiet
        ):
            vectors += list(embed(portion))
    except KeyboardInterrupt as stop:
        return vectors, stop
    return vectors, None


def top_rows(
    matrix: NDArray[np.float32], queries: NDArray[np.float32], top_k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(Q, K) scores and row numbers of the K = min(top_k, P) largest products, best first.

    matrix (P, H), queries (Q, H). A block of rows at a time; of equal scores the first rows.
    """
    scores = np.zeros((len(queries), 0), np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(matrix), BLOCK):
        block = queries @ matrix[start : start + BLOCK].T
        numbers = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        scores, rows = np.hstack([scores, block]), np.hstack([rows, numbers])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        scores = np.take_along_axis(scores, best, axis=1)
        rows = np.take_along_axis(rows, best, axis=1)
    return scores, rows


def model_sha256(directory: Path) -> str:
    """One hash of all that a vector depends on: weights, tokenizer, configuration, pooling."""
    digest = hashlib.sha256()
    kinds = (".safetensors", ".json", ".txt")
    for path in sorted(path for path in directory.rglob("*") if path.suffix in kinds):
        with open(path, "rb") as file:
            digest.update(path.relative_to(directory).as_posix().encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
