"""A tokenised corpus on the disk: memory-mapped, so its size does not count.

A store is a directory that appears when it is whole:

    ids          (T,) u16, or u32 for a vocabulary over 65,536: the pieces of all sentences
    sentences    (S + 1,) i64: sentence s is ids[sentences[s] : sentences[s + 1]]
    documents    (D + 1,) i64: document d is the sentences documents[d] … documents[d + 1] − 1
    store.json   their sizes and sha256; of what corpus, by which tokenizer, they were made
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.errors import InputError
from minibert.io.files import atomic_write
from minibert.io.json_io import error_text, read_json_object

HEAD, IDS, SENTENCES, DOCUMENTS = "store.json", "ids", "sentences", "documents"
SOURCE = "made_of.json"  # beside a vocabulary: of what corpus and settings it was learnt
FORMAT = 1
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
    unknown: int | None = None  # pieces that are [UNK]; None: a store from before they were counted

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
    head = read_json_object(directory / HEAD)
    if head.get("format") != FORMAT:
        raise InputError(f"{directory}: not a store of format {FORMAT}; {ANEW}")
    changed = _differences(head, made_of)
    if changed == ["tokenizer"]:
        raise InputError(
            f"{directory}: the corpus was tokenised with another tokenizer; choose another "
            "--store, or replace this one with --overwrite_store"
        )
    if changed:
        what = ", ".join(changed[:3]) + (" …" if len(changed) > 3 else "")
        raise InputError(
            f"{directory}: the corpus has changed since it was tokenised ({what}); {ANEW}"
        )
    if content_hash(directory) != head.get("sha256"):
        raise InputError(f"{directory}: the store is damaged, its sha256 is not its own; {ANEW}")
    if head["made_of"] != made_of:
        with suppress(OSError):  # of a store that cannot be written the next start asks again
            write_head(directory, head | {"made_of": made_of})
    return TokenStore(
        directory,
        _mapped(directory / IDS, head["dtype"]),
        _mapped(directory / SENTENCES, "<i8"),
        _mapped(directory / DOCUMENTS, "<i8"),
        head["sha256"],
        head["invalid_bytes_replaced"],
        head.get("unknown"),
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


def write_head(directory: Path, head: Mapping[str, Any]) -> None:
    """Write store.json, in one step."""
    atomic_write(directory / HEAD, json.dumps(head, indent=1) + "\n")


def source_record(made_of: Mapping[str, Any]) -> dict[str, Any]:
    """What SOURCE holds; taken before a vocabulary is learnt, a later change will show."""
    return {"made_of": made_of, "corpus_sha256": hashes_of(name for name, *_ in made_of["files"])}


def write_source(directory: Path, record: Mapping[str, Any]) -> None:
    """Write SOURCE, in one step."""
    atomic_write(directory / SOURCE, json.dumps(record, indent=1) + "\n")


def check_source(directory: Path, made_of: Mapping[str, Any]) -> None:
    """Raises InputError for a vocabulary of another corpus or other settings, as `open_store` does.

    One from before this was noted is taken as it is.
    """
    if not (directory / SOURCE).exists():
        return
    record = read_json_object(directory / SOURCE)
    if changed := _differences(record, made_of):
        what = ", ".join(changed[:3]) + (" …" if len(changed) > 3 else "")
        raise InputError(
            f"{directory}: the corpus or the settings have changed since this vocabulary was "
            f"learnt ({what}); add --overwrite_store to make it and the tokenised corpus anew, or "
            "name another --store"
        )
    if record["made_of"] != made_of:
        with suppress(OSError):
            write_source(directory, record | {"made_of": made_of})


def hashes_of(names: Iterable[str]) -> dict[str, str]:
    """The sha256 of each file, whatever its size."""
    found = {}
    for name in names:
        try:
            with open(name, "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{name}: the file cannot be read: {error_text(error)}") from error
    return found


def _differences(head: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The files of the corpus that have changed, else the settings.

    A file of the same size and time has not; of one with another time the content decides.
    """
    then = head.get("made_of")
    then = then if isinstance(then, dict) else {}
    before, after = ({f[0]: f[1:] for f in made.get("files", ())} for made in (then, now))
    names = sorted(before | after)
    changed = [name for name in names if before.get(name, [])[:1] != after.get(name, [])[:1]]
    if not changed:
        hashes = hashes_of(name for name in names if before[name] != after[name])
        known = head.get("corpus_sha256", {})
        changed = [name for name, sha256 in hashes.items() if sha256 != known.get(name)]
    if changed:
        return changed
    timeless = [made | {"files": [f[:2] for f in made["files"]]} for made in (then, dict(now))]
    keys = (*now, *(then.keys() - now.keys()))
    return [key for key in keys if timeless[0].get(key) != timeless[1].get(key)]
