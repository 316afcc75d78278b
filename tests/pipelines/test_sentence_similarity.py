from __future__ import annotations

import json

import numpy as np
import pytest
import toy
from folders import data_file

from minibert.checkpoint.sentence_transformers import SentenceSettings, write_sentence_settings
from minibert.data.readers import read_examples
from minibert.errors import InputError
from minibert.hub import DEFAULT_MODEL, resolve_model
from minibert.models import BertForSentenceEmbedding, BertModel
from minibert.pipelines import SentenceSimilarityPipeline, pipeline
from minibert.tasks.sentence_embedding import SentenceEmbedding
from minibert.training.evaluation import predict

TEXTS = ["a good film", "dull", "the plot was very very poor", "film"]


def make(tmp_path, settings=None):
    bert = BertModel(toy.config(), backend="numpy", seed=3)
    bert.save_pretrained(tmp_path / "model", tokenizer=toy.tokenizer())
    if settings:
        write_sentence_settings(tmp_path / "model", settings, 12)
    return tmp_path / "model"


def load(directory):
    return SentenceSimilarityPipeline.from_pretrained(directory, backend="numpy", threads=1)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        ("cls", lambda rows: rows[0]),
        ("mean", lambda rows: rows.mean(axis=0)),
        ("max", lambda rows: rows.max(axis=0)),
    ],
)
def test_vectors_by_the_directory_s_recipe(tmp_path, pooling, pool, normalize):
    directory = make(tmp_path, SentenceSettings(pooling, normalize))
    bert = BertModel.from_pretrained(directory, backend="numpy", dtype="float64")
    found = load(directory).embed(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        inputs = toy.tokenizer()([text], return_tensors="np")
        want = pool(bert(**inputs).last_hidden_state[0])
        np.testing.assert_allclose(
            vector, want / np.linalg.norm(want) if normalize else want, atol=1e-5
        )


def test_similarities(tmp_path):
    alike = load(make(tmp_path, SentenceSettings(normalize=False)))
    one = alike("a good film", ["a good film", "dull"])
    assert one[0] == pytest.approx(1)
    assert one[1] < 0.999
    as_dict = {"source_sentence": "a good film", "sentences": ["a good film", "dull"]}
    assert alike(as_dict) == pytest.approx(one)
    assert alike({"inputs": as_dict}) == pytest.approx(one)
    empty = {"source_sentence": "film", "sentences": []}
    assert alike([as_dict, empty]) == [pytest.approx(one), []]
    assert list(alike(iter([as_dict]))) == [pytest.approx(one)]
    assert alike.embed([]).shape == (0, 12)


def test_long_texts_are_cut_where_the_recipe_says(tmp_path, capsys):
    alike = load(make(tmp_path, SentenceSettings(max_seq_length=7)))
    np.testing.assert_allclose(*alike.embed(["film " * 5, "film " * 9]), atol=1e-6)
    assert "warning: 1 of 2 texts were cut to 7 tokens; the rest" in capsys.readouterr().err
    alike.embed(["film " * 6, "film"], truncation=True)
    assert not capsys.readouterr().err
    np.testing.assert_array_equal(*alike.embed(["film a dull", "film a very"], max_length=4))
    assert load(make(tmp_path / "plain")).max_length == 24


def test_bad_input_is_named(tmp_path):
    alike = load(make(tmp_path))
    good = {"source_sentence": "a", "sentences": ["b"]}
    for wrong in ({"sentences": ["a"]}, "a text", good | {"sentences": "b"}, {"inputs": "a"}):
        with pytest.raises(InputError, match="input 1: wanted a text and a list of texts"):
            alike([good, wrong])
    with pytest.raises(InputError, match="input 0, sentence 1: got a NoneType"):
        alike("a", ["b", None])
    with pytest.raises(InputError, match="input 1: got a int"):
        alike.embed(["b", 3])


def test_a_trained_model_is_saved_with_its_recipe(tmp_path):
    settings = SentenceSettings("max", normalize=True, max_seq_length=9)
    directory = make(tmp_path)
    model = BertForSentenceEmbedding.from_pretrained(
        directory, settings=settings, backend="numpy", threads=1
    )
    model.save_pretrained(tmp_path / "new", tokenizer=toy.tokenizer())
    again = load(tmp_path / "new")
    assert again.model.settings == settings
    want = SentenceSimilarityPipeline(model, toy.tokenizer()).embed(TEXTS)
    np.testing.assert_array_equal(again.embed(TEXTS), want)
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["architectures"] == ["BertModel"]


@pytest.fixture(scope="module")
def minilm():
    return pipeline("sentence-similarity", DEFAULT_MODEL, backend="numpy")


@pytest.mark.crosscheck
def test_minilm_gives_the_vectors_of_the_published_recipe(minilm):
    """Mean over real tokens, then unit length, spelled out over transformers' BertModel."""
    torch = pytest.importorskip("torch", reason="cross-checks need the [crosscheck] extra")
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    directory = resolve_model(DEFAULT_MODEL)
    tokenizer = transformers.BertTokenizer.from_pretrained(directory)
    bert = transformers.BertModel.from_pretrained(directory).eval()
    texts = ["A quiet film.", "", "Dreadful " * 300, "Two people, one 中文 text.", "?"]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = bert(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    want = torch.nn.functional.normalize(mean, dim=1).numpy()
    np.testing.assert_allclose(minilm.embed(texts), want, atol=1e-5)


@pytest.mark.crosscheck
def test_what_is_saved_loads_in_sentence_transformers(tmp_path, minilm):
    package = pytest.importorskip(
        "sentence_transformers", reason="the oracle is the package sentence-transformers"
    )
    minilm.model.save_pretrained(tmp_path / "m", tokenizer=minilm.tokenizer)
    theirs = package.SentenceTransformer(str(tmp_path / "m"), device="cpu")
    assert theirs.max_seq_length == 256
    texts = ["A quiet film.", "Dreadful " * 300, "Two people."]
    np.testing.assert_allclose(minilm.embed(texts), theirs.encode(texts), atol=1e-5)


@pytest.mark.slow
def test_minilm_on_stsb_without_training(minilm):
    examples = read_examples(data_file("stsb/stsb-en-test.csv"))
    task = SentenceEmbedding.of(examples)
    features, _ = task.features(examples, minilm.tokenizer, minilm.max_length)
    outputs, _ = predict(minilm.model, features)
    assert task.metrics(outputs, features)["spearman"] == pytest.approx(0.8203, abs=5e-5)


def test_pooling_by_keyword(tmp_path):
    toy.model().save_pretrained(tmp_path / "m", tokenizer=toy.tokenizer())
    on = {"backend": "numpy", "threads": 1}
    vectors = {}
    for pooling in ("mean", "max", "cls"):
        model = BertForSentenceEmbedding.from_pretrained(tmp_path / "m", pooling=pooling, **on)
        assert model.settings == SentenceSettings(pooling)
        alike = pipeline("sentence-similarity", tmp_path / "m", pooling=pooling, **on)
        assert alike.model.settings == model.settings
        vectors[pooling] = alike.embed(["a good film"])[0]
        assert np.linalg.norm(vectors[pooling]) == pytest.approx(1)
    assert len({vector.tobytes() for vector in vectors.values()}) == 3
    long = pipeline("sentence-similarity", tmp_path / "m", pooling="mean", normalize=False, **on)
    (vector,) = long.embed(["a good film"])
    assert vector / np.linalg.norm(vector) == pytest.approx(vectors["mean"], abs=1e-6)
    assert not np.isclose(np.linalg.norm(vector), 1)
    with pytest.raises(InputError, match="pooling 'sum': choose one of cls, mean, max"):
        BertForSentenceEmbedding.from_pretrained(tmp_path / "m", pooling="sum", **on)
