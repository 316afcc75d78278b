"""Each gradient's formula as a step of a backward in plain NumPy, with none of minibert's code."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from formula_place import Place, flat, merged, softmax, summed_by

erf = np.vectorize(math.erf)

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
