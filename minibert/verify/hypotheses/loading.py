"""Mistakes in loading: transposed, unfused, forgotten and misplaced weights, missing layers."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from minibert.backend import Backend
from minibert.parameters import Parameters
from minibert.verify.hypotheses.base import PLAIN, Forms, Guess, replaced
from minibert.verify.trace.catalogue import rows
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.tensors import Tensor, layout_of

LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")
QKV = ("query", "key", "value")


def transposed(setup: Setup, first: str) -> Iterator[Guess]:
    """A weight stored (in, out) and read as (out, in), or the reverse: the same if it is square."""
    for which, names in _of_modules(setup, first).items():
        turned = _with(setup, names, _turned)
        yield Guess(f"{which} transposed", turned, _either_layout(setup, names, _turned_back))
        if any(len(set(setup.weights[n].shape)) > 1 for n in names):
            cause = f"{which} stored (out, in), but read as (in, out)"
            back = _with(setup, names, _turned_back)
            yield Guess(cause, back, _either_layout(setup, names, _turned))


def _of_modules(setup: Setup, first: str) -> dict[str, list[str]]:
    """The linear weights of one module, of its kind, all, and all that are square."""
    module = _module(setup, first)
    kind = LAYER.sub("", module)
    linear = [n for n, w in setup.weights.items() if w.ndim == 2 and "_embeddings" not in n]
    groups = {
        f"{module}.weight is": [n for n in linear if n == f"{module}.weight"],
        f"the weights of every layer's {kind} are": _of_layers(linear, f"{kind}.weight"),
        "all linear weights are": linear,
        "all square linear weights are": [
            n for n in linear if len(set(setup.weights[n].shape)) == 1
        ],
    }
    return {which: names for which, names in groups.items() if names}


def _module(setup: Setup, first: str) -> str:
    """The name of the tensor's module that has parameters: of the logits, "classifier"."""
    name = first.split("/", 1)[1].removesuffix(".weight")
    known = (row for row in rows(setup.kind.__name__, setup.config) if row.name == name)
    others = [alias for row in known for alias in row.aliases]
    return next((other for other in others if f"{other}.bias" in setup.weights), name)


def _turned(w: Any) -> Any:
    """w (out, in) as it lies in a file that stores (in, out), read as (out, in)."""
    return w.T.reshape(w.shape)


def _turned_back(w: Any) -> Any:
    """w (out, in) as it lies in a file that stores (out, in), read as (in, out), and turned."""
    return w.reshape(w.shape[::-1]).T


def _either_layout(setup: Setup, names: Sequence[str], undo: Callable[[Any], Any]) -> Forms:
    """The gradients and training of these weights come as they are used, or as they are stored."""
    layout = layout_of(setup)

    def forms(tensor: Tensor) -> list[Any]:
        section, _, name = tensor.name.rpartition("/")
        if section.endswith("gradient") and name in names:
            return [tensor.value, undo(tensor.value)]
        if not section.startswith("training"):
            return [tensor.value]
        stored = Parameters.over(setup.xp, layout, tensor.value.copy())
        for name in names:
            stored[name][...] = undo(stored[name])
        return [tensor.value, stored.flat]

    return forms


def no_bias(setup: Setup, first: str) -> Iterator[Guess]:
    """A bias that is not added."""
    module = _module(setup, first)
    kind = LAYER.sub("", module)
    biases = [n for n in setup.weights if n.endswith(".bias") and "LayerNorm" not in n]
    for cause, names in {
        f"{module}.bias is not added": [n for n in biases if n == f"{module}.bias"],
        f"the bias of every layer's {kind} is not added": _of_layers(biases, f"{kind}.bias"),
        "query, key and value have no bias": [n for n in biases if ".self." in n],
        "no linear layer has a bias": biases,
    }.items():
        if names:
            yield Guess(cause, _with(setup, names, lambda w: 0 * w), _or_no_gradient(names))


def _or_no_gradient(names: Sequence[str]) -> Forms:
    """What is not used has no gradient; what is 0 has one."""

    def forms(tensor: Tensor) -> list[Any]:
        section, _, name = tensor.name.rpartition("/")
        unused = section.endswith("gradient") and name in names
        return [tensor.value, *([0 * tensor.value] if unused else [])]

    return forms


def unfused(setup: Setup, _: str) -> Iterator[Guess]:
    """Query, key and value of a fused weight taken apart in another order."""
    N, D = setup.config.num_attention_heads, setup.config.head_size
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2):
            taken = ", ".join(QKV[part] for part in order)
            cause = f"query, key, value are taken apart as {taken}"
            yield Guess(cause, _refused(setup, operator.itemgetter(*order)))

    def by_head(parts: list[Any]) -> list[Any]:
        fused = np.concatenate(parts)
        rows = fused.reshape(N, 3, D, *fused.shape[1:])
        return [rows[:, part].reshape(parts[0].shape) for part in range(3)]

    yield Guess("the fused weight is taken apart head by head, (heads, 3, head size)",
                _refused(setup, by_head))  # fmt: skip


