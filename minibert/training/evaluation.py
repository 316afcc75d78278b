"""What a model says of many examples, in batches by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.data.features import Features, by_length
from minibert.io.progress import tracked
from minibert.layers.losses import IGNORE_INDEX
from minibert.models import BertPreTrainedModel, ModelOutput
from minibert.packing import PackedBatch
from minibert.tasks.base import Outputs

Reduce = Callable[[BertPreTrainedModel, ModelOutput, PackedBatch], Mapping[str, Any]]


def predict(
    model: BertPreTrainedModel,
    features: Features,
    *,
    tokens_per_batch: int = 4096,
    batch_size: int | None = None,
    description: str = "evaluating",
    quiet: bool = False,
    reduce: Reduce | None = None,
) -> tuple[Outputs, float | None]:
    """The outputs in the order of the features, and the mean loss where there are labels.

    `reduce` says what is kept of a batch's output, a row for each example (default: all of it).
    Longest first, so that memory running out shows at once.
    """
    batches = by_length(features.lengths, tokens_per_batch, batch_size)
    collected: dict[str, list[Any]] = {}
    loss, terms = 0.0, 0
    for indices in tracked(
        batches, len(features), description, size=len, unit=" texts", disable=quiet
    ):
        batch = features.batch(indices)
        output = model.forward(batch)
        kept = reduce(model, output, batch).items() if reduce else _rows(model, output, batch)
        for name, rows in kept:
            each = len(rows) // len(indices)  # 1, or `group` where each sequence has its own row
            places = collected.setdefault(name, [None] * (each * len(features)))
            for j, i in enumerate(indices):
                places[each * i : each * (i + 1)] = rows[each * j : each * (j + 1)]
        if output.loss is not None:
            loss += float(model.xp.to_host(output.loss)) * _terms(batch)
            terms += _terms(batch)
    outputs = {name: _stacked(rows) for name, rows in collected.items()}
    return outputs, loss / terms if terms else None


def _rows(
    model: BertPreTrainedModel, output: ModelOutput, batch: PackedBatch
) -> Iterator[tuple[str, Sequence[NDArray[Any]]]]:
    """Each output with its host rows; padding cut off where there is a row for each token."""
    for f in fields(output):
        value = getattr(output, f.name)
        if value is None or f.name in ("loss", "hidden_states", "attentions"):
            continue
        rows = model.xp.to_host(value)
        if f.name in model.token_outputs:
            lengths = np.diff(batch.offsets)
            rows = [row[:n] for row, n in zip(rows, lengths, strict=True)]
        yield f.name, rows


def _stacked(rows: list[NDArray[Any]]) -> Any:
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else rows


def _terms(batch: PackedBatch) -> int:
    """What a batch weighs in the mean loss: its labelled tokens, else its examples."""
    if batch.token_labels is not None:
        return int((batch.token_labels != IGNORE_INDEX).sum())
    return batch.num_examples
