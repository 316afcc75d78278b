"""What pipelines can be told, at construction and in a call, and which models they take."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import toy

from minibert import BertConfig, BertTokenizer
from minibert.errors import InputError
from minibert.models import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForQuestionAnswering,
    BertForSentenceEmbedding,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)
from minibert.pipelines import PIPELINES, TextClassificationPipeline, pipeline
from minibert.pipelines.options import backend_of

CASES = {
    "feature-extraction": (BertModel, "a good film", {"return_tensors": False}),
    "fill-mask": (BertForMaskedLM, "a [MASK] film", {"top_k": 1, "targets": ["good"]}),
    "multiple-choice": (
        BertForMultipleChoice,
        {"question": "a", "choices": ["good", "bad"]},
        {"top_k": None},
    ),
    "next-sentence-prediction": (
        BertForNextSentencePrediction,
        {"text": "a film", "text_pair": "good"},
        {"top_k": None},
    ),
    "question-answering": (
        BertForQuestionAnswering,
        {"question": "was the film good", "context": "the film was very dull"},
        {"top_k": 2, "max_seq_len": 20, "handle_impossible_answer": True},
    ),
    "sentence-similarity": (
        BertForSentenceEmbedding,
        {"source_sentence": "good", "sentences": ["a film", "dull"]},
        {},
    ),
    "text-classification": (BertForSequenceClassification, ["good", "bad"], {"top_k": None}),
    "token-classification": (
        BertForTokenClassification,
        "a good film",
        {"aggregation_strategy": "simple", "ignore_labels": []},
    ),
}
READING = {"truncation": True, "max_length": 9, "padding": "max_length", "batch_size": 1}
LONG = "film " * 40


@pytest.fixture(params=CASES)
def case(request):
    """(task, a tiny model of it, an input, options that it has)."""
    kind, inputs, options = CASES[request.param]
    config = toy.config(initializer_range=0.5)
    return request.param, kind(config, backend="numpy", seed=3, threads=1), inputs, options


@pytest.fixture
def classify():
    model = toy.model()
    return pipeline("sentiment-analysis", model, tokenizer=toy.tokenizer())


def test_there_is_a_case_for_every_task():
    assert CASES.keys() == PIPELINES.keys()


def test_the_options_of_a_call_may_be_given_once(case):
    task, model, inputs, options = case
    plain = pipeline(task, model, tokenizer=toy.tokenizer())
    told = pipeline(task, model, tokenizer=toy.tokenizer(), **READING, **options)
    assert told(inputs) == plain(inputs, **READING, **options)
    assert told(inputs, max_length=5) == plain(inputs, **READING | options | {"max_length": 5})


def test_an_unknown_option_is_refused_with_those_that_there_are(case):
    task, model, inputs, options = case
    answer = pipeline(task, model, tokenizer=toy.tokenizer())
    known = ".*".join([*options, *READING])
    with pytest.raises(InputError, match=f"^pipeline '{task}' has no option 'x'; it has .*{known}"):
        answer(inputs, x=1)
    with pytest.raises(InputError, match=f"^pipeline '{task}' has no option 'x'.*{known}.*device"):
        pipeline(task, model, tokenizer=toy.tokenizer(), x=1)


def test_saved_and_loaded_it_answers_the_same(case, tmp_path):
    task, model, inputs, options = case
    answer = pipeline(task, model, tokenizer=toy.tokenizer())
    answer.save_pretrained(tmp_path / "model")
    again = pipeline(task, str(tmp_path / "model"), device="cpu", threads=1)
    assert again(inputs, **options) == answer(inputs, **options)
    assert again.task == task


def test_the_task_of_a_loaded_model(case):
    task, model, _, _ = case
    answer = pipeline(model=model, tokenizer=toy.tokenizer())
    assert answer.task == task
    kind = type(model).__name__
    assert repr(answer) == f"{type(answer).__name__}({task!r}, {kind} on numpy)"


def test_repr_has_the_options(classify):
    told = TextClassificationPipeline(classify.model, classify.tokenizer, top_k=2, max_length=9)
    assert repr(told) == (
        "TextClassificationPipeline('text-classification', BertForSequenceClassification on numpy, "
        "top_k=2, max_length=9)"
    )


@pytest.mark.parametrize(
    "task", ["feature-extraction", "fill-mask", "text-classification", "token-classification"]
)
def test_a_limit_of_the_caller_s_and_no_truncation(task):
    kind, _, options = CASES[task]
    model = kind(toy.config(), backend="numpy", seed=3, threads=1)
    answer = pipeline(task, model, tokenizer=toy.tokenizer(), **options)
    mask = "[MASK] " if task == "fill-mask" else ""
    assert answer(mask + LONG, max_length=5) == answer(mask + "film film film", max_length=5)
    assert answer(mask + LONG, truncation=True, max_length=99) == answer(mask + LONG)
    with pytest.raises(InputError, match="is longer than the position table"):
        answer(mask + LONG, truncation=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 1.5}, "top_k must be a whole number of at least 0, got 1.5"),
        ({"top_k": True}, "top_k must be a whole number of at least 0, got True"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"max_length": "9"}, "max_length must be a whole number of at least 1, got '9'"),
        (
            {"truncation": "yes"},
            "truncation: got 'yes', wanted True, False or one of longest_first",
        ),
        ({"max_length": 1}, "max_length: the special tokens alone need 2"),
    ],
)
def test_options_that_cannot_be(classify, options, message):
    with pytest.raises(InputError) as caught:
        classify("a good film", **options)
    assert message in str(caught.value)


# ---- Models, tokenizers, devices ----


def test_a_tokenizer_may_come_from_elsewhere(tmp_path):
    toy.model().save_pretrained(tmp_path / "model")
    toy.tokenizer().save_pretrained(tmp_path / "tokenizer")
    answers = [
        pipeline("text-classification", tmp_path / "model", tokenizer=tokenizer, backend="numpy")
        for tokenizer in (toy.tokenizer(), tmp_path / "tokenizer", str(tmp_path / "tokenizer"))
    ]
    assert answers[0]("dull") == answers[1]("dull") == answers[2]("dull")
    assert isinstance(answers[1].tokenizer, BertTokenizer)


def test_further_arguments_of_the_model(tmp_path):
    toy.save_model(tmp_path / "m")
    names = {0: "bad", 1: "good"}
    classify = pipeline(
        "sentiment-analysis", tmp_path / "m", device=-1, model_kwargs={"id2label": names}
    )
    assert classify(["dull"])[0]["label"] in names.values()
    with pytest.raises(InputError, match="model_kwargs: got 3, wanted a dict of options"):
        pipeline("sentiment-analysis", tmp_path / "m", device=-1, model_kwargs=3)


def test_devices_by_transformers_names():
    assert [backend_of(device) for device in ("cpu", -1)] == ["numpy"] * 2
    assert [backend_of(device) for device in ("cuda", "cuda:0", 0)] == ["cupy"] * 3
    assert backend_of(None, "numpy") == "numpy"
    for device in ("cuda:1", 1, "mps", True):
        with pytest.raises(InputError, match=r"^device: got .*CUDA_VISIBLE_DEVICES"):
            backend_of(device)
    with pytest.raises(InputError, match="got device='cpu' and backend='cupy': pass one"):
        backend_of("cpu", "cupy")


def test_models_that_will_not_do(classify):
    tokenizer = toy.tokenizer()
    with pytest.raises(InputError, match=r"comes without its tokenizer: pass tokenizer=…"):
        pipeline("sentiment-analysis", classify.model)
    with pytest.raises(
        InputError, match=r"SequenceClassification, wanted a minibert.BertForMasked"
    ):
        pipeline("fill-mask", classify.model, tokenizer=tokenizer)
    with pytest.raises(InputError, match=r"^tokenizer: got a types.SimpleNamespace, wanted a"):
        pipeline("sentiment-analysis", classify.model, tokenizer=SimpleNamespace())
    with pytest.raises(InputError, match="loaded on numpy, and cupy is asked for: load it there"):
        pipeline("sentiment-analysis", classify.model, tokenizer=tokenizer, device="cuda")
    with pytest.raises(InputError, match="is loaded already: pass threads"):
        pipeline("sentiment-analysis", classify.model, tokenizer=tokenizer, threads=2)
    with pytest.raises(InputError, match=r"^model: got a types.SimpleNamespace, wanted a"):
        pipeline(model=SimpleNamespace())


def test_only_encoders_have_a_default_model():
    with pytest.raises(InputError, match=r"^sentiment-analysis: name a model: pipeline"):
        pipeline("sentiment-analysis")
    with pytest.raises(InputError, match=r"^name a task or a model"):
        pipeline()
    with pytest.raises(InputError, match=r"; if it is a model: pipeline\(model='org/name'\)$"):
        pipeline("org/name")
    defaults = [name for name, kind in PIPELINES.items() if kind.default_model]
    assert defaults == ["feature-extraction", "sentence-similarity"]


def test_errors_say_the_name_that_was_typed(tmp_path, monkeypatch):
    BertModel(toy.config(), backend="numpy").save_pretrained(tmp_path / "cached")
    monkeypatch.setattr(
        "minibert.pipelines.loading.resolve_model", lambda *_, **__: tmp_path / "cached"
    )
    for task, message in {
        "ner": r"^org/name has no trained classifier.*--model_name_or_path org/name$",
        "feature-extraction": r"^org/name: wanted tokenizer.json or vocab.txt",
        None: r"^org/name: wanted tokenizer.json or vocab.txt",
    }.items():
        with pytest.raises(InputError, match=message):
            pipeline(task, "org/name", backend="numpy")


# ---- Arguments that transformers' pipelines have ----


def test_the_order_of_arguments_is_that_of_transformers(tmp_path):
    """Task, model, configuration, tokenizer."""
    model = toy.save_model(tmp_path / "m", label2id={"neg": 0, "pos": 1})
    names = BertConfig.from_pretrained(model).replace(label2id={"bad": 0, "good": 1})
    (tmp_path / "other").mkdir()
    names.save(tmp_path / "other")
    plain = pipeline("text-classification", model, device=-1)("dull")
    renamed = {"neg": "bad", "pos": "good"}
    for config in (names, tmp_path / "other", str(tmp_path / "other")):
        for tokenizer in (toy.tokenizer(), model):
            classify = pipeline("text-classification", model, config, tokenizer, device=-1)
            want = [row | {"label": renamed[row["label"]]} for row in plain]
            assert classify("dull") == want
            assert classify.save_pretrained(tmp_path / "saved") is None
    own = pipeline("text-classification", classify.model, names, toy.tokenizer())
    assert own("dull") == want
    with pytest.raises(InputError, match=r"^config: the model is loaded already, and has its own"):
        pipeline("text-classification", toy.model(), names, toy.tokenizer())
    with pytest.raises(
        InputError, match=r"^config: got a types.SimpleNamespace, wanted a minibert"
    ):
        pipeline("text-classification", model, SimpleNamespace(), device=-1)


def test_a_revision_is_handed_to_the_hub(tmp_path, monkeypatch):
    asked = []
    toy.save_model(tmp_path / "m")

    def resolve(name, *, revision=None):
        asked.append((name, revision))
        return tmp_path / "m"

    monkeypatch.setattr("minibert.pipelines.loading.resolve_model", resolve)
    pipeline("sentiment-analysis", "org/name", revision="v1", backend="numpy")
    pipeline(model="org/name", revision="v2", backend="numpy")
    assert asked[:2] == [("org/name", "v1"), ("org/name", "v2")]


def test_options_that_say_nothing_are_taken(case, tmp_path):
    task, model, inputs, _ = case
    tokenizer = toy.tokenizer()
    model.save_pretrained(tmp_path / "m", tokenizer=tokenizer)
    plain = pipeline(task, model, tokenizer=tokenizer)
    nothing = {
        "num_workers": 2, "use_fast": True, "framework": "pt", "trust_remote_code": False,
        "device_map": None, "token": None, "feature_extractor": None, "binary_output": True,
        "add_special_tokens": True, "revision": "main", "dtype": "auto", "torch_dtype": None,
    }  # fmt: skip
    told = pipeline(task, tmp_path / "m", device=-1, threads=1, **nothing)
    assert told(inputs, num_workers=1) == plain(inputs)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"device_map": "auto"}, "has no device_map: a model lies on one device; pass device="),
        ({"token": "hf_x"}, "has no token: the hub's token is read from HF_TOKEN"),
        ({"return_all_scores": True}, "has no return_all_scores: pass top_k=None"),
        ({"add_special_tokens": False}, "has no add_special_tokens: a text always stands between"),
        ({"dtype": "float16"}, "dtype 'float16': choose one of float32, float64"),
    ],
)
def test_options_that_cannot_be_had_say_what_can(option, message, tmp_path):
    toy.save_model(tmp_path / "m")
    with pytest.raises(InputError) as caught:
        pipeline("text-classification", tmp_path / "m", device=-1, **option)
    assert message in str(caught.value)


def test_functions_by_any_case(classify):
    assert classify("dull", function_to_apply="NONE") == classify("dull", function_to_apply="none")


def test_what_a_tokenizer_is_told_in_a_dict():
    extract = pipeline("feature-extraction", BertModel(toy.config()), tokenizer=toy.tokenizer())
    told = {"truncation": True, "max_length": 4, "return_token_type_ids": False}
    short = extract("a good film", tokenize_kwargs=told)
    assert short == extract("a good film", max_length=4)
    assert len(short[0]) == 4
    with pytest.raises(InputError, match=r"^tokenize_kwargs has no add_special_tokens: a text"):
        extract("a", tokenize_kwargs={"add_special_tokens": False})


def test_none_is_as_usual(case):
    """As in transformers; but to choose none of the best is to choose all."""
    task, model, inputs, options = case
    plain = pipeline(task, model, tokenizer=toy.tokenizer())
    nothing = dict.fromkeys([*options, *READING])
    if nothing.get("top_k", 0) is None and options["top_k"] is None:
        nothing.pop("top_k")
    told = pipeline(task, model, tokenizer=toy.tokenizer(), **nothing)
    assert told(inputs) == plain(inputs, **nothing) == plain(inputs)


def test_a_head_says_the_task_where_the_configuration_does_not(case, tmp_path):
    """As in files of old; but whose a classifier is, nobody can tell."""
    task, model, _, _ = case
    model.save_pretrained(tmp_path / "m", tokenizer=toy.tokenizer())
    config = tmp_path / "m" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"architectures": None}))
    if any(name.startswith(("cls.", "qa_outputs.")) for name in model.head):
        assert pipeline(model=tmp_path / "m", device="cpu").task == task
    else:
        with pytest.raises(InputError, match=r"config.json does not say what .*; name the task"):
            pipeline(model=tmp_path / "m", device="cpu")
    config.write_text(json.dumps(values | {"architectures": ["BertForNothing"]}))
    with pytest.raises(InputError, match="there is no task for BertForNothing; name the task"):
        pipeline(model=tmp_path / "m", device="cpu")
