"""One case for each layer: random inputs in shapes where no two sizes are equal.

Equal sizes would hide transposed axes; gamma = 1, beta = 0 and zero biases would hide wrong
formulas; dropout 0.5 would hide p for 1 − p. So B ≠ T ≠ H ≠ N ≠ F, everything is random, and
dropout is 0.1 or 0.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.layers import (
    activations,
    add_norm,
    attention,
    classifier,
    dropout,
    embeddings,
    encoder_layer,
    feed_forward,
    layer_norm,
    linear,
    losses,
    masked_lm_head,
    multi_head_attention,
    normalize,
    pair_losses,
    pooler,
    pooling,
    select,
    softmax,
    span_loss,
)
from minibert.layers.dropout import DropoutKey

Arrays = Mapping[str, NDArray[Any]]

OFFSETS = (0, 3, 4, 9, 14)  # B = 4 sequences of lengths 3, 1, 5, 5: two of them form a run
T, H, N, F, K, V, P = 14, 12, 3, 20, 5, 11, 7
ROWS = (0, 4, 5, 13)  # one, none, two and one of the four sequences
KEY = DropoutKey(seed=7, step=3, site=2, first_row=29)


class LayerCase(NamedTuple):
    """A layer at one point: its differentiable arguments by name, the others fixed."""

    layer: str  # the name of the pair, `layer`_forward and `layer`_backward; or "layer[variant]"
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    arrays: Arrays  # "x", "W", …; "w.W_qkv" for a field of a weights tuple `w`
    arguments: Callable[[Arrays], tuple[Any, ...]]  # arrays → what follows xp in the forward


def layer_cases(seed: int = 0) -> list[LayerCase]:
    """Every layer of `minibert.layers`; a test fails if one is missing."""
    draw = _Draw(np.random.default_rng(seed))
    return [
        *_element_wise(draw),
        *_attention(draw),
        *_blocks(draw),
        *_heads(draw),
        *_losses(draw),
        *_losses_of_heads(draw),
    ]


def by_name(arrays: Arrays) -> tuple[Any, ...]:
    """The plain case: the forward takes the arrays in this order and nothing else."""
    return tuple(arrays.values())


def followed_by(*rest: Any) -> Callable[[Arrays], tuple[Any, ...]]:
    """The arrays in this order, then `rest`."""
    return lambda arrays: (*arrays.values(), *rest)


class _Draw:
    """Random arrays of moderate size."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, *shape: int) -> NDArray[np.float64]:
        return self.rng.normal(size=shape)

    def away_from_zero(self, *shape: int) -> NDArray[np.float64]:
        """For ReLU, which a finite difference must not step across."""
        x = self(*shape)
        x += 0.1 * np.sign(x)
        return x

    def apart(self, *shape: int) -> NDArray[np.float64]:
        """For a maximum, which a finite difference must not hand to another row."""
        ranks = self.rng.permuted(np.tile(np.arange(shape[0])[:, None], shape[1:]), axis=0)
        return 0.3 * (ranks + 0.3 * self.rng.random(shape))

    def ids(self, size: int, low: int = 0) -> NDArray[np.int64]:
        return self.rng.integers(low, size, T)

    def weights(self, width: int, *shape: int) -> NDArray[np.float64]:
        """A matrix that keeps the scale of what it multiplies."""
        return self(*shape) * (1 / math.sqrt(width))


def _case(module: Any, layer: str, arrays: Arrays, arguments: Any = by_name) -> LayerCase:
    forward, backward = (getattr(module, f"{layer}_{way}") for way in ("forward", "backward"))
    return LayerCase(layer, forward, backward, arrays, arguments)


def _element_wise(draw: _Draw) -> list[LayerCase]:
    linear_arrays = {"x": draw(T, H), "W": draw.weights(H, F, H), "b": draw(F)}
    norm_arrays = {"x": draw(T, H), "gamma": draw(H), "beta": draw(H)}
    return [
        _case(linear, "linear", linear_arrays),
        _case(activations, "gelu", {"x": 2 * draw(T, F)}),
        _case(activations, "gelu_new", {"x": 2 * draw(T, F)}),
        _case(activations, "relu", {"x": draw.away_from_zero(T, F)}),
        _case(layer_norm, "layer_norm", norm_arrays, followed_by(1e-12)),
        _case(dropout, "dropout", {"x": draw(T, H)}, followed_by(0.3, KEY)),
        _case(softmax, "softmax", {"x": 2 * draw(N, T, P)}),
        _case(
            add_norm,
            "add_norm",
            {"x": draw(T, H), "residual": draw(T, H), "gamma": draw(H), "beta": draw(H)},
            followed_by(1e-12, 0.1, KEY),
        ),
    ]


def _attention(draw: _Draw) -> list[LayerCase]:
    projections = {
        "x": draw(T, H),
        "W_qkv": draw.weights(H, 3 * H, H),
        "b_qkv": draw(3 * H),
        "W_o": draw.weights(H, H, H),
        "b_o": draw(H),
    }
    rest = OFFSETS, N, 0.3, KEY
    whole = _case(multi_head_attention, "multi_head_attention", projections, followed_by(*rest))
    some = followed_by(*rest, np.array(ROWS))
    return [
        _case(attention, "attention", {"qkv": draw(T, 3 * H)}, followed_by(*rest)),
        whole,
        whole._replace(layer="multi_head_attention[rows]", arguments=some),
    ]


