from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import toy

from minibert import (
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSentenceEmbedding,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizer,
)
from minibert.checkpoint.model_card import model_card
from minibert.models import BertPreTrainedModel
from minibert.pipelines.trained_for import OF_ARCHITECTURE

CARD = model_card(
    "tiny | reviews",
    base_model="sentence-transformers/all-MiniLM-L6-v2",
    data='movie reviews: "good" or "bad"\nof 2014',
    hyperparameters={"learning_rate": 5e-5, "warmup": None},
    seed=7,
    metrics={"accuracy": 0.8512345, "f1": 0.84},
    license="apache-2.0",
)


def test_the_text_holds_what_a_reader_needs() -> None:
    body = CARD.split("---\n")[2]
    for fact in (
        "# tiny \\| reviews",
        "sentence-transformers/all-MiniLM-L6-v2",
        '"good" or "bad" of 2014',
        "| learning_rate | 5e-05 |",
        "| seed | 7 |",
        "| accuracy | 0.8512 |",
        "with minibert ",
    ):
        assert fact in body
    assert CARD.endswith("|\n")


def test_the_front_matter_is_one_json_value_a_line() -> None:
    lines = CARD.split("---\n")[1].splitlines()
    values = dict(line.split(": ", 1) for line in lines)
    assert json.loads(values["metrics"]) == ["accuracy", "f1"]
    assert json.loads(values["base_model"]) == "sentence-transformers/all-MiniLM-L6-v2"
    assert json.loads(values["model-index"])[0]["results"][0]["metrics"][0]["value"] == 0.8512345


def test_a_local_base_model_stays_out_of_the_front_matter() -> None:
    card = model_card(
        "x", base_model="/home/me/bert", data="d", hyperparameters={}, seed=0, metrics={}
    )
    assert "base_model" not in card
    assert "model-index" not in card
    assert "Results" not in card


def test_the_results_name_their_data_where_it_is_another() -> None:
    facts = {"base_model": "b", "data": "d", "hyperparameters": {}, "seed": 0}
    card = model_card("x", **facts, metrics={"accuracy": 0.5}, evaluated_on="other")
    assert "## Results on held-out data: other" in card
    assert '"dataset": {"name": "other"' in card


@pytest.mark.parametrize(
    "kind",
    [
        BertForMultipleChoice, BertForPreTraining, BertForQuestionAnswering,
        BertForSentenceEmbedding, BertForSequenceClassification, BertForTokenClassification,
    ],
)  # fmt: skip
def test_its_code_runs(kind: type[BertPreTrainedModel], tmp_path: Path) -> None:
    """With minibert's pipelines, which take what those of transformers take."""
    facts = {"base_model": "b", "data": "d", "hyperparameters": {}, "seed": 0, "metrics": {}}
    task = OF_ARCHITECTURE[kind.__name__]
    code = model_card("x", **facts, task=task).split("```python")[1].split("```")[0]
    assert f'pipeline("{task}"' in code
    tokenizer = BertTokenizer.from_vocab(toy.VOCABULARY)
    kind(toy.config(), backend="numpy").save_pretrained(tmp_path, tokenizer=tokenizer)
    code = code.replace("path/to/this/directory", str(tmp_path))
    ended = subprocess.run(
        [sys.executable, "-c", code.replace("from transformers", "from minibert")],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout[0] in "[{"


def test_a_language_is_said_where_it_is_known() -> None:
    facts = {"base_model": "b", "data": "d", "hyperparameters": {}, "seed": 0, "metrics": {}}
    assert "language" not in model_card("x", **facts)
    assert 'language: ["de", "fr"]' in model_card("x", **facts, language=["de", "fr"])


def test_the_hub_library_reads_it() -> None:
    hub = pytest.importorskip("huggingface_hub", reason="it comes with tokenizers, but may not")
    data = hub.ModelCard(CARD).data
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.pipeline_tag == "text-classification"
    assert [(r.metric_type, r.metric_value) for r in data.eval_results] == [
        ("accuracy", 0.8512345),
        ("f1", 0.84),
    ]
