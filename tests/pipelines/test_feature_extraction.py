from __future__ import annotations

import numpy as np
import pytest
import toy

from minibert.models import BertModel
from minibert.pipelines import FeatureExtractionPipeline, pipeline

TEXTS = ["a good film", "dull", "the plot was very very poor", ""]


@pytest.fixture
def directory(tmp_path):
    model = BertModel(toy.config(), backend="numpy", seed=3)
    model.save_pretrained(tmp_path / "model", tokenizer=toy.tokenizer())
    return tmp_path / "model"


@pytest.fixture
def extract(directory):
    return FeatureExtractionPipeline.from_pretrained(directory, backend="numpy", threads=1)


def test_a_vector_for_each_token(extract):
    for text, result in zip(TEXTS, extract(TEXTS), strict=True):
        inputs = toy.tokenizer()([text], return_tensors="np")
        want = extract.model(**inputs).last_hidden_state
        assert np.shape(result) == want.shape
        np.testing.assert_allclose(result, want, atol=1e-6)


def test_lists_or_arrays(extract):
    assert isinstance(extract("dull")[0][0][0], float)
    (array,) = extract(["dull"], return_tensors=True)
    assert array.shape == (1, 3, 12)
    np.testing.assert_array_equal(array, extract("dull"))
    assert list(extract(iter(["dull"]))) == extract(["dull"])
    assert extract([]) == []


def test_long_texts_are_cut(extract, capsys):
    assert np.shape(extract("film " * 30)) == (1, 24, 12)
    assert capsys.readouterr().err.startswith("warning: 1 of 1 texts were cut to 24 tokens; ")


@pytest.mark.crosscheck
def test_equals_transformers(directory):
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    theirs = transformers.pipeline("feature-extraction", model=str(directory), device="cpu")
    ours = pipeline("feature-extraction", directory, backend="numpy", threads=1)
    for found, expected in zip(ours(TEXTS), theirs(TEXTS), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(ours("dull"), theirs("dull"), atol=2e-6)
    tensor = theirs("dull", return_tensors=True).numpy()
    np.testing.assert_allclose(ours("dull", return_tensors=True), tensor, atol=2e-6)
