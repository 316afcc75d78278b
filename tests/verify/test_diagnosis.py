"""Diagnosis: the words say what is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traces import NANO, random_setup, trace_of

from minibert import BertConfig
from minibert.models import BertForSequenceClassification
from minibert.verify.compare import as_stored, compare
from minibert.verify.diagnosis import Diagnosis, diagnose
from minibert.verify.hypotheses import HYPOTHESES
from minibert.verify.hypotheses.base import PLAIN
from minibert.verify.report import as_dict, as_text
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import collected
from minibert.verify.trace.writing import setup_of, write_trace

FORWARD = "activation/"


@pytest.fixture(scope="module")
def nano() -> Trace:
    return Trace.open(NANO)


def forward_of(setup: Setup) -> dict[str, Any]:
    with np.errstate(all="ignore"):
        tensors = collected(setup.replace(recipe=None, dropout=None))
    return {name: array for name, array in tensors.items() if name.startswith(FORWARD)}


def diagnosis_of(mine: dict[str, Any], trace: Trace, **options: Any) -> Diagnosis:
    return diagnose(compare(mine, trace, **options), trace, setup_of(trace))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("section", HYPOTHESES)
def test_every_hypothesis_finds_itself(section: str, dtype: str, nano: Trace) -> None:
    """Beside others that give the same tensors; in float32 some show nothing at all."""
    setup, first = setup_of(nano), "activation/bert.encoder.layer.0.attention.self.query"
    if section == "training":
        setup = setup.replace(recipe=replace(setup.recipe, rules=("adamw_torch",), steps=(1, 3)))
        first = "training/adamw_torch/step_1/parameters"
    guesses = [g for hypothesis in HYPOTHESES[section] for g in hypothesis(setup, first)]
    unseen, missed = [], []
    for guess in guesses:
        needed = guess.setup.replace(dtype=dtype)
        needed = needed if section == "training" else needed.replace(recipe=None)
        needed = needed if section == "dropout" else needed.replace(dropout=None)
        with np.errstate(all="ignore"):
            tensors = collected(needed)
        mine = {n: a for n, a in tensors.items() if a.dtype.kind == "f" and _fits(n, a, nano)}
        comparison = compare(mine, nano)
        if comparison.passed:
            unseen.append(guess.cause)
        elif guess.cause not in (found := diagnose(comparison, nano, setup_of(nano))).causes:
            missed.append((guess.cause, str(found)))
    assert not missed, missed
    assert len(unseen) <= (0 if dtype == "float64" else 0.2 * len(guesses)), unseen


def _fits(name: str, array: Any, trace: Trace) -> bool:
    """Scores of other heads cannot be handed in."""
    return bool(array.shape == trace.entries[name].shape)


def test_from_the_logits_alone(nano: Trace) -> None:
    """One tensor at the end is enough for a mistake at the beginning."""
    setup = setup_of(nano)
    wrong = forward_of(setup.replace(config=setup.config.replace(hidden_act="gelu_new")))
    diagnosis = diagnosis_of({"logits": wrong["activation/logits"]}, nano)
    assert len(diagnosis.causes) == 1
    assert diagnosis.causes[0].startswith("the activation is GELU by tanh")


def test_a_second_mistake_is_said_to_remain(nano: Trace) -> None:
    setup = setup_of(nano)
    mine = forward_of(setup.replace(config=setup.config.replace(layer_norm_eps=1e-5)))
    mine["activation/logits"] = mine["activation/logits"] + 1
    diagnosis = diagnosis_of(mine, nano)
    assert diagnosis.causes == ()
    assert str(diagnosis) == (
        "layer_norm_eps is 1e-05, not 1e-12; but from activation/logits on something else is "
        "wrong as well"
    )


def test_an_unknown_mistake_is_said_to_be_unknown(nano: Trace) -> None:
    mine = forward_of(setup_of(nano))
    mine["activation/logits"] = mine["activation/logits"] + 1
    assert str(diagnosis_of(mine, nano)).startswith("unknown: none of ")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_float64_that_was_computed_in_less(dtype: str, nano: Trace) -> None:
    mine = {
        name: array.astype(dtype).astype(np.float64)
        for name, array in forward_of(setup_of(nano).replace(dtype="float32")).items()
    }
    cause = f"computed in {dtype}: compare with --dtype {dtype}"
    assert diagnosis_of(mine, nano).causes == (cause,)


def test_a_mistake_in_float32_that_was_widened(nano: Trace) -> None:
    """Every number of float64 is one of float32: its budgets apply."""
    setup = setup_of(nano)
    config = setup.config.replace(layer_norm_eps=1e-5)
    wrong = forward_of(setup.replace(dtype="float32", config=config))
    mine = {name: array.astype(np.float64) for name, array in wrong.items()}
    assert diagnosis_of(mine, nano).causes == ("layer_norm_eps is 1e-05, not 1e-12",)
    comparison = as_stored(compare(mine, nano))
    first = next(iter(comparison.rows))
    assert first.budget == nano.entries[first.name].budget("float32")
    out = "out of the float32 budget (float64 that holds float32's numbers alone)"
    assert out in as_text(comparison, None)
    said = as_dict(comparison, None)
    assert (said["dtype"], said["stored"]) == ("float32", "float64")
    assert as_stored(compare(forward_of(setup.replace(config=config)), nano)).dtype == "float64"


def test_one_pooler_is_not_said_to_be_in_every_layer(nano: Trace) -> None:
    setup, name = setup_of(nano), "bert.pooler.dense"
    first = f"{FORWARD}{name}"
    causes = [g.cause for h in HYPOTHESES["activation"] for g in h(setup, first)]
    assert f"{name}.weight is transposed" in causes
    assert not [cause for cause in causes if f"every layer's {name}" in cause]


def test_errors_as_small_as_those_of_float32(nano: Trace) -> None:
    name = f"{FORWARD}bert.encoder.layer.0.intermediate"
    said = str(diagnosis_of({name: nano.read(name) * (1 + 3e-8)}, nano))
    assert said == (
        f"{name} is out by no more than float32 rounds: something may be computed in it, or a "
        "constant is off by that much"
    )


def test_bfloat16_is_recognised(nano: Trace) -> None:
    bits = nano.read("activation/logits").astype(np.float32).view(np.uint32) & 0xFFFF0000
    mine = {"logits": bits.view(np.float32).astype(np.float64)}
    assert diagnosis_of(mine, nano).causes[0].startswith("computed in bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_few_numbers_of_16_bits_have_no_cause(dtype: str, nano: Trace) -> None:
    """Nine logits are near those of several mistakes that nobody made."""
    setup = setup_of(nano)
    functions = {"gelu_forward": lambda xp, x: (2 * PLAIN["gelu_forward"](xp, x)[0], None)}
    inputs = {name: array for name, array in setup.inputs.items() if name != "labels"}
    wrong = forward_of(setup.replace(functions=functions, inputs=inputs))
    mine = {"logits": 3 * wrong["activation/logits"].astype(np.float32)}
    diagnosis = diagnosis_of(mine, nano, dtype=dtype)
    assert str(diagnosis) == (
        f"unknown: too few numbers of {dtype} to tell: hand in more, or float32"
    )
    many = {
        n: a.astype(np.float32) for n, a in wrong.items() if n.endswith(("LayerNorm", "logits"))
    }
    assert diagnosis_of(many, nano, dtype=dtype).causes == ()


def test_given_tensors_that_are_others(nano: Trace) -> None:
    name = "bert.encoder.layer.1.attention.self.key.weight"
    key, query = (nano.read(f"weight/{name.replace('key', part)}") for part in ("key", "query"))
    assert diagnosis_of({name: key.T}, nano).causes == (f"{name} is transposed",)
    other = name.replace("key", "query")
    assert diagnosis_of({name: query}, nano).causes == (f"{name} is really {other}",)
    ids = nano.read("input/input_ids") + 1
    assert diagnosis_of({"input_ids": ids}, nano).causes == ("input_ids is not the trace's",)


@pytest.mark.slow
def test_layers_by_one_digit(tmp_path: Path) -> None:
    """A port that reads one digit of the layer's number loads layer 1 as layers 10 and 11."""
    config = BertConfig(vocab_size=20, hidden_size=4, num_attention_heads=2, num_hidden_layers=12,
                        intermediate_size=5, max_position_embeddings=8)  # fmt: skip
    setup = random_setup(BertForSequenceClassification, config, (5, 3))
    trace = trace_of(setup, tmp_path / "trace")
    weights = dict(setup.weights)
    for name in weights:
        for late in ("layer.10.", "layer.11."):
            if late in name:
                weights[name] = setup.weights[name.replace(late, "layer.1.")]
    diagnosis = diagnosis_of(forward_of(setup.replace(weights=weights)), trace)
    assert diagnosis.causes == ("of a layer's number only the first digit is read",)


