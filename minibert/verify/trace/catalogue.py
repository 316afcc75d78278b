"""Every activation: its name, where it is computed, its meaning, its formula and its gradient's.

A name is that of the transformers module whose output the tensor is, where there is one
(`bert.encoder.layer.0.attention.self.query`); `aliases` are other modules with the same output.
In a formula, d(X) is the gradient of X, {X} is X or, where a dropout follows, what that lets
through (see `formulas.worded`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.verify.trace.record import Call
from minibert.verify.trace.taking import (
    Take,
    dropped_probs,
    dropped_probs_gradient,
    looked_up,
    norm_mean,
    norm_rstd,
    of_softmaxes,
    probs,
    third,
)


class Row(NamedTuple):
    """One activation, and how to find it in the tree of calls."""

    name: str
    call: str  # path of the call that computes it
    meaning: str
    formula: str
    backward: str = ""  # the formula of its gradient; a dropout's is that of what it drops
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
    L = config.num_hidden_layers
    into = [*(INTO_LAYER.format(i=i) for i in range(L)), INTO_HEAD.get(model, f"{POOLED}, else 0")]
    for row in EMBEDDINGS:
        named = _named(row, "bert.embeddings.", "embeddings/", -1)
        yield named._replace(backward=named.backward.replace("NEXT", into[0]))
    for i in range(L):
        prefix, call = f"bert.encoder.layer.{i}.", f"encoder_layer.{i}/"
        for row in LAYER:
            named = _named(_activated(row, config), prefix, call, i)
            is_last = f"hidden_states.{L}" in named.aliases
            yield named._replace(
                aliases=(*named.aliases, *["last_hidden_state"][:is_last]),
                backward=named.backward.replace("NEXT", into[i + 1]),
            )
    last = f"bert.encoder.layer.{L - 1}.output.LayerNorm"
    for row in HEADS[model]:
        formula, instead = (text.replace("LAST", last) for text in (row.formula, row.instead))
        yield _activated(row, config)._replace(formula=formula, instead=instead)


def _activated(row: Row, config: BertConfig) -> Row:
    """A row with the configuration's activation in its call and its gradient."""
    return row._replace(
        call=row.call.replace("activation", config.hidden_act),
        backward=row.backward.replace("SLOPE", SLOPES[config.hidden_act]),
    )


def _named(row: Row, prefix: str, call: str, i: int) -> Row:
    """A row of the embeddings (i = −1) or of layer i, with its full name."""
    aliases = (alias.format(prefix=prefix, i=i, state=i + 1) for alias in row.aliases)
    return row._replace(
        name=prefix + row.name,
        call=call + row.call,
        aliases=tuple(alias.rstrip(".") for alias in aliases),
        instead=row.instead and prefix + row.instead,
    )


def keep_mask(row: Row, call: Call) -> Any:
    """The decisions of a dropout, in the shape of what they apply to; None where it is off."""
    if not call.keeps:
        return None
    if row.axes == "pairs":
        pairs = zip(probs(call), call.keeps, strict=True)
        return [keep.reshape(P.shape) for P, keep in pairs]
    return call.keeps[0].reshape(call.y.shape)


# ---- The tables ----


def _norm(name: str, call: str, what: str, summed: str, backward: str, *aliases: str) -> list[Row]:
    """A layer norm: its input, its statistics, its result."""
    x = name.replace("LayerNorm", summed)
    return [
        Row(
            x, call, "the layer norm's input", what, _into_norm(name, x),
            value=lambda _, c: c.args[0], gradient=lambda _, c: c.dx and c.dx[0],
        ),
        Row(
            f"{name}.mean", call, "each token's mean over the features", f"mean({x})",
            value=norm_mean, gradient=None,
        ),
        Row(
            f"{name}.rstd", call, "1/√(population variance + eps), of each token",
            f"1/√(mean(({x} − mean)²) + layer_norm_eps)", value=norm_rstd, gradient=None,
        ),
        Row(
            name, call, "layer norm", f"({x} − mean)·rstd·weight + bias", backward,
            aliases=aliases,
        ),
    ]  # fmt: skip


