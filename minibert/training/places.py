"""Where a pretraining writes: not among what it reads."""

from __future__ import annotations

from pathlib import Path

from minibert.data.corpus import folders_of, is_hidden
from minibert.errors import InputError
from minibert.hub.package_index import cache_directory
from minibert.io.files import refuse_unwritable
from minibert.training.pretraining_arguments import CorpusArguments

TOKENIZER = ("tokenizer.json", "vocab.txt")


def check_places(a: CorpusArguments, output_dir: Path) -> None:
    """Before anything is read. Raises InputError for a --store or --output_dir that cannot be one.

    What is written within a folder of the corpus would be read as text by the next start.
    """
    store = Path(a.store) if a.store else cache_directory() / "corpora"
    flag = "--store" if a.store else "MINIBERT_CACHE (or --store)"
    for path in map(Path, (*a.corpus, *(a.validation_corpus or ()))):
        folders = folders_of(path)
        for name, place in ((flag, store), ("--output_dir", output_dir)):
            if _is_read(place.resolve(), folders):
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


def _is_read(place: Path, folders: set[Path]) -> bool:
    """Whether files at `place` are read with one of the folders, of which hidden ones are not."""
    above = [folder for folder in folders if place.is_relative_to(folder)]
    return any(not is_hidden(place.relative_to(folder)) for folder in above)
