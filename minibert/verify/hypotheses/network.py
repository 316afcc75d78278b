"""Mistakes in the forward outside attention: activation, norm, embeddings, pooler, loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from minibert.backend import Array, Backend
from minibert.layers.activations import GeluCache
from minibert.layers.layer_norm import LayerNormCache
from minibert.verify.hypotheses.base import (
    PLAIN,
    Guess,
    Layer,
    changed_arguments,
    changed_result,
    replaced,
)
from minibert.verify.trace.setup import Setup

ACTIVATIONS = {
    "gelu": "GELU by the true erf",
    "gelu_new": "GELU by tanh (hidden_act gelu_new)",
    "relu": "ReLU",
}


def activation(setup: Setup, _: str) -> Iterator[Guess]:
    """Another function of the same family."""
    for name, words in ACTIVATIONS.items():
        if name != setup.config.hidden_act:
            cause = f"the activation is {words}, not {ACTIVATIONS[setup.config.hidden_act]}"
            yield Guess(cause, setup.replace(config=setup.config.replace(hidden_act=name)))
    act = setup.config.hidden_act
    quick: dict[str, Layer] = {
        f"{act}_forward": _quick_gelu,
        f"{act}_backward": _quick_gelu_backward,
    }
    yield Guess("the activation is x·sigmoid(1.702·x) (quick GELU)", replaced(setup, **quick))
    if act == "gelu":
        rough = replaced(setup, gelu_forward=_rough_gelu)
        yield Guess("GELU's erf is an approximation (Abramowitz & Stegun 7.1.26, 1.5e-7)", rough)


def _quick_gelu(xp: Backend, x: Array) -> tuple[Array, GeluCache]:
    return x / (1.0 + xp.exp(-1.702 * x)), GeluCache(x)


def _quick_gelu_backward(xp: Backend, dy: Array, cache: GeluCache) -> Array:
    s = 1.0 / (1.0 + xp.exp(-1.702 * cache.x))
    return dy * (s + 1.702 * cache.x * s * (1.0 - s))


def _rough_gelu(xp: Backend, x: Array) -> tuple[Array, GeluCache]:
    z = abs(x) * math.sqrt(0.5)
    t = 1.0 / (1.0 + 0.3275911 * z)
    series = 0.254829592 + t * (
        -0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))
    )
    erf = xp.copysign(1.0 - t * series * xp.exp(-z * z), x)
    return 0.5 * x * (1.0 + erf), GeluCache(x)


def eps(setup: Setup, _: str) -> Iterator[Guess]:
    """Another layer_norm_eps: 1e-5 is the frameworks' default."""
    right = setup.config.layer_norm_eps
    for wrong in (1e-5, 1e-6, 1e-3, 1e-7, 1e-8, 1e-12):
        if wrong != right:
            config = setup.config.replace(layer_norm_eps=wrong)
            cause = f"layer_norm_eps is {wrong:g}, not {right:g}"
            yield Guess(cause, setup.replace(config=config))


def layer_norm(setup: Setup, _: str) -> Iterator[Guess]:
    """Another variance, a place of eps, or no parameters."""
    sample = replaced(
        setup, layer_norm_forward=_sample_norm, layer_norm_backward=_sample_norm_backward
    )
    yield Guess("layer norm divides by the sample variance (n − 1)", sample)
    no_weight = changed_arguments("layer_norm", lambda xp, x, g, b, e: (x, xp.ones_like(g), b, e))
    yield Guess("layer norm without its weight", replaced(setup, **no_weight))
    no_bias = changed_arguments("layer_norm", lambda xp, x, g, b, e: (x, g, xp.zeros_like(b), e))
    yield Guess("layer norm without its bias", replaced(setup, **no_bias))
    swapped = changed_arguments("layer_norm", lambda xp, x, g, b, e: (x, b, g, e))
    yield Guess("layer norm's weight and bias are swapped", replaced(setup, **swapped))
    no_mean = replaced(setup, layer_norm_forward=_no_mean)
    yield Guess("layer norm does not subtract the mean (RMS norm)", no_mean)


def _sample_norm(
    xp: Backend, x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, LayerNormCache]:
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    variance = xp.sum(centred * centred, axis=-1, keepdims=True) / (x.shape[-1] - 1)
    rstd = 1.0 / xp.sqrt(variance + eps)
    return centred * rstd * gamma + beta, LayerNormCache(centred * rstd, rstd, gamma)


def _sample_norm_backward(xp: Backend, dy: Array, cache: LayerNormCache) -> Any:
    xhat, rstd, gamma = cache
    dxhat = dy * gamma
    along = xp.sum(dxhat * xhat, axis=-1, keepdims=True) / (dy.shape[-1] - 1)
    dx = rstd * (dxhat - xp.mean(dxhat, axis=-1, keepdims=True) - xhat * along)
    return dx, xp.sum(dy * xhat, axis=0), xp.sum(dy, axis=0)


def _no_mean(
    xp: Backend, x: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, LayerNormCache]:
    rstd = 1.0 / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps)
    return x * rstd * gamma + beta, LayerNormCache(x * rstd, rstd, gamma)


