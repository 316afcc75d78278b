"""Where tokens stand in their text: offsets, words, windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibert.errors import InputError
from minibert.tokenization import BertTokenizer
from minibert.tokenization.encoding import NONE

FIXTURE = json.loads(
    (Path(__file__).parent.parent / "fixtures" / "tokenizer.json").read_text(encoding="utf-8")
)
CASES = {json.dumps(case["settings"]): case for case in FIXTURE["cases"]}
VOCAB = FIXTURE["vocab"]
SPLIT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh", "##b", "##c"]
CLS, SEP = SPLIT.index("[CLS]"), SPLIT.index("[SEP]")


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer.from_vocab(SPLIT, model_max_length=16)


def ids(text: str) -> list[int]:
    return [SPLIT.index(piece) for piece in text.split()]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_hard_texts_come_out_as_in_transformers(case: dict[str, Any]) -> None:
    tokenizer = BertTokenizer.from_vocab(VOCAB, **case["settings"])
    found = tokenizer.encode_aligned(FIXTURE["texts"])
    plain, _ = tokenizer.encode(FIXTURE["texts"])
    for text, encoding, same, expected in zip(
        FIXTURE["texts"], found, plain, case["expected"], strict=True
    ):
        assert encoding.ids.tolist() == same.ids.tolist() == expected["ids"], text
        assert encoding.offsets.tolist() == expected["offsets"], text
        words = [NONE if word is None else word for word in expected["word_ids"]]
        assert encoding.word_ids.tolist() == words, text


def test_pieces_have_no_special_tokens(tokenizer: BertTokenizer) -> None:
    first, empty = tokenizer.pieces(["ab, É [SEP]", ""])
    assert first.ids.tolist() == ids("a ##b [UNK] e [SEP]")
    assert first.offsets.tolist() == [[0, 1], [1, 2], [2, 3], [4, 5], [6, 11]]
    assert first.word_ids.tolist() == [0, 0, 1, 2, 3]
    assert {array.dtype for array in first} == {np.dtype(np.int32)}
    assert [array.shape for array in empty] == [(0,), (0, 2), (0,)]


def test_words_that_are_split_already(tokenizer: BertTokenizer) -> None:
    (pieces,) = tokenizer.pieces([["ab", "", "a.c", "d"]], is_split_into_words=True)
    assert pieces.ids.tolist() == ids("a ##b a [UNK] c d")
    assert pieces.word_ids.tolist() == [0, 0, 2, 2, 2, 3]
    assert pieces.offsets.tolist() == [[0, 1], [1, 2], [0, 1], [1, 2], [2, 3], [0, 1]]
    out = tokenizer(["ab", "c"], is_split_into_words=True)
    assert out["input_ids"] == [CLS, *ids("a ##b c"), SEP]
    assert tokenizer([["ab"], []], is_split_into_words=True)["input_ids"][1] == [CLS, SEP]
    assert tokenizer([], is_split_into_words=True)["input_ids"] == []


def test_a_pair_is_aligned(tokenizer: BertTokenizer) -> None:
    ((encoding,), (plain,)) = (
        tokenizer.encode_aligned(["a bc"], ["d"]),
        tokenizer.encode(["a bc"], ["d"])[0],
    )
    assert encoding.ids.tolist() == plain.ids.tolist()
    assert encoding.type_ids.tolist() == plain.type_ids.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert encoding.sequence_ids.tolist() == [NONE, 0, 0, 0, NONE, 1, NONE]
    assert encoding.word_ids.tolist() == [NONE, 0, 1, 1, NONE, 0, NONE]
    assert encoding.offsets.tolist() == [[0, 0], [0, 1], [2, 3], [3, 4], [0, 0], [0, 1], [0, 0]]


def test_the_entries_on_demand(tokenizer: BertTokenizer) -> None:
    wanted = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
    out = tokenizer(["a b", "c"], padding=True, **wanted)
    assert out["special_tokens_mask"] == [[1, 0, 0, 1], [1, 0, 1, 1]]
    assert out["offset_mapping"][1] == [(0, 0), (0, 1), (0, 0), (0, 0)]
    arrays = tokenizer(["a b", "c"], padding=True, return_tensors="np", **wanted)
    assert arrays["offset_mapping"].shape == (2, 4, 2)
    assert tokenizer("a b", **wanted)["offset_mapping"] == out["offset_mapping"][0]


def test_a_long_text_becomes_windows_that_overlap(tokenizer: BertTokenizer) -> None:
    out = tokenizer(
        ["a b", "a b c d e f g h"],
        max_length=6,
        truncation=True,
        stride=1,
        padding=True,
        return_overflowing_tokens=True,
        return_tensors="np",
    )
    assert out["overflow_to_sample_mapping"].tolist() == [0, 1, 1, 1]
    first, second, third = out["input_ids"][1:].tolist()
    assert first == [CLS, *ids("a b c d"), SEP]
    assert second == [CLS, *ids("d e f g"), SEP]
    assert third == [CLS, *ids("g h"), SEP, 0, 0]


def test_windows_of_one_side_of_a_pair(tokenizer: BertTokenizer) -> None:
    windows = tokenizer.encode_aligned(["a"], ["b c d e"], 7, "only_second", stride=2)
    assert [window.offsets[3:-1, 0].tolist() for window in windows] == [[0, 2, 4], [2, 4, 6]]
    assert all(window.ids.tolist()[:3] == [CLS, *ids("a"), SEP] for window in windows)
    assert [window.truncated for window in windows] == [True, True]
    assert [window.example for window in windows] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "a", "stride": 2}, "stride: got 2, which has no effect without"),
        (
            {"text": "a b c", "truncation": True, "max_length": 4, "stride": 2}
            | {"return_overflowing_tokens": True},
            "stride: got 2, wanted 0 to 1",
        ),
        ({"text": "a b", "is_split_into_words": True}, "text 0, word: got a str, wanted a list"),
        ({"text": ["a", 3], "is_split_into_words": True}, "text 0, word 1: got a int"),
        ({"text": [["a"], "b"], "is_split_into_words": True}, "text 1, word: got a str"),
    ],
)  # fmt: skip
def test_bad_arguments(tokenizer: BertTokenizer, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        tokenizer(**arguments)
    assert message in str(error.value)


# Any Unicode text. Not st.text(): for that hypothesis first tabulates all of Unicode, for seconds.
_characters = st.integers(0, 0x10FFFF).filter(lambda code: not 0xD800 <= code < 0xE000).map(chr)
_ordinary = st.sampled_from("abcxyzéÉßİΣ中한😀 .,[]#\t\u0301\u200d\x00\ufe0f")
any_text = st.lists(_characters | _ordinary | st.sampled_from(VOCAB), max_size=16).map("".join)


@pytest.mark.parametrize("do_lower_case", [True, False])
@given(text=any_text)
def test_offsets_point_at_the_piece(text: str, do_lower_case: bool) -> None:
    tokenizer = BertTokenizer.from_vocab(VOCAB, do_lower_case=do_lower_case)
    normalize = tokenizer._tokenizer.normalizer.normalize_str
    (pieces,) = tokenizer.pieces([text])
    places = [tuple(pair) for pair in pieces.offsets.tolist()]
    assert places == sorted(places)
    assert (np.diff(pieces.word_ids) >= 0).all()
    for piece, (start, end) in zip(
        tokenizer.convert_ids_to_tokens(pieces.ids), places, strict=True
    ):
        assert 0 <= start < end <= len(text)
        there = text[start:end]
        if piece in ("[UNK]", there):
            continue
        bare = piece if piece == "##" else piece.removeprefix("##")
        if places.count((start, end)) == 1:
            assert normalize(there).strip() == bare
        else:  # one character that is several pieces: a Hangul syllable, decomposed
            assert len(there) == 1
            assert bare in normalize(there)
