"""Logits of many examples, in batches by length."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.data.features import Features, by_length
from minibert.io.progress import tracked
from minibert.models import BertPreTrainedModel


def predict_logits(
    model: BertPreTrainedModel,
    features: Features,
    *,
    tokens_per_batch: int = 4096,
    batch_size: int | None = None,
    description: str = "evaluating",
    quiet: bool = False,
) -> tuple[NDArray[Any], float | None]:
    """Logits (R, K) on the host in the order of the features, and the mean loss of labelled ones.

    Longest first, so that memory running out shows at once.
    """
    if not len(features):
        return np.zeros((0, model.config.num_labels), np.float32), None
    batches = by_length(features.lengths, tokens_per_batch, batch_size)
    logits, loss = None, 0.0
    for indices in tracked(
        batches, len(features), description, size=len, unit=" texts", disable=quiet
    ):
        output = model.forward(features.batch(indices))
        rows = model.xp.to_host(output.logits)
        if logits is None:
            logits = np.empty((len(features), rows.shape[1]), rows.dtype)
        logits[indices] = rows
        if output.loss is not None:
            loss += float(output.loss) * len(indices)
    assert logits is not None
    return logits, None if features.labels is None else loss / len(features)
