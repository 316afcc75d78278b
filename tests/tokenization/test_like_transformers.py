"""The tokenizer beside transformers' own: a real vocabulary, real texts and any text."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from folders import data_file
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.errors import InputError
from minibert.hub import DEFAULT_MODEL, resolve_model
from minibert.tokenization import BertTokenizer

pytestmark = pytest.mark.crosscheck

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_tokenizer_fixture.py"
FIXTURE = Path(__file__).parent.parent / "fixtures" / "tokenizer.json"
FOLDERS = ("rte", "squad", "sst2", "stsb", "wnut17", "xquad", "novels.tar.xz")
EXTRAS = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
AT_A_TIME = 1000


@pytest.fixture(scope="module", params=["as it is", "cased", "accents kept"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(our tokenizer, transformers') of MiniLM, or of its vocabulary with other settings."""
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    directory = resolve_model(DEFAULT_MODEL)
    if request.param != "as it is":
        changes = {"cased": {"do_lower_case": False}, "accents kept": {"strip_accents": False}}
        vocab, directory = directory / "vocab.txt", tmp_path_factory.mktemp("vocab")
        shutil.copy(vocab, directory)
        config = json.dumps({"model_max_length": 512} | changes[request.param])
        (directory / "tokenizer_config.json").write_text(config)
    theirs = transformers.BertTokenizer.from_pretrained(directory)
    return BertTokenizer.from_pretrained(directory), theirs


def strings(value: Any) -> Iterator[str]:
    """Every string of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def texts_of(path: Path) -> Iterator[str]:
    """The lines of a text file, the strings of a JSON file; of the novels each twelfth."""
    if path.suffix == ".json":
        yield from strings(json.loads(path.read_text(encoding="utf-8")))
    elif path.suffix == ".xz":
        with tarfile.open(path) as archive:
            for member in [member for member in archive if member.isfile()][::12]:
                yield from archive.extractfile(member).read().decode("utf-8").split("\n")
    else:
        yield from path.read_text(encoding="utf-8").split("\n")


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_line_of_every_file(both: Any, folder: str) -> None:
    root = data_file(folder)
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    ours, theirs = both
    for file in files:
        texts = list(dict.fromkeys(texts_of(file)))
        assert len(texts) > 10
        for start in range(0, len(texts), AT_A_TIME):
            part = texts[start : start + AT_A_TIME]
            expected = theirs(part, **EXTRAS)
            assert ours(part, **EXTRAS) == dict(expected), file
            for i, pieces in enumerate(ours.pieces(part)):
                assert pieces.word_ids.tolist() == expected.word_ids(i)[1:-1], part[i]


_letters = st.integers(0, 0x10FFFF).filter(lambda code: not 0xD800 <= code < 0xE000).map(chr)
_emoji = st.sampled_from(["😀", "👩‍👩‍👧‍👦", "🇫🇷", "☺️", "1️⃣", "👍🏽", "❤"])
_marks = st.sampled_from(["e\u0301", "\u0323", "ạ̈", "Å", "İ", "ß", "Σ", "한", "ﬁ", "Ǆ"])
_chinese = st.sampled_from(["中文", "電影", "㐀", "\U00020000", "。", "，", "豈"])
_controls = st.sampled_from(
    ["\0", "\x07", "\x85", "\u200b", "\u00ad", "\ufffd", "\ufeff", "\u2028"]
)
_plain = st.sampled_from([" ", " the ", "unbelievable", "##ing", "[SEP]", "[MASK]", ".", "don't"])
_long = st.builds(lambda letter, n: letter * n, _letters, st.integers(95, 105))
any_text = st.lists(
    st.one_of(_letters, _emoji, _marks, _chinese, _controls, _plain, _long), max_size=12
).map("".join)


@settings(max_examples=200)
@given(first=any_text, second=any_text)
def test_any_text(both: Any, first: str, second: str) -> None:
    ours, theirs = both
    assert ours([first, second], **EXTRAS) == dict(theirs([first, second], **EXTRAS))
    assert ours([first], [second], **EXTRAS) == dict(theirs([first], [second], **EXTRAS))
    assert ours([second], padding=True) == dict(theirs([second], padding=True))


@settings(max_examples=200)
@given(
    first=st.lists(any_text, min_size=1, max_size=5),
    second=st.lists(any_text, min_size=1, max_size=5),
)
def test_any_words(both: Any, first: list[str], second: list[str]) -> None:
    ours, theirs = both
    words = {"is_split_into_words": True, **EXTRAS}
    assert ours([first, second], **words) == dict(theirs([first, second], **words))
    expected = theirs([first], [second], **words)
    assert ours([first], [second], **words) == dict(expected)
    (encoding,) = ours.encode_aligned([first], [second], is_split_into_words=True)
    for found, wanted in (
        (encoding.word_ids, expected.word_ids(0)),
        (encoding.sequence_ids, expected.sequence_ids(0)),
    ):
        assert found.tolist() == [-1 if value is None else value for value in wanted]


@settings(max_examples=200)
@given(
    first=any_text,
    second=any_text,
    room=st.integers(0, 12),
    stride=st.integers(0, 6),
    strategy=st.sampled_from(["only_first", "only_second", "longest_first"]),
)
def test_any_windows(
    both: Any, first: str, second: str, room: int, stride: int, strategy: Any
) -> None:
    ours, theirs = both
    cut = {
        "truncation": strategy,
        "stride": stride,
        "max_length": 3 + 2 * (stride + 1) + room,
        "padding": "max_length",
        "return_overflowing_tokens": True,
    } | EXTRAS
    cases = [([first], [second])] + [([first, second], None)] * (strategy != "only_second")
    for texts, pairs in cases:
        try:
            found = ours(texts, pairs, **cut)
        except InputError:
            continue  # where `tokenizers` panics, or raises a bare Exception
        assert found == dict(theirs(texts, pairs, **cut))


def test_the_stored_texts_are_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the oracle is transformers")
    spec = importlib.util.spec_from_file_location("make_tokenizer_fixture", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path / "new.json")
    new, old = (json.loads(path.read_bytes()) for path in (tmp_path / "new.json", FIXTURE))
    assert new | {"transformers": None} == old | {"transformers": None}
