"""A gallery of classic bugs, planted one at a time in a copy of the layers' own text.

Each must be caught, by the gradient check or by comparison with the nano trace; and where the
diagnosis claims to know the cause, it must be the right one.
"""

from __future__ import annotations

import importlib
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import minibert
from minibert.verify.compare import Comparison, compare
from minibert.verify.diagnosis import diagnose
from minibert.verify.gradcheck import check_layer
from minibert.verify.layer_cases import layer_cases
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import collected
from minibert.verify.trace.writing import setup_of

NANO = Path(__file__).parents[1] / "fixtures" / "nano"
PACKAGE = Path(minibert.__file__).parent
CASES = {case.layer: case for case in layer_cases()}


class Bug(NamedTuple):
    """Edits of one file, each (the right text, the wrong text), and what `compare` should say."""

    file: str
    edits: tuple[tuple[str, str], ...]
    cause: str | None  # None: caught, of unknown cause
    sections: tuple[str, ...] = ("activation", "gradient")  # that the wrong port hands in


SCALE = "(1.0 / math.sqrt(q.shape[-1]))"
DX = "rstd * (dxhat - mean - xhat * along)"
MEANS = "xp.mean(dxhat * xhat, axis=-1, keepdims=True)"
VARIANCE = "xp.mean(centred * centred, axis=-1, keepdims=True)"
PHI = "0.5 * (1.0 + xp.erf(x * math.sqrt(0.5)))"
MOMENTS = "(1 - h.beta2) / (1 - h.beta1) ** 2"
RATE = "h.lr * c / (1 - h.beta1**h.step), c * h.eps"
WEIGHT = "valid / xp.asarray(count, dtype=logits.real.dtype)"
TYPES = "xp.take(token_type, token_type_ids, axis=0)"
WORDS = "ids, values = xp.sum_rows(cache.input_ids, dy)"
LAST = """last = {int(i): n for n, i in enumerate(cache.input_ids)}
    ids, values = xp.array(list(last)), dy[list(last.values())]"""
TABLES = "(input_ids, position_ids, token_type_ids, padding_idx, shapes)"
DROP = ("dropout",)
TRAIN = ("training",)

