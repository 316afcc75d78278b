"""Where NaN or infinity came from: which tensor was the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from minibert.models import BertPreTrainedModel
from minibert.packing import PackedBatch
from minibert.parameters import Parameters


def first_not_finite(model: BertPreTrainedModel, batch: PackedBatch, gradients: Parameters) -> str:
    """The first tensor that is not finite, in the order in which a step computes them."""
    for name, array in _in_order(model, batch, gradients):
        host = np.asarray(model.xp.to_host(array))
        if not np.isfinite(host).all():
            kind = "NaN" if np.isnan(host).any() else "infinity"
            return f"{name} ({kind} in {int((~np.isfinite(host)).sum())} of {host.size} elements)"
    return "none: it appears with this step's dropout only, or in the sum of the gradients' squares"


def _in_order(
    model: BertPreTrainedModel, batch: PackedBatch, gradients: Parameters
) -> Iterator[tuple[str, Any]]:
    for name, array in model.parameters.items():
        yield f"parameter {name}", array
    with np.errstate(all="ignore"):
        output = model.forward(batch, output_hidden_states=True)
    for i, states in enumerate(output.hidden_states or ()):
        yield "the embeddings' output" if i == 0 else f"the output of layer {i - 1}", states
    names = [f.name for f in fields(output) if f.name not in ("loss", "hidden_states")]
    for name in (*names, "loss"):
        if (value := getattr(output, name)) is not None:
            yield f"the {name.replace('_', ' ')}", value
    for name in reversed(list(model.shapes(model.config))):  # backwards: the head's come first
        yield f"the gradient of {name}", gradients[name]
