"""Mistakes in Add & Norm: eps, the variance, the parameters, the residual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minibert.backend import Array, Backend
from minibert.layers.layer_norm import LayerNormCache
from minibert.verify.hypotheses.base import (
    PLAIN,
    Guess,
    Layer,
    changed_arguments,
    changed_result,
    in_some_calls,
    replaced,
)
from minibert.verify.hypotheses.loading import LAYER
from minibert.verify.trace.setup import Setup

PARTS = "attention", "the feed-forward network"
FRAMEWORKS = (1e-5, 1e-6, 1e-3, 1e-12)
"""What layer norms have for eps that are not told: PyTorch's, Flax's, Keras's, and BERT's own."""
EPS = (*FRAMEWORKS, 1e-7, 1e-8)


def eps(setup: Setup, _: str) -> Iterator[Guess]:
    """Another layer_norm_eps: 1e-5 is the frameworks' default."""
    right = setup.config.layer_norm_eps
    for wrong in EPS:
        if wrong != right:
            config = setup.config.replace(layer_norm_eps=wrong)
            cause = f"layer_norm_eps is {wrong:g}, not {right:g}"
            yield Guess(cause, setup.replace(config=config))


def eps_somewhere(setup: Setup, first: str) -> Iterator[Guess]:
    """Another eps in some layer norms alone: in one, in a layer's, from one on, in those alike."""
    L, right = setup.config.num_hidden_layers, setup.config.layer_norm_eps
    calls = sum(name.endswith("LayerNorm.weight") for name in setup.weights)
    names = ("the embeddings' layer norm", *(
        f"layer {i}'s layer norm after {part}" for i in range(L) for part in PARTS
    ))  # fmt: skip
    places: dict[str, range] = {
        "the encoder's layer norms": range(1, 2 * L + 1),
        **{f"the layer norms after {part}": range(1 + k, 2 * L + 1, 2) for k, part in
           enumerate(PARTS)},
        names[0]: range(1),
    }  # fmt: skip
    if calls > 2 * L + 1:
        places["the head's layer norm"] = range(2 * L + 1, calls)
    if layer := LAYER.search(first):
        i = int(layer[1])
        near = range(2 * i, 2 * i + 3)  # what the layer is given, and its own
        places |= {names[call]: range(call, call + 1) for call in near}
        places[f"layer {i}'s layer norms"] = range(2 * i + 1, 2 * i + 3)
        places |= {f"all layer norms from {names[call]} on": range(call, calls) for call in near}
    for chosen, where in {chosen: where for where, chosen in reversed(places.items())}.items():
        for wrong in FRAMEWORKS:
            if wrong != right and len(chosen) < calls:
                changed = in_some_calls("layer_norm", _with_eps(wrong), calls, chosen)
                cause = f"layer_norm_eps is {wrong:g}, not {right:g}, but only in {where}"
                yield Guess(cause, replaced(setup, **changed))


def _with_eps(eps: float) -> dict[str, Layer]:
    return changed_arguments("layer_norm", lambda xp, x, g, b, _: (x, g, b, eps))


def eps_outside(setup: Setup, _: str) -> Iterator[Guess]:
    """1/(σ + eps), not 1/√(σ² + eps)."""
    for added in dict.fromkeys((setup.config.layer_norm_eps, *EPS)):

        def forward(
            xp: Backend, x: Array, gamma: Array, beta: Array, _: float, added: float = added
        ) -> tuple[Array, LayerNormCache]:
            centred = x - xp.mean(x, axis=-1, keepdims=True)
            rstd = 1.0 / (xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True)) + added)
            return centred * rstd * gamma + beta, LayerNormCache(centred * rstd, rstd, gamma)

        def backward(xp: Backend, dy: Array, cache: LayerNormCache, added: float = added) -> Any:
            xhat, rstd, gamma = cache
            dxhat = dy * gamma
            along = xp.mean(dxhat * xhat, axis=-1, keepdims=True) / (1.0 - added * rstd)
            dx = rstd * (dxhat - xp.mean(dxhat, axis=-1, keepdims=True) - xhat * along)
            return dx, xp.sum(dy * xhat, axis=0), xp.sum(dy, axis=0)

        guess = replaced(setup, layer_norm_forward=forward, layer_norm_backward=backward)
        yield Guess(f"eps ({added:g}) is added to the standard deviation, not the variance", guess)


