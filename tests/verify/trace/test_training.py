"""Training in a trace: what is saved for speed changes no bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from traces import setup_of_head

from minibert.backend.numpy_backend import NumpyBackend
from minibert.verify.coverage import plain_functions
from minibert.verify.trace.setup import ADAM_RULES, Recipe, Setup
from minibert.verify.trace.tensors import layout_of, trained
from minibert.verify.trace.unused import WORDS, places_of

GELU = {n: f for n, f in plain_functions().items() if n in ("gelu_forward", "gelu_backward")}


def bytes_of(setup: Setup) -> dict[str, bytes]:
    return {tensor.name: tensor.value.tobytes() for tensor in trained(setup)}


def plainly(setup: Setup, recipe: Recipe) -> dict[str, bytes]:
    """Rule by rule, so that no gradient is shared; with functions, so that no row is left out."""
    found: dict[str, bytes] = {}
    for rule in recipe.rules:
        alone = replace(recipe, rules=(rule,))
        found |= bytes_of(setup.replace(recipe=alone, functions=GELU))
    return found


@pytest.mark.parametrize("head", ["single-label classification", "masked LM"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "changes", [{}, {"decay_all": True}, {"zero_gradients": False}, {"weight_decay": 0.0}]
)
def test_the_same_bytes(changes: dict[str, Any], dtype: str, head: str) -> None:
    setup = setup_of_head(head, (5, 3)).replace(dtype=dtype)
    recipe = Recipe(rules=ADAM_RULES, steps=(1, 3), **changes)
    fast = bytes_of(setup.replace(recipe=recipe))
    assert fast == plainly(setup, recipe)
    assert len(fast) == 4 * 2 * 3


@pytest.mark.parametrize(("functions", "times"), [({}, 1), (GELU, 2)])
def test_the_backward_gets_its_erf(functions: Any, times: int, monkeypatch: Any) -> None:
    setup = setup_of_head("single-label classification", (5, 3))
    setup = setup.replace(recipe=Recipe(rules=("adam",), steps=(2,)), functions=functions)
    calls, erf = [], NumpyBackend.erf
    monkeypatch.setattr(NumpyBackend, "erf", lambda xp, x: calls.append(x) or erf(xp, x))
    bytes_of(setup)
    assert len(calls) == times * 2 * setup.config.num_hidden_layers


def test_unused_rows_are_those_of_absent_words() -> None:
    setup = setup_of_head("single-label classification", (5, 3))
    layout, ids = layout_of(setup), setup.inputs["input_ids"]
    places = places_of(setup, layout)
    start, (V, H) = layout.starts[f"bert.{WORDS}"], layout.shapes[f"bert.{WORDS}"]
    count = np.zeros(layout.size, int)
    for part in places.used:
        count[part] += 1
    for part in places.unused:
        count[part] += 2
    absent = ~np.isin(np.arange(V), ids)
    assert absent.sum() > V / 2
    rows = count[start : start + V * H].reshape(V, H)
    np.testing.assert_array_equal(rows, np.where(absent, 2, 1)[:, None] * np.ones(H))
    count[start : start + V * H] = 1
    assert (count == 1).all()
    assert all(part.stop <= places.decayed or part.start >= places.decayed for part in places.used)


def test_a_tied_decoder_and_a_guess_use_every_row() -> None:
    masked = setup_of_head("masked LM", (5, 3))
    guess = setup_of_head("single-label classification", (5, 3)).replace(functions=GELU)
    for setup in (masked, guess):
        assert places_of(setup, layout_of(setup)).unused == []
