"""Every gradient's formula, read and evaluated on the trace's own tensors.

Nothing of minibert's arithmetic is used: each formula is one step of a backward in plain NumPy,
from the tensors that it names to the one that it stands at. A formula that is worded in a new way
fails until its step is written here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traces import NANO, setup_of_head, trace_of

from minibert.verify.budget import error_of
from minibert.verify.model_cases import KINDS
from minibert.verify.trace.catalogue import INTO_LAYER
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Setup

erf = np.vectorize(math.erf)


class Place:
    """The tensors around one gradient, by the names that its formula has for them."""

    def __init__(self, trace: Trace, name: str) -> None:
        self.trace = trace
        self.run = "dropout/" if name.startswith("dropout/") else ""
        self.name = name.removeprefix(self.run).removeprefix("gradient/")
        found = re.match(r"bert\.(encoder\.layer\.(\d+)|embeddings)\.", self.name)
        self.prefix = found[0] if found else ""
        self.layer = int(found[2]) if found and found[2] else -1
        self.config = trace.about["config"]

    def input(self, name: str) -> Any:
        return self.trace.read(f"input/{name}")

    def ids(self, name: str) -> Any:
        return self.input(name).reshape(self.trace.mask.shape)

    def full(self, kind: str, short: str) -> str:
        """The entry of kind "activation", … that a formula of this place calls `short`."""
        for start in (self.prefix, "", f"{self.prefix}attention.self."):
            if f"{kind}/{start}{short}" in self.trace.entries:
                return start + short
        raise KeyError(f"{kind}/{short} at {self.name}")

    def weight(self, short: str) -> Any:
        return self.trace.read(f"weight/{self.full('weight', short)}")

    def d(self, short: str) -> Any:
        kind = f"{self.run}gradient"
        return self.trace.read(f"{kind}/{self.full(kind, short)}")

    def __call__(self, short: str) -> Any:
        kind = f"{self.run}activation"
        match short:
            case "(the layer's input)":
                return self.hidden_state(self.layer)
            case "last hidden state":
                return self.hidden_state(self.config["num_hidden_layers"])
            case "(last hidden state of the first token)":
                return first_tokens(self, self("last hidden state"))
            case _:
                return self.trace.read(f"{kind}/{self.full(kind, short)}")

    def hidden_state(self, i: int) -> Any:
        entries = self.trace.entries.items()
        (name,) = (
            n for n, e in entries
            if n.startswith(f"{self.run}activation/") and f"hidden_states.{i}" in e.aliases
        )  # fmt: skip
        return self.trace.read(name)

    def at(self, i: int) -> Place:
        """The same in layer i."""
        return Place(self.trace, f"{self.run}gradient/bert.encoder.layer.{i}.output.LayerNorm")

    def kept(self, short: str) -> Any:
        """keep/(1 − p̂) of a dropout."""
        name = self.full("dropout/keep", short)
        p = self.trace.about["dropout"]["modules"][name]["p"]
        scale = 65536 / (65536 - min(round(p * 65536), 65535))
        return self.trace.read(f"dropout/keep/{name}") * scale

    def by_head(self, x: Any) -> Any:
        """(B, S, H) → (B, N, S, D)."""
        B, S, H = x.shape
        N = self.config["num_attention_heads"]
        return x.reshape(B, S, N, H // N).swapaxes(1, 2)

    def xhat(self, norm: str, x: str) -> Any:
        return (self(x) - self(f"{norm}.mean")[..., None]) * self(f"{norm}.rstd")[..., None]


def merged(x: Any) -> Any:
    """(B, N, S, D) → (B, S, H)."""
    B, N, S, D = x.shape
    return x.swapaxes(1, 2).reshape(B, S, N * D)


def flat(x: Any) -> Any:
    return x.reshape(-1, x.shape[-1])


def softmax(z: Any) -> Any:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def first_tokens(t: Place, x: Any) -> Any:
    return x[np.arange(len(x)), t.trace.mask.argmax(axis=1)]


def summed_by(ids: Any, dy: Any, mask: Any, rows: int) -> Any:
    """Row i: the sum of dy (B, S, H) over the tokens of id i."""
    tokens = [(i, g) for i, g, m in zip(ids.flat, flat(dy), mask.flat, strict=True) if m]
    return np.array([sum((g for i, g in tokens if i == row), 0 * dy[0, 0]) for row in range(rows)])


# ---- The steps, by the formula that each is the reading of ----

Step = Callable[..., Any]
STEPS: dict[str, Step] = {}
NAME = r"[\w.]+|\([\w' ]+\)|last hidden state"


def reads(formula: str) -> Callable[[Step], Step]:
    def add(step: Step) -> Step:
        STEPS[formula] = step
        return step

    return add


def meaning_of(formula: str) -> Iterator[tuple[Step, dict[str, str]]]:
    """The steps that a formula fits, and what stands in it for {y}, {x}, …: names."""
    for text, step in STEPS.items():
        pattern = re.sub(r"\\{(\w+)\\}", lambda hole: f"(?P<{hole[1]}>{NAME})", re.escape(text))
        if found := re.fullmatch(pattern, formula):
            yield step, found.groupdict()


@reads("d({y})")
def same(t: Place, y: str) -> Any:
    return t.d(y)


@reads("d({y})·keep/(1 − p̂)")
def dropped(t: Place, y: str) -> Any:
    return t.d(y) * t.kept(y)


@reads("d({y})·{module}.weight")
def into_linear(t: Place, y: str, module: str) -> Any:
    return t.d(y) @ t.weight(f"{module}.weight")


@reads("d({y})ᵀ·{x}, summed over the {axes}")
def linear_weight(t: Place, y: str, x: str, axes: str) -> Any:
    return flat(t.d(y)).T @ flat(t(x))


@reads("Σ d({y}) over the {axes}")
def bias(t: Place, y: str, axes: str) -> Any:
    return flat(t.d(y)).sum(axis=0)


@reads("Σ d({y})·x̂ over the {axes}, x̂ = ({x} − mean)·rstd")
def norm_weight(t: Place, y: str, x: str, axes: str) -> Any:
    return flat(t.d(y) * t.xhat(y, x)).sum(axis=0)


@reads("rstd·(g − mean(g) − x̂·mean(g·x̂)), g = d({y})·weight, x̂ = ({x} − mean)·rstd, each "
       "token's mean over the features")  # fmt: skip
def into_norm(t: Place, y: str, x: str) -> Any:
    g, xhat = t.d(y) * t.weight(f"{y}.weight"), t.xhat(y, x)

    def mean(a: Any) -> Any:
        return a.mean(axis=-1, keepdims=True)

    return t(f"{y}.rstd")[..., None] * (g - mean(g) - xhat * mean(g * xhat))


# ---- A layer ----


@reads("d(scores)·key/√D, head by head")
def query(t: Place) -> Any:
    key = t.by_head(t("key"))
    return merged(t.d("scores") @ key / math.sqrt(key.shape[-1]))


@reads("d(scores)ᵀ·query/√D, head by head")
def key(t: Place) -> Any:
    query = t.by_head(t("query"))
    return merged(t.d("scores").swapaxes(-1, -2) @ query / math.sqrt(query.shape[-1]))


@reads("{A}ᵀ·d(context), head by head")
def value(t: Place, A: str) -> Any:
    return merged(t(A).swapaxes(-1, -2) @ t.by_head(t.d("context")))


@reads("probs·(d(probs) − Σ probs·d(probs)), Σ over the keys")
def scores(t: Place) -> Any:
    P, dP = t("probs"), t.d("probs")
    return P * (dP - (P * dP).sum(axis=-1, keepdims=True))


@reads("d(context)·valueᵀ, head by head")
def probs(t: Place) -> Any:
    return t.by_head(t.d("context")) @ t.by_head(t("value")).swapaxes(-1, -2)


@reads("d({residual}) + d({y})·{module}.weight")
def two_paths(t: Place, residual: str, y: str, module: str) -> Any:
    return t.d(residual) + into_linear(t, y, module)


@reads("d(attention.output.residual) + d(query)·query.weight + d(key)·key.weight + "
       "d(value)·value.weight, all of layer {i}")  # fmt: skip
def four_paths(t: Place, i: str) -> Any:
    there = t.at(int(i))
    parts = (into_linear(there, part, part) for part in ("query", "key", "value"))
    return there.d("attention.output.residual") + sum(parts)


@reads("d({y})·(Φ(x) + x·exp(−x²/2)/√(2π)), Φ(x) = (1 + erf(x/√2))/2, x = {x}")
def into_gelu(t: Place, y: str, x: str) -> Any:
    z = t(x)
    slope = (1 + erf(z / math.sqrt(2))) / 2 + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return t.d(y) * slope


@reads("d({y})·((1 + t)/2 + x·(1 − t²)·√(2/π)·(1 + 3·0.044715·x²)/2), "
       "t = tanh(√(2/π)·(x + 0.044715·x³)), x = {x}")  # fmt: skip
def into_gelu_new(t: Place, y: str, x: str) -> Any:
    z, c = t(x), math.sqrt(2 / math.pi)
    u = np.tanh(c * (z + 0.044715 * z**3))
    return t.d(y) * ((1 + u) / 2 + z * (1 - u * u) * c * (1 + 3 * 0.044715 * z * z) / 2)


@reads("d({y})·[x > 0], x = {x}")
def into_relu(t: Place, y: str, x: str) -> Any:
    return t.d(y) * (t(x) > 0)


# ---- Embeddings ----


@reads("row s: Σ d(sum) over the tokens in column s")
def positions(t: Place) -> Any:
    mask = t.trace.mask
    of_table = t.name.endswith(".weight")
    rows = t.config["max_position_embeddings"] if of_table else mask.shape[1]
    return summed_by(np.indices(mask.shape)[1], t.d("sum"), mask, rows)


@reads("row i: Σ d(sum) over the tokens with token_type_id i")
def token_types(t: Place) -> Any:
    return summed_by(t.ids("token_type_ids"), t.d("sum"), t.trace.mask, t.config["type_vocab_size"])


@reads("row i: Σ d(sum) over the tokens with input_id i")
def words(t: Place) -> Any:
    return summed_by(t.ids("input_ids"), t.d("sum"), t.trace.mask, t.config["vocab_size"])


BUT_PADDING = (
    "row i: Σ d(sum) over the tokens with input_id i, but row {padding} (pad_token_id) gets none "
    "of it, even where that token is attended to"
)


@reads(BUT_PADDING)
def words_but_padding(t: Place, padding: str) -> Any:
    rows = words(t)
    rows[int(padding)] = 0
    return rows


@reads(BUT_PADDING + "; plus d({y})ᵀ·{x}, summed over the tokens, in all rows: the decoder is this "
       "table")  # fmt: skip
def tied_words(t: Place, padding: str, y: str, x: str) -> Any:
    return words_but_padding(t, padding) + linear_weight(t, y, x, "tokens")


# ---- Heads ----


@reads("d(bert.pooler)·(1 − bert.pooler²)")
def into_tanh(t: Place) -> Any:
    return t.d("bert.pooler") * (1 - t("bert.pooler") ** 2)


POOLED = "d(bert.pooler.dense)·bert.pooler.dense.weight at each first token"


@reads(f"{POOLED}, else 0")
def into_pooler(t: Place) -> Any:
    mask = t.trace.mask
    into = np.zeros((*mask.shape, t.config["hidden_size"]))
    into[np.arange(len(mask)), mask.argmax(axis=1)] = into_linear(
        t, "bert.pooler.dense", "bert.pooler.dense"
    )
    return into


@reads("d({y})·{module}.weight, plus " + POOLED)
def into_both(t: Place, y: str, module: str) -> Any:
    return into_linear(t, y, module) + into_pooler(t)


@reads("d({logits})·(word table)")
def into_decoder(t: Place, logits: str) -> Any:
    return t.d(logits) @ t.weight("bert.embeddings.word_embeddings.weight")


ENTROPY = "(softmax − onehot(label))/n, n the labels that are not -100; 0 where it is -100"


@reads(ENTROPY)
def into_entropy(t: Place) -> Any:
    of_relation = t.name == "seq_relationship_logits"
    labels = t.input("next_sentence_label" if of_relation else "labels")
    z = t(t.name)
    valid = labels != -100
    onehot = np.eye(z.shape[-1])[labels * valid]
    return (softmax(z) - onehot) * valid[..., None] / valid.sum()


@reads(f"{ENTROPY}; of a regression 2·(logits − labels)/n, of yes/no labels "
       "(1/(1 + exp(−logits)) − labels)/n, n the elements of labels")  # fmt: skip
def into_loss(t: Place) -> Any:
    labels, z = t.input("labels"), t("logits")
    if labels.dtype.kind == "i":
        return into_entropy(t)
    if t.config["problem_type"] == "multi_label_classification":
        return (1 / (1 + np.exp(-z)) - labels) / labels.size
    return 2 * (z - labels) / labels.size


@reads("(softmax over the row's real tokens − onehot(position))/(2n), n the positions that have a "
       "token; 0 where it has none")  # fmt: skip
def into_spans(t: Place) -> Any:
    mask = t.trace.mask
    positions = t.input(t.name.replace("_logits", "_positions"))
    inside = (np.indices(mask.shape)[1] == positions[:, None]) & (mask == 1)
    n = inside.any(axis=1)
    return (softmax(np.where(mask, t(t.name), -np.inf)) - inside) * n[:, None] / (2 * n.sum())


@reads("d(start_logits) and d(end_logits), side by side")
def sides(t: Place) -> Any:
    return np.stack([t.d("start_logits"), t.d("end_logits")], axis=-1)


@reads("d(logits), a row a choice")
def choices(t: Place) -> Any:
    return t.d("logits").reshape(-1, 1)


@reads("of a pair's u and v: h − u·Σ(u·h), h = 2·(Σ(u·v) − label)·v/n, n pairs, and the same with "
       "u and v exchanged; without labels h = 20·(softmax(S) − I)·v/n, S = 20·u·vᵀ of all pairs, "
       "and for v h = 20·(softmax(S) − I)ᵀ·u/n")  # fmt: skip
def into_pairs(t: Place) -> Any:
    y = t("sentence_embedding")
    u, v, h = y[0::2], y[1::2], np.empty_like(y)
    n = len(u)
    if "input/labels" in t.trace.entries:
        slope = 2 * ((u * v).sum(axis=1) - t.input("labels"))[:, None] / n
        h[0::2], h[1::2] = slope * v, slope * u
    else:
        dS = 20 * (softmax(20 * u @ v.T) - np.eye(n)) / n
        h[0::2], h[1::2] = dS @ v, dS.T @ u
    return h - y * (y * h).sum(axis=1, keepdims=True)


@reads("(g − y·Σ(y·g))/‖pooled‖, y = sentence_embedding, g = d(y)")
def into_normalize(t: Place) -> Any:
    y, g = t("sentence_embedding"), t.d("sentence_embedding")
    length = np.sqrt((t("pooled") ** 2).sum(axis=1, keepdims=True))
    return (g - y * (y * g).sum(axis=1, keepdims=True)) / length


@reads("d(pooled)/n, n the tokens of the sequence")
def into_mean(t: Place) -> Any:
    mask = t.trace.mask
    share = t.d("pooled") / mask.sum(axis=1, keepdims=True)
    return share[:, None] * mask[..., None]


# ---- The walk ----


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
    return heads | {
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