def _into_norm(name: str, x: str) -> str:
    """The gradient of a layer norm's input x."""
    return (
        f"rstd·(g − mean(g) − x̂·mean(g·x̂)), g = d({name})·weight, x̂ = ({x} − mean)·rstd, each "
        "token's mean over the features"
    )


def _projection(part: int, name: str, backward: str) -> Row:
    value, gradient = third(part)
    names = "queries" if name == "query" else f"{name}s"
    return Row(
        f"attention.self.{name}", "multi_head_attention/linear",
        f"{names} of all heads side by side: head h is features h·D to (h + 1)·D − 1",
        "(the layer's input)·weightᵀ + bias", backward, value=value, gradient=gradient,
    )  # fmt: skip


INTO_LAYER = (
    "d(attention.output.residual) + d(query)·query.weight + d(key)·key.weight + "
    "d(value)·value.weight, all of layer {i}"
)
"""The gradient of a layer's input."""
SLOPES = {
    "gelu": "(Φ(x) + x·exp(−x²/2)/√(2π)), Φ(x) = (1 + erf(x/√2))/2",
    "gelu_new": "((1 + t)/2 + x·(1 − t²)·√(2/π)·(1 + 3·0.044715·x²)/2), "
    "t = tanh(√(2/π)·(x + 0.044715·x³))",
    "relu": "[x > 0]",
}
"""The derivative of `hidden_act` at x."""

EMBEDDINGS = [
    Row("word_embeddings", "lookup", "rows of the word table", "weight[input_ids]", "d(sum)",
        value=looked_up(0)),
    Row("token_type_embeddings", "lookup", "rows of the token type table",
        "weight[token_type_ids]", "d(sum)", value=looked_up(2)),
    Row("position_embeddings", "lookup", "rows of the position table",
        "weight[column of the token in the padded row]",
        "row s: Σ d(sum) over the tokens in column s",
        value=looked_up(1), gradient_axes="columns"),
    *_norm("LayerNorm", "layer_norm", "word + token type + position", "sum", "NEXT"),
    Row("dropout", "dropout", "the embeddings, dropped", "LayerNorm·keep/(1 − p̂)",
        aliases=("{prefix}", "hidden_states.0"), instead="LayerNorm", keep=True),
]  # fmt: skip

