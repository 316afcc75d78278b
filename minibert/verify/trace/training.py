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
from minibert.verify.trace.record import build, packed
from minibert.verify.trace.setup import Recipe, Setup, Update


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
    vars(xp)["twin"] = lambda name, _: setup.functions.get(name)
    model = build(setup, xp, threads=None)  # for products and updates: there is one shard
    moments = [model.parameters.zeros_like() for _ in range(2)]
    gradients = model.parameters.zeros_like()
    for number, rule in enumerate(setup.recipe.rules):
        if number:  # the buffers are used again: new ones would cost page faults
            for name, weight in setup.weights.items():
                model.parameters[name][...] = xp.to_device(weight)
            for moment in moments:
                moment.flat[...] = 0
        yield from _train(setup, setup.recipe, rule, model, gradients, moments)


def _train(
    setup: Setup,
    recipe: Recipe,
    rule: str,
    model: BertPreTrainedModel,
    gradients: Parameters,
    moments: list[Parameters],
) -> Iterator[State]:
    xp, batch = model.xp, packed(setup, model)[0]
    parameters, layout = model.parameters.flat, model.parameters.layout
    decayed = layout.size if recipe.decay_all else layout.decayed
    m, v = (moment.flat for moment in moments)
    gradients.flat[...] = 0
    for step in range(1, max(recipe.steps) + 1):
        if recipe.zero_gradients:
            gradients.flat[...] = 0
        model.accumulate_gradients(batch, gradients, None, shards=1)
        scale = float(clip_scale(_norm(xp, gradients.flat), recipe.max_norm))
        h = Hyper(recipe.lr, scale, step, recipe.weight_decay, recipe.beta1, recipe.beta2,
                  recipe.eps, momentum=0.0)  # fmt: skip
        buffers = parameters, gradients.flat, m, v
        _update(xp, recipe.updates[rule], buffers, h, decayed, model.workers)
        if step in recipe.steps:
            yield State(rule, step, parameters, m, v)


def _norm(xp: Any, flat: Array) -> float:
    """√Σ flat², block by block."""
    return math.sqrt(sum(float(xp.sum(flat[b] * flat[b])) for b in blocks(0, flat.size, BLOCK)))


def _update(
    xp: Any, rule: Update, buffers: tuple[Array, ...], h: Hyper, decayed: int, workers: Workers
) -> None:
    """One step of a rule over the flat buffers p, g, m, v; p[:decayed] is decayed."""
    size = buffers[0].size
    parts = [(part, h) for part in blocks(0, decayed, BLOCK)]
    parts += [(part, h._replace(weight_decay=0.0)) for part in blocks(decayed, size, BLOCK)]

    def run(item: tuple[slice, Hyper], _worker: int) -> None:
        part, hyper = item
        scratch = xp.empty((2, part.stop - part.start), dtype=buffers[0].dtype)
        rule(xp, *(buffer[part] for buffer in buffers), hyper, scratch)

    spread(workers, parts, run)
