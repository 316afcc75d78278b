"""A live model of transformers, with hooks: every activation, every gradient, ten steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traces import FULL, LENGTHS, NANO, setup_of_head, trace_of

from minibert.errors import InputError
from minibert.hub import DEFAULT_MODEL
from minibert.verify.budget import section_of
from minibert.verify.budget_table import budget_table, measure_pytorch, read_pytorch
from minibert.verify.compare import compare
from minibert.verify.diagnosis import diagnose
from minibert.verify.model_cases import KINDS
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Recipe, Setup
from minibert.verify.trace.standard import TEXTS, encoded, of_checkpoint
from minibert.verify.trace.writing import setup_of

pytestmark = pytest.mark.crosscheck
HEADS = [name for name in KINDS if name != "sentence embedding"]  # which transformers has not


@pytest.fixture(scope="module")
def run() -> Any:
    pytest.importorskip("torch", reason="cross-checks need the [crosscheck] extra")
    pytest.importorskip("transformers", reason="the oracle is transformers")
    from minibert.verify.transformers_run import run_transformers

    return run_transformers


def setup_for(head: str) -> Setup:
    lengths = FULL if head == "question answering" else LENGTHS
    return setup_of_head(head, lengths).replace(recipe=Recipe())


@pytest.mark.parametrize("head", HEADS)
def test_every_tensor_of_every_head(head: str, run: Any, tmp_path: Path) -> None:
    """≤ 1e-11 on activations and gradients, ≤ 1e-10 on parameters after ten steps."""
    setup = setup_for(head)
    trace = trace_of(setup, tmp_path / "trace")
    comparison = compare(run(setup), trace)
    bounds = {"activation": 1e-11, "gradient": 1e-11, "training": 1e-10}
    for row in comparison.rows:
        assert row.error <= bounds[section_of(row.name).split("/")[0]], row
    names = {row.name for row in comparison.rows}
    derived = ("position_embeddings", "token_type_embeddings", "word_embeddings")
    for name in trace.names():
        section, body = name.split("/", 1)
        if section in ("activation", "gradient") and not body.endswith(derived):
            assert name in names, f"{name} was not seen"
    assert comparison.passed, comparison.first_out


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_both_attentions(dtype: str, attention: str, run: Any) -> None:
    trace = Trace.open(NANO)
    comparison = compare(run(setup_of(trace), dtype, attention), trace, dtype=dtype)
    assert comparison.passed, comparison.first_out
    assert len(comparison.rows) > 130


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bits(dtype: str, run: Any) -> None:
    """A right model is not accused: its parameters of 16 bits are not trained."""
    trace = Trace.open(NANO)
    comparison = compare(run(setup_of(trace), dtype), trace, dtype=dtype)
    assert comparison.passed, comparison.first_out
    assert len(comparison.rows) > 110
    assert not any(row.name.startswith("training/") for row in comparison.rows)


def test_minilm(run: Any, tmp_path: Path) -> None:
    setup, elsewhere = of_checkpoint(DEFAULT_MODEL, encoded(DEFAULT_MODEL, TEXTS))
    setup = setup.replace(dropout=None, recipe=None)
    trace = trace_of(setup, tmp_path / "minilm", limit=1 << 16, elsewhere=elsewhere)
    comparison = compare(run(setup), trace)
    worst = max(row.error for row in comparison.rows)
    assert worst <= 1e-11
    assert comparison.passed, comparison.first_out


def test_pytorch_stays_within_the_budget_table(run: Any) -> None:
    trace = Trace.open(NANO)
    live = measure_pytorch(trace, setup_of(trace))
    rows = [row for row in budget_table(trace, live) if row["pytorch"] is not None]
    assert len(rows) > 130
    assert all(row["pytorch"] <= row["budget"] for row in rows)
    stored = read_pytorch(trace)
    assert stored is not None
    assert stored[0].keys() == live.keys()


# ---- A wrong port that is somebody else's code ----


def with_config(**changes: Any) -> Any:
    return lambda setup: setup.replace(config=setup.config.replace(**changes))


def transposed(setup: Setup) -> Setup:
    name = "bert.encoder.layer.1.attention.self.key.weight"
    return setup.replace(weights={**setup.weights, name: np.asarray(setup.weights[name]).T})


def without(name: str) -> Any:
    return lambda setup: setup.replace(
        inputs={**setup.inputs, name: np.full_like(setup.inputs[name], int("mask" in name))}
    )


def learning_rate(setup: Setup) -> Setup:
    return setup.replace(recipe=replace(setup.recipe, lr=1e-2))


WRONG = {
    "layer_norm_eps is 1e-05, not 1e-12": with_config(layer_norm_eps=1e-5),
    "the activation is GELU by tanh (hidden_act gelu_new), not GELU by the true erf":
        with_config(hidden_act="gelu_new"),
    "bert.encoder.layer.1.attention.self.key.weight is transposed": transposed,
    "token_type_ids are ignored (all 0)": without("token_type_ids"),
    "the attention mask is not applied: padding is attended to": without("attention_mask"),
    "lr is 0.01, not 0.001": learning_rate,
}  # fmt: skip
ALIKE = {
    "the attention mask is not applied: padding is attended to":
        "the first row's attention mask is used for all rows",
}  # fmt: skip
"""Whose first row is full: nobody can tell these two apart."""


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cause", WRONG)
def test_wrong_use_of_transformers_is_diagnosed(cause: str, dtype: str, run: Any) -> None:
    trace = Trace.open(NANO)
    setup = setup_of(trace)
    mine = run(WRONG[cause](setup), dtype)
    diagnosis = diagnose(compare(mine, trace, dtype=dtype), trace, setup)
    causes = (cause, ALIKE[cause]) if cause in ALIKE else (cause,)
    assert diagnosis.causes == causes, str(diagnosis)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_padding_in_the_loss_of_a_span(dtype: str, run: Any, tmp_path: Path) -> None:
    """Where minibert differs from transformers on purpose, that is what is said."""
    setup = setup_of_head("question answering", LENGTHS).replace(recipe=None, dropout=None)
    trace = trace_of(setup, tmp_path / "trace")
    diagnosis = diagnose(compare(run(setup, dtype), trace, dtype=dtype), trace, setup)
    cause = "padding takes part in the softmax of start and end (as in transformers)"
    assert diagnosis.causes == (cause,), str(diagnosis)


def test_a_head_that_transformers_has_not(run: Any) -> None:
    with pytest.raises(InputError, match="transformers has no BertForSentenceEmbedding"):
        run(setup_of_head("sentence embedding"))
