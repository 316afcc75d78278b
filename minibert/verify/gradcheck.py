"""Backward against numerical derivatives: for each tensor of each layer, and of whole models.

The objective is L = Σ R ⊙ y, with y the forward's result and R a random upstream gradient (a sum of
ones would give a softmax, or a layer norm, no gradient at all). For a tensor a, the backward's
gradient g claims that moving a along d changes L at the rate ⟨g, d⟩; the numerical derivative of
t ↦ L(a + t·d) says what is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.backend import Deferred, get_backend
from minibert.models import (
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertPreTrainedModel,
    Run,
)
from minibert.packing import PackedBatch
from minibert.parameters import Parameters
from minibert.verify.derivatives import METHODS, Method
from minibert.verify.layer_cases import LayerCase

ZERO = 1e-13
"""What rounding may leave of a gradient that is zero in exact arithmetic (loss of order 1)."""


class Check(NamedTuple):
    """One tensor, checked by one method."""

    where: str  # layer or model
    tensor: str
    method: str
    directions: int
    norm: float  # ‖⟨g, d⟩‖ over the directions
    error: float  # relative; absolute where the gradient is exactly zero
    bound: float
    is_zero: bool = False

    @property
    def passed(self) -> bool:
        return self.error <= self.bound  # False for NaN

    def __str__(self) -> str:
        kind = "absolute" if self.is_zero else "relative"
        return (
            f"{self.where} {self.tensor}: {kind} error {self.error:.1e} by {self.method} along "
            f"{self.directions} direction(s), want ≤ {self.bound:.0e} (|g·d| = {self.norm:.3g})"
        )


def check_layer(case: LayerCase, method_name: str = "complex-step", seed: int = 1) -> list[Check]:
    """Every element of every differentiable argument of one layer."""
    xp, rng = get_backend("numpy"), np.random.default_rng(seed)
    y, cache = case.forward(xp, *case.arguments(case.arrays))
    upstream = rng.normal(size=np.shape(y))
    result = case.backward(xp, upstream[()], cache)
    gradients = dict(zip(case.arrays, dense_arrays(xp, result), strict=True))

    def loss(arrays: Mapping[str, Any]) -> Any:
        dtype = np.result_type(*arrays.values())  # one complex array makes all of them complex
        arrays = {name: array.astype(dtype) for name, array in arrays.items()}
        return np.sum(upstream * case.forward(xp, *case.arguments(arrays))[0])

    checks = []
    for name, array in case.arrays.items():

        def moved(change: Any, name: str = name, array: Any = array) -> Any:
            return loss({**case.arrays, name: array + change})

        each = _unit_vectors(array.shape)
        checks.append(_check(case.layer, name, method_name, gradients[name], moved, each))
    return checks


def check_model(
    model: BertPreTrainedModel,
    batch: PackedBatch,
    run: Run | None,
    method_name: str = "complex-step",
    *,
    tensors: bool = True,
    seed: int = 1,
) -> list[Check]:
    """Every parameter tensor of a whole model with its loss (float64, dropout on where `run`).

    Each tensor is moved along one direction that sees all its elements; with `tensors=False` all
    parameters are moved at once along one direction, for large models.
    """
    if model.parameters.dtype != np.float64:
        raise ValueError("check_model wants a float64 model")
    rng, parameters = np.random.default_rng(seed), model.parameters
    gradients = parameters.zeros_like()
    model.accumulate_gradients(batch, gradients, run)
    checked, count = model.checked(batch)

    def loss(flat: Any) -> Any:
        weights = model._bind(Parameters.over(parameters.xp, parameters.layout, flat))
        xp = parameters.xp.forward_only
        result = model.forward_shard(xp, weights, checked, count, run, None)
        return model.batch_loss(xp, [result.head], checked, count)[0]

    where = f"{type(model).__name__}, {model.config.num_hidden_layers} layers"
    if not tensors:
        d = [_direction(gradients.flat, rng)]
        everything = lambda change: loss(parameters.flat + change)  # noqa: E731
        return [_check(where, "all", method_name, gradients.flat, everything, d, factor=10.0)]
    checks = []
    for name, moved in _moves(parameters, loss):
        gradient, zero = gradients[name], is_shift(model, name)
        d = [_direction(gradient, rng)]
        checks.append(_check(where, name, method_name, gradient, moved, d, zero))
    return checks


def is_shift(model: BertPreTrainedModel, name: str) -> bool:
    """Whether a parameter adds the same to all scores of a softmax, and so has no gradient.

    A key's bias; the bias in front of a softmax over choices or tokens; and, in front of that one
    and without dropout between them, the last layer norm's bias.
    """
    last = f"bert.encoder.layer.{model.config.num_hidden_layers - 1}.output.LayerNorm.bias"
    shifts = {
        BertForMultipleChoice: ("classifier.bias",),
        BertForQuestionAnswering: ("qa_outputs.bias", last),
    }
    return name.endswith("key.bias") or name in shifts.get(type(model), ())


def _moves(
    parameters: Parameters, loss: Callable[[Any], Any]
) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """For each parameter: its name, and the loss as a function of a change of it."""
    for name, start in parameters.layout.starts.items():
        size = parameters[name].size

        def moved(change: Any, start: int = start, size: int = size) -> Any:
            flat = parameters.flat.astype(np.result_type(change, np.float64))
            flat[start : start + size] += change.reshape(-1)
            return loss(flat)

        yield name, moved


def _check(
    where: str,
    tensor: str,
    method_name: str,
    gradient: NDArray[Any],
    moved: Callable[[Any], Any],
    directions: Iterable[NDArray[Any]],
    is_zero: bool = False,
    factor: float = 1.0,
) -> Check:
    """⟨gradient, d⟩ against the numerical derivative along each d; `factor` widens the bound."""
    method: Method = METHODS[method_name]
    claimed, true = [], []
    for direction in directions:
        claimed.append(float(np.vdot(gradient, direction)))
        true.append(method.derivative(_along(moved, direction)))
    norm, n = float(np.linalg.norm(true)), len(true)
    if is_zero:
        error = float(max(np.abs(gradient).max(), np.abs(true).max()))
        return Check(where, tensor, method_name, n, norm, error, max(ZERO, method.bound), True)
    error = float(np.linalg.norm(np.subtract(claimed, true))) / norm if norm else float("inf")
    return Check(where, tensor, method_name, n, norm, error, factor * method.bound)


def _along(moved: Callable[[Any], Any], direction: NDArray[Any]) -> Callable[[Any], Any]:
    return lambda t: moved(t * direction)


def _unit_vectors(shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    """One direction for each element."""
    for index in np.ndindex(shape):
        unit = np.zeros(shape)
        unit[index] = 1.0
        yield unit


def _direction(gradient: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """unit(random) + unit(gradient): one direction that sees every element.

    A purely random direction in n dimensions would see the gradient shrunk by √n and drown a real
    error in rounding.
    """
    random = rng.normal(size=gradient.shape)
    if np.vdot(random, gradient) < 0:  # or the two could cancel, in a tensor of one element
        random = -random
    return random / np.linalg.norm(random) + gradient / (np.linalg.norm(gradient) or 1.0)


def dense_arrays(xp: Any, result: Any) -> Iterator[NDArray[Any]]:
    """A backward's result as arrays in the order of the forward's: tuples opened, tables filled."""
    if isinstance(result, Deferred):
        yield from dense_arrays(xp, result.dense(xp))
    elif isinstance(result, tuple):
        for part in result:
            yield from dense_arrays(xp, part)
    else:
        yield result
