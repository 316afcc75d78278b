"""Ten steps of training under each Adam rule: parameters and moments on the way."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

from minibert.backend import Array
from minibert.optim.blocks import BLOCK, blocks
from minibert.optim.clipping import clip_scale
from minibert.optim.rules import Hyper
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
    for rule in setup.recipe.rules:
        yield from _train(setup, setup.recipe, rule)


def _train(setup: Setup, recipe: Recipe, rule: str) -> Iterator[State]:
    xp = copy.copy(setup.xp.plain)
    vars(xp)["twin"] = lambda name, _: setup.functions.get(name)
    model, (batch, _) = build(setup, xp), packed(setup)
    parameters, layout = model.parameters.flat, model.parameters.layout
    gradients = model.parameters.zeros_like()
    m, v = xp.zeros_like(parameters), xp.zeros_like(parameters)
    for step in range(1, max(recipe.steps) + 1):
        gradients.flat[...] = 0
        model.accumulate_gradients(batch, gradients, None)
        norm = float(xp.sqrt(xp.sum(gradients.flat * gradients.flat)))
        h = Hyper(recipe.lr, float(clip_scale(norm, recipe.max_norm)), step, recipe.weight_decay,
                  recipe.beta1, recipe.beta2, recipe.eps, 0.0)  # fmt: skip
        update(xp, recipe.updates[rule], (parameters, gradients.flat, m, v), h, layout.decayed)
        if step in recipe.steps:
            yield State(rule, step, parameters, m, v)


def update(xp: Any, rule: Update, buffers: tuple[Array, ...], h: Hyper, decayed: int) -> None:
    """One step of a rule over the flat buffers p, g, m, v; p[:decayed] is decayed."""
    size = buffers[0].size
    scratch = xp.empty((2, min(BLOCK, size)), dtype=buffers[0].dtype)
    undecayed = h._replace(weight_decay=0.0)
    for part in blocks(0, decayed, BLOCK):
        rule(xp, *(buffer[part] for buffer in buffers), h, scratch[:, : part.stop - part.start])
    for part in blocks(decayed, size, BLOCK):
        here = scratch[:, : part.stop - part.start]
        rule(xp, *(buffer[part] for buffer in buffers), undecayed, here)
