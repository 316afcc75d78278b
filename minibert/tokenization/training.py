"""A WordPiece vocabulary learnt from text.

The learning is done by the `tokenizers` package, which alone would not give the same vocabulary
twice: it numbers the letters in the order of a hash table, and the numbers decide between pairs
that are equally frequent. So the letters are counted, and given their places, here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from minibert.errors import InputError
from minibert.tokenization.files import wordpiece
from minibert.tokenization.tokenizer import CLS, MASK, PAD, SEP, UNK, BertTokenizer

UNUSED = 99
MOST_WORDS = 10_000_000  # different ones; beyond that, those seen once so far are forgotten


def special_tokens(unused: int = UNUSED) -> list[str]:
    """BERT's first pieces: [PAD] is 0 and, behind 99 unused ones, [UNK] 100 … [MASK] 103."""
    return [PAD, *(f"[unused{i}]" for i in range(unused)), UNK, CLS, SEP, MASK]


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 30522,
    *,
    do_lower_case: bool = True,
    limit_alphabet: int = 1000,
    min_frequency: int = 2,
    unused: int = UNUSED,
    model_max_length: int = 512,
) -> BertTokenizer:
    """A tokenizer whose vocabulary has `vocab_size` pieces, or as many as the texts give.

    Of the characters the `limit_alphabet` most frequent are kept; pairs of pieces that occur less
    than `min_frequency` times are not joined. `unused` places are left for a user's own words.
    do_lower_case also strips accents, as in BERT's uncased models. The same texts always give the
    same vocabulary.

    Raises InputError where limit_alphabet is not positive, vocab_size has no room for the
    characters, or the texts have none.
    """
    from tokenizers import trainers

    if limit_alphabet < 1:
        raise InputError(f"limit_alphabet: got {limit_alphabet}, wanted 1 character or more")
    settings = {"do_lower_case": do_lower_case, "model_max_length": model_max_length}
    special = special_tokens(unused)
    learner = wordpiece(special, settings)
    words = _normalized(_count(texts), learner.normalizer.normalize_str)
    letters = _alphabet(words, limit_alphabet)
    if not letters:
        raise InputError("the corpus has no text to learn a vocabulary from")
    first = [*special, *letters, *(f"##{letter}" for letter in letters)]
    if vocab_size < len(first):
        raise InputError(
            f"vocab_size: got {vocab_size}, but {len(special)} special tokens and the letters take "
            f"{len(first)} places: raise it (8000 suits a small corpus), or lower limit_alphabet"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=first,  # whatever they are: these have the first places, in this order
        continuing_subword_prefix="##",
        show_progress=False,
    )
    learner.train_from_iterator(_repeated(words, set(letters)), trainer)
    ids = learner.get_vocab()
    return BertTokenizer.from_vocab(sorted(ids, key=ids.__getitem__), **settings)


def _count(texts: Iterable[str]) -> Counter[str]:
    words: Counter[str] = Counter()
    for text in texts:
        words.update(text.split())
        if len(words) > MOST_WORDS:
            words = Counter({word: count for word, count in words.items() if count > 1})
    return words


def _normalized(words: Counter[str], normalize: Callable[[str], str]) -> Counter[str]:
    """The same words as the tokenizer will see them."""
    result: Counter[str] = Counter()
    for word, count in words.items():
        for part in normalize(word).split():
            result[part] += count
    return result


def _alphabet(words: Counter[str], limit: int) -> list[str]:
    """The most frequent characters, sorted."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            counts[letter] += count
    return sorted(sorted(counts, key=lambda letter: (-counts[letter], letter))[:limit])


def _repeated(words: Counter[str], letters: set[str], most: int = 10_000) -> Iterator[str]:
    """Each word as often as it was counted, without those that have other letters."""
    for word in sorted(words):
        if letters.issuperset(word):
            times = words[word]
            while times > 0:
                yield " ".join([word] * min(times, most))
                times -= most