def inputs(setup: Setup, _: str) -> Iterator[Guess]:
    """Token types, positions and ids that are off."""
    types, positions = setup.config.type_vocab_size - 1, setup.config.max_position_embeddings - 1
    for cause, change in {
        "token_type_ids are ignored (all 0)": lambda i, p, t: (i, p, 0 * t),
        "token_type_ids are all 1 (off by one)": lambda i, p, t: (i, p, 0 * t + types),
        "token_type_ids are swapped (0 for 1)": lambda i, p, t: (i, p, types - t),
        "positions are off by one (counted from 1)": lambda i, p, t: (
            i, (p + 1).clip(0, positions), t
        ),
        "positions are off by two (as in RoBERTa)": lambda i, p, t: (
            i, (p + 2).clip(0, positions), t
        ),
        "positions are ignored (all 0)": lambda i, p, t: (i, 0 * p, t),
        "input_ids are off by one": lambda i, p, t: ((i + 1) % setup.config.vocab_size, p, t),
    }.items():  # fmt: skip

        def changed(
            xp: Backend, w: Any, i: Any, p: Any, t: Any, *rest: Any, change: Layer = change
        ) -> tuple[Any, ...]:
            return (w, *change(i, p, t), *rest)

        yield Guess(cause, replaced(setup, **changed_arguments("embeddings", changed)))


def missing_tables(setup: Setup, _: str) -> Iterator[Guess]:
    """A table that is not added, or a norm that is not applied."""
    for place, table in enumerate(("word", "position", "token type")):

        def change(xp: Backend, *args: Any, place: int = place) -> tuple[Any, ...]:
            return (*args[:place], 0 * args[place], *args[place + 1 :])

        cause = f"the {table} embeddings are not added"
        yield Guess(cause, replaced(setup, **changed_arguments("lookup", change)))


def residual(setup: Setup, _: str) -> Iterator[Guess]:
    """Add & Norm without the addition, or with the norm first."""
    none = changed_arguments("add_norm", lambda xp, x, r, *rest: (x, 0 * r, *rest))
    none |= changed_result("add_norm", lambda xp, d, *_: (d[0], 0 * d[1], *d[2:]))
    yield Guess("the residual connections are missing", replaced(setup, **none))
    twice = changed_arguments("add_norm", lambda xp, x, r, *rest: (x, 2 * r, *rest))
    twice |= changed_result("add_norm", lambda xp, d, *_: (d[0], 2 * d[1], *d[2:]))
    yield Guess("the residual is added twice", replaced(setup, **twice))


def pooler(setup: Setup, _: str) -> Iterator[Guess]:
    """Another token, or no tanh."""

    def last(xp: Backend, x: Any, W: Any, b: Any, first: Any) -> tuple[Any, ...]:
        return x, W, b, xp.concatenate([first[1:], xp.asarray([len(x)])]) - 1

    moved = replaced(setup, **changed_arguments("pooler", last))
    yield Guess("the pooler takes the last token, not the first", moved)

    def no_tanh(xp: Backend, *args: Any) -> Any:
        y, cache = PLAIN["pooler_forward"](xp, *args)
        return xp.arctanh(y), cache

    def no_tanh_backward(xp: Backend, dy: Any, cache: Any) -> Any:
        return PLAIN["pooler_backward"](xp, dy / (1.0 - cache.y * cache.y), cache)

    linear = replaced(setup, pooler_forward=no_tanh, pooler_backward=no_tanh_backward)
    yield Guess("the pooler lacks its tanh", linear)


def loss(setup: Setup, _: str) -> Iterator[Guess]:
    """Another divisor of the loss, and labels that should be ignored."""
    losses = ("cross_entropy", "mean_squared_error", "binary_cross_entropy")

    def everywhere(divisor: Any) -> Setup:
        functions: dict[str, Any] = {}
        for name in losses:
            functions |= changed_arguments(
                name, lambda xp, z, t, count: (z, t, divisor(z, t, count))
            )
        return replaced(setup, **functions)

    yield Guess("the loss is a sum, not a mean", everywhere(lambda z, t, count: 1))
    yield Guess(
        "the loss is divided by all rows, those labelled -100 too",
        everywhere(lambda z, t, count: z.shape[0]),
    )
    yield Guess(
        "the loss is divided by the number of logits",
        everywhere(lambda z, t, count: z.shape[0] * z.shape[-1]),
    )
    yield Guess("the loss is halved (½·mean)", everywhere(lambda z, t, count: 2 * count))
    counted = changed_arguments(
        "cross_entropy", lambda xp, z, t, count: (z, t.clip(0, None), z.shape[0])
    )
    yield Guess("a label of -100 is taken for class 0", replaced(setup, **counted))
    shifted = changed_arguments(
        "cross_entropy",
        lambda xp, z, t, count: (z, xp.where(t < 0, t, (t + 1) % z.shape[-1]), count),
    )
    yield Guess("labels are off by one", replaced(setup, **shifted))
    twice = changed_arguments(
        "cross_entropy", lambda xp, z, t, count: (PLAIN["softmax_forward"](xp, z)[0], t, count)
    )
    yield Guess("the cross-entropy is given probabilities, not logits", replaced(setup, **twice))


ALL = (
    activation, eps, layer_norm, inputs, missing_tables, residual, pooler, loss,
)  # fmt: skip