LAYER = [
    _projection(0, "query", "d(scores)·key/√D, head by head"),
    _projection(1, "key", "d(scores)ᵀ·query/√D, head by head"),
    _projection(2, "value", "{attention.self.probs}ᵀ·d(context), head by head"),
    Row("attention.self.scores", "multi_head_attention/attention",
        "raw scores of each head, before any mask: [query token, key token]",
        "query·keyᵀ/√D, head by head", "probs·(d(probs) − Σ probs·d(probs)), Σ over the keys",
        "pairs", of_softmaxes(lambda c: c.args[0]), of_softmaxes(lambda c: c.dx)),
    Row("attention.self.probs", "multi_head_attention/attention",
        "attention probabilities: a row sums to 1 over its sequence's real tokens",
        "softmax(scores) over the keys", "d(context)·valueᵀ, head by head", "pairs",
        of_softmaxes(lambda c: c.y), of_softmaxes(lambda c: c.dy), ("attentions.{i}",)),
    Row("attention.self.dropout", "multi_head_attention/attention",
        "the probabilities, dropped", "probs·keep/(1 − p̂)", "", "pairs",
        dropped_probs, dropped_probs_gradient, instead="attention.self.probs", keep=True),
    Row("attention.self.context", "multi_head_attention/attention",
        "what the heads gather, side by side", "{attention.self.probs}·value, head by head",
        "d(attention.output.dense)·attention.output.dense.weight",
        aliases=("{prefix}attention.self",)),
    Row("attention.output.dense", "multi_head_attention/linear.1", "the attention's result",
        "context·weightᵀ + bias", "d(attention.output.residual)"),
    Row("attention.output.dropout", "add_norm/dropout", "the same, dropped",
        "dense·keep/(1 − p̂)", instead="attention.output.dense", keep=True),
    *_norm("attention.output.LayerNorm", "add_norm/layer_norm",
           "{attention.output.dense} + the layer's input", "residual",
           "d(output.residual) + d(intermediate.dense)·intermediate.dense.weight",
           "{prefix}attention.output", "{prefix}attention"),
    Row("intermediate.dense", "feed_forward/linear", "the pre-activation",
        "attention.output.LayerNorm·weightᵀ + bias",
        "d(intermediate)·SLOPE, x = intermediate.dense"),
    Row("intermediate", "feed_forward/activation", "the activation (GELU, …)",
        "gelu: x·(1 + erf(x/√2))/2; gelu_new: x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2; relu",
        "d(output.dense)·output.dense.weight",
        aliases=("{prefix}intermediate.intermediate_act_fn",)),
    Row("output.dense", "feed_forward/linear.1", "the feed-forward network's result",
        "intermediate·weightᵀ + bias", "d(output.residual)"),
    Row("output.dropout", "add_norm.1/dropout", "the same, dropped",
        "dense·keep/(1 − p̂)", instead="output.dense", keep=True),
    *_norm("output.LayerNorm", "add_norm.1/layer_norm",
           "{output.dense} + attention.output.LayerNorm", "residual", "NEXT",
           "{prefix}output", "{prefix}", "hidden_states.{state}"),
]  # fmt: skip

ENTROPY = "(softmax − onehot(label))/n, n the labels that are not -100; 0 where it is -100"
LOSSES = (
    f"{ENTROPY}; of a regression 2·(logits − labels)/n, of yes/no labels "
    "(1/(1 + exp(−logits)) − labels)/n, n the elements of labels"
)
SPANS = (
    "(softmax over the row's real tokens − onehot(position))/(2n), n the positions that have a "
    "token; 0 where it has none"
)
PAIRS = (
    "of a pair's u and v: h − u·Σ(u·h), h = 2·(Σ(u·v) − label)·v/n, n pairs, and the same with u "
    "and v exchanged; without labels h = 20·(softmax(S) − I)·v/n, S = 20·u·vᵀ of all pairs, and "
    "for v h = 20·(softmax(S) − I)ᵀ·u/n"
)
POOLED = "d(bert.pooler.dense)·bert.pooler.dense.weight at each first token"
TRANSFORM = "cls.predictions.transform.dense"
INTO_HEAD = {
    "BertForTokenClassification": "d(logits)·classifier.weight",
    "BertForQuestionAnswering": "d(qa_outputs)·qa_outputs.weight",
    "BertForMaskedLM": f"d({TRANSFORM})·{TRANSFORM}.weight",
    "BertForPreTraining": f"d({TRANSFORM})·{TRANSFORM}.weight, plus {POOLED}",
    "BertForSentenceEmbedding": "d(pooled)/n, n the tokens of the sequence",
}
"""The gradient of the last hidden state, by model class; of the others it is `POOLED`, else 0."""


def _pooler(backward: str) -> list[Row]:
    return [
        Row("bert.pooler.dense", "pooler/linear", "the pooler before its tanh",
            "(last hidden state of the first token)·weightᵀ + bias",
            "d(bert.pooler)·(1 − bert.pooler²)", "rows"),
        Row("bert.pooler", "pooler", "the pooled sequences", "tanh(bert.pooler.dense)", backward,
            "rows", aliases=("bert.pooler.activation", "pooler_output")),
    ]  # fmt: skip


