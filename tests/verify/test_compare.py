"""Comparison: whose tensor is meant, which shapes are understood, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from traces import NANO, random_setup, trace_of

from minibert.errors import InputError
from minibert.models import BertModel
from minibert.verify.compare import as_stored, compare, read_arrays, read_mapping
from minibert.verify.model_cases import small_config
from minibert.verify.trace.format import Trace

LAYER = "bert.encoder.layer.0."
QUERY = LAYER + "attention.self.query"


@pytest.fixture(scope="module")
def nano() -> Trace:
    return Trace.open(NANO)


def read(trace: Trace, name: str) -> Any:
    return trace.read(name).copy()


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        (QUERY, f"activation/{QUERY}"),
        ("encoder.layer.0.attention.self.query", f"activation/{QUERY}"),
        (f"{QUERY}.grad", f"gradient/{QUERY}"),
        (f"{QUERY}.weight", f"weight/{QUERY}.weight"),
        (f"{QUERY}.weight.grad", f"gradient/{QUERY}.weight"),
        ("bert.embeddings.LayerNorm.gamma", "weight/bert.embeddings.LayerNorm.weight"),
        ("bert.embeddings.LayerNorm.gamma.grad", "gradient/bert.embeddings.LayerNorm.weight"),
        ("bert.embeddings", "activation/bert.embeddings.LayerNorm"),
        (f"{LAYER}output", f"activation/{LAYER}output.LayerNorm"),
        (LAYER[:-1], f"activation/{LAYER}output.LayerNorm"),
        ("hidden_states.1", f"activation/{LAYER}output.LayerNorm"),
        ("attentions.0", f"activation/{LAYER}attention.self.probs"),
        (f"{LAYER}attention.self", f"activation/{LAYER}attention.self.context"),
        (f"{LAYER}attention.output.dropout", f"activation/{LAYER}attention.output.dense"),
        ("pooler_output", "activation/bert.pooler"),
        ("classifier", "activation/logits"),
        ("input_ids", "input/input_ids"),
        ("loss", "activation/loss"),
    ],
)
def test_names_of_transformers(name: str, golden: str, nano: Trace) -> None:
    (row,) = compare({name: read(nano, golden)}, nano).rows
    assert (row.name, row.error) == (golden, 0.0)


def test_parameters_of_a_flat_buffer_by_name(nano: Trace) -> None:
    buffer, name = "training/adam/step_3/parameters", f"{LAYER}output.dense.weight"
    start, shape = nano.layout.starts[name], nano.layout.shapes[name]
    part = read(nano, buffer)[start : start + int(np.prod(shape))].reshape(shape)
    assert compare({f"{buffer}/{name}": part}, nano).passed
    (row,) = compare({f"{buffer}/{name}": part + 1e-6}, nano).rows
    assert (row.passed, row.note) == (False, f"worst: {name}")
    assert not compare({buffer: read(nano, buffer) + 1e-6}, nano).passed


def shapes(x: Any, mask: Any) -> dict[str, Any]:
    B, S, H = x.shape
    return {
        "padded": x,
        "padded with anything": np.where(mask[..., None] == 1, x, 7.0),
        "padded further": np.concatenate([x, np.ones((B, 3, H))], axis=1),
        "packed": x[mask == 1],
        "packed, heads apart": x[mask == 1].reshape(-1, 2, 4),
        "flattened": x.reshape(B * S, H),
        "heads apart": x.reshape(B, S, 2, 4).transpose(0, 2, 1, 3),
        "heads apart, unturned": x.reshape(B, S, 2, 4),
    }


@pytest.mark.parametrize("how", shapes(np.zeros((3, 6, 8)), np.ones((3, 6))))
def test_shapes_of_token_tensors(how: str, nano: Trace) -> None:
    name = f"activation/{QUERY}"
    mine = shapes(read(nano, name), nano.mask)[how]
    assert compare({name: mine}, nano).passed
    assert not compare({name: mine * 1.01}, nano).passed


def test_sequences_of_one_token(tmp_path: Path) -> None:
    """(1, 1, H) is one position for all rows, and (T, 1, H) one head of packed tokens."""
    config = small_config(hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    trace = trace_of(random_setup(BertModel, config, (1, 1)), tmp_path / "trace")
    positions = "activation/bert.embeddings.position_embeddings"
    assert compare({positions: trace.read(positions)[:1]}, trace).passed
    for name in (positions, "activation/bert.encoder.layer.0.attention.self.value"):
        assert compare({name: trace.read(name)}, trace).passed
        assert not compare({name: trace.read(name) * 1.01}, trace).passed


@pytest.mark.parametrize("heads", [4, 8])
@pytest.mark.parametrize("length", [3, 4])
def test_as_many_heads_as_tokens_or_more(heads: int, length: int, tmp_path: Path) -> None:
    """(B, N, S, D) and (B, S, N, D) look alike, or the larger one comes second."""
    config = small_config(hidden_size=8, num_attention_heads=heads, num_hidden_layers=1)
    trace = trace_of(random_setup(BertModel, config, (length, 2)), tmp_path / "trace")
    name = "activation/bert.encoder.layer.0.attention.self.value"
    value = trace.read(name)
    B, S, H = value.shape
    apart = value.reshape(B, S, heads, H // heads)
    for mine in (apart, apart.swapaxes(1, 2)):
        assert compare({name: mine}, trace).passed
        assert not compare({name: mine * 1.01}, trace).passed


def test_shapes_of_attention_probabilities(nano: Trace) -> None:
    name = f"activation/{LAYER}attention.self.probs"
    probs = read(nano, name)
    at_padding = np.where(probs == 0, 0.1, probs)
    for mine in (probs, at_padding, probs.reshape(6, 6, 6)):
        assert compare({name: mine}, nano).passed


def test_position_embeddings_of_one_row(nano: Trace) -> None:
    name = "bert.embeddings.position_embeddings"
    table = read(nano, f"weight/{name}.weight")
    for mine in (table[:6], table[None, :6]):
        assert compare({name: mine}, nano).passed


@pytest.mark.parametrize("prefix", ["", "dropout/"])
def test_gradients_of_the_three_embeddings(prefix: str, nano: Trace) -> None:
    """A hook sees each token's; of positions that are looked up once for all rows, the sum."""
    tokens = read(nano, f"{prefix}gradient/bert.embeddings.sum")
    name = f"{prefix}bert.embeddings.{{}}_embeddings.grad"
    for table in ("word", "token_type", "position"):
        for mine in (tokens, tokens[nano.mask == 1]):
            assert compare({name.format(table): mine}, nano).passed
            assert not compare({name.format(table): mine * 1.01}, nano).passed
    once = tokens.sum(axis=0)
    longer = np.concatenate([once, np.ones((2, 8))])[None]
    for mine in (once, once[None], longer):
        (row,) = compare({name.format("position"): mine}, nano).rows
        assert row.name == f"{prefix}gradient/bert.embeddings.position_embeddings"
        assert row.passed
        assert not compare({name.format("position"): mine * 1.01}, nano).passed
    with pytest.raises(InputError, match=r"has shape \(5, 8\), want \(3, 6, 8\)"):
        compare({name.format("position"): once[:5]}, nano)


