"""Where a pretraining writes: not among what it reads."""

from __future__ import annotations

from pathlib import Path

from minibert.data.corpus import Corpus, is_hidden
from minibert.errors import InputError
from minibert.hub.package_index import cache_directory
from minibert.io.files import refuse_unwritable
from minibert.training.pretraining_arguments import CorpusArguments
from minibert.training.pretraining_sources import Corpora

TOKENIZER = ("tokenizer.json", "vocab.txt")


def check_places(a: CorpusArguments, corpora: Corpora, output_dir: Path) -> None:
    """Before anything is read. Raises InputError for a --store or --output_dir that cannot be one.

    What is written within a folder of the corpus would be read as text by the next start.
    """
    store = Path(a.store) if a.store else cache_directory() / "corpora"
    flag = "--store" if a.store else "MINIBERT_CACHE (or --store)"
    for corpus in filter(None, corpora):
        for name, place in ((flag, store), ("--output_dir", output_dir)):
            if (path := _read_with(place.resolve(), corpus)) is not None:
                raise InputError(
                    f"{name}: {place} lies in the corpus {path}, whose files are all read: choose "
                    "one outside it"
                )
    if store.exists() and not store.is_dir():
        raise InputError(f"{flag}: {store} is a file; name a directory")
    vocabulary = store / "tokenizer"
    if (
        a.store
        and vocabulary.exists()
        and not any((vocabulary / name).is_file() for name in TOKENIZER)
    ):  # --overwrite_store would replace it
        raise InputError(
            f"{vocabulary} is no vocabulary, it has no {TOKENIZER[0]}: choose another --store, or "
            "remove it"
        )
    if not store.exists():
        refuse_unwritable(store, flag)


def _read_with(place: Path, corpus: Corpus) -> Path | None:
    """The path of the corpus with which files at `place` are read; hidden ones are not."""
    for folder, path in corpus.folders.items():
        if place.is_relative_to(folder) and not is_hidden(place.relative_to(folder)):
            return path
    return None
