"""A right port is never accused: random models of random configuration, in float32 and float64.

The right ports are minibert's own fast path and PyTorch, whose attention comes in two kernels with
sums in another order. SHARP models have large scores: their softmax is ill-conditioned, and so are
the gradients before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traces import random_setup, trace_of

from minibert import BertConfig
from minibert.models import BertForQuestionAnswering
from minibert.verify.compare import compare
from minibert.verify.model_cases import KINDS, SHARP
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Recipe, Setup

SEEDS = range(100, 200)
HEADS = [name for name in KINDS if name != "sentence embedding"]  # which transformers has not


def random_case(seed: int, attention: float) -> Setup:
    """A random head on a random configuration, with a batch of random lengths."""
    rng = np.random.default_rng(seed)
    heads, size = int(rng.integers(1, 5)), int(rng.integers(2, 9))
    kind, changes = KINDS[HEADS[seed % len(HEADS)]]
    config = BertConfig(
        vocab_size=int(rng.integers(20, 60)),
        hidden_size=heads * size,
        num_attention_heads=heads,
        num_hidden_layers=int(rng.integers(1, 5)),
        intermediate_size=int(rng.integers(3, 40)),
        max_position_embeddings=12,
        hidden_act=str(rng.choice(["gelu", "gelu_new", "relu"])),
        layer_norm_eps=float(rng.choice([1e-12, 1e-5])),
        num_labels=int(rng.integers(2, 6)),
    )
    fixed = {name: value for name, value in changes.items() if name != "hidden_act"}
    rows = 2 * int(rng.integers(1, 4))
    # transformers' loss of a span takes padding in; minibert's does not
    low = 11 if kind is BertForQuestionAnswering else 1
    lengths = tuple(int(n) for n in rng.integers(low, 12, rows))
    setup = random_setup(kind, config.replace(**fixed), lengths, seed, attention)
    return setup.replace(recipe=Recipe(rules=("adamw_torch", "adam"), steps=(1, 3)))


def assert_right(mine: dict[str, Any], trace: Trace, dtype: str, seed: int) -> None:
    comparison = compare(mine, trace, dtype=dtype)
    assert comparison.passed, f"seed {seed}, {dtype}: {comparison.first_out}"


def fast_path(setup: Setup, dtype: str) -> dict[str, Any]:
    """minibert's public API: its twins in float32, BLAS in float64, two threads."""
    model = setup.kind(
        setup.config, backend="numpy", dtype=dtype, threads=2, arrays=dict(setup.weights)
    )
    inputs = {n: a for n, a in setup.inputs.items() if "label" not in n and "position" not in n}
    output = model(**inputs, output_hidden_states=True)
    trained, gradients = model.loss_and_gradients(**setup.inputs)
    mine = {f"{name}.grad": array for name, array in gradients.items()}
    mine |= {f"hidden_states.{i}": x for i, x in enumerate(output.hidden_states)}
    return mine | {"loss": np.asarray(trained.loss)}


def assert_minibert_passes(seed: int, attention: float, path: Path) -> None:
    setup = random_case(seed, attention).replace(recipe=None)
    trace = trace_of(setup, path)
    for dtype in ("float32", "float64"):
        assert_right(fast_path(setup, dtype), trace, dtype, seed)


@pytest.mark.parametrize("attention", [1.0, SHARP])
@pytest.mark.parametrize("seed", [0, 1, 107, 157])
def test_minibert(seed: int, attention: float, tmp_path: Path) -> None:
    assert_minibert_passes(seed, attention, tmp_path / "trace")


@pytest.mark.slow
@pytest.mark.parametrize("attention", [1.0, SHARP])
def test_minibert_a_hundred_times(attention: float, tmp_path: Path) -> None:
    for seed in SEEDS:
        assert_minibert_passes(seed, attention, tmp_path / "trace")


@pytest.mark.crosscheck
@pytest.mark.parametrize("attention", [1.0, SHARP])
def test_pytorch_a_hundred_times(attention: float, tmp_path: Path) -> None:
    """Every activation, gradient, and the training under two rules, by both of its attentions."""
    pytest.importorskip("torch", reason="cross-checks need the [crosscheck] extra")
    pytest.importorskip("transformers", reason="the oracle is transformers")
    from minibert.verify.transformers_run import run_transformers

    for seed in SEEDS:
        setup = random_case(seed, attention)
        trace = trace_of(setup, tmp_path / "trace")
        for dtype in ("float32", "float64"):
            for kernel in ("eager", "sdpa"):
                assert_right(run_transformers(setup, dtype, kernel), trace, dtype, seed)
