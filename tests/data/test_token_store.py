"""The store: what goes in comes out, on any number of processes; damage and change are noticed."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import toy_corpus

from minibert import BertTokenizer
from minibert.data import made_of, tokenizing
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


@pytest.mark.parametrize("processes", [1, 2])
def test_special_tokens_in_a_text_are_text(processes: int, tmp_path: Path) -> None:
    """As BasicTokenizer splits them: a mask that a text speaks of is not one to be predicted."""
    (tmp_path / "text").write_text("Sun [MASK] moon[SEP] [PAD]. sun [UNK].")
    words = ["[", "]", "mask", "sep", "pad", "unk"]
    tokenizer = BertTokenizer.from_vocab([*toy_corpus.VOCABULARY, *words])
    corpus = Corpus([tmp_path / "text"], sentences="lines")
    store = tokenised(corpus, tokenizer, tmp_path / "store", processes=processes)
    found = tokenizer.convert_ids_to_tokens(store.ids.tolist())
    assert " ".join(found) == "sun [ mask ] moon [ sep ] [ pad ] . sun [ unk ] ."
    masks = tokenizer.piece_ids(["[MASK]"])  # of other texts it is the special token, as before
    assert masks == [[tokenizer.mask_token_id]]


@pytest.mark.parametrize("processes", [1, 2])
def test_unknown_pieces_are_counted(processes, corpus, tmp_path, monkeypatch):
    """Over all chunks."""
    monkeypatch.setattr(tokenizing, "CHUNK", 100)
    (tmp_path / "corpus/003.txt").write_text("sun Saturn.\nmoon & Io & Europa.")
    path, tokenizer = tmp_path / "store", toy_corpus.tokenizer()
    store = tokenised(corpus, tokenizer, path, processes=processes)
    assert store.unknown == np.sum(store.ids == tokenizer.unk_token_id) == 5


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("sentences", ["rule", "lines"])
def test_long_sentences_are_stored_in_parts(processes, sentences, tmp_path, monkeypatch):
    """All of them, in order and in their own documents; and they are counted."""
    monkeypatch.setattr(tokenizing, "CHUNK", 100)
    rows = ["sun moonlet stars " * 40, "moon.", "fishlet " * 61, "fishlet " * 60]
    texts = [" ".join(rows), rows[0], "sun."] if sentences == "rule" else ["\n".join(rows)] * 2
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text)
    corpus = Corpus([tmp_path / f"{number}.txt" for number in range(len(texts))],
                    sentences=sentences)  # fmt: skip
    tokenizer, path = toy_corpus.tokenizer(), tmp_path / "store"
    store = tokenised(corpus, tokenizer, path, processes=processes)
    wanted = [tokenizer.piece_ids([text])[0] for text in texts]
    bounds = store.documents.tolist()
    assert [store.tokens(*span).tolist() for span in itertools.pairwise(bounds)] == wanted
    lengths = np.diff(store.sentences)
    assert lengths.max() <= (60 if sentences == "rule" else 120)
    assert not tokenizer.continues()[store.ids[store.sentences[:-1]]].any()
    assert store.broken == (3 if sentences == "rule" else 4)
    assert tokenised(corpus, tokenizer, path).broken == store.broken


def test_a_store_by_another_rule_is_not_taken(corpus: Corpus, tmp_path: Path) -> None:
    """As those were made that had long sentences whole."""
    path, tokenizer = tmp_path / "store", toy_corpus.tokenizer()
    tokenised(corpus, tokenizer, path)
    head = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps(head | {"format": 1}))
    with pytest.raises(
        InputError, match=r"another rule \(format 1, wanted 2\); add --overwrite_store"
    ):
        tokenised(corpus, tokenizer, path)
    assert tokenised(corpus, tokenizer, path, overwrite=True).num_documents == 5


def test_what_has_no_text_is_counted(tmp_path: Path) -> None:
    """And still known when the store is opened again."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("sun.")
    (tmp_path / "texts/b.txt").touch()
    corpus, path = Corpus([tmp_path / "texts"]), tmp_path / "store"
    for _ in range(2):
        store = tokenised(corpus, toy_corpus.tokenizer(), path)
        assert (store.skipped, store.first_skipped) == (1, str(tmp_path / "texts/b.txt"))
        assert store.num_documents == 1


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
        "another vocabulary": "tokenised with another tokenizer; choose another --store, or",
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


def touched(corpus: Corpus, *numbers: int) -> None:
    for number in numbers:
        os.utime(corpus.files[number], ns=(1, number))


def test_files_that_were_only_touched_are_read_once_more(corpus, tmp_path, monkeypatch):
    """And their new times are known from then on; the others are not read at all."""
    path, tokenizer = tmp_path / "store", toy_corpus.tokenizer()
    store, before = tokenised(corpus, tokenizer, path), files(tokenised(corpus, tokenizer, path))
    touched(corpus, 0, 3)
    read = list[str]()
    hashes = made_of.hashes_of
    monkeypatch.setattr(made_of, "hashes_of", lambda n: hashes(n := list(n)) | seen(read, n))
    monkeypatch.setattr(tokenizing, "build_store", lambda *_, **__: pytest.fail("built again"))
    assert tokenised(corpus, tokenizer, path).sha256 == store.sha256
    assert read == [str(corpus.files[0]), str(corpus.files[3])]
    after = files(store)
    assert {name for name in before if before[name] != after[name]} == {"store.json"}
    assert before.keys() == after.keys()  # nothing is left beside it
    assert tokenised(corpus, tokenizer, path).sha256 == store.sha256
    assert len(read) == 2
    touched(corpus, 1)
    assert tokenised(corpus, tokenizer, path).sha256 == store.sha256
    assert read[2:] == [str(corpus.files[1])]


