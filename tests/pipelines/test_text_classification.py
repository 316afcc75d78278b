from __future__ import annotations

import numpy as np
import pytest
import toy

from minibert import BertModel
from minibert.errors import InputError
from minibert.pipelines import TextClassificationPipeline, pipeline

TEXTS = ["a good film", "dull", "the plot was very very poor", "film"]


@pytest.fixture
def directory(tmp_path):
    return toy.save_model(tmp_path / "model", label2id={"neg": 0, "meh": 1, "pos": 2})


def load(directory):
    return TextClassificationPipeline.from_pretrained(directory, backend="numpy", threads=1)


def test_answers_are_those_of_the_model_one_by_one(directory):
    classify = load(directory)
    results = classify(TEXTS, top_k=None)
    for text, result in zip(TEXTS, results, strict=True):  # in their order, not by length
        inputs = toy.tokenizer()([text], return_tensors="np")
        logits = np.asarray(classify.model(**inputs).logits[0], np.float64)
        want = np.exp(logits) / np.exp(logits).sum()
        got = {answer["label"]: answer["score"] for answer in result}
        names = ["neg", "meh", "pos"]
        np.testing.assert_allclose([got[name] for name in names], want, rtol=1e-5)


def test_one_text_gives_one_result(directory):
    classify = load(directory)
    assert classify("a good film") == classify(["a good film"])
    pair = {"text": "good", "text_pair": "bad"}
    assert classify(pair) == classify([pair])[0]
    assert [classify(pair)] != classify("good")
    assert classify("good", top_k=1) == classify("good")
    assert classify(["good"], top_k=1) == [classify("good")]
    assert classify([]) == []


def test_long_texts_are_cut_and_counted(directory, capsys):
    classify = load(directory)
    texts = ["film " * 40 + "good", "film " * 22, "film " * 40]
    long, exact, same = classify(texts)
    assert long == same
    assert long["score"] == pytest.approx(exact["score"], rel=1e-6)  # 24 = [CLS] + 22 + [SEP]
    line = "texts were cut to 24 tokens; the rest of them is not read: shorten or split them\n"
    assert capsys.readouterr().err == f"warning: 2 of 3 {line}"
    assert len(list(classify(iter(texts * 50)))) == 150
    assert capsys.readouterr().err == f"warning: 100 of 150 {line}"  # once, of three portions
    classify(texts, truncation=True)
    classify(texts, max_length=9)
    TextClassificationPipeline(classify.model, classify.tokenizer, truncation=True)(texts)
    assert capsys.readouterr().err == ""  # who asks for it knows


def test_top_k_may_be_0(directory):
    """As in transformers."""
    classify = load(directory)
    assert classify("good", top_k=0) == []
    assert classify(["good", "bad"], top_k=0) == [[], []]
    with pytest.raises(InputError, match="top_k must be a whole number of at least 0, got -1"):
        classify("good", top_k=-1)


def test_bad_texts_are_named(directory):
    classify = load(directory)
    with pytest.raises(InputError, match="input 1: got a NoneType"):
        classify(["a", None])
    with pytest.raises(InputError, match="text_pair of input 0: got a int"):
        classify({"text": "a", "text_pair": 3})
    with pytest.raises(InputError, match=r"input 0: got a int.*counted from input 2 of the stream"):
        list(classify(iter(["a", "b", 3]), batch_size=2))
    for wrong in ({"text": "a", "pair": "b"}, {"text_pair": "b"}):
        with pytest.raises(InputError, match=r'wanted a text, or \{"text": …, "text_pair": …\}'):
            classify(wrong)
    with pytest.raises(InputError, match="wanted a text, several, or a stream of them, got 3"):
        classify(3)


def test_a_stream_is_read_as_its_answers_are_taken(directory):
    classify = load(directory)
    taken = []
    stream = classify((taken.append(text) or text for text in TEXTS), batch_size=2)
    assert taken == []
    first = next(stream)
    assert taken == TEXTS[:2]
    assert [first, *stream] == classify(TEXTS)


