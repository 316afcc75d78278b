"""Named entities in text: options, places in the text, and transformers' pipeline beside it."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from minibert import BertModel, BertTokenizer
from minibert.errors import InputError
from minibert.models import BertForTokenClassification
from minibert.pipelines import TokenClassificationPipeline, pipeline

LABELS = ["B-LOC", "B-PER", "I-LOC", "I-PER", "MISC", "O"]
TEXTS = ["A good film, badly made.", "", "the   STORY was\tdull", "x " * 40 + "film"]
LETTERS = "abcdeéüxyzABCXYZ0123.,!?'-世界ßİﬁ한"
PARTS = [*LETTERS, " ", " ", "  ", "the", "film", " New York", " don't", "[SEP]", "[MASK]", "\t"]
PARTS += ["e\u0301", "😀", "\u200b", "\u00a0", "ab", "xyz"]


def save(directory: Path, lower: bool = True, max_length: int = 16) -> Path:
    """A tiny random model with opinions, and a vocabulary of letters that knows not all of them."""
    letters = dict.fromkeys(
        letter for c in LETTERS for letter in (c, c.lower()[0]) if c not in "zé"
    )
    pieces = [*letters, "the", "film", "new", "york", "New", "don", "t", "ab"]
    vocabulary = [*toy.VOCABULARY[:5], *pieces, *(f"##{p}" for p in pieces if p.isalnum())]
    tokenizer = BertTokenizer.from_vocab(
        vocabulary, do_lower_case=lower, model_max_length=max_length
    )
    config = toy.config(
        vocab_size=len(vocabulary),
        label2id={label: i for i, label in enumerate(LABELS)},
        initializer_range=0.7,
    )
    model = BertForTokenClassification(config, backend="numpy", seed=3, threads=1)
    model.save_pretrained(directory, tokenizer=tokenizer)
    return directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def ner(directory: Path) -> TokenClassificationPipeline:
    return TokenClassificationPipeline.from_pretrained(directory, backend="numpy", threads=1)


# ---- Inputs and options ----


def test_offsets_of_the_caller_s(ner, directory):
    """Of a text that was made of another one: they are those that the entities have."""
    text = "a good film"
    (plain,) = ner([text], ignore_labels=[])
    tokens = len(ner.tokenizer(text)["input_ids"])
    moved = [(7 * i, 7 * i + 1) for i in range(tokens)]
    (found,) = ner([text], ignore_labels=[], offset_mapping=moved)
    assert [(e["start"], e["end"]) for e in found] == moved[1:-1]
    assert [e["score"] for e in found] == [e["score"] for e in plain]
    assert ner(text, ignore_labels=[], offset_mapping=moved) == found
    both = ner([text, text], ignore_labels=[], offset_mapping=[moved, moved])
    assert both == [found, found]
    for wrong in (moved[1:], [moved, moved], [], [(1, 2, 3)] * tokens):
        with pytest.raises(
            InputError, match=r"^offset_mapping: wanted \(start, end\) of each token"
        ):
            ner(text, offset_mapping=wrong)


def test_tokens_have_the_labels_of_the_model(ner):
    (found,) = ner(TEXTS[:1], ignore_labels=[])
    inputs = ner.tokenizer(TEXTS[:1], truncation=True, return_tensors="np")
    logits = np.asarray(ner.model(**inputs).logits[0], np.float64)
    scores = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert [entity["index"] for entity in found] == list(range(1, len(logits) - 1))
    for entity in found:
        row = scores[entity["index"]]
        assert entity["entity"] == LABELS[int(row.argmax())]
        assert entity["score"] == pytest.approx(row.max(), rel=1e-5)
        piece = ner.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0, entity["index"]])
        assert piece in {entity["word"], "[UNK]"}


def test_one_text_several_and_a_stream(ner):
    several = ner(TEXTS)
    assert [ner(text) for text in TEXTS] == several
    assert list(ner(text for text in TEXTS)) == several
    assert ner([]) == []
    assert ner({"text": TEXTS[0]}) == several[0]
    assert several[1] == []


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_places_index_the_text(ner, strategy):
    for text, found in zip(
        TEXTS, ner(TEXTS, aggregation_strategy=strategy, ignore_labels=[]), strict=True
    ):
        assert all(0 <= e["start"] < e["end"] <= len(text) for e in found)
        for e in found:
            there, word = text[e["start"] : e["end"]].lower(), e["word"].lower()
            pieces = word.replace("##", "").replace(" ", "")
            assert "".join(there.split()) == pieces


def test_options_may_be_given_once(directory):
    options = {"aggregation_strategy": "simple", "ignore_labels": ["PER"], "stride": 2}
    ner = pipeline("ner", directory, backend="numpy", threads=1, **options)
    plain = pipeline("token-classification", directory, backend="numpy", threads=1)
    assert ner(TEXTS) == plain(TEXTS, **options)
    assert ner(TEXTS, stride=None, aggregation_strategy="none", ignore_labels=["O"]) == plain(TEXTS)


def test_ignored_labels(ner):
    everything = ner(TEXTS, ignore_labels=[])
    assert [[e for e in row if e["entity"] != "O"] for row in everything] == ner(TEXTS)
    assert ner(TEXTS, ignore_labels=LABELS) == [[]] * len(TEXTS)


def test_words_have_places_in_the_words_joined(ner):
    words = ["The", "film's", "end", "\u200b", "xyz"]
    for delimiter in (" ", "--", ""):
        (found,) = ner(words, is_split_into_words=True, delimiter=delimiter, ignore_labels=[])
        assert found
        text = delimiter.join(words)
        for e in found:
            assert text[e["start"] : e["end"]].lower() == e["word"].removeprefix("##")
    several = ner([words, words[:2]], is_split_into_words=True)
    assert several == [ner(row, is_split_into_words=True)[0] for row in (words, words[:2])]


def test_a_stride_reads_all_of_a_long_text(ner, capsys):
    text = "x" + " film x" * 20
    options = {"aggregation_strategy": "first", "ignore_labels": []}
    cut, whole = ner(text, **options), ner(text, stride=3, **options)
    assert cut[-1]["end"] < len(text) == whole[-1]["end"]
    assert all(a["end"] <= b["start"] for a, b in pairwise(whole))
    assert capsys.readouterr().err.count("were cut") == 1
    ner([text, "x"], stride=3, **options)
    assert capsys.readouterr().err == ""
    ner([text, "x"])
    assert capsys.readouterr().err == (
        "warning: 1 of 2 texts were cut to 16 tokens; pass a stride (--stride) to read them in "
        "windows\n"
    )


def test_a_shorter_limit_and_none_at_all(ner, tmp_path):
    cut = ner("x " * 40, ignore_labels=[], max_length=9)
    assert len(cut) == 9 - 2
    assert len(ner("x " * 18, ignore_labels=[], truncation=False)) == 18
    with pytest.raises(InputError, match="42 tokens is longer than the position table"):
        ner("x " * 40, truncation=False)


def test_the_model_limits_a_text_where_the_tokenizer_does_not(tmp_path):
    ner = pipeline("ner", save(tmp_path, max_length=1000), backend="numpy", threads=1)
    found = ner("x " * 40, ignore_labels=[])
    assert len(found) == ner.max_length - 2 == 22


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation_strategy": "all"}, "aggregation_strategy: got 'all', wanted one of"),
        ({"stride": 3}, "stride: windows overlap, and only entities can be merged; pass"),
        ({"stride": 14, "aggregation_strategy": "max"}, "stride: got 14, wanted 0 to 13"),
        ({"stride": 1.5}, "stride must be a whole number of at least 0, got 1.5"),
        ({"delimiter": 3}, "delimiter: got 3, wanted a text"),
        ({"ignore_labels": 3}, "ignore_labels: got 3, wanted a list of labels"),
        ({"ignore_labels": "O"}, "ignore_labels: got 'O', wanted a list of labels"),
        ({"is_split_into_words": True}, "input 1, word: got a str, wanted a list of str"),
    ],
)
def test_options_that_cannot_be(ner, options, message):
    with pytest.raises(InputError) as caught:
        ner([["a"], "a " * 40] if "is_split_into_words" in options else "a " * 40, **options)
    assert message in str(caught.value)


def test_a_model_without_a_classifier_is_refused(tmp_path):
    model = BertModel(toy.config(), backend="numpy")
    model.save_pretrained(tmp_path, tokenizer=toy.tokenizer())
    with pytest.raises(InputError, match="no trained classifier: fine-tune it first"):
        pipeline("ner", tmp_path)


# ---- transformers ----


@pytest.fixture(scope="module", params=["uncased", "cased"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Our pipeline and theirs over one directory."""
    pytest.importorskip("torch", reason="cross-checks need the [crosscheck] extra")
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    transformers.logging.set_verbosity_error()
    directory = save(tmp_path_factory.mktemp("both"), lower=request.param == "uncased")
    theirs = transformers.pipeline("ner", model=str(directory), device="cpu")
    return pipeline("ner", directory, backend="numpy", threads=1), theirs