def test_too_few_layers(nano: Trace) -> None:
    setup = setup_of(nano)
    weights = {n: w for n, w in setup.weights.items() if "layer.1." not in n}
    short = setup.replace(config=setup.config.replace(num_hidden_layers=1), weights=weights)
    diagnosis = diagnosis_of({"logits": forward_of(short)["activation/logits"]}, nano)
    assert diagnosis.causes == ("there is 1 layer, not 2",)


def test_a_tensor_that_no_guess_makes_is_not_explained(nano: Trace) -> None:
    """A model of one layer has no layer 1: it says nothing of what is wrong there."""
    names = ("activation/bert.encoder.layer.1.attention.self.query", "activation/logits")
    mine = {name: nano.read(name) + 1 for name in names}
    assert str(diagnosis_of(mine, nano)).startswith("unknown: none of ")


def test_a_cause_that_fits_better_stands_alone(nano: Trace) -> None:
    """In float32 a decay of 1e-4 is within the slack of none at all, but none fits better."""
    setup = setup_of(nano)
    recipe = replace(setup.recipe, rules=("adamw_torch",), steps=(1,), weight_decay=0.0)
    wrong = setup.replace(recipe=recipe, dropout=None, dtype="float64")
    mine = {n: a for n, a in collected(wrong).items() if n.startswith("training/")}
    assert diagnosis_of(mine, nano).causes == ("there is no weight decay",)
    causes = diagnosis_of(mine, nano, dtype="float32").causes
    assert causes == ("there is no weight decay", "weight_decay is 0.0001, not 0.01")


