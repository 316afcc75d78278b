from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.errors import CheckpointError, InputError
from minibert.search import Cut, SearchIndex
from minibert.search import index as module
from minibert.search.index import MATRIX, TABLE, model_sha256, top_rows

WORDS = ["cat", "dog", "tax", "law", "sea"]


class Counting:
    """Texts → how often each of WORDS occurs, of length 1; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Any:
        self.asked += texts
        counts = np.array([[text.count(word) for word in WORDS] for text in texts], np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "animals.txt").write_text("a cat\n\na dog and a cat\n")
    (folder / "sub" / "rules.txt").write_text("tax law\nlaw of the sea\n")
    return folder


def new(source: Path) -> SearchIndex:
    return SearchIndex(source, "a-model", "its-hash", Cut("lines"))


def find(index: SearchIndex, query: str, top_k: int = 2) -> list[Any]:
    (hits,) = index.search(Counting()([query]), top_k)
    return [(h.path.name, *h.passage, round(h.score, 3)) for h in hits]


def test_passages_are_found_by_their_vectors(folder: Path) -> None:
    index = new(folder)
    changes = index.update(Counting())
    assert (len(index), changes.embedded, changes.reused, changes.any) == (4, 4, 0, True)
    assert find(index, "cat") == [
        ("animals.txt", 1, "a cat", 1.0),
        ("animals.txt", 3, "a dog and a cat", 0.707),
    ]
    assert find(index, "sea law", 1) == [("rules.txt", 2, "law of the sea", 1.0)]
    assert len(find(index, "tax", 99)) == 4
    with pytest.raises(InputError, match="top_k must be at least 1, got 0"):
        find(index, "tax", 0)


def test_one_file_is_its_own_source(folder: Path) -> None:
    index = new(folder / "animals.txt")
    index.update(Counting())
    (hits,) = index.search(Counting()(["dog"]), 1)
    assert hits[0].path == folder / "animals.txt"
    assert hits[0].passage.line == 3


def test_an_index_is_saved_and_loaded(folder: Path, tmp_path: Path) -> None:
    index = new(folder)
    index.update(Counting())
    assert not SearchIndex.is_index(tmp_path)
    index.save(tmp_path / "index")
    assert SearchIndex.is_index(tmp_path / "index")
    loaded = SearchIndex.load(tmp_path / "index")
    assert find(loaded, "law") == find(index, "law")
    assert (loaded.source, loaded.model, loaded.model_sha256, loaded.cut) == (
        folder, "a-model", "its-hash", Cut("lines"),
    )  # fmt: skip
    embed = Counting()
    assert not loaded.update(embed).any
    assert embed.asked == []


def test_only_what_changed_is_embedded_again(folder: Path, tmp_path: Path) -> None:
    index = new(folder)
    index.update(Counting())
    index.save(tmp_path / "index")
    index = SearchIndex.load(tmp_path / "index")
    (folder / "animals.txt").write_text("a new cat\na cat\n\na dog and a cat\n")
    (folder / "sub" / "rules.txt").unlink()
    (folder / "more.txt").write_text("sea dog\n")
    embed = Counting()
    changes = index.update(embed)
    assert embed.asked == ["a new cat", "sea dog"]
    assert (changes.embedded, changes.reused, changes.removed, changes.any) == (2, 2, 1, True)
    assert find(index, "dog cat", 1) == [("animals.txt", 4, "a dog and a cat", 1.0)]
    assert find(index, "dog sea", 1) == [("more.txt", 1, "sea dog", 1.0)]
    fresh = new(folder)
    fresh.update(Counting())
    np.testing.assert_array_equal(index.embeddings, fresh.embeddings)
    assert index.files == fresh.files


def test_a_file_of_the_same_time_and_size_is_not_read(folder: Path) -> None:
    index = new(folder)
    index.update(Counting())
    file = folder / "animals.txt"
    times = file.stat().st_mtime_ns
    file.write_text("A CAT\n\nA DOG AND A CAT\n")
    os.utime(file, ns=(times, times))
    assert not index.update(Counting()).any
    os.utime(file, ns=(times, times + 1))
    assert index.update(Counting()).embedded == 2


def test_ctrl_c_keeps_the_files_that_are_done(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "PORTION", 3)

    class Stopping(Counting):
        def __call__(self, texts: Sequence[str]) -> Any:
            if self.asked:
                raise KeyboardInterrupt
            return super().__call__(texts)

    index = new(folder)
    changes = index.update(Stopping())
    assert changes.interrupted
    assert [file.path for file in index.files] == ["animals.txt"]
    assert find(index, "dog", 1) == [("animals.txt", 3, "a dog and a cat", 0.707)]
    changes = index.update(Counting())
    assert (changes.interrupted, changes.embedded, changes.reused) == (None, 2, 2)
    assert find(index, "tax", 1) == [("rules.txt", 1, "tax law", 0.707)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TABLE, "[]", "wanted an object"),
        (TABLE, "{}", "not an index this version can read"),
        (TABLE, '{"minibert_search_index": 9}', "format 9, wanted 2"),
        (MATRIX, "x", "index.safetensors"),
    ],
)
def test_a_damaged_index_is_refused(
    folder: Path, tmp_path: Path, name: str, content: str, message: str
) -> None:
    index = new(folder)
    index.update(Counting())
    index.save(tmp_path / "index")
    (tmp_path / "index" / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        SearchIndex.load(tmp_path / "index")


def test_an_index_is_never_written_among_other_files(folder: Path, tmp_path: Path) -> None:
    index = new(folder)
    index.update(Counting())
    web = tmp_path / "web"
    web.mkdir()
    (web / ".minibert-0123456789ab").mkdir()  # a save that was killed
    index.save(web)  # an empty folder
    index.save(web)  # an index
    (web / TABLE).write_text('{"format": 1, "pages": []}')  # a file of the same name
    for place in (web, folder):
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        assert not SearchIndex.is_index(place)
        with pytest.raises(InputError, match="the folder is not empty, and no search index"):
            index.save(place)
        assert before == {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="there is a file of this name"):
        index.save(folder / "animals.txt")


def test_an_index_of_another_number_of_rows_is_refused(folder: Path, tmp_path: Path) -> None:
    index = new(folder)
    index.update(Counting())
    index.embeddings = index.embeddings[:3]
    index.save(tmp_path / "index")
    with pytest.raises(CheckpointError, match="3 vectors for 4 passages"):
        SearchIndex.load(tmp_path / "index")


@given(
    rows=st.integers(0, 40),
    queries=st.integers(1, 3),
    top_k=st.integers(1, 9),
    block=st.integers(1, 16),
    seed=st.integers(0, 99),
)
def test_the_best_rows_whatever_the_blocks(
    rows: int, queries: int, top_k: int, block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-2, 3, (rows, 4)).astype(np.float32)  # with ties
    query = rng.integers(-2, 3, (queries, 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        scores, found = top_rows(matrix, query, top_k)
    whole = query @ matrix.T
    best = np.argsort(-whole, axis=1, kind="stable")[:, :top_k]
    np.testing.assert_array_equal(found, best)
    np.testing.assert_array_equal(scores, np.take_along_axis(whole, best, axis=1))


def test_all_that_vectors_depend_on_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    names = ("model.safetensors", "vocab.txt", "config.json", "1_Pooling/config.json")
    hashes = {model_sha256(tmp_path)}
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        hashes.add(model_sha256(tmp_path))
    (tmp_path / "README.md").write_bytes(b"x")
    hashes.add(model_sha256(tmp_path))
    assert len(hashes) == 1 + len(names)