def assert_equal_answers(both: Any, inputs: Any, options: dict[str, Any]) -> None:
    ours, theirs = (ner(inputs, **options) for ner in both)
    if options.get("is_split_into_words"):
        (ours,), (theirs,) = ours, theirs
    assert len(ours) == len(theirs), (inputs, options)
    for got, want in zip(ours, theirs, strict=True):
        assert list(got) == list(want)
        assert got == want | {"score": pytest.approx(float(want["score"]), abs=1e-5)}, inputs


def draw(rng: random.Random, most: int) -> str:
    return "".join(rng.choices(PARTS, k=rng.randint(0, most)))


@pytest.mark.crosscheck
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_answers_are_those_of_transformers(both, strategy):
    rng = random.Random(strategy)
    ours, theirs = (ner(["the film"], aggregation_strategy=strategy) for ner in both)
    assert len(ours) == len(theirs) == 1  # a list of one gives a list of one
    strides = [None] if strategy == "none" else [None, 0, 4, 13]
    for i in range(40):
        options: dict[str, Any] = {"aggregation_strategy": strategy}
        options["ignore_labels"] = [["O"], [], ["O", "PER", "B-LOC"]][i % 3]
        if (stride := strides[i % len(strides)]) is not None:
            options["stride"] = stride
        assert_equal_answers(both, draw(rng, 20), options)
        words = [draw(rng, 4).strip() or "a" for _ in range(rng.randint(1, 9))]
        options |= {"is_split_into_words": True, "delimiter": [" ", "--"][i % 2]}
        assert_equal_answers(both, words, options)
        if stride is None:
            text = draw(rng, 8) or "a"
            tokens = len(both[0].tokenizer(text, truncation=True)["input_ids"])
            moved = [(start, start + rng.randint(0, 3)) for start in range(tokens)]
            options = {"aggregation_strategy": strategy, "offset_mapping": moved}
            assert_equal_answers(both, text, options)
