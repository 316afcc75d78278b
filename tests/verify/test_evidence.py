"""No cause is named by accident: a number or two fit some mistake that nobody made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from traces import NANO

from minibert.verify.compare import compare
from minibert.verify.diagnosis import Diagnosis, diagnose
from minibert.verify.hypotheses.activation import _sigmoid_gate
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import collected
from minibert.verify.trace.writing import setup_of

LOSS = "activation/loss"


@pytest.fixture(scope="module")
def nano() -> Trace:
    return Trace.open(NANO)


def diagnosis_of(mine: dict[str, Any], trace: Trace) -> Diagnosis:
    return diagnose(compare(mine, trace), trace, setup_of(trace))


def forward_of(setup: Setup) -> dict[str, Any]:
    return collected(setup.replace(recipe=None, dropout=None))


def rounded(setup: Setup, bits: int) -> Setup:
    """With weights of so many bits fewer: 13 leave float16's precision, 16 bfloat16's."""

    def cut(w: Any) -> Any:
        return (np.asarray(w, np.float32).view(np.uint32) >> bits << bits).view(np.float32)

    return setup.replace(weights={name: cut(w) for name, w in setup.weights.items()})


@pytest.mark.parametrize("mistake", ["x·σ(1.7x)", "float16", "bfloat16"])
def test_a_loss_in_float32_accuses_nobody(mistake: str, nano: Trace) -> None:
    setup = setup_of(nano).replace(dtype="float32")
    setup = {
        "x·σ(1.7x)": setup.replace(functions=_sigmoid_gate("gelu", 1.7)),
        "float16": rounded(setup, 13),
        "bfloat16": rounded(setup, 16),
    }[mistake]
    diagnosis = diagnosis_of({"loss": forward_of(setup)[LOSS]}, nano)
    assert diagnosis.causes == ()
    assert str(diagnosis).startswith("unknown: ")


def test_the_advice(nano: Trace) -> None:
    """Quick GELU's loss is near that of x·σ(1.7x), and in float32 of two more."""
    wrong = setup_of(nano).replace(functions=_sigmoid_gate("gelu", 1.702))
    loss = forward_of(wrong)[LOSS]
    assert str(diagnosis_of({"loss": loss.astype(np.float32)}, nano)) == (
        "unknown: too few numbers of float32 to tell: hand in more, or float64"
    )
    cause = "the activation is x·sigmoid(1.702·x) (quick GELU)"
    assert str(diagnosis_of({"loss": loss}, nano)) == cause


@pytest.mark.parametrize("seed", range(3))
def test_numbers_drawn_by_lot_have_no_cause(seed: int, nano: Trace) -> None:
    """As far out as common mistakes are."""
    size = 10 ** -np.random.default_rng(seed).uniform(1, 4)
    loss = np.float32(nano.read(LOSS) * (1 + size))
    assert diagnosis_of({"loss": np.asarray(loss)}, nano).causes == ()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_part_is_more_than_one_tensor(dtype: str, nano: Trace) -> None:
    """Queries as if the layers were reversed, but the keys deny that."""
    query, key = (f"activation/bert.encoder.layer.0.attention.self.{n}" for n in ("query", "key"))
    setup = setup_of(nano)
    weights = {name: setup.weights[name.replace("layer.0", "layer.1")] for name in setup.weights}
    wrong = forward_of(setup.replace(weights=weights))
    mine = {query: wrong[query], key: nano.read(key), "loss": nano.read(LOSS) + 1}
    diagnosis = diagnosis_of({n: a.astype(dtype) for n, a in mine.items()}, nano)
    assert str(diagnosis).startswith("unknown: none of ")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("factor", [2.0, 1024.0, 0.0625, 0.3])
def test_gradients_with_a_factor(factor: float, dtype: str, nano: Trace) -> None:
    mine = {
        name: (factor * nano.read(name)).astype(dtype)
        for name in nano.names()
        if name.startswith("gradient/")
    }
    words = {
        2.0: "2 (accumulated twice, or a loss scale is left in)",
        1024.0: "1024 (accumulated 1024 times, or a loss scale is left in)",
    }.get(factor, f"{factor} (clipped, or divided by more than the loss is)")
    cause = f"every gradient is multiplied by {words}"
    causes = diagnosis_of(mine, nano).causes
    assert causes[-1] == cause
    assert (len(causes) == 1) == (factor != 2.0)
    parameters = {
        n: a for n, a in mine.items() if n.removeprefix("gradient/") in nano.layout.shapes
    }
    assert cause in diagnosis_of(parameters, nano).causes
    rest = {n: nano.read(n).astype(dtype) for n in mine.keys() - parameters.keys()}
    cause = cause.replace("gradient", "parameter's gradient")
    assert diagnosis_of(parameters | rest, nano).causes == (cause,)


def test_one_gradient_with_a_factor_is_no_loss_scale(nano: Trace) -> None:
    names = [n for n in nano.names() if n.startswith("gradient/") and n.endswith(".weight")]
    mine = {name: nano.read(name) * (2.0 if name == names[3] else 1.0) for name in names}
    assert not [c for c in diagnosis_of(mine, nano).causes if "multiplied" in c]


TANH = "the activation is GELU by tanh (hidden_act gelu_new), not GELU by the true erf"
QUICK = "the activation is x·sigmoid(1.702·x) (quick GELU)"


def tanh_gelu(inner: float, cubic: float) -> Any:
    """Without its backward: for a forward alone."""

    def forward(xp: Any, x: Any) -> Any:
        inside = np.asarray(inner, x.dtype) * (x + np.asarray(cubic, x.dtype) * x**3)
        return 0.5 * x * (1 + np.tanh(inside)), None

    return {"gelu_forward": forward}


@pytest.mark.parametrize(
    ("functions", "dtype", "cause", "exact"),
    [
        (tanh_gelu((2 / np.pi) ** 0.5, 0.044715), "float64", TANH, True),
        (tanh_gelu((2 / np.pi) ** 0.5, 0.044715), "float32", TANH, True),
        (tanh_gelu(0.79788, 0.044715), "float64", TANH, False),
        (tanh_gelu(0.79788, 0.044715), "float32", TANH, False),  # within all of its budgets
        (tanh_gelu(0.797885, 0.044715), "float64", TANH, False),
        (tanh_gelu(0.797885, 0.044715), "float32", TANH, True),  # off by no more than it rounds
        (tanh_gelu((2 / np.pi) ** 0.5, 0.0447), "float64", TANH, False),
        (tanh_gelu((2 / np.pi) ** 0.5, 0.0447), "float32", TANH, False),
        (_sigmoid_gate("gelu", 1.702), "float64", QUICK, True),
        (_sigmoid_gate("gelu", 1.702), "float32", QUICK, True),
    ],
)
def test_a_constant_that_is_off(
    functions: Any, dtype: str, cause: str, exact: bool, nano: Trace
) -> None:
    inputs = {name: a for name, a in setup_of(nano).inputs.items() if name != "labels"}
    setup = setup_of(nano).replace(dtype=dtype, inputs=inputs, functions=functions)
    mine = {n: a for n, a in forward_of(setup).items() if n.startswith("activation/")}
    words = cause if exact else f"{cause}, or nearly that: a constant may be off"
    assert str(diagnosis_of(mine, nano)) == words