def _classifier(axes: str, x: str, backward: str, name: str = "logits") -> list[Row]:
    return [
        Row("dropout", "classifier/dropout", "the classifier's input, dropped",
            f"{x}·keep/(1 − p̂)", axes=axes, instead=x, keep=True),
        Row(name, "classifier/linear", "the logits", f"{{{x}}}·weightᵀ + bias", backward, axes,
            aliases=("classifier",)),
    ]  # fmt: skip


def _side(column: int, name: str) -> Row:
    return Row(
        name, "linear", f"each token's score: qa_outputs[..., {column}]", "the same", SPANS,
        value=lambda _, c: c.y[:, column],
        gradient=lambda _, c: None if c.dy is None else c.dy[:, column],
    )  # fmt: skip


QUESTION = [
    Row("qa_outputs", "linear", "scores of every token as start and as end",
        "last hidden state·weightᵀ + bias", "d(start_logits) and d(end_logits), side by side"),
    _side(0, "start_logits"),
    _side(1, "end_logits"),
]  # fmt: skip
CHOICE = [
    *_pooler("d(classifier)·classifier.weight"),
    *_classifier("rows", "bert.pooler", "d(logits), a row a choice", "classifier"),
    Row("logits", "cross_entropy", "one score a choice", "classifier, a row a question", ENTROPY,
        "rows", value=lambda _, c: c.args[0], gradient=lambda _, c: c.dx),
]  # fmt: skip
NORM = "cls.predictions.transform.LayerNorm"


def _masked(logits: str, *aliases: str) -> list[Row]:
    activation = "cls.predictions.transform.activation"
    return [
        Row(TRANSFORM, "masked_lm_head/linear", "the transform",
            "last hidden state·weightᵀ + bias", f"d({activation})·SLOPE, x = {TRANSFORM}"),
        Row(activation, "masked_lm_head/activation", "its activation",
            "hidden_act, as in the encoder", _into_norm(NORM, activation),
            aliases=("cls.predictions.transform.transform_act_fn",)),
        *_norm(NORM, "masked_lm_head/layer_norm", "", "activation", f"d({logits})·(word table)",
               "cls.predictions.transform")[1:],
        Row(logits, "masked_lm_head/linear.1", "a score for every word of the vocabulary",
            f"{NORM}·(word table)ᵀ + cls.predictions.bias", ENTROPY,
            aliases=("cls.predictions.decoder", "cls.predictions", *aliases)),
    ]  # fmt: skip


def _relation(logits: str) -> list[Row]:
    return [
        *_pooler(f"d({logits})·cls.seq_relationship.weight"),
        Row(logits, "classifier/linear", "0: the next segment, 1: a random one",
            "bert.pooler·weightᵀ + bias", ENTROPY, "rows", aliases=("cls.seq_relationship",)),
    ]  # fmt: skip


EMBEDDING = [
    Row("pooled", "mean_pooling", "the mean of each sequence's tokens", "mean(last hidden state)",
        "(g − y·Σ(y·g))/‖pooled‖, y = sentence_embedding, g = d(y)", "rows"),
    Row("sentence_embedding", "normalize", "the same, of length 1", "pooled/‖pooled‖", PAIRS,
        "rows"),
]  # fmt: skip

HEADS: dict[str, list[Row]] = {
    "BertModel": _pooler(""),
    "BertForSequenceClassification": [
        *_pooler("d(logits)·classifier.weight"),
        *_classifier("rows", "bert.pooler", LOSSES),
    ],
    "BertForTokenClassification": _classifier("tokens", "LAST", ENTROPY),
    "BertForQuestionAnswering": QUESTION,
    "BertForMultipleChoice": CHOICE,
    "BertForMaskedLM": _masked("logits", "prediction_logits"),
    "BertForNextSentencePrediction": _relation("logits"),
    "BertForPreTraining": [*_masked("prediction_logits"), *_relation("seq_relationship_logits")],
    "BertForSentenceEmbedding": EMBEDDING,
}
"""What stands behind the encoder, by model class."""
