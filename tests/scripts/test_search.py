"""scripts/search.py: an index made once, answers for people and programs, errors in one line."""

from __future__ import annotations

import gzip
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import toy

from minibert import BertModel
from minibert.errors import Terminated
from minibert.search import SearchIndex


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIBERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "search"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    bert = BertModel(toy.config(), backend="numpy", seed=1)
    bert.save_pretrained(tmp_path / "model", tokenizer=toy.tokenizer())
    return tmp_path / "model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder" / ".git").mkdir(parents=True)
    rows = ["", "the film was good", "", "very very dull", "a story"]
    (tmp_path / "folder" / "a.txt").write_text("\n".join(rows))
    (tmp_path / "folder" / "b.py").write_text("def plot():\n    pass\n")
    (tmp_path / "folder" / "c.bin").write_bytes(b"\0")
    return tmp_path / "folder"


def on(*arguments: Any) -> list[Any]:
    return ["search", *arguments, "--backend=numpy", "--threads=1"]


def test_a_folder_is_indexed_once_and_searched(script, model, folder, cache):
    ended = script(*on(folder, "the film was good", "--model", model, "--cut=lines"))
    (place,) = cache.iterdir()
    assert ended.status == 0
    assert ended.err == (
        "indexed 5 passages of 2 files (5 new); left out: 1 binary files, 1 hidden or generated "
        f"folders; index: {place}\n"
    )
    first, second, *_ = ended.out.split("\n")
    assert first == f"1.000  {folder / 'a.txt'}:2"
    assert second == "       the film was good"
    again = script(*on(folder, "the film was good", "--cut=lines"))
    assert again == (0, ended.out, "")
    (folder / "a.txt").write_text("great film\nthe film was good")
    changed = script(*on(folder, "great film", "--cut=lines"))
    assert changed.out.startswith(f"1.000  {folder / 'a.txt'}:1\n")
    assert "indexed 4 passages of 2 files (1 new)" in changed.err
    anew = script(*on(folder, "great film", "--cut=lines", "--rebuild", "--model", model))
    assert anew.out == changed.out
    assert "(4 new)" in anew.err
    (place / "index.json").write_text("{")  # damaged: the cache mends itself
    mended = script(*on(folder, "great film", "--cut=lines", "--model", model))
    assert mended.out == changed.out
    assert "(4 new)" in mended.err


def test_several_queries_as_json(script, model, folder):
    file = folder / "a.txt"
    ended = script(*on(file, "very dull", "a story", "--model", model, "--jsonl", "--top_k=2"))
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["query"] for row in rows] == ["very dull"] * 2 + ["a story"] * 2
    assert rows[2] == {
        "query": "a story", "score": pytest.approx(1, abs=1e-6), "file": str(file), "line": 5,
        "text": "a story",
    }  # fmt: skip
    people = script(*on(file, "very dull", "a story", "--model", model, "--top_k=1"))
    assert people.out.startswith("very dull\n\n")
    assert "\na story\n\n1.000" in people.out


def test_the_lines_that_speak_of_the_query_are_shown(script, model, tmp_path):
    rows = [f"line {i}" for i in range(10)]
    rows[6] = "    here the plot was lovely"
    (tmp_path / "folder2").mkdir()
    (tmp_path / "folder2" / "x.txt").write_text("\n".join(rows))
    ended = script(*on(tmp_path / "folder2", "lovely plot", "--model", model))
    place, *shown = ended.out.rstrip().split("\n")
    assert place.endswith("x.txt:4")
    assert [line.strip() for line in shown] == ["line 3", "line 4", "line 5", rows[6].strip()]


def test_a_compressed_text_is_searched(script, model, tmp_path):
    file = tmp_path / "notes.txt.gz"
    file.write_bytes(gzip.compress(b"a story\nvery dull\n"))
    ended = script(*on(file, "very dull", "--model", model, "--top_k=1"))
    assert ended.out.startswith(f"1.000  {file}:2\n")