def test_gradients_of_every_dropout(nano: Trace) -> None:
    """Where it is off, that of what it lets through."""
    for i in range(2):
        probs = f"gradient/bert.encoder.layer.{i}.attention.self."
        for mine, golden in (("dropout", "probs"), ("probs", "probs")):
            value = read(nano, probs + golden)
            assert compare({probs + mine: value}, nano).passed
        dropped = read(nano, f"dropout/{probs}dropout")
        keep = read(nano, f"dropout/keep/bert.encoder.layer.{i}.attention.self.dropout")
        scale = 65536 / (65536 - round(0.2 * 65536))
        assert compare({f"dropout/{probs}probs": dropped * keep * scale}, nano).passed
    assert compare(
        {"bert.embeddings.dropout.grad": read(nano, "gradient/bert.embeddings.LayerNorm")}, nano
    ).passed
    assert "dropout/gradient/bert.embeddings.dropout" in nano.entries


def test_a_module_and_its_parent_are_both_looked_at(nano: Trace) -> None:
    right = read(nano, "activation/bert.embeddings.LayerNorm")
    pair = {"bert.embeddings.LayerNorm": right, "bert.embeddings": right * 1.1}
    assert not compare(pair, nano).passed
    assert not compare(dict(reversed(pair.items())), nano).passed


def test_float32_has_float32_budgets(nano: Trace) -> None:
    name = "activation/bert.pooler"
    single = read(nano, name).astype(np.float32)
    assert compare({name: single}, nano).passed
    assert not compare({name: single.astype(float)}, nano).passed
    assert compare({name: single.astype(float)}, nano, dtype="float32").passed
    assert compare({name: single.astype(np.float16)}, nano).dtype == "float16"


def test_key_bias_gradients_have_an_absolute_bound(nano: Trace) -> None:
    name = f"gradient/{LAYER}attention.self.key.bias"
    assert nano.entries[name].scale > 0
    assert compare({name: np.full(8, 1e-17)}, nano).passed
    assert not compare({name: np.full(8, 1e-9)}, nano).passed


def test_a_mapping_file(nano: Trace, tmp_path: Path) -> None:
    file = tmp_path / "map.json"
    file.write_text(json.dumps({"q0": QUERY, "junk": None}))
    mine = {"q0": read(nano, f"activation/{QUERY}"), "junk": np.zeros(3)}
    assert compare(mine, nano, mapping=read_mapping(file)).passed
    file.write_text('{"q0": 3}')
    with pytest.raises(InputError, match="q0: got 3, want a name of the trace, or null"):
        read_mapping(file)
    file.write_text(json.dumps({"later": "pooler_outptu"}))
    message = "the mapping file makes 'later' an unknown tensor 'pooler_outptu': the nearest name"
    with pytest.raises(InputError, match=message):
        compare({"loss": read(nano, "activation/loss")}, nano, mapping=read_mapping(file))


