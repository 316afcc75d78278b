"""A WordPiece vocabulary learnt from text.

The learning is done by the `tokenizers` package, which alone would not give the same vocabulary
twice: it numbers the letters in the order of a hash table, and the numbers decide between pairs
that are equally frequent. So the letters are counted, and given their places, here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from minibert.errors import InputError
from minibert.tokenization.files import wordpiece
from minibert.tokenization.tokenizer import CLS, MASK, PAD, SEP, UNK, BertTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Parts = Callable[[str], Iterable[str]]  # what a word between blanks consists of

UNUSED = 99
MOST_WORDS = 10_000_000  # different ones; beyond that, those seen once so far are forgotten
RAW_WORDS = 1_000_000  # as they stand in the text; beyond that, they are normalised and joined
LONGEST_WORD = 100  # characters: of a longer one BERT makes [UNK]


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
    words = _count(texts, _parts_by(learner))
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


def _count(texts: Iterable[str], parts: Parts) -> Counter[str]:
    """How often each word occurs, as the tokenizer will see it.

    Different words are fewer than words, and are normalised once. One that is long is not kept: in
    Chinese it is a whole paragraph, of which memory would hold them all.
    """
    raw: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for text in texts:
        found = text.split()
        if max(map(len, found), default=0) > LONGEST_WORD:
            for word in found:
                if len(word) > LONGEST_WORD:
                    words.update(parts(word))
            found = [word for word in found if len(word) <= LONGEST_WORD]
        raw.update(found)
        if len(raw) > RAW_WORDS:
            _join(words, raw, parts)
            if len(words) > MOST_WORDS:
                words = Counter({word: count for word, count in words.items() if count > 1})
    _join(words, raw, parts)
    return words


def _join(words: Counter[str], raw: Counter[str], parts: Parts) -> None:
    """Count the parts of raw words with the others, and forget these."""
    for word, count in raw.items():
        for part in parts(word):
            words[part] += count
    raw.clear()


def _parts_by(tokenizer: Tokenizer) -> Parts:
    """The rule by which that tokenizer makes words of what stands between blanks.

    Normalised, a Chinese character is a word. What is still too long is split off its punctuation
    as well, and left out if that does not make it shorter. (All else the trainer splits itself.)
    """
    normalize, split = tokenizer.normalizer.normalize_str, tokenizer.pre_tokenizer.pre_tokenize_str

    def parts(word: str) -> Iterator[str]:
        for part in normalize(word).split():
            if len(part) <= LONGEST_WORD:
                yield part
            else:
                yield from (piece for piece, _ in split(part) if len(piece) <= LONGEST_WORD)

    return parts


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
