"""Most words of a vocabulary do not occur in a batch: what Adam does to their rows is known.

A trace trains on one batch, so such a row's gradient is 0 at every step, and so are its moments. Of
an update only the weight decay is left, to the last bit, and half of MiniLM's parameters are such.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minibert.backend import Array
from minibert.optim.rules import Hyper, adam_google, adamw_hf, adamw_torch
from minibert.parameters import Layout
from minibert.verify.trace.setup import Setup

WORDS = "embeddings.word_embeddings.weight"


class Places(NamedTuple):
    """A flat buffer (P,) in parts, none of which lies on both sides of `decayed`."""

    used: list[slice]
    unused: list[slice]  # without a gradient at any step
    decayed: int  # where weight decay ends


def places_of(setup: Setup, layout: Layout) -> Places:
    """The parts of the setup's buffers in its training."""
    all_decay = setup.recipe is not None and setup.recipe.decay_all
    decayed, unused = layout.size if all_decay else layout.decayed, _unused(setup, layout)
    ends = [0, *(edge for part in unused for edge in (part.start, part.stop)), layout.size]
    used = [slice(a, z) for a, z in zip(ends[::2], ends[1::2], strict=True)]
    last = used.pop()
    used += [slice(last.start, decayed), slice(decayed, last.stop)]
    return Places([part for part in used if part.stop > part.start], unused, decayed)


def _unused(setup: Setup, layout: Layout) -> list[slice]:
    """The rows of absent words, in runs; none where the table is the decoder too, or in a guess."""
    tied = "cls.predictions.bias" in layout.shapes
    if setup.functions or tied:
        return []
    name = next(name for name in layout.shapes if name.endswith(WORDS))
    start, (V, H) = layout.starts[name], layout.shapes[name]
    words = [-1, *np.unique(setup.inputs["input_ids"]).tolist(), V]
    runs = [slice(start + (a + 1) * H, start + z * H) for a, z in pairwise(words)]
    return [run for run in runs if run.stop > run.start]


DECAY_ALONE = (adamw_torch, adamw_hf, adam_google)


def decay_alone(xp: Any, p: Array, g: Array, m: Array, v: Array, h: Hyper, scratch: Array) -> None:
    """What each of `DECAY_ALONE` does where g, m and v are 0: p − rate·0/(0 + eps) is p."""
    if h.weight_decay:
        xp.multiply(p, 1 - h.lr * h.weight_decay, out=p)
