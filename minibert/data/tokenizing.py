"""A corpus → a token store: sentences found and tokenised in parallel, written as they come."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.data.corpus import Corpus, Paragraph
from minibert.data.long_sentences import parts
from minibert.data.made_of import hashes_of, write_record
from minibert.data.sentences import split_sentences
from minibert.data.token_store import (
    DOCUMENTS,
    FORMAT,
    HEAD,
    IDS,
    SENTENCES,
    TokenStore,
    content_hash,
    open_store,
)
from minibert.errors import InputError
from minibert.io.files import new_directory
from minibert.io.progress import tracked
from minibert.tokenization import BertTokenizer

CHUNK = 1 << 20  # characters that a process is given at a time


class Tokenised(NamedTuple):
    """Sentences with at least one piece."""

    ids: NDArray[Any]  # (T,)
    lengths: NDArray[np.int64]  # (S,) pieces
    documents: NDArray[np.int64]  # (S,) the number of the document
    broken: int = 0  # sentences that were longer, and are parts here


def source_of(corpus: Corpus, tokenizer: BertTokenizer) -> dict[str, Any]:
    """All that decides what a store holds, as JSON: files as they are now, settings, tokenizer."""
    return {
        "files": [list(state) for state in corpus.state()],
        "documents": corpus.documents,
        "sentences": corpus.sentences,
        "text_field": corpus.text_field,
        "tokenizer": tokenizer.fingerprint(),
    }


def tokenised(
    corpus: Corpus,
    tokenizer: BertTokenizer,
    directory: Path,
    *,
    processes: int = 1,
    overwrite: bool = False,
    quiet: bool = False,
) -> TokenStore:
    """The store in `directory`, which is made there if it is absent.

    Raises InputError for a store of another corpus, or a damaged one, unless `overwrite`; for
    something else that has the name always.
    """
    if directory.exists() and not (directory / HEAD).is_file():
        raise InputError(
            f"{directory} is no store, it has no {HEAD}: choose another --store, or remove it"
        )
    if overwrite or not directory.exists():
        build_store(corpus, tokenizer, directory, processes=processes, quiet=quiet)
    return open_store(directory, source_of(corpus, tokenizer))


def build_store(
    corpus: Corpus,
    tokenizer: BertTokenizer,
    directory: Path,
    *,
    processes: int = 1,
    quiet: bool = False,
) -> None:
    """Tokenise a corpus into `directory`, which appears, or is replaced, when it is whole.

    Memory holds a few chunks of text for each process, however large the corpus.
    """
    # Before it is tokenised: a later change will show.
    made_of = source_of(corpus, tokenizer)
    hashes = hashes_of(name for name, *_ in made_of["files"])
    dtype = "<u2" if len(tokenizer) <= 1 << 16 else "<u4"
    with new_directory(directory) as stage:
        results = _results(corpus, tokenizer, dtype, processes, quiet)
        counts = _write(stage, results, tokenizer.unk_token_id)
        if not counts["sentences"]:
            raise InputError("the corpus holds no text")
        head = {"format": FORMAT, "dtype": dtype, **counts, "sha256": content_hash(stage)}
        head |= {"invalid_bytes_replaced": dict(corpus.replaced), "skipped": corpus.skipped}
        head |= {"first_skipped": corpus.first_skipped, "made_of": made_of}
        write_record(stage / HEAD, head | {"corpus_sha256": hashes})


def _write(stage: Path, results: Iterator[Tokenised], unknown_id: int) -> dict[str, int]:
    """Write the three arrays piece by piece; → their sizes, and what else was counted."""
    tokens = sentences = documents = unknown = broken = 0
    last = -1
    with (
        (stage / IDS).open("wb") as ids_file,
        (stage / SENTENCES).open("wb") as sentences_file,
        (stage / DOCUMENTS).open("wb") as documents_file,
    ):
        _append(sentences_file, np.zeros(1, "<i8"))
        for ids, lengths, numbers, more in results:
            _append(ids_file, ids)
            _append(sentences_file, (tokens + np.cumsum(lengths)).astype("<i8"))
            begins = np.flatnonzero(np.diff(numbers, prepend=last))
            _append(documents_file, (sentences + begins).astype("<i8"))
            unknown += int(np.count_nonzero(ids == unknown_id))
            broken += more
            tokens, sentences = tokens + len(ids), sentences + len(lengths)
            documents, last = documents + len(begins), int(numbers[-1])
        _append(documents_file, np.array([sentences], "<i8"))
    sizes = {"tokens": tokens, "sentences": sentences, "documents": documents}
    return sizes | {"unknown": unknown, "broken": broken}


def _append(file: BinaryIO, array: NDArray[Any]) -> None:
    """As `tofile`, which does not say why it fails; and on a full disk it may fail in silence."""
    file.write(array.data)


def _results(
    corpus: Corpus, tokenizer: BertTokenizer, dtype: str, processes: int, quiet: bool
) -> Iterator[Tokenised]:
    """The chunks of the corpus, tokenised, in order; without those that have no sentence.

    What is too long for an example is in parts: here, for it is little work, and the
    processes need no table of the vocabulary.
    """
    chunks = tracked(
        _chunks(corpus), None, "tokenising", size=_size, unit=" characters", disable=quiet
    )
    set_up = (tokenizer.of_plain_text(), corpus.sentences == "rule", dtype)
    results = (
        (_tokenise(chunk, *set_up) for chunk in chunks)
        if processes == 1
        else _in_processes(chunks, processes, set_up)
    )
    continues = tokenizer.continues()
    return (_in_parts(result, continues) for result in results if len(result.lengths))


def _in_parts(found: Tokenised, continues: NDArray[np.bool_]) -> Tokenised:
    """The same, with the parts of long sentences as sentences (`long_sentences.parts`)."""
    lengths, counts = parts(found.ids, found.lengths, continues)
    documents = np.repeat(found.documents, counts)
    return Tokenised(found.ids, lengths, documents, int((counts > 1).sum()))


def _chunks(corpus: Corpus) -> Iterator[list[Paragraph]]:
    """Paragraphs of CHUNK characters together, or a little more."""
    chunk: list[Paragraph] = []
    size = 0
    for paragraph in corpus.paragraphs():
        chunk.append(paragraph)
        size += len(paragraph.text)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _size(chunk: list[Paragraph]) -> int:
    return sum(len(paragraph.text) for paragraph in chunk)


def _tokenise(
    chunk: list[Paragraph], tokenizer: BertTokenizer, by_rule: bool, dtype: str
) -> Tokenised:
    sentences: list[str] = []
    documents: list[int] = []
    for document, text in chunk:
        found = split_sentences(text) if by_rule else [text]
        sentences += found
        documents += [document] * len(found)
    pieces = tokenizer.piece_ids(sentences)
    lengths = np.array([len(ids) for ids in pieces], np.int64)
    ids = np.fromiter(itertools.chain.from_iterable(pieces), dtype, int(lengths.sum()))
    real = lengths > 0
    return Tokenised(ids, lengths[real], np.array(documents, np.int64)[real])


# ---- In processes ----

_set_up: tuple[BertTokenizer, bool, str]


def _begin(tokenizer: BertTokenizer, by_rule: bool, dtype: str) -> None:
    global _set_up  # noqa: PLW0603  a process is given it once, not with every chunk
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _set_up = (tokenizer.of_plain_text(), by_rule, dtype)  # which it is no more when it arrives
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business


def _end_with_parent() -> None:
    """The parent may be killed, and nobody else would end a process that waits for work."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(chunk: list[Paragraph]) -> Tokenised:
    return _tokenise(chunk, *_set_up)