def _refused(setup: Setup, change: Callable[[list[Any]], Sequence[Any]]) -> Setup:
    weights = dict(setup.weights)
    for i, kind in itertools.product(range(setup.config.num_hidden_layers), ("weight", "bias")):
        names = [f"bert.encoder.layer.{i}.attention.self.{part}.{kind}" for part in QKV]
        weights |= zip(names, change([weights[name] for name in names]), strict=True)
    return setup.replace(weights=weights)


def layers(setup: Setup, _: str) -> Iterator[Guess]:
    """Layers that are missing, repeated or in another order."""
    L = setup.config.num_hidden_layers
    for fewer in range(L - 1, 0, -1):
        config = setup.config.replace(num_hidden_layers=fewer)
        kept = {n: w for n, w in setup.weights.items() if _layer_of(n) < fewer}
        cause = f"there {'is 1 layer' if fewer == 1 else f'are {fewer} layers'}, not {L}"
        yield Guess(cause, setup.replace(config=config, weights=kept))
    sources: dict[str, Callable[[int], int]] = {
        "every layer has the weights of layer 0": lambda i: 0,
        "the layers are in reverse order": lambda i: L - 1 - i,
        "of a layer's number only the first digit is read": lambda i: int(str(i)[0]),
        "of a layer's number only the last digit is read": lambda i: i % 10,
    }
    for cause, source in sources.items():
        if any(source(i) != i for i in range(L)):
            weights = {
                n: setup.weights[LAYER.sub(f"bert.encoder.layer.{source(_layer_of(n))}.", n)]
                if _layer_of(n) >= 0 else w
                for n, w in setup.weights.items()
            }  # fmt: skip
            yield Guess(cause, setup.replace(weights=weights))
    if L > 1:
        yield Guess("every layer has the weights of layer 0", _tied(setup))


def exchanged(setup: Setup, first: str) -> Iterator[Guess]:
    """One module's parameters, taken for those of the same module in another layer."""
    module = _module(setup, first)
    i, kind = _layer_of(module), LAYER.sub("", module)
    for j in range(setup.config.num_hidden_layers):
        theirs = LAYER.sub(f"bert.encoder.layer.{j}.", module)
        pairs = [(f"{module}.{part}", f"{theirs}.{part}") for part in ("weight", "bias")]
        if i in (-1, j) or not all(mine in setup.weights for mine, _ in pairs):
            continue
        other = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
        weights = {name: setup.weights[other.get(name, name)] for name in setup.weights}
        wrong = setup.replace(weights=weights)
        cause = f"{kind} of layer {min(i, j)} and of layer {max(i, j)} are exchanged"
        yield Guess(cause, wrong)
        gradients = {f"gradient/{a}": f"gradient/{b}" for a, b in other.items()}
        yield Guess(cause, wrong, _exchanged_in_buffers(setup, other), gradients)


def _exchanged_in_buffers(setup: Setup, other: Mapping[str, str]) -> Forms:
    """The training of parameters that are exchanged where they are used, not where they lie."""
    layout = layout_of(setup)

    def forms(tensor: Tensor) -> list[Any]:
        if not tensor.name.startswith("training/"):
            return [tensor.value]
        used = Parameters.over(setup.xp, layout, tensor.value)
        stored = Parameters.over(setup.xp, layout, tensor.value.copy())
        for name, source in other.items():
            stored[name][...] = used[source]
        return [stored.flat]

    return forms


def _tied(setup: Setup) -> Setup:
    """All layers are one: its gradient is the sum of theirs, and the others have none."""
    L = setup.config.num_hidden_layers
    forwards, backwards = itertools.count(), itertools.count()
    first: list[Any] = []  # the weights of layer 0
    sums: list[Any] = []

    def forward(xp: Backend, x: Any, w: Any, *rest: Any) -> Any:
        if next(forwards) % L == 0:
            first[:] = [w]
        return PLAIN["encoder_layer_forward"](xp, x, first[0], *rest)

    def backward(xp: Backend, dy: Any, cache: Any) -> Any:
        dx, dw = PLAIN["encoder_layer_backward"](xp, dy, cache)
        place = next(backwards) % L
        sums[:] = map(operator.add, sums, dw) if place else dw
        return dx, type(dw)(*sums) if place == L - 1 else type(dw)(*(0 * d for d in dw))

    return replaced(setup, encoder_layer_forward=forward, encoder_layer_backward=backward)


def _of_layers(names: Sequence[str], kind: str) -> list[str]:
    """The same parameter of every layer; [] where there is but one, which has its own name."""
    found = [name for name in names if LAYER.sub("", name) == kind]
    return found if len(found) > 1 else []


def _layer_of(name: str) -> int:
    """The number of the layer that a parameter belongs to, or −1."""
    found = LAYER.match(name)
    return int(found[1]) if found else -1


def _with(setup: Setup, names: list[str], change: Callable[[Any], Any]) -> Setup:
    return setup.replace(weights={**setup.weights, **{n: change(setup.weights[n]) for n in names}})


ALL = (transposed, unfused, layers, exchanged, no_bias)
