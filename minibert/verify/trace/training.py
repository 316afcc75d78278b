"""Ten steps of training under each Adam rule: parameters and moments on the way."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from minibert.backend import Array
from minibert.models.base import BertPreTrainedModel
from minibert.optim.blocks import BLOCK, blocks, spread
from minibert.optim.clipping import clip_scale
from minibert.optim.rules import Hyper
from minibert.parallel import Workers
from minibert.parameters import Parameters
from minibert.verify.trace.kept_erf import keeping_erf
from minibert.verify.trace.record import build, packed
from minibert.verify.trace.setup import LARGE, Recipe, Setup
from minibert.verify.trace.unused import DECAY_ALONE, decay_alone, places_of


class State(NamedTuple):
    """The flat buffers (P,) after a step; good until the next one is asked for."""

    rule: str
    step: int
    parameters: Array
    m: Array
    v: Array


def training_states(setup: Setup) -> Iterator[State]:
    """The states after `recipe.steps`, rule by rule; each rule starts from the setup's weights."""
    if setup.recipe is None or not setup.has_loss:
        return
    xp = copy.copy(setup.xp.plain)
    functions = keeping_erf(setup)
    vars(xp)["twin"] = lambda name, _: functions.get(name)
    model = build(setup, xp, threads=None)
    training = _Training(setup, setup.recipe, model)
    for number, rule in enumerate(setup.recipe.rules):
        if number:  # the buffers are used again: new ones would cost page faults
            for name, weight in setup.weights.items():
                model.parameters[name][...] = xp.to_device(weight)
            for moment in training.moments:
                for part in training.places.used:
                    moment[part] = 0
        yield from training.states(rule)


class _Training:
    """The buffers of a training, one rule after the other."""

    def __init__(self, setup: Setup, recipe: Recipe, model: BertPreTrainedModel) -> None:
        self.recipe, self.model, self.batch = recipe, model, packed(setup, model)[0]
        self.parameters = model.parameters.flat
        self.moments = [model.parameters.zeros_like().flat for _ in range(2)]
        self.gradients: Parameters = model.parameters.zeros_like()
        self.places = places_of(setup, model.parameters.layout)
        # On all machines as many: the bytes of a gradient depend on it.
        self.shards = 2 if self.parameters.size >= LARGE else 1
        self.first: list[Array] = []

    def states(self, rule: str) -> Iterator[State]:
        """The states under one rule, from the parameters as they are and moments of zero."""
        recipe, workers, flat = self.recipe, self.model.workers, self.gradients.flat
        for step in range(1, max(recipe.steps) + 1):
            self._find_gradients(step)
            scale = float(clip_scale(_norm(self.model.xp, flat, workers), recipe.max_norm))
            h = Hyper(recipe.lr, scale, step, recipe.weight_decay, recipe.beta1, recipe.beta2,
                      recipe.eps, momentum=0.0)  # fmt: skip
            self._update(rule, h)
            if step in recipe.steps:
                yield State(rule, step, self.parameters, *self.moments)

    def _find_gradients(self, step: int) -> None:
        """Of the first step they are the same under every rule: found once, and kept.

        (Not in float32, where each run may be shaken in its own way.)
        """
        flat, used = self.gradients.flat, self.places.used
        if step == 1 and self.first:
            for part, values in zip(used, self.first, strict=True):
                flat[part] = values
            return
        if step == 1 or self.recipe.zero_gradients:
            for part in used:
                flat[part] = 0
        self.model.accumulate_gradients(self.batch, self.gradients, None, self.shards)
        if step == 1 and len(self.recipe.rules) > 1 and flat.dtype == "float64":
            self.first = [flat[part].copy() for part in used]

    def _update(self, rule: str, h: Hyper) -> None:
        """One step of a rule over the flat buffers."""
        update, xp, places = self.recipe.updates[rule], self.model.xp, self.places
        of_unused = decay_alone if update in DECAY_ALONE else update
        parts = [
            (each, part, h if part.start < places.decayed else h._replace(weight_decay=0.0))
            for each, spans in ((update, places.used), (of_unused, places.unused))
            for span in spans
            for part in blocks(span.start, span.stop, BLOCK)
        ]
        buffers = self.parameters, self.gradients.flat, *self.moments

        def run(item: tuple[Any, slice, Hyper], _worker: int) -> None:
            each, part, hyper = item
            scratch = xp.empty((2, part.stop - part.start), dtype=self.parameters.dtype)
            each(xp, *(buffer[part] for buffer in buffers), hyper, scratch)

        spread(self.model.workers, parts, run)


def _norm(xp: Any, flat: Array, workers: Workers) -> float:
    """√Σ flat², block by block and in their order."""

    def squares(part: slice, _worker: int) -> float:
        return float(xp.sum(flat[part] * flat[part]))

    return math.sqrt(sum(spread(workers, blocks(0, flat.size, BLOCK), squares)))
