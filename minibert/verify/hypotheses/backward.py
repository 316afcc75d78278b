"""Mistakes that the forward does not show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from minibert.backend import Array, Backend, RowGradient
from minibert.verify.hypotheses.base import PLAIN, Guess, Layer, changed_result, replaced
from minibert.verify.trace.setup import Setup


def norms(setup: Setup, _: str) -> Iterator[Guess]:
    """The parts of a layer norm's derivative."""
    for cause, terms in {
        "layer norm's dx forgets the weight (right only at weight = 1)": (False, True, True),
        "layer norm's dx forgets the term of the mean": (True, False, True),
        "layer norm's dx forgets the term of the variance": (True, True, False),
        "layer norm's dx is dy·weight/σ alone": (True, False, False),
    }.items():

        def backward(
            xp: Backend, dy: Array, cache: Any, terms: tuple[bool, bool, bool] = terms
        ) -> Any:
            xhat, rstd, gamma = cache
            dxhat = dy * gamma if terms[0] else dy
            dx = dxhat
            if terms[1]:
                dx = dx - xp.mean(dxhat, axis=-1, keepdims=True)
            if terms[2]:
                dx = dx - xhat * xp.mean(dxhat * xhat, axis=-1, keepdims=True)
            return rstd * dx, xp.sum(dy * xhat, axis=0), xp.sum(dy, axis=0)

        yield Guess(cause, replaced(setup, layer_norm_backward=backward))


def activations(setup: Setup, _: str) -> Iterator[Guess]:
    """GELU's derivative without its second term, or of its other form."""
    act = setup.config.hidden_act
    if act == "relu":
        return

    def first_term(xp: Backend, dy: Array, cache: Any) -> Array:
        y, _ = PLAIN[f"{act}_forward"](xp, cache.x)
        return dy * (y / cache.x)

    yield Guess("GELU's derivative is Φ(x) alone, without x·φ(x)",
                replaced(setup, **{f"{act}_backward": first_term}))  # fmt: skip
    other = PLAIN[f"{'gelu_new' if act == 'gelu' else 'gelu'}_backward"]
    yield Guess("GELU's derivative is that of its other form (erf, tanh)",
                replaced(setup, **{f"{act}_backward": other}))  # fmt: skip


def attention(setup: Setup, _: str) -> Iterator[Guess]:
    """Softmax, the scale, and the axes of dk."""
    H = setup.config.hidden_size
    N, D = setup.config.num_attention_heads, setup.config.head_size

    def elementwise(xp: Backend, dy: Array, cache: Any) -> Array:
        return dy * cache.y

    def diagonal(xp: Backend, dy: Array, cache: Any) -> Array:
        return dy * cache.y * (1.0 - cache.y)

    yield Guess("softmax's derivative lacks the sum over its row: dx = y·dy",
                replaced(setup, softmax_backward=elementwise))  # fmt: skip
    yield Guess("softmax's derivative is only its diagonal, y·(1 − y)",
                replaced(setup, softmax_backward=diagonal))  # fmt: skip

    def unscaled(xp: Backend, dqkv: Array, *_: Any) -> Array:
        dqkv[:, : 2 * H] *= math.sqrt(D)
        return dqkv

    yield Guess("the scores' gradient is not divided by √(head size)",
                replaced(setup, **changed_result("attention", unscaled)))  # fmt: skip
    for part, name in enumerate(("dq", "dk", "dv")):

        def scrambled(xp: Backend, dqkv: Array, *_: Any, part: int = part) -> Array:
            columns = slice(part * H, (part + 1) * H)
            mixed = dqkv[:, columns].reshape(-1, N, D).swapaxes(1, 2).reshape(-1, H)
            dqkv[:, columns] = mixed
            return dqkv

        yield Guess(f"{name} has the axes of heads and features scrambled",
                    replaced(setup, **changed_result("attention", scrambled)))  # fmt: skip