BUGS = {
    # ---- attention ----
    "scores without a scale": Bug("layers/attention.py", ((SCALE, "1.0"),),
        "attention scores are not divided by √(head size)"),
    "scores scaled by the hidden size": Bug("layers/attention.py",
        ((SCALE, "(1.0 / math.sqrt(q.shape[-1] * q.shape[1]))"),),
        "attention scores are divided by √(hidden size), not √(head size)"),
    "scores' gradient without a scale": Bug("layers/attention.py", (("dS = dS * " + SCALE, ""),),
        "the scores' gradient is not divided by √(head size)"),
    "softmax over the queries": Bug("layers/softmax.py", (("axis=-1", "axis=-2"),),
        "softmax runs over the queries, not over the keys"),
    "softmax backward without its sum": Bug("layers/softmax.py",
        (("y * (dy - xp.sum(dy * y, axis=-1, keepdims=True))", "y * dy"),),
        "softmax's derivative lacks the sum over its row: dx = y·dy"),
    "heads and features scrambled": Bug("layers/attention.py",
        (("parts, num_heads, -1)", "parts, -1, num_heads).swapaxes(3, 4)"),
         ("x.swapaxes(1, 2).reshape(G * n, N * D)",
          "x.transpose(0, 2, 3, 1).reshape(G * n, N * D)")),
        "features are dealt to the heads as (head size, heads), not (heads, head size)"),
    "causal attention": Bug("layers/softmax.py",
        (("e = xp.exp(x -", "x = xp.where(xp.tri(x.shape[-1], dtype=bool), x, -xp.inf)\n"
          "    e = xp.exp(x -"),),
        "attention is causal: a token attends to itself and those before it alone"),
    "dk with scrambled axes": Bug("layers/attention.py",
        (("dk = xp.matmul(dS.swapaxes(-1, -2), q)",
          "dk = xp.matmul(dS.swapaxes(-1, -2), q).swapaxes(-1, -2).reshape(q.shape)"),), None),
    "query and key exchanged": Bug("layers/attention.py",
        (("q, k, v = _split", "k, q, v = _split"),
         ("[_merge_heads(a) for a in (dq, dk, dv)]", "[_merge_heads(a) for a in (dk, dq, dv)]")),
        "query and key are exchanged in the scores"),
    "dv without the dropout mask": Bug("layers/attention.py",
        (("A = probs.y if mask is None else probs.y * mask", "A = probs.y"),), None, DROP),
    # ---- layer norm ----
    "eps of 1e-5": Bug("layers/layer_norm.py", (("variance + eps", "variance + 1e-5"),),
        "layer_norm_eps is 1e-05, not 1e-12"),
    "sample variance": Bug("layers/layer_norm.py",
        ((VARIANCE, VARIANCE + " * (x.shape[-1] / (x.shape[-1] - 1))"),
         (MEANS, MEANS + " * (dy.shape[-1] / (dy.shape[-1] - 1))")),
        "layer norm divides by the sample variance (n − 1)"),
    "layer norm right at gamma = 1": Bug("layers/layer_norm.py",
        (("dxhat = dy * gamma", "dxhat = dy"),),
        "layer norm's dx forgets the weight (right only at weight = 1)"),
    "layer norm's dx without the mean": Bug("layers/layer_norm.py",
        ((DX, "rstd * (dxhat - xhat * along)"),), "layer norm's dx forgets the term of the mean"),
    "layer norm's dx without the variance": Bug("layers/layer_norm.py",
        ((DX, "rstd * (dxhat - mean)"),), "layer norm's dx forgets the term of the variance"),
    "norm times 1 + weight": Bug("layers/layer_norm.py",
        (("xhat * gamma + beta", "xhat * (1.0 + gamma) + beta"),
         ("dxhat = dy * gamma", "dxhat = dy * (1.0 + gamma)")),
        "layer norm multiplies by 1 + weight"),
    "eps beside the root": Bug("layers/layer_norm.py",
        (("xp.sqrt(variance + eps)", "(xp.sqrt(variance) + 1e-5)"),
         (MEANS, MEANS + " / (1.0 - 1e-5 * rstd)")),
        "eps (1e-05) is added to the standard deviation, not the variance"),
    "dgamma without xhat": Bug("layers/layer_norm.py",
        (("dgamma = xp.sum(dy * xhat", "dgamma = xp.sum(dy"),), None),
    # ---- activation ----
    "GELU by tanh": Bug("layers/activations.py",
        ((f"return x * ({PHI}), GeluCache(x)",
          "return x * (0.5 * (1.0 + xp.tanh(C * (x + A * x * x * x)))), GeluCache(x)"),
         ("return dy * (Phi + x * phi)", "return gelu_new_backward(xp, dy, cache)")),
        "the activation is GELU by tanh (hidden_act gelu_new), not GELU by the true erf"),
    "GELU by tanh, derivative by erf": Bug("layers/activations.py",
        ((f"return x * ({PHI}), GeluCache(x)",
          "return x * (0.5 * (1.0 + xp.tanh(C * (x + A * x * x * x)))), GeluCache(x)"),), None),
    "GELU's derivative of one term": Bug("layers/activations.py",
        (("dy * (Phi + x * phi)", "dy * Phi"),),
        "GELU's derivative is Φ(x) alone, without x·φ(x)"),
    "√½ to four digits": Bug("layers/activations.py", (("math.sqrt(0.5)", "0.7071"),), None),
    # ---- dropout ----
    "dropout without a scale": Bug("layers/dropout.py",
        (("* keep.reshape(rows, width) * scale", "* keep.reshape(rows, width)"),),
        "what dropout keeps of activations is not scaled", DROP),
    "dropout's backward keeps all": Bug("layers/dropout.py",
        (("return _masked(xp, dy, cache.p, cache.key)", "return dy"),),
        "dropout's backward does not drop", DROP),
    "attention dropout scaled by 1/p": Bug("layers/attention.py",
        (("astype(P.real.dtype) * scale", "astype(P.real.dtype) / p"),),
        "what dropout keeps of attention is scaled by 1/p, not by 1/(1 − p)", DROP),
    # ---- embeddings ----
    "a repeated token's gradient overwritten": Bug("layers/embeddings.py", ((WORDS, LAST),),
        "of rows that occur twice the word table keeps one gradient, not the sum"),
    "the padding token learns": Bug("layers/embeddings.py",
        (("if cache.padding_idx is not None:", "if False:"),),
        "the padding token's row receives a gradient"),
    "token types ignored": Bug("layers/embeddings.py",
        ((TYPES, "xp.take(token_type, 0 * token_type_ids, axis=0)"),
         (TABLES, TABLES.replace("token_type_ids", "0 * token_type_ids"))),
        "token_type_ids are ignored (all 0)"),
    "embeddings times √H": Bug("layers/embeddings.py",
        ((f"y += {TYPES}", f"y += {TYPES}\n    y *= y.shape[1] ** 0.5"),
         (WORDS, f"dy = dy * dy.shape[1] ** 0.5\n    {WORDS}")),
        "the embeddings' sum is multiplied by √(hidden size)"),
    "positions from 1": Bug("layers/embeddings.py",
        (("xp.take(position, position_ids,", "xp.take(position, position_ids + 1,"),
         (TABLES, TABLES.replace("position_ids", "position_ids + 1"))),
        "positions are off by one (counted from 1)"),
    "no position embeddings": Bug("layers/embeddings.py",
        (("y += xp.take(position, position_ids, axis=0)", ""),),
        "the position embeddings are not added"),
    "embeddings never learn": Bug("layers/embeddings.py",
        (("return EmbeddingsWeights(*lookup_backward(xp, de, cache.lookup), dgamma, dbeta)",
          "return EmbeddingsWeights(*lookup_backward(xp, 0 * de, cache.lookup), dgamma, dbeta)"),),
        "the embeddings receive no gradient"),
    # ---- blocks ----
    "no residual connection": Bug("layers/add_norm.py",
        (("dropped + residual", "dropped"),
         ("return dx, dresidual, dgamma", "return dx, 0 * dresidual, dgamma")),
        "the residual connections are missing"),
    "no gradient through the residual": Bug("layers/encoder_layer.py",
        (("dh = xp.add(dh, dh_inner)", "dh = dh_inner"),
         ("return xp.add(dx, dx_inner)", "return dx_inner")),
        "no gradient flows through the residual connections"),
    "no residual after attention": Bug("layers/encoder_layer.py",
        (("add_norm_forward(xp, a, x, ", "add_norm_forward(xp, a, 0 * x, "),
         ("return xp.add(dx, dx_inner)", "return dx_inner")),
        "the residual connections after attention are missing"),
    "bias gradient a mean": Bug("layers/linear.py",
        (("db = xp.sum(dy, axis=0)", "db = xp.mean(dy, axis=0)"),),
        "bias gradients are means over the tokens, not sums"),
    "pooler without tanh": Bug("layers/pooler.py",
        (("y = xp.tanh(z)", "y = z"), ("dz = dy * (1.0 - cache.y * cache.y)", "dz = dy")),
        "the pooler lacks its tanh"),
    "pooler's derivative without tanh's": Bug("layers/pooler.py",
        (("dz = dy * (1.0 - cache.y * cache.y)", "dz = dy"),),
        "the pooler's derivative lacks that of tanh"),
    # ---- loss ----
    "labels smoothed": Bug("layers/losses.py",
        (("log_probs = shifted[rows, chosen] - xp.log(total[:, 0])",
          "log_probs = 0.9 * shifted[rows, chosen] + 0.1 * xp.mean(shifted, axis=-1)\n"
          "    log_probs = log_probs - xp.log(total[:, 0])"),
         ("cache.labels] -= 1.0", "cache.labels] -= 0.9\n    dlogits -= 0.1 / dlogits.shape[1]")),
        "labels are smoothed by 0.1"),
    "loss summed": Bug("layers/losses.py", ((WEIGHT, "valid / 1.0"),),
        "the loss is a sum, not a mean"),
    "ignored labels counted": Bug("layers/losses.py", ((WEIGHT, "valid / float(len(labels))"),),
        "the loss is divided by all rows, those labelled -100 too"),
    "loss's gradient over all logits": Bug("layers/losses.py",
        (("dlogits * (cache.weight * dy)", "dlogits * ((cache.weight > 0) / dlogits.size * dy)"),),
        "the loss's gradient is divided by the number of logits"),
    "log(p + 1e-12)": Bug("layers/losses.py",
        (("log_probs = shifted[rows, chosen] - xp.log(total[:, 0])",
          "log_probs = xp.log((e / total)[rows, chosen] + 1e-12)"),), None),
    # ---- optimizer ----
    "second moment by 1 − beta1": Bug("optim/rules.py",
        ((MOMENTS, "(1 - h.beta1) / (1 - h.beta1) ** 2"),),
        "Adam's second moment is averaged with 1 − beta1", TRAIN),
    "no bias correction": Bug("optim/rules.py", ((RATE, "h.lr, h.eps"),),
        "the update is that of adam_google, not adamw_torch: no bias correction", TRAIN),
    "decay not times the learning rate": Bug("optim/rules.py",
        (("1 - h.lr * h.weight_decay", "1 - h.weight_decay"),),
        "the weight decay is not multiplied by the learning rate", TRAIN),
}  # fmt: skip


