"""Traces of every head: what they hold, and that minibert's fast path stays within budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from traces import random_setup, setup_of_head, trace_of

from minibert.errors import InputError
from minibert.models import BertModel
from minibert.verify.compare import compare
from minibert.verify.model_cases import KINDS, small_config
from minibert.verify.trace.format import Trace, checksum
from minibert.verify.trace.tensors import collected
from minibert.verify.trace.writing import setup_of


@pytest.mark.parametrize("name", KINDS)
def test_a_head(name: str, tmp_path: Path) -> None:
    """Its parameters all have a gradient; the public API and float32 stay within the budgets."""
    setup = setup_of_head(name)
    trace = trace_of(setup, tmp_path / "trace")
    assert {f"gradient/{n}" for n in setup.weights} <= trace.entries.keys()
    model = setup.kind(
        setup.config, backend="numpy", dtype="float32", threads=2, arrays=dict(setup.weights)
    )
    output, gradients = model.loss_and_gradients(**setup.inputs)
    mine = {f"{name}.grad": np.asarray(array) for name, array in gradients.items()}
    mine["loss"] = np.asarray(output.loss)
    fast = compare(mine, trace, dtype="float32")
    plain = compare(collected(setup_of(trace).replace(dtype="float32")), trace, dtype="float32")
    for comparison in (fast, plain):
        assert comparison.passed, comparison.first_out
    assert len(plain.rows) == sum(
        "/" in n and n[:6] not in ("input/", "weight") for n in trace.names()
    )


def test_a_model_without_a_loss_has_a_forward_only(tmp_path: Path) -> None:
    config = small_config()
    setup = random_setup(BertModel, config)
    trace = trace_of(setup, tmp_path / "trace")
    assert not any(name.startswith("gradient/") for name in trace.names())
    model = BertModel(config, backend="numpy", dtype="float64", arrays=dict(setup.weights))
    output = model(**setup.inputs, output_hidden_states=True, output_attentions=True)
    mine = {f"hidden_states.{i}": state for i, state in enumerate(output.hidden_states)}
    mine |= {f"attentions.{i}": probs for i, probs in enumerate(output.attentions)}
    mine |= {n: getattr(output, n) for n in ("last_hidden_state", "pooler_output")}
    assert compare(mine, trace).passed


def test_large_tensors_are_thinned(tmp_path: Path) -> None:
    setup = setup_of_head("token classification")
    trace = trace_of(setup, tmp_path / "trace", limit=100)
    name = "gradient/bert.encoder.layer.0.intermediate.dense.weight"
    entry, whole = trace.entries[name], collected(setup)[name]
    assert entry.stride > 1
    assert np.gcd(entry.stride, whole.shape[-1]) == 1
    np.testing.assert_array_equal(trace.read(name), whole.reshape(-1)[:: entry.stride])
    assert entry.checksum == pytest.approx(checksum(whole.reshape(-1)))
    mine = collected(setup.replace(recipe=None))
    assert compare(mine, trace).passed
    wrong = whole.copy()
    wrong[1, 1] += 1e-3 * np.linalg.norm(whole)  # between the stored elements
    assert not compare({name: wrong}, trace).passed
    wrong = whole.copy()
    wrong[[0, 1]] = wrong[[1, 0]]  # the norm is the same
    assert not compare({name: wrong}, trace).passed


def test_parameters_of_a_thinned_buffer(tmp_path: Path) -> None:
    """Whole buffers and single parameters are both understood; a key's bias is left out."""
    setup = setup_of_head("token classification").replace(dropout=None)
    trace = trace_of(setup, tmp_path / "trace", limit=500)
    name, parameter = "training/adam/step_2/m", "classifier.weight"
    whole, start = collected(setup)[name], trace.layout.starts[parameter]
    shape = trace.layout.shapes[parameter]
    part = whole[start : start + int(np.prod(shape))].reshape(shape)
    assert trace.entries[name].stride > 1
    assert compare({name: whole}, trace).passed
    assert compare({f"{name}/{parameter}": part}, trace).passed
    assert not compare({f"{name}/{parameter}": part * 1.001}, trace).passed
    assert not compare({name: whole * 1.001}, trace).passed
    blind = "bert.encoder.layer.0.attention.self.key.bias"
    bias = trace.layout.starts[blind]
    whole[bias : bias + trace.layout.shapes[blind][0]] += 1.0
    assert compare({name: whole}, trace).passed


def test_float32_traces(tmp_path: Path) -> None:
    setup = setup_of_head("regression").replace(dtype="float32", recipe=None, dropout=None)
    trace = trace_of(setup, tmp_path / "trace")
    assert trace.read("activation/loss").dtype == np.float32
    assert compare(collected(setup.replace(dtype="float64")), trace, dtype="float32").passed


def test_the_checksum_is_what_the_format_says() -> None:
    x = np.random.default_rng(0).normal(size=1000)
    want = sum(value * ((i % 257) - 128) / 128 for i, value in enumerate(x))
    assert checksum(x) == pytest.approx(want, rel=1e-12)


# ---- Bad files ----


def damaged(tmp_path: Path, old: str, new: str) -> Path:
    path = tmp_path / "trace"
    trace_of(setup_of_head("next sentence").replace(recipe=None, dropout=None), path)
    file = path.with_suffix(".json")
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("minibert-trace/1", "minibert-trace/2", "got the format 'minibert-trace/2', wanted"),
        ('"sha256": "', '"sha256": "0', "are not of one trace"),
        ('"tensors"', '"tensor"', "not a whole trace"),
        ('"config"', '"configuration"', "not a whole trace .it lacks 'config'.; make it again"),
        ('"input/input_ids"', '"input/ids"', "input/ids is in only one of the trace's two files"),
    ],
)
def test_a_damaged_trace_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = damaged(tmp_path, old, new)
    with pytest.raises(InputError, match=message):
        Trace.open(path)