def layer_norm(setup: Setup, _: str) -> Iterator[Guess]:
    """Another variance, or other parameters."""
    sample = replaced(
        setup, layer_norm_forward=_sample_norm, layer_norm_backward=_sample_norm_backward
    )
    yield Guess("layer norm divides by the sample variance (n − 1)", sample)
    for cause, change in {
        "layer norm without its weight": lambda xp, x, g, b, e: (x, xp.ones_like(g), b, e),
        "layer norm without its bias": lambda xp, x, g, b, e: (x, g, xp.zeros_like(b), e),
        "layer norm's weight and bias are swapped": lambda xp, x, g, b, e: (x, b, g, e),
        "layer norm multiplies by 1 + weight": lambda xp, x, g, b, e: (x, 1.0 + g, b, e),
    }.items():
        yield Guess(cause, replaced(setup, **changed_arguments("layer_norm", change)))
    no_mean = replaced(setup, layer_norm_forward=_no_mean)
    yield Guess("layer norm does not subtract the mean (RMS norm)", no_mean)


def missing(setup: Setup, _: str) -> Iterator[Guess]:
    """The embeddings go into the first layer as they are summed."""

    def forward(
        xp: Backend, x: Array, gamma: Array, beta: Array, eps: float
    ) -> tuple[Array, LayerNormCache]:
        return x.copy(), LayerNormCache(x, xp.ones_like(x[:, :1]), gamma)

    def backward(xp: Backend, dy: Array, cache: LayerNormCache) -> Any:
        return dy, xp.zeros_like(cache.gamma), xp.zeros_like(cache.gamma)

    wrong: dict[str, Layer] = {"layer_norm_forward": forward, "layer_norm_backward": backward}
    calls = sum(name.endswith("LayerNorm.weight") for name in setup.weights)
    only_first = in_some_calls("layer_norm", wrong, calls, [0])
    yield Guess("the embeddings' layer norm is missing", replaced(setup, **only_first))


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


def residual(setup: Setup, first: str) -> Iterator[Guess]:
    """An addition that is missing: everywhere, after one sub-layer, in one layer."""
    none = changed_arguments("add_norm", lambda xp, x, r, *rest: (x, 0 * r, *rest))
    none |= changed_result("add_norm", lambda xp, d, *_: (d[0], 0 * d[1], *d[2:]))
    yield Guess("the residual connections are missing", replaced(setup, **none))
    calls, layer = 2 * setup.config.num_hidden_layers, LAYER.search(first)
    for place, name in enumerate(PARTS):
        missing = in_some_calls("add_norm", none, calls, range(place, calls, 2))
        cause = f"the residual connections after {name} are missing"
        yield Guess(cause, replaced(setup, **missing))
        if layer:
            missing = in_some_calls("add_norm", none, calls, [2 * int(layer[1]) + place])
            cause = f"layer {layer[1]}'s residual connection after {name} is missing"
            yield Guess(cause, replaced(setup, **missing))
    twice = changed_arguments("add_norm", lambda xp, x, r, *rest: (x, 2 * r, *rest))
    twice |= changed_result("add_norm", lambda xp, d, *_: (d[0], 2 * d[1], *d[2:]))
    yield Guess("the residual is added twice", replaced(setup, **twice))
    cause = (
        "the residual after the feed-forward network is the layer's input, not the network's input"
    )
    yield Guess(cause, replaced(setup, **_layer_input()))


def _layer_input() -> dict[str, Layer]:
    """Both additions of a layer have the same residual, which gets the gradients of both."""
    residuals: list[Array] = []
    gradients: list[Array] = []

    def forward(xp: Backend, x: Array, residual: Array, *rest: Any) -> Any:
        if residuals:
            return PLAIN["add_norm_forward"](xp, x, residuals.pop(), *rest)
        residuals.append(residual)
        return PLAIN["add_norm_forward"](xp, x, residual, *rest)

    def backward(xp: Backend, dy: Array, cache: Any) -> Any:
        dx, dresidual, *rest = PLAIN["add_norm_backward"](xp, dy, cache)
        if gradients:
            return dx, dresidual + gradients.pop(), *rest
        gradients.append(dresidual)
        return dx, 0 * dresidual, *rest

    return {"add_norm_forward": forward, "add_norm_backward": backward}


ALL = (eps, eps_somewhere, eps_outside, layer_norm, missing, residual)