def test_an_index_elsewhere_is_searched_without_its_source(script, model, folder, tmp_path):
    made = script(*on("--index", tmp_path / "my.index", folder, "--model", model))
    assert (made.status, made.out) == (0, "")
    assert SearchIndex.is_index(tmp_path / "my.index")
    (folder / "a.txt").unlink()
    ended = script(*on(tmp_path / "my.index", "very dull"))
    assert ended.status == 0
    assert f"{folder / 'a.txt'}:" in ended.out
    web = tmp_path / "web"
    web.mkdir()
    (web / "index.json").write_text("{}")
    ended = script(*on("--index", web, folder, "--model", model))
    assert ended.status == 2
    assert "the folder is not empty, and no search index" in ended.err
    assert [path.name for path in web.iterdir()] == ["index.json"]
    for more in ("--rebuild", "--cut=lines"):
        ended = script(*on(tmp_path / "my.index", "dull", more))
        assert ended.status == 2
        assert "is an index and is searched as it is: --model" in ended.err
    weights = BertModel(toy.config(), backend="numpy", seed=2)
    weights.save_pretrained(model, tokenizer=toy.tokenizer())
    ended = script(*on(tmp_path / "my.index", "very dull"))
    assert ended.status == 2
    assert "was made with another" in ended.err


def test_a_damaged_index_is_made_again(script, model, folder, cache, tmp_path):
    """In the cache at once; elsewhere by the one command that the error gives."""
    for index in ([], ["--index", tmp_path / "my index"]):
        made = script(*on(*index, folder, "very dull", "--model", model))
        matrix = (index[1] if index else next(cache.iterdir())) / "index.safetensors"
        matrix.write_bytes(matrix.read_bytes()[:-8])
        ended = script(*on(*index, folder, "very dull", "--model", model))
        if index:
            (line,) = ended.err.splitlines()
            assert "not an index this version can read" in line
            assert "fetch it again" not in line
            command = line.partition("make it again: ")[2]
            assert script("search", *shlex.split(command)[2:], "--backend=numpy").status == 0
            ended = script(*on(*index, folder, "very dull", "--model", model))
        else:
            assert "is damaged: it is made again, with" in ended.err
        assert (ended.status, ended.out) == (0, made.out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", "q"], "absent: there is no such file or folder"),
        (["{folder}/c.bin", "q"], "c.bin: it holds a zero byte; a UTF-8 text file is wanted"),
        (["{folder}/.git", "q"], ".git holds no text to search"),
        (["{folder}", " "], "got an empty query ' '"),
        (["{folder}", "q", "--top_k=0"], "top_k must be at least 1, got 0"),
        (["{folder}", "q", "--cut=words"], "invalid choice: 'words'"),
        ([], "the following arguments are required: INDEX_OR_FOLDER;"),
    ],
)
def test_bad_input_gets_one_line(script, model, folder, arguments, message):
    filled = [argument.format(folder=folder) for argument in arguments]
    ended = script(*on(*filled, "--model", model))
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert message in ended.err


def test_a_name_that_is_not_utf_8(script, model, tmp_path):
    (tmp_path / "odd").mkdir()
    try:
        (tmp_path / "odd" / os.fsdecode(b"\xff.txt")).write_text("very dull")
    except OSError:
        return  # a file system that has no such names
    for more in ([], ["--jsonl"]):
        ended = script(*on(tmp_path / "odd", "dull", "--model", model, *more))
        assert ended.status == 0
        assert "odd/?.txt" in ended.out


@pytest.mark.parametrize(("kind", "status"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_ctrl_c_is_no_loss(kind, status, script, model, folder, monkeypatch):
    def stop(*_):
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr("minibert.pipelines.SentenceSimilarityPipeline.embed", stop)
        ended = script(*on(folder, "dull", "--model", model))
    said = "search.py: 0 passages indexed; the same command goes on\n"
    assert ended == (status, "", said)
    assert script(*on(folder, "dull", "--model", model)).status == 0


def test_help_teaches(script):
    ended = script("search", "--help")
    assert ended.status == 0
    assert "where is a checkpoint written?" in ended.out
