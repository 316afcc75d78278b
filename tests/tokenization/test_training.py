"""A vocabulary learnt from text: BERT's places, its size, always the same."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from minibert import BertTokenizer
from minibert.errors import InputError
from minibert.tokenization import training
from minibert.tokenization.files import wordpiece
from minibert.tokenization.training import special_tokens, train_tokenizer

TEXTS = ["The cat sat. The cats sat, too! Élan — naïve.", "the catalogue of cats"] * 3


def vocabulary(tokenizer: BertTokenizer) -> list[str]:
    return tokenizer.convert_ids_to_tokens(range(len(tokenizer)))


def test_special_tokens_have_bert_s_places() -> None:
    tokenizer = train_tokenizer(TEXTS, 200)
    ids = {"[PAD]": 0, "[unused0]": 1, "[unused98]": 99, "[UNK]": 100, "[CLS]": 101}
    ids |= {"[SEP]": 102, "[MASK]": 103}
    assert {piece: tokenizer.convert_tokens_to_ids(piece) for piece in ids} == ids
    assert special_tokens(0) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_frequent_words_become_pieces_and_letters_spell_the_rest() -> None:
    pieces = vocabulary(train_tokenizer(TEXTS, 200, unused=0))
    assert {"the", "cat", "cats", "sat"} <= set(pieces)
    letters = sorted({c for c in pieces if len(c) == 1})
    assert pieces[5 : 5 + 2 * len(letters)] == [*letters, *(f"##{c}" for c in letters)]
    tokenizer = train_tokenizer(TEXTS, 200, unused=0)
    assert tokenizer.unk_token_id not in tokenizer.piece_ids(["a tho ugh ultace"])[0]


def test_cased_keeps_capitals_and_accents() -> None:
    assert {"The", "É", "ï"} <= set(vocabulary(train_tokenizer(TEXTS, 200, do_lower_case=False)))
    uncased = "".join(vocabulary(train_tokenizer(TEXTS, 200, unused=0))[5:])
    assert uncased == uncased.lower()
    assert "ï" not in uncased


def test_sizes_and_limits() -> None:
    size = len(train_tokenizer(TEXTS, 10_000, unused=0))
    assert len(train_tokenizer(TEXTS, size - 3, unused=0)) == size - 3
    assert len(train_tokenizer(TEXTS, 10_000, unused=0, min_frequency=4)) < size
    few = vocabulary(train_tokenizer(TEXTS, 200, unused=0, limit_alphabet=4))
    assert sorted(c for c in few if len(c) == 1) == ["a", "c", "e", "t"]
    with pytest.raises(InputError, match=r"vocab_size: got 110, but 104 special tokens and the le"):
        train_tokenizer(TEXTS, 110)
    with pytest.raises(InputError, match="limit_alphabet: got -1, wanted 1"):
        train_tokenizer(TEXTS, 200, limit_alphabet=-1)
    with pytest.raises(InputError, match="no text to learn a vocabulary from"):
        train_tokenizer([" ", "\n"], 200)


def test_another_process_learns_the_same() -> None:
    """Another order of Rust's hash tables."""
    code = (
        "from minibert.tokenization.training import train_tokenizer as t\n"
        f"print(t({TEXTS!r}, 60, unused=0).fingerprint())"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)]
    here = train_tokenizer(TEXTS, 60, unused=0).fingerprint()
    assert {run.strip() for run in runs} == {here}


def test_words_seen_once_are_forgotten_when_there_are_too_many(monkeypatch) -> None:
    monkeypatch.setattr(training, "MOST_WORDS", 4)
    monkeypatch.setattr(training, "RAW_WORDS", 4)
    pieces = vocabulary(train_tokenizer(["a a b b", "q w e r t y", "a b"], 60, unused=0))
    assert pieces[5:] == ["a", "b", "##a", "##b"]


ENGLISH = ["Naïve CATS, who sat—and sat; said: “it's a cat-alogue, isn't it?”", "Élan vital. " * 9]
CHINESE = ["今天天气很好，我们去公园散步。" * 30, "他说：“你好！”然后走了。", "BERT是一个模型"]


def before(texts: list[str], lower: bool) -> Counter[str]:
    """The words as they were counted when memory held all that stands between blanks."""
    normalize = wordpiece(training.special_tokens(), {"do_lower_case": lower}).normalizer
    raw = Counter(word for text in texts for word in text.split())
    words: Counter[str] = Counter()
    for word, count in raw.items():
        for part in normalize.normalize_str(word).split():
            words[part] += count
    return words


@pytest.mark.parametrize("raw_words", [3, 1_000_000])
@pytest.mark.parametrize("lower", [True, False])
def test_words_are_counted_as_ever(lower: bool, raw_words: int, monkeypatch) -> None:
    """Of ordinary text in English and Chinese, however few are held as they stand in it."""
    monkeypatch.setattr(training, "RAW_WORDS", raw_words)
    parts = training._parts_by(wordpiece(training.special_tokens(), {"do_lower_case": lower}))
    texts = [*ENGLISH, *CHINESE, *TEXTS] * 2
    assert training._count(texts, parts) == before(texts, lower)


def test_words_of_text_without_blanks_are_few(monkeypatch) -> None:
    """Paragraphs of Chinese that are all different, long and short ones."""
    monkeypatch.setattr(training, "RAW_WORDS", 300)
    rng = random.Random(0)
    han = [chr(0x4E00 + i) for i in range(500)]
    counters = list[Counter[str]]()
    held = list[int]()

    def texts(number: int) -> Iterator[str]:
        for _ in range(number):
            yield "，".join("".join(rng.choices(han, k=rng.choice([9, 200]))) for _ in "12") + "。"
            held.append(sum(map(len, counters)))

    def counter() -> Counter[str]:
        counters.append(Counter())
        return counters[-1]

    monkeypatch.setattr(training, "Counter", counter)
    parts = training._parts_by(wordpiece(training.special_tokens(), {}))
    assert training._count(texts(2000), parts).keys() == {*han, "，", "。"}
    assert 300 < max(held) <= 300 + 502


def test_words_that_are_unknown_anyway_are_not_learnt() -> None:
    """Over 100 characters, of which BERT makes [UNK]; what punctuation shortens is."""
    long, url = "ab" * 51, "x.y/" * 30 + "q" * 100
    words = training._count([f"{long} {url}"], training._parts_by(wordpiece(["[UNK]"], {})))
    assert words == {"x": 30, "y": 30, ".": 30, "/": 30, "q" * 100: 1}
    tokenizer = train_tokenizer([f"a b {'b' * 100}"], 200)
    assert tokenizer.piece_ids([long]) == [[tokenizer.unk_token_id]]
    assert tokenizer.unk_token_id not in tokenizer.piece_ids(["b" * 100])[0]


def test_it_is_saved_with_all_files(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 200, do_lower_case=False)
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "vocab.txt").read_text().splitlines() == vocabulary(tokenizer)
    (tmp_path / "tokenizer.json").rename(tmp_path / "elsewhere")
    again = BertTokenizer.from_pretrained(tmp_path)  # by vocab.txt alone
    assert again.piece_ids(TEXTS) == tokenizer.piece_ids(TEXTS)


@pytest.mark.crosscheck
@pytest.mark.parametrize("lower", [True, False])
def test_transformers_loads_it(lower: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    tokenizer = train_tokenizer(TEXTS, 200, do_lower_case=lower)
    tokenizer.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS, "Naïve CATS [MASK] of the élan!", ""]
    assert theirs(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert theirs.mask_token_id == tokenizer.mask_token_id == 103