@pytest.fixture(scope="module")
def nano() -> Trace:
    return Trace.open(NANO)


@pytest.fixture(scope="module")
def right(nano: Trace) -> Setup:
    setup = setup_of(nano)
    return setup.replace(recipe=replace(setup.recipe, rules=("adamw_torch",), steps=(1, 3)))


def mutant(bug: Bug) -> types.ModuleType:
    """A copy of the module with the edits; everything else in it stays."""
    text = (PACKAGE / bug.file).read_text(encoding="utf-8")
    for old, new in bug.edits:
        assert old in text, f"{bug.file} no longer has {old!r}"
        text = text.replace(old, new)
    module = types.ModuleType("minibert.mutant")
    sys.modules[module.__name__] = module  # typing looks there
    exec(compile(text, bug.file, "exec"), vars(module))
    original = importlib.import_module("minibert." + bug.file.removesuffix(".py").replace("/", "."))
    classes = {name: value for name, value in vars(original).items() if isinstance(value, type)}
    vars(module).update(classes)  # caches and weights are the real ones
    return module


def planted(bug: Bug, setup: Setup) -> Setup:
    """The setup with the wrong functions in place of the right ones."""
    module = vars(mutant(bug))
    if bug.file == "optim/rules.py":
        update = module["adamw_torch"]
        return setup.replace(recipe=replace(setup.recipe, updates={"adamw_torch": update}))
    wrong = {
        name: function.plain
        for name, function in module.items()
        if name.endswith(("_forward", "_backward")) and function.__module__ == "minibert.mutant"
    }
    return setup.replace(functions=wrong)


