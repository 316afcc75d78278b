"""From a corpus and flags to its vocabulary and its tokens in a store, some held out."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from minibert.data.corpus import Corpus
from minibert.data.long_sentences import PART, WHOLE
from minibert.data.made_of import (
    SOURCE,
    check_source,
    forget_hashes,
    source_record,
    write_record,
)
from minibert.data.segments import (
    Ints,
    hold_out,
)
from minibert.data.token_store import TokenStore
from minibert.data.tokenizing import tokenised
from minibert.errors import InputError
from minibert.hub.package_index import cache_directory
from minibert.io.files import new_directory
from minibert.io.numbers import counted
from minibert.io.progress import say, tracked
from minibert.parallel import available_cores
from minibert.tokenization import BertTokenizer
from minibert.tokenization.training import train_tokenizer
from minibert.training.pretraining_arguments import (
    CorpusArguments,
    VocabularyArguments,
)


class Corpora(NamedTuple):
    """The files to train on, and those of another corpus to evaluate on: listed once."""

    train: Corpus
    validation: Corpus | None


class Sources(NamedTuple):
    """Tokenised text, and which of its documents are for what."""

    train: TokenStore
    train_documents: Ints
    validation: TokenStore
    validation_documents: Ints


def list_files(a: CorpusArguments) -> Corpora:
    """The files that are named, each once: one that counted twice could be held out and trained on.

    Says which are named twice; raises InputError where one is trained on and held out.
    """
    train = _corpus(a, a.corpus, "corpus")
    if not a.validation_corpus:
        return Corpora(train, None)
    validation = _corpus(a, a.validation_corpus, "validation_corpus")
    held_out = {file.resolve() for file in validation.files}
    for file in train.files:
        if file.resolve() in held_out:
            raise InputError(
                f"{file.resolve()} is in --corpus and in --validation_corpus: what is held out "
                "must not be trained on; leave it out of one of them"
            )
    return Corpora(train, validation)


def _corpus(a: CorpusArguments, paths: list[str], name: str) -> Corpus:
    corpus = Corpus(paths, a.documents, a.sentences, a.text_field)
    once: dict[Path, Path] = {}
    again: dict[Path, None] = {}
    for file in corpus.files:
        resolved = file.resolve()
        if once.setdefault(resolved, file) is not file:
            again[resolved] = None
    if again:
        say(
            f"warning: --{name} names {counted(len(again), 'file')} more than once (first: "
            f"{next(iter(again))}); each is read once"
        )
    corpus.files = list(once.values())
    return corpus


def store_directory(
    a: CorpusArguments, v: VocabularyArguments, given: BertTokenizer | None = None
) -> Path:
    """Where vocabulary and stores of these arguments are kept.

    given: a vocabulary that is not learnt from the corpus; every such one has stores of its own.
    """
    if a.store:
        return Path(a.store)
    paths = [str(Path(path).resolve()) for path in (*a.corpus, "", *(a.validation_corpus or ()))]
    settings = [a.documents, a.sentences, a.text_field, *vars(v).values()]
    settings += [given.fingerprint()] if given else []
    key = hashlib.sha256(json.dumps([paths, settings]).encode()).hexdigest()[:12]
    return cache_directory() / "corpora" / f"{Path(a.corpus[0]).stem}-{key}"


def make_tokenizer(
    a: CorpusArguments, v: VocabularyArguments, corpora: Corpora, base: str | Path | None,
    quiet: bool,
) -> BertTokenizer:  # fmt: skip
    """The vocabulary that is named, else that of the model `base`, else one learnt from the corpus.

    A learnt one is kept, and is not learnt again. Raises InputError for one that was learnt of
    another corpus or with other settings, unless `overwrite_store`.
    """
    if v.tokenizer_name or base:
        return BertTokenizer.from_pretrained(v.tokenizer_name or str(base))
    directory = store_directory(a, v) / "tokenizer"
    settings = {name: value for name, value in vars(v).items() if name != "tokenizer_name"}
    files = [list(state) for state in corpora.train.state()]
    made_of = {"files": files, "text_field": a.text_field, **settings}
    if a.overwrite_store or not directory.exists():
        record = source_record(made_of)
        tokenizer = _learnt_tokenizer(corpora.train, v, quiet)
        with new_directory(directory) as stage:
            tokenizer.save_pretrained(stage)
            write_record(stage / SOURCE, record)
    check_source(directory, made_of)
    return BertTokenizer.from_pretrained(directory)


def _learnt_tokenizer(corpus: Corpus, v: VocabularyArguments, quiet: bool) -> BertTokenizer:
    texts = tracked(
        (paragraph.text for paragraph in corpus.paragraphs()), None, "vocabulary", size=len,
        unit=" characters", disable=quiet,
    )  # fmt: skip
    return train_tokenizer(
        texts,
        v.vocab_size,
        do_lower_case=not v.cased,
        limit_alphabet=v.limit_alphabet,
        min_frequency=v.min_frequency,
    )


def tokenise(
    a: CorpusArguments, v: VocabularyArguments, corpora: Corpora, base: str | Path | None,
    tokenizer: BertTokenizer, seed: int, quiet: bool, next_sentence: bool = True,
) -> Sources:  # fmt: skip
    """The corpus in its store, and what of it, or of another corpus, is held out.

    next_sentence: whether examples are pairs, whose random half comes from another document.
    """
    stores = store_directory(a, v, tokenizer if v.tokenizer_name or base else None)
    is_new = a.overwrite_store or not (stores / "train").exists()
    train = _tokenised(a, stores / "train", corpora.train, tokenizer, quiet)
    other = None
    if corpora.validation is not None:
        other = _tokenised(a, stores / "validation", corpora.validation, tokenizer, quiet)
    forget_hashes()
    if is_new and not a.store:
        say(
            f"kept in the cache: {_megabytes(stores)} as {stores.name} ({stores.parent} holds "
            f"{_megabytes(stores.parent)} in all; what you delete there can be made again)"
        )
    if other is None:
        return Sources(train, *_held_out(a, train, seed, 2 if next_sentence else 1))
    return Sources(train, hold_out(train, 0, seed)[0], other, hold_out(other, 0, seed)[0])


def _megabytes(directory: Path) -> str:
    """How large its files are; another run may be at work there."""
    size = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            with suppress(OSError):
                size += os.lstat(os.path.join(folder, name)).st_size
    return f"{size / 1e6:,.1f} MB"


def _held_out(
    a: CorpusArguments, store: TokenStore, seed: int, least: int
) -> tuple[Ints, TokenStore, Ints]:
    """The documents to train on, and those of the same store to evaluate on."""
    count = a.validation_documents
    if count is None:
        count = _number_to_hold_out(a, store.num_documents, least)
    rest, held = hold_out(store, count, seed)
    most = store.num_documents - least
    if count and (len(rest) < least or most < least):
        fewer = f"at most {most}" if most >= least else "none (--validation_documents 0)"
        raise InputError(
            f"held out: {count} of the corpus' {store.num_documents} documents "
            f"(--validation_documents), which leaves {len(rest)} to train on, and next-sentence "
            f"prediction needs two or more of either: hold out {fewer}; {_more_documents(a)}; or "
            "do without next sentences (--no_nsp)"
        )
    return rest, store, held


def _number_to_hold_out(a: CorpusArguments, documents: int, least: int) -> int:
    """One in twenty, where nobody has said how many; training and evaluation need `least` each."""
    count = max(least, documents // 20)
    if documents - count < least:
        pairs = " and --no_nsp" * (documents < least)
        raise InputError(
            f"the corpus has {counted(documents, 'document')}, of which {count} would "
            f"be held out and {least} or more trained on: {_more_documents(a)}; or hold out none "
            f"(--validation_documents 0{pairs})"
        )
    return count


def _more_documents(a: CorpusArguments) -> str:
    """How a corpus comes to more of them."""
    cut = "--documents blank_lines, if blank lines separate them; or " * (a.documents == "files")
    return f"{cut}add files"


def _tokenised(
    a: CorpusArguments, directory: Path, corpus: Corpus, tokenizer: BertTokenizer, quiet: bool
) -> TokenStore:
    store = tokenised(
        corpus,
        tokenizer,
        directory,
        processes=a.preprocessing_num_workers or available_cores(),
        overwrite=a.overwrite_store,
        quiet=quiet,
    )
    say(
        f"{directory.name}: {counted(len(store.ids), 'token')}, "
        f"{counted(store.num_sentences, 'sentence')}, "
        f"{counted(store.num_documents, 'document')} in {store.directory}"
    )
    say_unknown(directory.name, store.unknown / len(store.ids))
    if store.broken:
        say(
            f"{directory.name}: {counted(store.broken, 'sentence')} of more than {WHOLE} tokens, "
            f"broken into parts of at most {PART}, at the beginning of words"
        )
    if store.skipped:
        say(
            "warning: files, members of archives or JSON lines without text, left out: "
            f"{store.skipped:,} (first: {store.first_skipped})"
        )
    for name, count in store.replaced.items():
        say(f"warning: {name}: {counted(count, 'byte')} not UTF-8, replaced by U+FFFD")
    return store


def say_unknown(part: str, share: float) -> None:
    """What share of a store's tokens is [UNK], as a warning where it is more than 1 %."""
    if share > 0.01:
        say(
            f"warning: {part}: {share:.1%} of the tokens are [UNK], which the vocabulary has no "
            "pieces for: raise --limit_alphabet and --vocab_size, or name another "
            "--tokenizer_name. (To BERT a word is what stands between two blanks, and [UNK] beyond "
            "100 characters: in a script without blanks, such as Thai, put some between the words)"
        )
    else:
        say(f"{part}: {share:.3%} of the tokens are [UNK]")