def test_a_weight_is_handed_in_as_it_is_stored(nano: Trace) -> None:
    """Its gradient is transposed too, and is no second mistake."""
    setup, name = setup_of(nano), "bert.encoder.layer.1.attention.self.key.weight"
    wrong = setup.replace(weights={**setup.weights, name: setup.weights[name].T}, dropout=None)
    tensors = collected(wrong.replace(recipe=replace(setup.recipe, rules=("adam",), steps=(1,))))
    mine = {n: a for n, a in tensors.items() if a.dtype.kind == "f"}
    mine[f"gradient/{name}"] = mine[f"gradient/{name}"].T
    start, size = nano.layout.starts[name], setup.weights[name].size
    for buffer in ("parameters", "m", "v"):
        part = mine[f"training/adam/step_1/{buffer}"][start : start + size]
        part[...] = part.reshape(setup.weights[name].shape).T.reshape(-1)
    assert diagnosis_of(mine, nano).causes == (f"{name} is transposed",)


def test_scores_are_understood_before_and_after_the_mask(nano: Trace) -> None:
    setup, cause = setup_of(nano), "the attention mask is inverted (1 for padding)"
    hypotheses = [g for h in HYPOTHESES["activation"] for g in h(setup, f"{FORWARD}logits")]
    wrong = next(guess for guess in hypotheses if guess.cause == cause)
    raw = forward_of(wrong.setup)
    name = f"{FORWARD}bert.encoder.layer.0.attention.self.scores"
    masked = raw | {name: raw[name] - 1e4 * setup.mask[:, None, None, :]}
    for mine in (raw, masked):
        assert diagnosis_of(mine, nano).causes == (cause,)


def test_the_report(nano: Trace) -> None:
    mine = {"logits": nano.read("activation/logits") + 1, "loss": nano.read("activation/loss")}
    comparison = compare(mine, nano)
    text = as_text(comparison, Diagnosis(("a cause",), 3))
    assert "2 tensors compared, 1 out of the float64 budget" in text
    formula = "its formula: bert.pooler·weightᵀ + bias"
    assert text.endswith(f"first out: activation/logits\n{formula}\nlikely cause: a cause")
    assert "loss" not in as_text(comparison, None, only_out=True)
    gradient = "gradient/bert.pooler.dense"
    wrong = compare({gradient: nano.read(gradient) + 1}, nano)
    formula = "d(bert.pooler)·(1 − bert.pooler²)"
    assert as_text(wrong, None).endswith(f"first out: {gradient}\nits formula: {formula}")
    assert as_dict(wrong, None)["formula"] == formula
    mine["logits"][0, 0] = math.nan
    said = as_dict(compare(mine, nano), None)
    assert (said["passed"], said["first_out"], said["cause"]) == (False, "activation/logits", None)
    assert said["tensors"][0]["error"] is None


def test_the_report_says_which_parameter(nano: Trace) -> None:
    name = "training/adam/step_1/m"
    wrong = nano.read(name).copy()
    start = nano.layout.starts["classifier.weight"]
    wrong[start : start + 5] *= 2
    lines = as_text(compare({name: wrong}, nano), None).splitlines()
    assert lines[0].endswith("  OUT  (worst: classifier.weight)")
    right = as_text(compare({name: nano.read(name)}, nano), None)
    assert "worst" not in right


def test_the_report_says_what_is_thinned(nano: Trace, tmp_path: Path) -> None:
    write_trace(tmp_path / "thin", setup_of(nano).replace(recipe=None, dropout=None), limit=20)
    name = "activation/bert.embeddings.sum"
    thin = Trace.open(tmp_path / "thin")
    for factor, end in ((1, "(thinned)"), (2, "OUT  (thinned)")):
        text = as_text(compare({name: factor * nano.read(name)}, thin), None)
        assert text.splitlines()[0].endswith(end)


def test_an_update_that_no_guess_makes_is_unknown(nano: Trace) -> None:
    """Even beside guesses with fewer layers, whose buffers are shorter."""
    name = "training/adamw_torch/step_1/parameters"
    mine = nano.read(name)
    assert not diagnosis_of({name: mine + 0.5 * (mine - mine[::-1])}, nano).causes