def _blocks(draw: _Draw) -> list[LayerCase]:
    first = np.array(OFFSETS[:-1])
    # padding_idx is 0, and no id is 0: the rule that its row stays put is no derivative.
    ids = (draw.ids(V, low=1), draw.ids(P), draw.ids(2), 0)
    tables = {"word": draw(V, H), "position": draw(P, H), "token_type": draw(2, H)}
    norm = {"gamma": draw(H), "beta": draw(H)}
    up_down = {
        "x": draw(T, H),
        "W_in": draw.weights(H, F, H),
        "b_in": draw(F),
        "W_out": draw.weights(F, H, F),
        "b_out": draw(H),
    }
    pooled = {"x": draw(T, H), "W": draw.weights(H, H, H), "b": draw(H)}
    classified = {"x": draw(T, H), "W": draw.weights(H, K, H), "b": draw(K)}
    return [
        _case(embeddings, "lookup", tables, followed_by(*ids)),
        _case(
            embeddings,
            "embeddings",
            {f"w.{name}": a for name, a in (tables | norm).items()},
            lambda a: (embeddings.EmbeddingsWeights(*a.values()), *ids, 1e-12, 0.1, KEY),
        ),
        _case(feed_forward, "feed_forward", up_down, followed_by("gelu")),
        _case(pooler, "pooler", pooled, followed_by(first)),
        _case(classifier, "classifier", classified, followed_by(0.1, KEY)),
        *_encoder_layers(draw),
    ]


def _encoder_layers(draw: _Draw) -> list[LayerCase]:
    """A layer, and one of which some rows are wanted."""
    shapes = {
        "W_qkv": (3 * H, H), "b_qkv": (3 * H,), "W_o": (H, H), "b_o": (H,),
        "gamma_attention": (H,), "beta_attention": (H,),
        "W_in": (F, H), "b_in": (F,), "W_out": (H, F), "b_out": (H,),
        "gamma_output": (H,), "beta_output": (H,),
    }  # fmt: skip
    weights = {f"w.{name}": draw.weights(shape[-1], *shape) for name, shape in shapes.items()}
    settings = encoder_layer.EncoderLayerSettings(N, "gelu_new", 1e-12, 0.1, 0.3)

    def arguments(arrays: Arrays, *rows: Any) -> tuple[Any, ...]:
        x, *w = arrays.values()
        return x, encoder_layer.EncoderLayerWeights(*w), OFFSETS, settings, KEY, *rows

    whole = _case(encoder_layer, "encoder_layer", {"x": draw(T, H)} | weights, arguments)
    return [
        whole,
        whole._replace(layer="encoder_layer[rows]", arguments=lambda a: arguments(a, ROWS)),
    ]


def _heads(draw: _Draw) -> list[LayerCase]:
    x = {"x": draw(T, H)}
    predicted = {
        "x": draw(F, H),
        "W": draw.weights(H, H, H),
        "b": draw(H),
        "gamma": draw(H),
        "beta": draw(H),
        "bias": draw(V),
        "word": draw.weights(H, V, H),
    }
    return [
        _case(masked_lm_head, "masked_lm_head", predicted, followed_by("gelu", 1e-12)),
        _case(select, "select", x, followed_by(np.array([6, 2, 13]))),
        _case(pooling, "mean_pooling", x, followed_by(OFFSETS)),
        _case(pooling, "max_pooling", {"x": draw.apart(T, H)}, followed_by(OFFSETS)),
        _case(normalize, "normalize", x),
    ]


def _losses(draw: _Draw) -> list[LayerCase]:
    labels = draw.ids(K)
    labels[[2, 5]] = losses.IGNORE_INDEX
    logits = {"logits": 2 * draw(T, K)}
    yes_no = draw.rng.integers(0, 2, (T, K)).astype(float)
    return [  # counts are larger than what is here: this is a shard of a larger batch
        _case(losses, "cross_entropy", logits, followed_by(labels, 31)),
        _case(losses, "mean_squared_error", logits, followed_by(draw(T, K), 3 * T * K)),
        _case(losses, "binary_cross_entropy", logits, followed_by(yes_no, 3 * T * K)),
    ]


def _losses_of_heads(draw: _Draw) -> list[LayerCase]:
    lengths = np.diff(OFFSETS)
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    position = np.concatenate([np.arange(n) for n in lengths])
    spans = np.array([[1, 2], [losses.IGNORE_INDEX, 0], [4, 4], [0, losses.IGNORE_INDEX]])
    span = followed_by(sequence, position, int(lengths.max()) + 1, spans, (7, 9))
    pairs = {"y": draw(2 * N, H)}
    return [
        _case(span_loss, "span_loss", {"logits": 2 * draw(T, 2)}, span),
        _case(pair_losses, "contrastive", pairs, followed_by(5.0)),
        _case(pair_losses, "cosine_regression", pairs, followed_by(draw(N), 7)),
    ]