def test_pairs_and_single_texts_together(directory):
    classify = load(directory)
    inputs = [
        {"text": "good", "text_pair": "dull"},
        "film",
        {"text": "plot"},
        {"text": "a", "text_pair": ""},
    ]
    for found, value in zip(classify(inputs), inputs, strict=True):
        (want,) = classify([value])
        assert found == {"label": want["label"], "score": pytest.approx(want["score"])}


def test_what_stands_before_a_bad_text_of_a_stream_is_answered(directory):
    classify = load(directory)
    stream = classify(iter(["good", "dull", 3, "film"]))
    want = classify(["good", "dull"])
    for answer in want:
        assert next(stream) == {"label": answer["label"], "score": pytest.approx(answer["score"])}
    with pytest.raises(
        InputError, match=r"^input 0: got a int .*counted from input 2 of the stream"
    ):
        next(stream)
    with pytest.raises(InputError, match="function_to_apply 'x': choose softmax, sigmoid or none"):
        next(classify(iter(["good"]), function_to_apply="x"))


def test_a_data_set_of_torch_is_a_stream(directory):
    """It has items by their numbers, and nothing else."""

    class Texts:
        def __getitem__(self, number):
            return TEXTS[number]

    classify = load(directory)
    assert list(classify(Texts())) == classify(TEXTS)


def test_scores_by_another_function(directory):
    classify = load(directory)
    (logits,) = classify(["good"], top_k=None, function_to_apply="none")
    (sigmoids,) = classify(["good"], top_k=None, function_to_apply="sigmoid")
    for logit, sigmoid in zip(logits, sigmoids, strict=True):
        assert sigmoid["score"] == pytest.approx(1 / (1 + np.exp(-logit["score"])))
    with pytest.raises(InputError, match="choose softmax, sigmoid or none"):
        classify("good", function_to_apply="tanh")


def test_tasks_by_name(directory):
    classify = pipeline("sentiment-analysis", directory, backend="numpy", threads=1)
    assert classify(TEXTS) == load(directory)(TEXTS)
    with pytest.raises(InputError, match="task 'nonsense' is unknown: choose one of"):
        pipeline("nonsense", directory)


def test_a_model_without_a_classifier_is_refused(tmp_path):
    config = toy.config()
    BertModel(config, backend="numpy").save_pretrained(tmp_path / "m", tokenizer=toy.tokenizer())
    with pytest.raises(InputError, match=r"no trained classifier: fine-tune it first.*finetune.py"):
        load(tmp_path / "m")


def test_a_directory_without_a_tokenizer_is_refused(tmp_path):
    toy.model().save_pretrained(tmp_path / "m")
    with pytest.raises(InputError, match=r"wanted tokenizer.json or vocab.txt"):
        load(tmp_path / "m")


KINDS = {
    "single": {"num_labels": 3},
    "single, said": {"num_labels": 3, "problem_type": "single_label_classification"},
    "several": {"num_labels": 3, "problem_type": "multi_label_classification"},
    "regression": {"num_labels": 1, "problem_type": "regression"},
    "two numbers": {"num_labels": 2, "problem_type": "regression"},
    "one logit": {"num_labels": 1},
    "one label": {"num_labels": 1, "problem_type": "multi_label_classification"},
}


@pytest.mark.crosscheck
@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers(tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    directory = toy.save_model(tmp_path / "model", initializer_range=0.5, **KINDS[kind])
    for given in ({}, {"top_k": None}, {"top_k": 1, "truncation": True, "max_length": 4}):
        theirs = transformers.pipeline(
            "text-classification", model=str(directory), device="cpu", **given
        )
        ours = pipeline("text-classification", directory, device="cpu", threads=1, **given)
        for inputs in (TEXTS[0], TEXTS, {"text": "good", "text_pair": "a film"}):
            for options in ({}, {"top_k": 2}, {"top_k": None, "batch_size": 2, "padding": True}):
                assert_alike(ours(inputs, **options), theirs(inputs, **options))


def assert_alike(found, expected):
    """Equal, scores to float32's accuracy."""
    if isinstance(found, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_alike(*pair)
    else:
        assert found == expected | {"score": pytest.approx(expected["score"], rel=1e-4, abs=1e-6)}
