"""Mistakes in dropout, given the right masks."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import Any

from minibert.backend import Array, Backend
from minibert.backend.base import dropout_threshold
from minibert.layers.encoder_layer import SITES
from minibert.models.encoder import head_site
from minibert.verify.hypotheses.base import PLAIN, Forms, Guess, Layer, replaced
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import Tensor


def scale(setup: Setup, _: str) -> Iterator[Guess]:
    """Another factor for what is kept than 1/(1 − p̂)."""
    for cause, factor in {
        "is not scaled": lambda p: 1.0,
        "is scaled by 1/p, not by 1/(1 − p)": lambda p: 1.0 / p,
        "is scaled by 1 − p, not by 1/(1 − p)": lambda p: 1.0 - p,
        "is scaled by 1/(1 − p), p not rounded to 1/65536": lambda p: 1.0 / (1.0 - p),
    }.items():
        functions = _scaled(factor)
        rows = {name: f for name, f in functions.items() if name.startswith("dropout")}
        pairs = {name: f for name, f in functions.items() if name.startswith("attention")}
        forms = _probs_scaled(setup, factor)
        yield Guess(f"what dropout keeps {cause}", replaced(setup, **functions), forms)
        yield Guess(f"what dropout keeps of activations {cause}", replaced(setup, **rows))
        yield Guess(f"what dropout keeps of attention {cause}", replaced(setup, **pairs), forms)


def _probs_scaled(setup: Setup, factor: Callable[[float], float]) -> Forms:
    """The dropped probabilities: with the right factor, as a trace has them, or with the wrong."""
    p = setup.config.attention_probs_dropout_prob

    def forms(tensor: Tensor) -> list[Any]:
        if p == 0 or not tensor.name.endswith("attention.self.dropout"):
            return [tensor.value]
        return [tensor.value, tensor.value * (factor(p) / dropout_threshold(p)[1])]

    return forms


def _scaled(factor: Callable[[float], float]) -> dict[str, Layer]:
    """Dropout, on rows and on attention probabilities, with another factor, both ways."""

    def ratio(p: float, key: Any) -> float:
        return 1.0 if key is None or p == 0 else factor(p) / dropout_threshold(p)[1]

    def rows(xp: Backend, x: Array, p: float, key: Any) -> Any:
        y, cache = PLAIN["dropout_forward"](xp, x, p, key)
        return y * ratio(p, key), cache

    def rows_backward(xp: Backend, dy: Array, cache: Any) -> Array:
        return PLAIN["dropout_backward"](xp, dy, cache) * ratio(cache.p, cache.key)

    def pairs(xp: Backend, qkv: Array, offsets: Any, N: int, p: float, key: Any) -> Any:
        y, cache = PLAIN["attention_forward"](xp, qkv, offsets, N, p, key)
        return y * ratio(p, key), cache

    def pairs_backward(xp: Backend, dy: Array, cache: Any) -> Array:
        return PLAIN["attention_backward"](xp, dy * ratio(cache.p, cache.key), cache)

    return {
        "dropout_forward": rows,
        "dropout_backward": rows_backward,
        "attention_forward": pairs,
        "attention_backward": pairs_backward,
    }


def places(setup: Setup, _: str) -> Iterator[Guess]:
    """Dropout that is forgotten somewhere."""
    config = setup.config
    if config.attention_probs_dropout_prob:
        without = setup.replace(config=config.replace(attention_probs_dropout_prob=0.0))
        yield Guess("attention probabilities are not dropped", without)

    head, sites = head_site(config), range(head_site(config))
    for cause, missing in {
        "the embeddings are not dropped": [0],
        "the attention's results are not dropped": sites[2::SITES],
        "the feed-forward networks' results are not dropped": sites[3::SITES],
        "the classifier's input is not dropped": [head],
    }.items():

        def not_there(
            xp: Backend, x: Array, p: float, key: Any, missing: Container[int] = missing
        ) -> Any:
            skip = key is not None and key.site in missing
            return PLAIN["dropout_forward"](xp, x, p, None if skip else key)

        yield Guess(cause, replaced(setup, dropout_forward=not_there))

    def not_back(xp: Backend, dy: Array, cache: Any) -> Array:
        return dy

    yield Guess("dropout's backward does not drop", replaced(setup, dropout_backward=not_back))


ALL = (scale, places)
