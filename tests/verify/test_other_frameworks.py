"""Implementations that nobody here wrote: ONNX Runtime and keras-hub, forward only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traces import NANO, trace_of

from minibert.verify.compare import compare
from minibert.verify.diagnosis import diagnose
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.writing import setup_of

pytestmark = [
    pytest.mark.crosscheck,
    # Other projects' own deprecations are theirs to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def nano() -> Trace:
    return Trace.open(NANO)


def test_onnx_runtime(nano: Trace, tmp_path: Path) -> None:
    """transformers' model exported by PyTorch, run by ONNX Runtime in float32."""
    torch = pytest.importorskip("torch", reason="PyTorch exports the model")
    onnxruntime = pytest.importorskip("onnxruntime", reason="python -m pip install onnxruntime")
    pytest.importorskip("onnxscript", reason="python -m pip install onnx onnxscript")
    from minibert.verify.transformers_run import load

    setup = setup_of(nano)
    model = load(setup, "float32", "eager")
    model.config.output_hidden_states = True
    model.config.return_dict = False
    names = ("input_ids", "attention_mask", "token_type_ids")
    arguments = tuple(torch.tensor(setup.inputs[name]) for name in names)
    states = [f"hidden_states.{i}" for i in range(3)]
    file = tmp_path / "bert.onnx"
    torch.onnx.export(
        model, arguments, str(file), input_names=names, output_names=["logits", *states],
        dynamo=True, verbose=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    results = session.run(None, {name: setup.inputs[name] for name in names})
    comparison = compare(dict(zip(["logits", *states], results, strict=True)), nano)
    assert comparison.dtype == "float32"
    assert comparison.passed, comparison.first_out


def test_keras_hub(nano: Trace, tmp_path: Path) -> None:
    """keras-hub's BertBackbone, with the weights put in its own order and shapes.

    Its GELU is the tanh form, as in Google's BERT: of another than ours it is rightly accused.
    Float32 alone: in a float64 model Keras 3.15 on JAX computes layer norm and tanh in float32 all
    the same (`result_type("float64", "float32")` is float32 there), and loses 9e-8 in all.
    """
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras_hub = pytest.importorskip("keras_hub", reason="python -m pip install keras-hub jax")
    setup = setup_of(nano)
    config = setup.config.replace(hidden_act="gelu_new")
    trace = trace_of(setup.replace(config=config, recipe=None, dropout=None), tmp_path / "trace")
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=config.vocab_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        hidden_dim=config.hidden_size,
        intermediate_dim=config.intermediate_size,
        max_sequence_length=config.max_position_embeddings,
        num_segments=config.type_vocab_size,
        dtype="float32",
    )
    load_keras(backbone, setup)
    output = backbone(
        {
            "token_ids": setup.inputs["input_ids"],
            "padding_mask": setup.inputs["attention_mask"],
            "segment_ids": setup.inputs["token_type_ids"],
        }
    )
    mine = {
        "hidden_states.2": np.asarray(output["sequence_output"]),
        "pooler_output": np.asarray(output["pooled_output"]),
    }
    comparison = compare(mine, trace)
    assert comparison.passed, comparison.first_out
    diagnosis = diagnose(compare(mine, nano), nano, setup)
    assert len(diagnosis.causes) == 1
    assert diagnosis.causes[0].startswith("the activation is GELU by tanh")


def load_keras(backbone: Any, setup: Setup) -> None:
    """Their variables are (in, out), and attention's have the heads as an axis of their own."""
    w = {name: np.asarray(array) for name, array in setup.weights.items()}
    H, N, D = setup.config.hidden_size, setup.config.num_attention_heads, setup.config.head_size

    def linear(layer: Any, name: str) -> None:
        layer.set_weights([w[f"{name}.weight"].T, w[f"{name}.bias"]])

    def norm(layer: Any, name: str) -> None:
        layer.set_weights([w[f"{name}.weight"], w[f"{name}.bias"]])
        layer.epsilon = setup.config.layer_norm_eps  # theirs is fixed at 1e-12 and 1e-5

    embeddings = "bert.embeddings."
    names = {
        "token_embedding": "word_embeddings",
        "position_embedding": "position_embeddings",
        "segment_embedding": "token_type_embeddings",
    }
    for layer, name in names.items():
        backbone.get_layer(layer).set_weights([w[f"{embeddings}{name}.weight"]])
    norm(backbone.get_layer("embeddings_layer_norm"), f"{embeddings}LayerNorm")
    for i in range(setup.config.num_hidden_layers):
        layer, prefix = backbone.get_layer(f"transformer_layer_{i}"), f"bert.encoder.layer.{i}."
        attention = layer._self_attention_layer
        for part in ("query", "key", "value"):
            name = f"{prefix}attention.self.{part}"
            getattr(attention, f"_{part}_dense").set_weights(
                [w[f"{name}.weight"].T.reshape(H, N, D), w[f"{name}.bias"].reshape(N, D)]
            )
        name = f"{prefix}attention.output.dense"
        attention._output_dense.set_weights(
            [w[f"{name}.weight"].T.reshape(N, D, H), w[f"{name}.bias"]]
        )
        norm(layer._self_attention_layer_norm, f"{prefix}attention.output.LayerNorm")
        linear(layer._feedforward_intermediate_dense, f"{prefix}intermediate.dense")
        linear(layer._feedforward_output_dense, f"{prefix}output.dense")
        norm(layer._feedforward_layer_norm, f"{prefix}output.LayerNorm")
    linear(backbone.get_layer("pooled_dense"), "bert.pooler.dense")