def tables(setup: Setup, _: str) -> Iterator[Guess]:
    """What the embedding tables receive."""
    for kept, words in (((0,), "the word table"), ((0, 1, 2), "each table")):

        def overwritten(
            xp: Backend, result: Any, dy: Array, cache: Any, kept: tuple[int, ...] = kept
        ) -> Any:
            tables = list(result)
            for place in kept:
                table = 0 * result[place].dense(xp)
                for row, value in zip(cache[place], dy, strict=True):
                    table[row] = 0.0 if place == 0 and row == cache.padding_idx else value
                tables[place] = RowGradient(xp.arange(len(table)), table, table.shape)
            return tuple(tables)

        yield Guess(f"of rows that occur twice {words} keeps one gradient, not the sum",
                    replaced(setup, **changed_result("lookup", overwritten)))  # fmt: skip

    def with_padding(xp: Backend, dy: Array, cache: Any) -> Any:
        return PLAIN["lookup_backward"](xp, dy, cache._replace(padding_idx=None))

    yield Guess("the padding token's row receives a gradient",
                replaced(setup, lookup_backward=with_padding))  # fmt: skip
    for place, name in enumerate(("word", "position", "token type")):

        def none(xp: Backend, result: Any, *_: Any, place: int = place) -> Any:
            empty = replace(result[place], values=0 * result[place].values)
            return (*result[:place], empty, *result[place + 1 :])

        yield Guess(f"the {name} table receives no gradient",
                    replaced(setup, **changed_result("lookup", none)))  # fmt: skip

    def nothing(xp: Backend, result: Any, *_: Any) -> Any:
        return tuple(replace(part, values=0 * part.values) for part in result)

    yield Guess("the embeddings receive no gradient",
                replaced(setup, **changed_result("lookup", nothing)))  # fmt: skip


def sums(setup: Setup, _: str) -> Iterator[Guess]:
    """Means for sums over the tokens, and gradients that are not joined."""

    def mean_bias(xp: Backend, result: Any, dy: Array, cache: Any) -> Any:
        dx, dW, db = result
        return dx, dW, db / len(dy)

    def mean_weight(xp: Backend, result: Any, dy: Array, cache: Any) -> Any:
        dx, dW, db = result
        return dx, dW / len(dy), db / len(dy)

    def transposed(xp: Backend, result: Any, dy: Array, cache: Any) -> Any:
        dx, dW, db = result
        return dx, dW.T.reshape(dW.shape), db

    for cause, change in {
        "bias gradients are means over the tokens, not sums": mean_bias,
        "weight and bias gradients are means over the tokens, not sums": mean_weight,
        "weight gradients are transposed": transposed,
    }.items():
        yield Guess(cause, replaced(setup, **changed_result("linear", change)))

    def cut(xp: Backend, result: Any, *_: Any) -> Any:
        dx, dresidual, *rest = result
        return dx, 0 * dresidual, *rest

    yield Guess("no gradient flows through the residual connections",
                replaced(setup, **changed_result("add_norm", cut)))  # fmt: skip


def heads(setup: Setup, _: str) -> Iterator[Guess]:
    """Pooler and loss."""

    def no_tanh(xp: Backend, dy: Array, cache: Any) -> Any:
        return PLAIN["pooler_backward"](xp, dy / (1.0 - cache.y * cache.y), cache)

    yield Guess("the pooler's derivative lacks that of tanh",
                replaced(setup, pooler_backward=no_tanh))  # fmt: skip

    def cut(xp: Backend, result: Any, *_: Any) -> Any:
        return 0 * result[0], *result[1:]

    yield Guess("no gradient flows from the head into the encoder",
                replaced(setup, **changed_result("pooler", cut)))  # fmt: skip
    for cause, factor in {
        "the loss's gradient is that of a sum, not of a mean": _count,
        "the loss's gradient is divided by the number of logits": _rows,
    }.items():

        def scaled(xp: Backend, result: Any, dy: Any, cache: Any, factor: Layer = factor) -> Any:
            return result * factor(cache)

        functions: dict[str, Layer] = {}
        for loss in ("cross_entropy", "mean_squared_error", "binary_cross_entropy"):
            functions |= changed_result(loss, scaled)
        yield Guess(cause, replaced(setup, **functions))


def _count(cache: Any) -> float:
    """The number of terms that a loss was divided by."""
    return float(cache.terms) if hasattr(cache, "terms") else 1.0 / float(cache.weight.max())


def _rows(cache: Any) -> float:
    """What turns a division by the number of terms into one by the number of logits."""
    logits = cache.probs if hasattr(cache, "probs") else cache[0]
    return _count(cache) / float(logits.size)


ALL = (norms, activations, attention, tables, sums, heads)
