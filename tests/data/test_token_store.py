"""The store: what goes in comes out, on any number of processes; damage and change are noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toy_corpus

from minibert import BertTokenizer
from minibert.data import tokenizing
from minibert.data.corpus import Corpus
from minibert.data.sentences import split_sentences
from minibert.data.token_store import TokenStore
from minibert.data.tokenizing import tokenised
from minibert.errors import InputError


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus([toy_corpus.write(tmp_path / "corpus", documents=5)])


def files(store: TokenStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.directory.iterdir()}


def test_every_sentence_comes_back(corpus: Corpus, tmp_path: Path) -> None:
    tokenizer = toy_corpus.tokenizer()
    (tmp_path / "corpus/001.txt").write_text("\n\x07\n")  # only a character that is no piece
    store = tokenised(corpus, tokenizer, tmp_path / "store")
    found = [
        [store.tokens(s, s + 1).tolist() for s in range(first, last)]
        for first, last in zip(store.documents[:-1], store.documents[1:], strict=True)
    ]
    texts = [path.read_text() for path in corpus.files if path.name != "001.txt"]
    wanted = [tokenizer.piece_ids(split_sentences(" ".join(text.split("\n")))) for text in texts]
    assert found == wanted
    assert (store.num_documents, store.ids.dtype) == (4, np.uint16)
    assert [store.document_of(s) for s in (0, store.documents[1] - 1, store.documents[1])] == [
        0,
        0,
        1,
    ]


def test_any_chunks_and_processes_write_the_same_bytes(corpus, tmp_path, monkeypatch):
    whole = files(tokenised(corpus, toy_corpus.tokenizer(), tmp_path / "whole"))
    monkeypatch.setattr(tokenizing, "CHUNK", 100)
    for processes in (1, 2):
        path = tmp_path / str(processes)
        store = tokenised(corpus, toy_corpus.tokenizer(), path, processes=processes)
        assert files(store) == whole


def test_large_vocabularies_take_more_room(corpus: Corpus, tmp_path: Path) -> None:
    many = BertTokenizer.from_vocab(
        [*toy_corpus.VOCABULARY[:6], *map(str, range(1 << 16)), *toy_corpus.WORDS]
    )
    store = tokenised(corpus, many, tmp_path / "store")
    assert store.ids.dtype == np.uint32
    assert store.ids.max() > 1 << 16


def test_a_second_start_makes_nothing(corpus, tmp_path, monkeypatch):
    first = tokenised(corpus, toy_corpus.tokenizer(), tmp_path / "store")
    monkeypatch.setattr(tokenizing, "build_store", lambda *_, **__: pytest.fail("built again"))
    again = tokenised(corpus, toy_corpus.tokenizer(), tmp_path / "store")
    assert again.sha256 == first.sha256


@pytest.mark.parametrize("change", ["more text", "a file more", "another vocabulary", "settings"])
def test_another_corpus_is_noticed(change: str, corpus: Corpus, tmp_path: Path) -> None:
    path, tokenizer = tmp_path / "store", toy_corpus.tokenizer()
    before = tokenised(corpus, tokenizer, path).sha256
    message = {
        "more text": r"has changed since it was tokenised \(.*002\.txt\)",
        "a file more": r"has changed since it was tokenised \(.*new\.txt\)",
        "another vocabulary": r"\(tokenizer\)",
        "settings": r"\(sentences\)",
    }[change]
    if change == "more text":
        with (tmp_path / "corpus/002.txt").open("a") as file:
            file.write("\nMore.")
    elif change == "a file more":
        (tmp_path / "corpus/new.txt").write_text("More.")
    elif change == "another vocabulary":
        tokenizer = BertTokenizer.from_vocab([*toy_corpus.VOCABULARY, "more"])
    else:
        corpus.sentences = "lines"
    corpus = Corpus([tmp_path / "corpus"], sentences=corpus.sentences)
    with pytest.raises(InputError, match=message + ".*--overwrite_store"):
        tokenised(corpus, tokenizer, path)
    after = tokenised(corpus, tokenizer, path, overwrite=True)
    assert (after.sha256 == before) == (change in ("another vocabulary", "settings"))


@pytest.mark.parametrize("name", ["ids", "sentences", "documents"])
@pytest.mark.parametrize("damage", ["a bit", "cut", "longer", "gone"])
def test_damage_is_noticed(name: str, damage: str, corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "store"
    file = tokenised(corpus, toy_corpus.tokenizer(), path).directory / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        content[len(content) // 2] ^= damage == "a bit"
        size = len(content) + {"a bit": 0, "cut": -1, "longer": 1}[damage]
        file.write_bytes(bytes(content[:size]).ljust(size, b"\0"))
    with pytest.raises(InputError, match=r"store: the store is damaged.*--overwrite_store"):
        tokenised(corpus, toy_corpus.tokenizer(), path)


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n \n")
    with pytest.raises(InputError, match="the corpus holds no text"):
        tokenised(Corpus([tmp_path / "blank.txt"]), toy_corpus.tokenizer(), tmp_path / "store")
    assert not (tmp_path / "store").exists()


BUILD = """
import sys, time
sys.path[:0] = [{tests!r}]
import toy_corpus
from minibert.data import tokenizing
from minibert.data.corpus import Corpus
tokenizing.CHUNK = 100
plain = tokenizing._tokenise
def slow(*args):
    print("at work", flush=True)
    time.sleep(0.2)
    return plain(*args)
tokenizing._tokenise = slow
tokenizing.tokenised(Corpus([{corpus!r}]), toy_corpus.tokenizer(), tokenizing.Path({store!r}))
"""


def test_killed_in_the_middle_it_leaves_nothing_under_its_name(corpus, tmp_path):
    """With kill -9, while chunks are being written; what stood there before stays."""
    for store in (tmp_path / "new", tmp_path / "old"):
        before = None
        if store.name == "old":
            before = files(tokenised(corpus, toy_corpus.tokenizer(), store))
            os.utime(tmp_path / "corpus/000.txt", (0, 0))
        code = BUILD.format(
            tests=str(Path(__file__).parents[1]), corpus=str(tmp_path / "corpus"), store=str(store)
        ).replace("toy_corpus.tokenizer(), ", "toy_corpus.tokenizer(), overwrite=True, directory=")
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == b"at work\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if before is None:
            assert not store.exists()
        else:
            assert {p.name: p.read_bytes() for p in store.iterdir()} == before
        built = tokenised(
            Corpus([tmp_path / "corpus"]), toy_corpus.tokenizer(), store, overwrite=True
        )
        assert built.num_documents == 5
