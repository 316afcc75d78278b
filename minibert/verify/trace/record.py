"""How activations and their gradients are captured, without a line in the layers.

Every layer function is `twinned`: it first asks its backend for a twin. A recording backend answers
with the function itself, observed. So each call is seen with its arguments and its result, inside
the call that made it: a tree. A backward is joined to its forward by the cache, which is the very
object that the forward returned; it adds the gradient that came in and those that went out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from minibert.backend import Backend
from minibert.models import BertPreTrainedModel, ModelOutput, Run
from minibert.packing import PackedBatch
from minibert.parameters import Parameters
from minibert.verify.coverage import plain_functions
from minibert.verify.trace.setup import Setup


@dataclass(eq=False)
class Call:
    """One call of a layer: forward, and backward where there was one."""

    name: str  # "linear" for linear_forward and linear_backward
    args: tuple[Any, ...] = ()  # of the forward, without xp
    y: Any = None
    cache: Any = None
    dy: Any = None  # None: no backward
    dx: Any = None  # all that the backward returned
    keeps: list[Any] = field(default_factory=list)  # the dropout decisions it asked for
    calls: list[Call] = field(default_factory=list)  # that it made, in order

    def at(self, path: str) -> Call:
        """The call "attention/softmax.1" below this one: .1 for the second of that name.

        Raises KeyError where there is none.
        """
        call = self
        for step in path.split("/"):
            name, _, index = step.partition(".")
            same = [each for each in call.calls if each.name == name]
            if int(index or 0) >= len(same):
                raise KeyError(path)
            call = same[int(index or 0)]
        return call


class Recorder:
    """Observes layer functions; `root.calls` are those of the model itself."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        self.root = Call("model")
        self._functions = plain_functions() | dict(functions)
        self._open = [self.root]
        self._by_cache: dict[int, Call] = {}

    def observing(self, xp: Backend) -> Backend:
        """The backend, with every layer function observed, and nothing else changed."""
        decide = xp.keep_decisions  # of the original: no cycle keeps the recording alive
        xp = copy.copy(xp.plain)

        def keep_decisions(*place: Any) -> Any:
            decisions = decide(*place)
            self._open[-1].keeps.append(decisions)
            return decisions

        vars(xp).update(twin=lambda name, _: self._observed(name), keep_decisions=keep_decisions)
        return xp

    def _observed(self, name: str) -> Callable[..., Any]:
        layer, _, way = name.rpartition("_")
        function = self._functions[name]
        return self._forward(layer, function) if way == "forward" else self._backward(function)

    def _forward(self, layer: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def forward(xp: Backend, *args: Any) -> Any:
            call = Call(layer, args)
            self._open[-1].calls.append(call)
            self._open.append(call)
            try:
                call.y, call.cache = function(xp, *args)
            finally:
                self._open.pop()
            self._by_cache[id(call.cache)] = call  # holds the cache, or another could get its id
            return call.y, call.cache

        return forward

    def _backward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def backward(xp: Backend, dy: Any, cache: Any) -> Any:
            call = self._by_cache.pop(id(cache), Call("?"))
            self._open.append(Call("backward"))  # masks are decided again: no news
            try:
                call.dy, call.dx = dy, function(xp, dy, cache)
            finally:
                self._open.pop()
            return call.dx

        return backward


class Recording(NamedTuple):
    """One forward and, where the model has a loss, backward."""

    calls: Call  # the tree
    batch: PackedBatch
    length: int  # S
    output: ModelOutput
    gradients: Parameters | None  # None: no loss


def record(setup: Setup, run: Run | None = None) -> Recording:
    """Observe one step of the model; `run` turns dropout on."""
    recorder = Recorder(setup.functions)
    model = build(setup, recorder.observing(setup.xp))
    batch, length = packed(setup, model)
    if not setup.has_loss:
        output = model.forward(batch, output_attentions=True)  # keeps the plain functions
        return Recording(recorder.root, batch, length, output, None)
    parameters = model.parameters  # which may lie in their file, and need not be copied
    gradients = Parameters.zeros(model.xp, parameters.layout, parameters.dtype)
    output = model.accumulate_gradients(batch, gradients, run, shards=1, length=length)
    return Recording(recorder.root, batch, length, output, gradients)


def build(setup: Setup, xp: Backend, threads: int | None = 1) -> BertPreTrainedModel:
    """The model of a setup on a backend; on one thread, since a recording has one order."""
    arrays = dict(setup.weights)
    return setup.kind(setup.config, backend=xp, dtype=setup.dtype, arrays=arrays, threads=threads)


def packed(setup: Setup, model: BertPreTrainedModel) -> tuple[PackedBatch, int]:
    """The batch as the model takes it, and S. A masked language model predicts every token."""
    batch = replace(model.pack(**setup.inputs), every_token=True)
    return batch, np.shape(setup.inputs["input_ids"])[-1]
