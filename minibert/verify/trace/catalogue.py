"""Every activation: its name, where it is computed, its meaning and its formula.

A name is that of the transformers module whose output the tensor is, where there is one
(`bert.encoder.layer.0.attention.self.query`); `aliases` are other modules with the same output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from minibert.backend import Array, Backend
from minibert.backend.base import dropout_threshold
from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.verify.trace.record import Call

Take = Callable[[Backend, Call], Any]


class Row(NamedTuple):
    """One activation, and how to find it in the tree of calls."""

    name: str
    call: str  # path of the call that computes it
    meaning: str
    formula: str
    axes: str = "tokens"  # "tokens": (T, …), "pairs": (N, n, n) a sequence, "rows": as it is
    value: Take = lambda _, call: call.y
    gradient: Take | None = lambda _, call: call.dy
    aliases: tuple[str, ...] = ()
    instead: str = ""  # a dropout's result; without dropout it is the tensor of this name
    keep: bool = False  # the call decides a mask: of a dropout
    gradient_axes: str = ""  # "columns": (S, …), summed over the rows; "": as the value's


def rows(model: str, config: BertConfig) -> Iterator[Row]:
    """Every activation of a model class, in the order of execution."""
    if model not in HEADS:
        raise InputError(f"no trace of a {model}: choose one of {', '.join(HEADS)}")
    yield from (_named(row, "bert.embeddings.", "embeddings/", -1) for row in EMBEDDINGS)
    for i in range(config.num_hidden_layers):
        prefix, call = f"bert.encoder.layer.{i}.", f"encoder_layer.{i}/"
        for row in LAYER:
            path = row.call.replace("activation", config.hidden_act)
            named = _named(row._replace(call=path), prefix, call, i)
            is_last = f"hidden_states.{config.num_hidden_layers}" in named.aliases
            yield named._replace(aliases=(*named.aliases, *["last_hidden_state"][:is_last]))
    last = f"bert.encoder.layer.{config.num_hidden_layers - 1}.output.LayerNorm"
    for row in HEADS[model]:
        path = row.call.replace("activation", config.hidden_act)
        formula = row.formula.replace("LAST", "last hidden state")
        yield row._replace(call=path, instead=row.instead.replace("LAST", last), formula=formula)


def _named(row: Row, prefix: str, call: str, i: int) -> Row:
    """A row of the embeddings (i = −1) or of layer i, with its full name."""
    aliases = (alias.format(prefix=prefix, i=i, state=i + 1) for alias in row.aliases)
    return row._replace(
        name=prefix + row.name,
        call=call + row.call,
        aliases=tuple(alias.rstrip(".") for alias in aliases),
        instead=row.instead and prefix + row.instead,
    )


# ---- What to take from a call ----


def _third(part: int) -> tuple[Take, Take]:
    """The query, key or value (T, H) of the fused projection (T, 3H), and its gradient."""

    def cut(fused: Array | None) -> Array | None:
        if fused is None:
            return None
        H = fused.shape[1] // 3
        return fused[:, part * H : (part + 1) * H]

    return lambda _, call: cut(call.y), lambda _, call: cut(call.dy)


def _looked_up(table: int) -> Take:
    return lambda xp, call: xp.take(call.args[table], call.args[3 + table], axis=0)


def _norm_mean(xp: Backend, call: Call) -> Array:
    return xp.mean(call.args[0], axis=-1)


def _norm_rstd(_: Backend, call: Call) -> Array:
    """What the layer itself computed: of a guess it is wrong as the guess is."""
    return call.cache.rstd[:, 0]


def _of_softmaxes(what: Callable[[Call], Any]) -> Take:
    """(N, n, n) for each sequence, from the softmax calls, which serve runs of sequences."""

    def take(_: Backend, call: Call) -> list[Array] | None:
        runs = [what(inner) for inner in call.calls if inner.name == "softmax"]
        if any(run is None for run in runs):
            return None
        return [sequence for run in runs for sequence in run]

    return take


def _probs(call: Call) -> list[Array]:
    return [sequence for c in call.calls if c.name == "softmax" for sequence in c.y]


def _dropped_probs(_: Backend, call: Call) -> list[Array]:
    scale = dropout_threshold(call.args[3])[1]
    pairs = zip(_probs(call), call.keeps, strict=True)
    return [P * keep.reshape(P.shape) * scale for P, keep in pairs]


def _dropped_probs_gradient(xp: Backend, call: Call) -> list[Array] | None:
    """dcontext·valueᵀ of each head of each sequence: no layer function has it as its own result."""
    if call.dy is None:
        return None
    qkv, offsets, N = call.args[:3]
    T, H = call.dy.shape
    parts = call.dy, qkv[:, 2 * H :]
    dcontext, value = (part.reshape(T, N, H // N).swapaxes(0, 1) for part in parts)  # (N, T, D)
    sequences = pairwise(offsets)
    return [xp.matmul(dcontext[:, a:z], value[:, a:z].swapaxes(1, 2)) for a, z in sequences]


def keep_mask(row: Row, call: Call) -> Any:
    """The decisions of a dropout, in the shape of what they apply to; None where it is off."""
    if not call.keeps:
        return None
    if row.axes == "pairs":
        pairs = zip(_probs(call), call.keeps, strict=True)
        return [keep.reshape(P.shape) for P, keep in pairs]
    return call.keeps[0].reshape(call.y.shape)


# ---- The tables ----


def _norm(name: str, call: str, what: str, summed: str, *aliases: str) -> list[Row]:
    """A layer norm: its input, its statistics, its result."""
    x = name.replace("LayerNorm", summed)
    return [
        Row(
            x, call, "the layer norm's input", what,
            value=lambda _, c: c.args[0], gradient=lambda _, c: c.dx and c.dx[0],
        ),
        Row(
            f"{name}.mean", call, "each token's mean over the features", f"mean({x})",
            value=_norm_mean, gradient=None,
        ),
        Row(
            f"{name}.rstd", call, "1/√(population variance + eps), of each token",
            f"1/√(mean(({x} − mean)²) + layer_norm_eps)", value=_norm_rstd, gradient=None,
        ),
        Row(
            name, call, "layer norm", f"({x} − mean)·rstd·weight + bias", aliases=aliases,
        ),
    ]  # fmt: skip


def _projection(part: int, name: str) -> Row:
    value, gradient = _third(part)
    names = "queries" if name == "query" else f"{name}s"
    return Row(
        f"attention.self.{name}", "multi_head_attention/linear",
        f"{names} of all heads side by side: head h is features h·D to (h + 1)·D − 1",
        "x·weightᵀ + bias, x the layer's input", value=value, gradient=gradient,
    )  # fmt: skip


EMBEDDINGS = [
    Row("word_embeddings", "lookup", "rows of the word table", "weight[input_ids]",
        value=_looked_up(0)),
    Row("token_type_embeddings", "lookup", "rows of the token type table",
        "weight[token_type_ids]", value=_looked_up(2)),
    Row("position_embeddings", "lookup", "rows of the position table",
        "weight[column of the token in the padded row]", value=_looked_up(1),
        gradient_axes="columns"),
    *_norm("LayerNorm", "layer_norm", "word + token type + position", "sum"),
    Row("dropout", "dropout", "the embeddings, dropped", "LayerNorm·keep/(1 − p̂)",
        aliases=("{prefix}", "hidden_states.0"), instead="LayerNorm", keep=True),
]  # fmt: skip

LAYER = [
    *(_projection(part, name) for part, name in enumerate(("query", "key", "value"))),
    Row("attention.self.scores", "multi_head_attention/attention",
        "raw scores of each head, before any mask: [query token, key token]",
        "query·keyᵀ/√D, head by head", "pairs",
        _of_softmaxes(lambda c: c.args[0]), _of_softmaxes(lambda c: c.dx)),
    Row("attention.self.probs", "multi_head_attention/attention",
        "attention probabilities: a row sums to 1 over its sequence's real tokens",
        "softmax(scores) over the keys", "pairs",
        _of_softmaxes(lambda c: c.y), _of_softmaxes(lambda c: c.dy), ("attentions.{i}",)),
    Row("attention.self.dropout", "multi_head_attention/attention",
        "the probabilities, dropped", "probs·keep/(1 − p̂)", "pairs",
        _dropped_probs, _dropped_probs_gradient, instead="attention.self.probs", keep=True),
    Row("attention.self.context", "multi_head_attention/attention",
        "what the heads gather, side by side", "probs·value, head by head",
        aliases=("{prefix}attention.self",)),
    Row("attention.output.dense", "multi_head_attention/linear.1", "the attention's result",
        "context·weightᵀ + bias"),
    Row("attention.output.dropout", "add_norm/dropout", "the same, dropped",
        "dense·keep/(1 − p̂)", instead="attention.output.dense", keep=True),
    *_norm("attention.output.LayerNorm", "add_norm/layer_norm",
           "attention.output.dense + the layer's input", "residual",
           "{prefix}attention.output", "{prefix}attention"),
    Row("intermediate.dense", "feed_forward/linear", "the pre-activation",
        "attention.output.LayerNorm·weightᵀ + bias"),
    Row("intermediate", "feed_forward/activation", "the activation (GELU, …)",
        "gelu: x·(1 + erf(x/√2))/2; gelu_new: x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2; relu",
        aliases=("{prefix}intermediate.intermediate_act_fn",)),
    Row("output.dense", "feed_forward/linear.1", "the feed-forward network's result",
        "intermediate·weightᵀ + bias"),
    Row("output.dropout", "add_norm.1/dropout", "the same, dropped",
        "dense·keep/(1 − p̂)", instead="output.dense", keep=True),
    *_norm("output.LayerNorm", "add_norm.1/layer_norm",
           "output.dense + attention.output.LayerNorm", "residual",
           "{prefix}output", "{prefix}", "hidden_states.{state}"),
]  # fmt: skip

POOLER = [
    Row("bert.pooler.dense", "pooler/linear", "the pooler before its tanh",
        "(last hidden state of the first token)·weightᵀ + bias", "rows"),
    Row("bert.pooler", "pooler", "the pooled sequences", "tanh(bert.pooler.dense)", "rows",
        aliases=("bert.pooler.activation", "pooler_output")),
]  # fmt: skip


def _classifier(axes: str, x: str, name: str = "logits") -> list[Row]:
    return [
        Row("dropout", "classifier/dropout", "the classifier's input, dropped",
            f"{x}·keep/(1 − p̂)", axes, instead=x, keep=True),
        Row(name, "classifier/linear", "the logits", f"{x}·weightᵀ + bias", axes,
            aliases=("classifier",)),
    ]  # fmt: skip


def _side(column: int, name: str) -> Row:
    return Row(
        name, "linear", f"each token's score: qa_outputs[..., {column}]", "the same",
        value=lambda _, c: c.y[:, column],
        gradient=lambda _, c: None if c.dy is None else c.dy[:, column],
    )  # fmt: skip


QUESTION = [
    Row("qa_outputs", "linear", "scores of every token as start and as end",
        "last hidden state·weightᵀ + bias"),
    _side(0, "start_logits"),
    _side(1, "end_logits"),
]  # fmt: skip
CHOICE = [
    *POOLER,
    *_classifier("rows", "bert.pooler", "classifier"),
    Row("logits", "cross_entropy", "one score a choice", "classifier, a row a question", "rows",
        value=lambda _, c: c.args[0], gradient=lambda _, c: c.dx),
]  # fmt: skip
NORM = "cls.predictions.transform.LayerNorm"
MASKED = [
    Row("cls.predictions.transform.dense", "masked_lm_head/linear", "the transform",
        "last hidden state·weightᵀ + bias"),
    Row("cls.predictions.transform.activation", "masked_lm_head/activation", "its activation",
        "hidden_act, as in the encoder", aliases=("cls.predictions.transform.transform_act_fn",)),
    *_norm(NORM, "masked_lm_head/layer_norm", "", "", "cls.predictions.transform")[1:],
    Row("logits", "masked_lm_head/linear.1", "a score for every word of the vocabulary",
        f"{NORM}·(word table)ᵀ + cls.predictions.bias",
        aliases=("cls.predictions.decoder", "cls.predictions", "prediction_logits")),
]  # fmt: skip
RELATION = [
    *POOLER,
    Row("seq_relationship_logits", "classifier/linear", "0: the next segment, 1: a random one",
        "bert.pooler·weightᵀ + bias", "rows", aliases=("cls.seq_relationship",)),
]  # fmt: skip
EMBEDDING = [
    Row("pooled", "mean_pooling", "the mean of each sequence's tokens", "mean(last hidden state)",
        "rows"),
    Row("sentence_embedding", "normalize", "the same, of length 1", "pooled/‖pooled‖", "rows"),
]  # fmt: skip

HEADS: dict[str, list[Row]] = {
    "BertModel": POOLER,
    "BertForSequenceClassification": [*POOLER, *_classifier("rows", "bert.pooler")],
    "BertForTokenClassification": _classifier("tokens", "LAST"),
    "BertForQuestionAnswering": QUESTION,
    "BertForMultipleChoice": CHOICE,
    "BertForMaskedLM": MASKED,
    "BertForNextSentencePrediction": [
        *RELATION[:-1],
        RELATION[-1]._replace(name="logits", aliases=("cls.seq_relationship",)),
    ],
    "BertForPreTraining": [
        *MASKED[:-1],
        MASKED[-1]._replace(name="prediction_logits", aliases=MASKED[-1].aliases[:2]),
        *RELATION,
    ],
    "BertForSentenceEmbedding": EMBEDDING,
}
"""What stands behind the encoder, by model class."""