DERIVED = ("LayerNorm.mean", "LayerNorm.rstd", "_embeddings")
"""Computed from a layer's arguments by their formula, so they show nothing of the layer."""


def wrong_port(bug: Bug, right: Setup, nano: Trace) -> Comparison:
    """What a port with this bug would hand in, compared."""
    keep = {"dropout": "dropout" in bug.sections, "recipe": "training" in bug.sections}
    setup = right.replace(**{name: None for name, wanted in keep.items() if not wanted})
    with np.errstate(all="ignore"):
        tensors = collected(planted(bug, setup))
    mine = {
        name: array
        for name, array in tensors.items()
        if name.startswith(bug.sections) and not name.endswith(DERIVED)
    }
    return compare(mine, nano)


def failed_checks(bug: Bug) -> list[str]:
    """Tensors that the gradient check finds wrong, in the layers of the mutated file."""
    if bug.file == "optim/rules.py":
        return []
    module = vars(mutant(bug))
    cases = [
        case._replace(forward=module[f"{name}_forward"], backward=module[f"{name}_backward"])
        for name, case in CASES.items()
        if module.get(f"{name}_forward")
        and module[f"{name}_forward"].__module__ == "minibert.mutant"
    ]
    with np.errstate(all="ignore"):
        checks = [check for case in cases for check in check_layer(case)]
    return [f"{check.where} {check.tensor}" for check in checks if not check.passed]


def test_there_are_at_least_25_bugs_and_most_causes_are_known() -> None:
    known = [bug for bug in BUGS.values() if bug.cause is not None]
    assert len(BUGS) >= 25
    assert len(known) / len(BUGS) >= 20 / 25


@pytest.mark.parametrize("name", BUGS)
def test_each_bug_is_caught(name: str, nano: Trace, right: Setup) -> None:
    bug = BUGS[name]
    comparison = wrong_port(bug, right, nano)
    assert not comparison.passed or failed_checks(bug), "nothing noticed it"
    assert not comparison.passed, "only the gradient check noticed it"


@pytest.mark.slow
@pytest.mark.parametrize("name", BUGS)
def test_the_cause_is_named(name: str, nano: Trace, right: Setup) -> None:
    bug = BUGS[name]
    diagnosis = diagnose(wrong_port(bug, right, nano), nano, setup_of(nano))
    assert diagnosis.causes == ((bug.cause,) if bug.cause else ()), str(diagnosis)


@pytest.mark.parametrize("name", ["eps of 1e-5", "bias gradient a mean", "no bias correction"])
def test_the_cause_is_named_quickly(name: str, nano: Trace, right: Setup) -> None:
    test_the_cause_is_named(name, nano, right)


def test_the_right_layers_pass(nano: Trace, right: Setup) -> None:
    """The machinery itself plants nothing."""
    for file in {bug.file for bug in BUGS.values()}:
        sections = TRAIN if file.startswith("optim") else ("activation", "gradient", "dropout")
        unchanged = Bug(file, (), None, sections)
        assert wrong_port(unchanged, right, nano).passed