def _in_processes(
    chunks: Iterable[list[Paragraph]], processes: int, set_up: tuple[Any, ...]
) -> Iterator[Tokenised]:
    """Results in order; a process has one chunk in hand and one waiting.

    The processes are started anew, not forked: a fork of a process with threads may hang.
    Raises ChildProcessError where one of them is killed.
    """
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin, set_up)
    waiting: deque[Future[Tokenised]] = deque()
    try:
        for chunk in chunks:
            waiting.append(_submit(pool, chunk))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except (BrokenProcessPool, MemoryError) as error:
        raise ChildProcessError(
            f"one of {processes} processes that tokenise ended before its work did, most often "
            "killed for want of memory: set --preprocessing_num_workers 1, or free memory, and "
            "start again"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, chunk: list[Paragraph]) -> Future[Tokenised]:
    """Which starts a process where one is wanted; raises BrokenProcessPool where that fails."""
    with _undisturbed():
        try:
            return pool.submit(_work, chunk)
        except OSError as error:
            raise BrokenProcessPool(str(error)) from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait until the block ends; a process that is started in it never hears Ctrl-C.

    Half a start would leave a process without its work; `_begin` would come too late to a process
    that takes a second to import what it needs. The mask is what it inherits; of the parent's
    threads another one may still be interrupted for it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "pthread_sigmask"):  # elsewhere this cannot be said
        yield
        return
    heard: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: heard.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for late in heard:
            signal.raise_signal(late)