def seen(read: list[str], names: list[str]) -> dict[str, str]:
    read += names
    return {}


def test_another_content_of_the_same_size_is_noticed(corpus, tmp_path):
    """It alone is named, and what was only touched is not."""
    path, tokenizer = tmp_path / "store", toy_corpus.tokenizer()
    tokenised(corpus, tokenizer, path)
    content = corpus.files[2].read_bytes()
    corpus.files[2].write_bytes(content.swapcase())
    touched(corpus, 1, 2)
    head = (path / "store.json").read_bytes()
    with pytest.raises(InputError, match=r"tokenised \([^ ]*002\.txt\); add --overwrite_store"):
        tokenised(corpus, tokenizer, path)
    assert (path / "store.json").read_bytes() == head
    corpus.files[2].write_bytes(content)
    assert tokenised(corpus, tokenizer, path).num_documents == 5


def test_touched_files_of_a_store_without_their_hashes_have_changed(corpus, tmp_path):
    """As stores were written before; with the times that it knows it is good."""
    path, tokenizer = tmp_path / "store", toy_corpus.tokenizer()
    tokenised(corpus, tokenizer, path)
    head = json.loads((path / "store.json").read_text())
    del head["corpus_sha256"]
    (path / "store.json").write_text(json.dumps(head))
    assert tokenised(corpus, tokenizer, path).num_documents == 5
    touched(corpus, 4)
    with pytest.raises(InputError, match=r"has changed .*004\.txt.*--overwrite_store"):
        tokenised(corpus, tokenizer, path)


def test_files_in_another_order_are_another_corpus(corpus, tmp_path):
    path, tokenizer = tmp_path / "store", toy_corpus.tokenizer()
    tokenised(corpus, tokenizer, path)
    touched(corpus, 0)
    with pytest.raises(InputError, match=r"has changed since it was tokenised \(files\)"):
        tokenised(Corpus(corpus.files[::-1]), tokenizer, path)


def test_a_store_that_cannot_be_written_asks_again(corpus, tmp_path, monkeypatch):
    path, tokenizer = tmp_path / "store", toy_corpus.tokenizer()
    before = files(tokenised(corpus, tokenizer, path))
    touched(corpus, 0)

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(made_of, "atomic_write", refused)
    assert files(tokenised(corpus, tokenizer, path)) == before


def test_a_large_file_is_hashed_by_blocks(tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(64 << 20)  # it takes no room on the disk
    tracemalloc.start()
    (found,) = made_of.hashes_of([str(large)]).values()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == hashlib.sha256(bytes(64 << 20)).hexdigest()
    assert peak < 4 << 20


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


def head_with(**changes):
    def damage(head: Path) -> None:
        content = json.loads(head.read_text()) | changes
        kept = {name: value for name, value in content.items() if value is not ...}
        head.write_text(json.dumps(kept))

    return damage


DAMAGED_HEADS = {
    "cut": lambda head: head.write_bytes(head.read_bytes()[:200]),
    "empty": lambda head: head.write_text(""),
    "a list": lambda head: head.write_text("[]"),
    "no object": lambda head: head.write_bytes(b"\xff\xfe"),
    "another type": head_with(dtype=3),
    "no type": head_with(dtype=...),
    "no counts": head_with(invalid_bytes_replaced=["a"]),
    "counts of text": head_with(invalid_bytes_replaced={"a": "b"}),
    "half a number": head_with(unknown=0.5),
    "no hash": head_with(sha256=...),
}


@pytest.mark.parametrize("damage", DAMAGED_HEADS)
def test_a_damaged_head_is_noticed(damage: str, corpus: Corpus, tmp_path: Path) -> None:
    path = tmp_path / "store"
    tokenised(corpus, toy_corpus.tokenizer(), path)
    DAMAGED_HEADS[damage](path / "store.json")
    with pytest.raises(InputError, match=r"store: the store is damaged.*; add --overwrite_store"):
        tokenised(corpus, toy_corpus.tokenizer(), path)
    again = tokenised(corpus, toy_corpus.tokenizer(), path, overwrite=True)
    assert again.num_documents == 5


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_is_no_store_is_neither_read_nor_replaced(what, overwrite, corpus, tmp_path):
    path = tmp_path / "store"
    if what == "folder":
        path.mkdir()
        (path / "notes").write_text("mine")
    else:
        path.write_text("mine")
    with pytest.raises(InputError, match=r"store is no store, it has no .*: choose another"):
        tokenised(corpus, toy_corpus.tokenizer(), path, overwrite=overwrite)
    assert (path / "notes" if what == "folder" else path).read_text() == "mine"


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n \n")
    with pytest.raises(InputError, match="the corpus holds no text"):
        tokenised(Corpus([tmp_path / "blank.txt"]), toy_corpus.tokenizer(), tmp_path / "store")
    assert not (tmp_path / "store").exists()


FULL = """
import resource, signal, sys
import numpy as np
from minibert.data import tokenizing
from minibert.io.files import new_directory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
found = tokenizing.Tokenised(np.ones({tokens}, "<u2"), np.ones(1, int), np.zeros(1, int))
with new_directory(sys.argv[1]) as stage:
    tokenizing._write(stage, iter([found] * 2), 0)
"""


@pytest.mark.parametrize("tokens", [2000, 1100, 1025])
def test_a_store_that_finds_no_room_is_none(tokens, tmp_path):
    """For 4096 bytes of ids at most; NumPy's `tofile` would say nothing of the last block."""
    command = [sys.executable, "-c", FULL.format(tokens=tokens), str(tmp_path / "store")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stderr.endswith(f"OSError: [Errno 27] File too large: '{tmp_path}/store'\n")
    assert list(tmp_path.iterdir()) == []


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
