"""A tokenised corpus on the disk: memory-mapped, so its size does not count.

A store is a directory that appears when it is whole:

    ids          (T,) u16, or u32 for a vocabulary over 65,536: the pieces of all sentences
    sentences    (S + 1,) i64: sentence s is ids[sentences[s] : sentences[s + 1]]
    documents    (D + 1,) i64: document d is the sentences documents[d] … documents[d + 1] − 1
    store.json   their sizes and sha256; of what corpus, by which tokenizer, they were made
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.data.made_of import differences, first_three, keep_times
from minibert.errors import CheckpointError, InputError
from minibert.io.json_io import read_json_object

HEAD, IDS, SENTENCES, DOCUMENTS = "store.json", "ids", "sentences", "documents"
FORMAT = 2  # 1 had whole what `long_sentences` breaks, and other ends of sentences
ANEW = "add --overwrite_store to tokenise the corpus anew"


@dataclass(frozen=True)
class TokenStore:
    """The pieces of a corpus, in sentences and documents, none of them empty."""

    directory: Path
    ids: NDArray[Any]
    sentences: NDArray[np.int64]
    documents: NDArray[np.int64]
    sha256: str
    replaced: dict[str, int]  # bytes of its files that were not UTF-8
    unknown: int = 0  # pieces that are [UNK]
    broken: int = 0  # sentences that were too long for an example, and are parts here
    skipped: int = 0  # files, members of archives and JSON lines without text
    first_skipped: str = ""  # what the first of them is called

    @property
    def num_documents(self) -> int:
        return len(self.documents) - 1

    @property
    def num_sentences(self) -> int:
        return len(self.sentences) - 1

    def tokens(self, first: int, last: int) -> NDArray[np.int32]:
        """The pieces of sentences first … last − 1."""
        return self.ids[self.sentences[first] : self.sentences[last]].astype(np.int32)

    def document_of(self, sentence: int) -> int:
        """The number of the document that a sentence belongs to."""
        return int(np.searchsorted(self.documents, sentence, "right")) - 1


def open_store(directory: Path, made_of: Mapping[str, Any]) -> TokenStore:
    """A store whose every byte is as it was written, made of that corpus (`source_of`).

    Files of the corpus that were copied or touched are read once more, and their new times kept.
    Raises InputError for a store that is damaged, or of another corpus or tokenizer.
    """
    head = _read_head(directory)
    if head.get("format") != FORMAT:
        raise InputError(
            f"{directory}: another version of minibert made this store, which finds sentences by "
            f"another rule (format {head.get('format')!r}, wanted {FORMAT}); {ANEW}"
        )
    changed = differences(head, made_of)
    if changed == ["tokenizer"]:
        raise InputError(
            f"{directory}: the corpus was tokenised with another tokenizer; choose another "
            "--store, or replace this one with --overwrite_store"
        )
    if changed:
        what = first_three(changed)
        raise InputError(
            f"{directory}: the corpus has changed since it was tokenised ({what}); {ANEW}"
        )
    if content_hash(directory) != head.get("sha256"):
        raise InputError(f"{directory}: the store is damaged, its sha256 is not its own; {ANEW}")
    keep_times(directory / HEAD, head, made_of)
    return TokenStore(
        directory,
        _mapped(directory / IDS, head["dtype"]),
        _mapped(directory / SENTENCES, "<i8"),
        _mapped(directory / DOCUMENTS, "<i8"),
        head["sha256"],
        head["invalid_bytes_replaced"],
        head["unknown"],
        head["broken"],
        head["skipped"],
        head["first_skipped"],
    )


def _read_head(directory: Path) -> dict[str, Any]:
    try:
        head = read_json_object(directory / HEAD)
    except CheckpointError as error:
        raise InputError(f"{directory}: the store is damaged; {ANEW} ({error})") from error
    if head.get("format") == FORMAT and not _is_head(head):
        raise InputError(f"{directory}: the store is damaged, in its {HEAD}; {ANEW}")
    return head


def _is_head(head: Mapping[str, Any]) -> bool:
    """Whether what is read of it is of the types that were written."""
    replaced = head.get("invalid_bytes_replaced")
    return (
        head.get("dtype") in ("<u2", "<u4")
        and isinstance(replaced, dict)
        and all(type(count) is int for count in replaced.values())
        and all(type(head.get(name)) is int for name in ("unknown", "broken", "skipped"))
        and isinstance(head.get("first_skipped"), str)
    )


def content_hash(directory: Path) -> str:
    """The sha256 over the sizes and bytes of the three arrays. A gigabyte takes about a second."""
    digest = hashlib.sha256()
    for name in (IDS, SENTENCES, DOCUMENTS):
        path = directory / name
        if not path.is_file():
            raise InputError(f"{directory}: the store is damaged, it lacks {name}; {ANEW}")
        digest.update(f"{name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _mapped(path: Path, dtype: str) -> NDArray[Any]:
    return np.asarray(np.memmap(path, dtype, "r"))  # a plain array: indexing it costs less
