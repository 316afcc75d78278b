from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibert.config import BertConfig
from minibert.errors import CheckpointError, InputError


def test_defaults_are_bert_base() -> None:
    config = BertConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.head_size) == (768, 12, 64)
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}


def test_round_trip_loses_nothing(tmp_path: Path) -> None:
    original = {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "hidden_size": 32,
        "num_attention_heads": 4,
        "id2label": {"0": "no", "1": "yes", "2": "perhaps"},
        "label2id": {"no": 0, "yes": 1, "perhaps": 2},
        "transformers_version": "4.8.2",
        "task_specific": {"nested": [1, None, "é"]},
    }
    (tmp_path / "config.json").write_text(json.dumps(original), encoding="utf-8")
    config = BertConfig.from_pretrained(tmp_path)
    assert config.num_labels == 3
    config.save(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert original.items() <= saved.items()
    assert BertConfig.from_pretrained(tmp_path) == config


def test_a_bare_config_is_enough() -> None:
    config = BertConfig.from_dict({"vocab_size": 591, "pruned_heads": {}, "id2label": None})
    assert (config.vocab_size, config.pad_token_id, config.architectures) == (591, 0, None)
    assert config.to_dict()["model_type"] == "bert"


@pytest.mark.parametrize(
    ("given_name", "meant"),
    [
        ("gelu_python", "gelu"),
        ("gelu_pytorch_tanh", "gelu_new"),
        ("gelu_python_tanh", "gelu_new"),
        ("relu", "relu"),
    ],
)
def test_activation_aliases(given_name: str, meant: str) -> None:
    assert BertConfig(hidden_act=given_name).hidden_act == meant


def test_labels_follow_from_any_one_of_three() -> None:
    names = BertConfig(num_labels=3).replace(id2label={0: "a", 1: "b", 2: "c"})
    assert names.label2id == {"a": 0, "b": 1, "c": 2}
    assert BertConfig(label2id={"b": 1, "a": 0}).id2label == {0: "a", 1: "b"}
    assert names.replace(num_labels=3, hidden_size=48).id2label == names.id2label
    assert names.replace(num_labels=2).id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert names.replace(label2id={"x": 0}).num_labels == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "swish"}, "hidden_act: got 'swish', wanted one of gelu, gelu_new, relu"),
        ({"hidden_act": None}, "hidden_act"),
        ({"hidden_size": 100}, "multiple of num_attention_heads"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: got 0"),
        ({"vocab_size": 10.0}, "vocab_size: got 10.0"),
        ({"intermediate_size": True}, "intermediate_size: got True"),
        ({"type_vocab_size": "2"}, "type_vocab_size: got '2'"),
        ({"pad_token_id": 30522}, "pad_token_id: got 30522"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob: got 1.0"),
        ({"attention_probs_dropout_prob": float("nan")}, "attention_probs_dropout_prob: got nan"),
        ({"hidden_dropout_prob": None}, "hidden_dropout_prob: got None"),
        ({"classifier_dropout": -0.1}, "classifier_dropout: got -0.1"),
        ({"layer_norm_eps": 0}, "layer_norm_eps: got 0"),
        ({"initializer_range": -1}, "initializer_range: got -1"),
        ({"problem_type": "ranking"}, "problem_type: got 'ranking'"),
        ({"problem_type": "single_label_classification", "num_labels": 1}, "problem_type"),
        ({"num_labels": -1}, "num_labels: got -1"),
        ({"num_labels": 3, "id2label": {0: "a", 1: "b"}}, "leave num_labels out"),
        ({"id2label": {0: "a", 2: "b"}}, "ids 0 to K-1"),
        ({"id2label": {0: "a", 1: "a"}}, "each with its own name"),
        ({"id2label": {"zero": "a"}}, "ids 0 to K-1"),
        ({"id2label": {"0": None}}, "ids 0 to K-1"),
        ({"id2label": ["a", "b"]}, "ids 0 to K-1"),
        ({"label2id": {"a": 0, "b": 0}}, "ids 0 to K-1"),
        ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}}, "inverse of id2label"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"architectures": "BertModel"}, "architectures: got 'BertModel'"),
        ({"model_type": "roberta"}, "model_type: got 'roberta', wanted 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
    ],
)
def test_bad_values_say_what_is_wanted(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        BertConfig.from_dict(changes)
    assert message in str(error.value)
    assert "got" in str(error.value)


def test_replace_refuses_an_unknown_field() -> None:
    with pytest.raises(InputError, match="hiden_size"):
        BertConfig().replace(hiden_size=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b'{"hidden_size": \xff}', "not JSON"),
        (b"[1]", "wanted an object"),
        (b'{"hidden_size": 768, "hidden_size": 384}', "occurs twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"hidden_act": "swish"}', "hidden_act"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        BertConfig.from_pretrained(tmp_path)
    assert str(tmp_path / "config.json") in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: No such file"):
        BertConfig.from_pretrained(tmp_path)


# A small alphabet: for st.text() alone hypothesis first tabulates all of Unicode, for seconds.
_text = st.text("01aé", max_size=3)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=4,
)


@settings(deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(sorted(BertConfig().to_dict())), _json, max_size=3))
def test_any_json_loads_or_is_refused(values: dict[str, Any]) -> None:
    try:
        config = BertConfig.from_dict(values)
    except InputError:
        return
    assert BertConfig.from_dict(config.to_dict()) == config
    assert hash(config) == hash(config.replace())


@pytest.mark.crosscheck
def test_transformers_reads_our_config(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="cross-checks need the [crosscheck] extra")
    from transformers import AutoConfig

    config = BertConfig(hidden_size=24, num_attention_heads=3, label2id={"a": 0, "b": 1, "c": 2})
    config.save(tmp_path)
    theirs = AutoConfig.from_pretrained(tmp_path).to_dict()
    ours = config.to_dict()
    ours["id2label"] = dict(config.id2label)
    assert {name: theirs[name] for name in ours if name in theirs} == {
        name: value for name, value in ours.items() if name in theirs
    }
    assert len(theirs.keys() & ours.keys()) >= 18