def test_a_mapped_name_and_what_it_was_taken_for(nano: Trace) -> None:
    mine = {"lg": np.zeros((3, 4))}
    with pytest.raises(InputError, match=r"^lg \(taken for activation/logits\) has shape \(3, 4\)"):
        compare(mine, nano, mapping={"lg": "logits"})
    mine = {"m": np.zeros(5)}
    name = "training/adam/step_1/m"
    with pytest.raises(InputError, match=rf"^m \(taken for {name}\) has shape"):
        compare({"given": mine["m"]} | mine, nano, mapping={"m": name, "given": None})


def test_two_names_for_one_tensor(nano: Trace) -> None:
    mine = {"a": read(nano, "activation/logits"), "b": np.zeros((3, 3))}
    message = "the mapping file makes both 'a' and 'b' 'activation/logits': map one of them to null"
    with pytest.raises(InputError, match=message):
        compare(mine, nano, mapping={"a": "logits", "b": "activation/logits"})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [1e145, 1e305])
def test_numbers_too_large_to_be_squared(factor: float, nano: Trace) -> None:
    mine = {"logits": read(nano, "activation/logits") * factor, "loss": np.array(factor)}
    rows = as_stored(compare(mine, nano)).rows
    assert not any(row.passed for row in rows)
    assert all("so large that its square overflows" in row.note for row in rows)


def test_inputs_are_whole_numbers(nano: Trace) -> None:
    mine = {"input_ids": read(nano, "input/input_ids").astype(np.int32)}
    mine["attention_mask"] = nano.mask.astype(bool)
    assert compare(mine, nano).passed
    assert compare({"attention_mask": nano.mask.astype(np.float32)}, nano).passed


def test_files(nano: Trace, tmp_path: Path) -> None:
    arrays = {"loss": np.asarray(read(nano, "activation/loss"), np.float32)}
    save_file(arrays, tmp_path / "mine.safetensors")
    np.savez(tmp_path / "mine.npz", **arrays)
    for name in ("mine.safetensors", "mine.npz"):
        read_back, dtype = read_arrays(tmp_path / name)
        assert (list(read_back), dtype) == (["loss"], "float32")


# ---- Bad input ----


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        ({"bert.encoder.layer.0.attention.self.qeury": np.zeros(3)},
         r"unknown tensor .* the nearest name that nano.json has is "
         r"'bert.encoder.layer.0.attention.self.query'"),
        ({"weight/bert.encoder.layer.0.intermediate.dense.weight": np.zeros((8, 12))},
         r"has shape \(8, 12\), want \(12, 8\): transpose\(1, 0\) would fit"),
        ({QUERY: np.zeros((6, 3, 8))},
         r"has shape \(6, 3, 8\), want \(3, 6, 8\) or, packed, \(16, 8\): transpose\(1, 0, 2\)"),
        ({"training/adam/step_1/m/classifier.weight": np.zeros((8, 3))}, r"want \(3, 8\)"),
        ({"training/adam/step_4/m": np.zeros(3)}, "unknown tensor"),
        ({"x7": np.zeros(3)},
         r"unknown tensor 'x7': nano.json, which lists all names, has none like it; rename it"),
        ({QUERY: np.zeros((3, 6, 8), complex)},
         rf"{QUERY} is complex128, want a floating dtype \(as nano.json's activation/{QUERY}\)"),
        ({"loss": np.array(1)}, "loss is int64, want a floating dtype"),
        ({"classifier.weight": np.zeros((3, 8), int)}, "is int64, want a floating dtype"),
        ({"training/adam/step_1/m": np.zeros(1403, int)}, "is int64, want a floating dtype"),
        ({"input_ids": np.zeros((3, 6), complex)}, "is complex128, want whole numbers or a float"),
        ({}, "there is no tensor to compare"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(mine: dict[str, Any], message: str, nano: Trace) -> None:
    with pytest.raises(InputError, match=message):
        compare(mine, nano)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_named_first(value: float, nano: Trace) -> None:
    """Even where an earlier tensor is out as well."""
    wrong = read(nano, f"activation/{QUERY}") + 1
    late = read(nano, "activation/logits")
    late[1, 2] = value
    comparison = compare({QUERY: wrong, "logits": late}, nano)
    assert comparison.first_out is not None
    assert comparison.first_out.name == "activation/logits"
    assert comparison.first_out.note == f"holds {value} at [1, 2]"


NONE = [
    "absent.npz",
    "text.npz",
    "text.safetensors",
    "empty.npz",
    "cut.npz",
    "one.npy",
    "objects.npz",
]


@pytest.mark.parametrize("name", NONE)
def test_files_that_are_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "text.safetensors").write_text("no tensors")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "cut.npz", x=np.zeros(99))
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-99])
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", x=np.array([None, "text"], object))
    with pytest.raises(InputError, match=name) as raised:
        read_arrays(tmp_path / name)
    assert "pickle" not in str(raised.value)
    assert "\n" not in str(raised.value)
