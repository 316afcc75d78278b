"""minibert against what transformers computed, stored by scripts/make_fixture.py: no PyTorch here.

The bounds: hidden states and logits 1e-5 in float32 and 1e-11 in float64; gradients, relative
in L2 for each tensor, 5e-5 and 1e-11; parameters after ten float64 steps of AdamW 1e-10.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from minibert import BertConfig, BertForSequenceClassification
from minibert.models import ModelOutput
from minibert.optim import Optimizer, clip_scale, global_norm
from minibert.packing import pack

Arrays = dict[str, NDArray[Any]]
FIXTURES = Path(__file__).parent.parent / "fixtures"
ABOUT = json.loads((FIXTURES / "transformers.json").read_text())
BATCH = ("input_ids", "attention_mask", "token_type_ids")
VALUES = {"float32": 1e-5, "float64": 1e-11}
GRADIENTS = {"float32": 5e-5, "float64": 1e-11}
DTYPES = ("float32", "float64")


@cache
def stored(part: str) -> Arrays:
    return load_file(FIXTURES / f"transformers_{part}.safetensors")


def load(problem: str, dtype: str) -> BertForSequenceClassification:
    given = stored("inputs")
    config = BertConfig(**ABOUT["config"], problem_type=problem, num_labels=ABOUT["heads"][problem])
    arrays = {
        name: given.get(name, given.get(f"{problem}/{name}"))
        for name in BertForSequenceClassification.shapes(config)
    }
    return BertForSequenceClassification(
        config, backend="numpy", dtype=dtype, threads=2, arrays=arrays
    )


def arguments(problem: str) -> list[NDArray[Any]]:
    return [stored("inputs")[name] for name in (*BATCH, f"{problem}/labels")]


@cache
def evaluated(dtype: str) -> ModelOutput:
    problem = list(ABOUT["heads"])[-1]
    return load(problem, dtype)(
        *arguments(problem), output_hidden_states=True, output_attentions=True
    )


def thinned_like(array: NDArray[Any], stored_array: NDArray[Any]) -> NDArray[Any]:
    """Of a large array the file holds each 17th element."""
    return array if array.shape == stored_array.shape else array.reshape(-1)[::17]


def relative(got: NDArray[Any], want: NDArray[Any]) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("oracle", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_hidden_state(dtype: str, oracle: str) -> None:
    states = evaluated(dtype).hidden_states
    assert states is not None
    assert len(states) == ABOUT["config"]["num_hidden_layers"] + 1
    mask = stored("inputs")["attention_mask"]
    bound = max(VALUES[dtype], VALUES[oracle])
    for i, state in enumerate(states):
        want = stored(oracle)[f"hidden_states/{i}"]
        np.testing.assert_allclose(state[mask == 1], want, rtol=0, atol=bound, err_msg=f"{i}")
        assert not state[mask == 0].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_probabilities(dtype: str) -> None:
    attentions = evaluated(dtype).attentions
    assert attentions is not None
    for i, attention in enumerate(attentions):
        want = stored("float64")[f"attentions/{i}"]
        np.testing.assert_allclose(attention, want, rtol=0, atol=VALUES[dtype], err_msg=f"{i}")


@pytest.mark.parametrize("oracle", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("problem", ABOUT["heads"])
def test_logits_loss_and_every_gradient(problem: str, dtype: str, oracle: str) -> None:
    want = {k.removeprefix(f"{problem}/"): v for k, v in stored(oracle).items()}
    value = {"rtol": 0, "atol": max(VALUES[dtype], VALUES[oracle])}
    model = load(problem, dtype)
    output, gradients = model.loss_and_gradients(*arguments(problem))
    for result in (output, model(*arguments(problem))):
        np.testing.assert_allclose(result.logits, want["logits"], **value)
        np.testing.assert_allclose(result.loss, want["loss"], **value)
    for name, gradient in gradients.items():
        reference = want[f"gradient/{name}"]
        got = thinned_like(gradient, reference)
        if name.endswith("key.bias"):  # exactly zero in exact arithmetic: rounding, on both sides
            limit = {"float32": 1e-6, "float64": 1e-15}[dtype]
            assert np.abs(got).max() < limit, name
        else:
            assert relative(got, reference) < max(GRADIENTS[dtype], GRADIENTS[oracle]), name


def test_nothing_is_compared_with_nothing() -> None:
    """Each gradient of each head is in the file, and none but the key biases' is small."""
    for problem in ABOUT["heads"]:
        for name in load(problem, "float64").parameters:
            gradient = stored("float64")[f"{problem}/gradient/{name}"]
            assert name.endswith("key.bias") or np.linalg.norm(gradient) > 1e-4, name


def test_ten_steps_of_adamw() -> None:
    problem, adamw = "single_label_classification", ABOUT["adamw"]
    model = load(problem, "float64")
    parameters, batch = model.parameters, pack(*arguments(problem))
    optimizer = Optimizer(
        model.xp, parameters.flat, parameters.layout.decayed,
        weight_decay=adamw["weight_decay"], eps=adamw["eps"], workers=model.workers,
    )  # fmt: skip
    for step, loss in enumerate(stored("float64")["losses"], start=1):
        gradients = parameters.zeros_like()
        output = model.accumulate_gradients(batch, gradients, None, shards=2)
        np.testing.assert_allclose(output.loss, loss, rtol=0, atol=1e-10)
        norm = global_norm(model.xp, gradients.flat, model.workers)
        optimizer.step(gradients.flat, adamw["lr"], clip_scale(norm, adamw["max_norm"]))
        if step in ABOUT["steps"]:
            for name, parameter in parameters.items():
                want = stored("float64")[f"step_{step}/{name}"]
                got = thinned_like(parameter, want)
                np.testing.assert_allclose(got, want, rtol=0, atol=1e-10, err_msg=name)
