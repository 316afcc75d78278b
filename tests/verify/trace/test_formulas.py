"""Every gradient's formula, read and evaluated on the trace's own tensors.

Nothing of minibert's arithmetic is used: each formula is one step of a backward, from the tensors
that it names to the one that it stands at. A formula that is worded in a new way fails until its
step is written in `formula_steps`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from formula_place import Place, merged
from formula_steps import meaning_of
from traces import NANO, setup_of_head, trace_of

from minibert.verify.budget import error_of
from minibert.verify.model_cases import KINDS
from minibert.verify.trace.catalogue import INTO_LAYER
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Setup


def check(trace: Trace) -> None:
    """Every gradient of a trace, in float64's budget."""
    gradients = [n for n in trace.names() if n.removeprefix("dropout/").startswith("gradient/")]
    assert gradients
    for name in gradients:
        entry, golden = trace.entries[name], trace.read(name)
        steps = list(meaning_of(entry.formula))
        assert len(steps) == 1, f"{name}: {len(steps)} steps read {entry.formula!r}"
        step, names = steps[0]
        mine = step(Place(trace, name), **names)
        assert mine.shape == golden.shape, (name, mine.shape)
        error = error_of(mine, golden, entry.scale)
        assert error <= entry.budget("float64"), (name, entry.formula, error)


def test_of_nano() -> None:
    check(Trace.open(NANO))


def setups() -> dict[str, Setup]:
    """Every head, every loss and every activation."""
    heads = {name: setup_of_head(name).replace(recipe=None) for name in KINDS}
    pairs = heads["sentence embedding"]
    labelled = pairs.inputs | {"labels": np.array([0.5, -0.25, 1.0])}
    relu = heads["single-label classification"]
    both = heads["pre-training"]
    one = {name: dict(both.inputs) for name in ("next_sentence_label", "labels")}
    for name, inputs in one.items():
        del inputs[name]
    return heads | {
        "pre-training on words alone": both.replace(inputs=one["next_sentence_label"]),
        "pre-training on relations alone": both.replace(inputs=one["labels"]),
        "sentence embedding, labelled": pairs.replace(inputs=labelled),
        "relu": relu.replace(config=relu.config.replace(hidden_act="relu")),
        "without a padding token": relu.replace(config=relu.config.replace(pad_token_id=None)),
    }


SETUPS = setups()


@pytest.mark.parametrize("name", SETUPS)
def test_of_every_head(name: str, tmp_path: Path) -> None:
    check(trace_of(SETUPS[name], tmp_path / "trace"))


LAYER = "gradient/bert.encoder.layer.0."


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        (f"{LAYER}output.dense", "d(attention.output.residual)"),
        (f"{LAYER}output.LayerNorm", INTO_LAYER.format(i=0)),
        (f"{LAYER}attention.output.dense.weight",
         "d(attention.output.dense)ᵀ·attention.self.value, summed over the tokens"),
        (f"dropout/{LAYER}attention.self.value", "attention.self.probsᵀ·d(context), head by head"),
        (f"dropout/{LAYER}attention.output.dense", "d(output.dropout)·keep/(1 − p̂)"),
        ("dropout/gradient/classifier.weight", "d(logits)ᵀ·bert.pooler, summed over the rows"),
        ("gradient/bert.embeddings.sum", "d(LayerNorm)·rstd"),
        ("gradient/bert.pooler", ""),
    ],
)  # fmt: skip
def test_a_wrong_formula_is_found(name: str, wrong: str) -> None:
    """It names another tensor, or it has no reading."""
    trace = Trace.open(NANO)
    entries = dict(trace.entries) | {name: replace(trace.entries[name], formula=wrong)}
    with pytest.raises(AssertionError, match=re.escape(name)):
        check(replace(trace, entries=entries))


def test_the_forward_takes_what_a_dropout_lets_through() -> None:
    """Where the tensor before it would be wrong: these formulas differ between the passes."""
    t = Place(Trace.open(NANO), f"dropout/{LAYER}output.LayerNorm")
    head = Place(t.trace, "dropout/gradient/logits")
    right = {
        "attention.self.dropout·value, head by head":
            (t, "context", merged(t("attention.self.dropout") @ t.by_head(t("value")))),
        "attention.output.dropout + the layer's input":
            (t, "attention.output.residual",
             t("attention.output.dropout") + t("(the layer's input)")),
        "output.dropout + attention.output.LayerNorm":
            (t, "output.residual", t("output.dropout") + t("attention.output.LayerNorm")),
        "dropout·weightᵀ + bias":
            (head, "logits",
             head("dropout") @ head.weight("classifier.weight").T + head.weight("classifier.bias")),
    }  # fmt: skip
    for formula, (place, name, value) in right.items():
        full = f"dropout/activation/{place.full('dropout/activation', name)}"
        entry = t.trace.entries[full]
        assert entry.formula == formula
        assert error_of(value, t.trace.read(full), entry.scale) <= entry.budget("float64"), full
