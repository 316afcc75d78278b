from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import toy

from minibert import BertTokenizer
from minibert.errors import InputError
from minibert.models import BertForMaskedLM, BertModel
from minibert.pipelines import FillMaskPipeline, pipeline

TEXTS = ["the [MASK] was good", "a very very dull plot [MASK]", "[MASK]"]
TWO = "the [MASK] was [MASK] very"


@pytest.fixture
def directory(tmp_path: Any) -> Any:
    model = BertForMaskedLM(toy.config(initializer_range=0.5), backend="numpy", seed=3)
    model.save_pretrained(tmp_path / "model", tokenizer=toy.tokenizer())
    return tmp_path / "model"


@pytest.fixture
def fill(directory: Any) -> FillMaskPipeline:
    return FillMaskPipeline.from_pretrained(directory, backend="numpy", threads=1)


def test_answers_are_those_of_the_model(fill):
    results = fill(TEXTS, top_k=3)
    for text, result in zip(TEXTS, results, strict=True):
        inputs = toy.tokenizer()([text], return_tensors="np")
        logits = fill.model(**inputs).logits[0].astype(np.float64)
        (place,) = np.flatnonzero(inputs["input_ids"][0] == fill.mask)
        want = np.exp(logits[place]) / np.exp(logits[place]).sum()
        assert [answer["token"] for answer in result] == np.argsort(-want)[:3].tolist()
        for answer in result:
            assert answer["score"] == pytest.approx(want[answer["token"]], rel=1e-5)
            assert answer["token_str"] == toy.tokenizer().decode([answer["token"]])
    filled = fill(TEXTS[0], targets="film")
    assert filled[0]["sequence"] == "the film was good"


def test_each_of_several_masks(fill):
    first, second = fill(TWO, targets=["good", "film"])
    assert {answer["token_str"] for answer in first} == {"good", "film"}
    assert (
        sum(answer["sequence"] == "[CLS] the good was [MASK] very [SEP]" for answer in first) == 1
    )
    assert (
        sum(answer["sequence"] == "[CLS] the [MASK] was film very [SEP]" for answer in second) == 1
    )
    assert fill([TWO, TEXTS[0]], top_k=1)[0] == fill(TWO, top_k=1)
    assert fill([TEXTS[0]]) == fill(TEXTS[0])


def test_targets(fill, capsys):
    everything = {answer["token"]: answer for answer in fill(TEXTS[0], top_k=99)}
    assert len(everything) == len(toy.VOCABULARY)
    chosen = fill(TEXTS[0], targets=["plot", "story", "plot"], top_k=5)
    assert len(chosen) == 2
    assert chosen[0]["score"] > chosen[1]["score"]
    assert all(answer == everything[answer["token"]] for answer in chosen)
    assert capsys.readouterr().err == ""
    (answer,) = fill(TEXTS[0], targets=["Plot was", ""])
    assert answer["token_str"] == "plot"
    assert capsys.readouterr().err == (
        "warning: fill-mask: the target 'Plot was' is not in the vocabulary: it counts as 'plot'\n"
        "warning: fill-mask: the target '' is empty: it is ignored\n"
    )
    with pytest.raises(InputError, match="targets: at least one piece is wanted"):
        fill(TEXTS[0], targets=[])


def test_batches_and_streams(fill):
    texts = [*TEXTS, TWO] * 3
    one_by_one = [fill(text) for text in texts]
    assert_alike(fill(texts, batch_size=2), one_by_one)
    assert_alike(list(fill(iter(texts), batch_size=2)), one_by_one)
    assert fill([]) == []


def test_bad_input_is_named(fill, directory):
    with pytest.raises(InputError, match=r"input 1 \('no mask'\) has no \[MASK\]; write \[MASK\]"):
        fill(["a [MASK]", "no mask"])
    with pytest.raises(InputError, match=r"has no \[MASK\] in its first 24 tokens.*shorten it"):
        fill("film " * 40 + "[MASK]")
    assert fill("a [MASK]", top_k=0) == []  # as in transformers
    assert fill(TWO, top_k=0) == [[], []]
    with pytest.raises(InputError, match="top_k must be a whole number of at least 0, got -1"):
        fill("a [MASK]", top_k=-1)
    with pytest.raises(InputError, match="input 0: got a int"):
        fill([3])
    with pytest.raises(InputError, match=r"no \[MASK\] in its first 5 tokens"):
        fill("film " * 9 + "[MASK]", max_length=5)
    with pytest.raises(InputError, match=r"tokenizer_kwargs has no option 'pad'; it has trunc"):
        fill("[MASK]", tokenizer_kwargs={"pad": True})
    with pytest.raises(InputError, match=r"tokenizer_kwargs: got 3, wanted a dict"):
        fill("[MASK]", tokenizer_kwargs=3)
    with pytest.raises(InputError, match="targets 0: got a int"):
        fill("a [MASK]", targets=[3])
    without = BertTokenizer.from_vocab([word for word in toy.VOCABULARY if word != "[MASK]"])
    with pytest.raises(InputError, match=r"the vocabulary has no \[MASK\]"):
        FillMaskPipeline(fill.model, without)


def test_a_model_without_the_head_is_refused(tmp_path):
    bert = BertModel(toy.config(), backend="numpy")
    bert.save_pretrained(tmp_path / "m", tokenizer=toy.tokenizer())
    with pytest.raises(InputError, match=r"no trained cls.predictions"):
        FillMaskPipeline.from_pretrained(tmp_path / "m", backend="numpy")


@pytest.mark.crosscheck
def test_equals_transformers(fill, directory, capsys):
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    theirs = transformers.pipeline("fill-mask", model=str(directory), device="cpu")
    ours = pipeline("fill-mask", directory, backend="numpy", threads=1)
    cut: dict[str, Any] = {"tokenizer_kwargs": {"truncation": True, "max_length": 5}}
    for inputs in ("[MASK] was a very dull plot", [TEXTS[0]]):
        assert_alike(ours(inputs, **cut), theirs(inputs, **cut))
    for inputs in (TEXTS[0], [TEXTS[0]], TEXTS, TWO, [TWO, TWO], ["[MASK]", TWO]):
        for options in ({}, {"top_k": 3}, {"targets": ["film", "bad", "Story"]}, {"targets": "a"}):
            assert_alike(ours(inputs, **options), theirs(inputs, **options))


def assert_alike(found: Any, expected: Any) -> None:
    """Equal, scores to float32's accuracy."""
    assert type(found) is type(expected)
    if isinstance(found, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_alike(*pair)
    elif isinstance(found, dict):
        assert list(found) == list(expected)
        for key in found:
            assert_alike(found[key], expected[key])
    elif isinstance(found, float):
        assert found == pytest.approx(expected, rel=1e-4)
    else:
        assert found == expected
