"""Pretraining: how well masked tokens are found, and whether the next sentence is recognised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.data.features import Features
from minibert.layers.losses import IGNORE_INDEX
from minibert.models import BertPreTrainedModel, ModelOutput
from minibert.packing import PackedBatch
from minibert.tasks.base import Outputs

MASKED = ("mlm_loss", "perplexity", "mlm_accuracy", "mlm_baseline")
NEXT = ("nsp_loss", "nsp_accuracy", "nsp_baseline")


@dataclass(frozen=True)
class PreTraining:
    """Masked language model, with or without next-sentence prediction."""

    next_sentence: bool = True

    @property
    def metric_names(self) -> Sequence[str]:
        """The names that `metrics` gives."""
        return MASKED + NEXT if self.next_sentence else MASKED

    @property
    def best_metric(self) -> str:
        """Loss is what training lowers; the others follow."""
        return "loss"

    def reduce(
        self, model: BertPreTrainedModel, output: ModelOutput, batch: PackedBatch
    ) -> dict[str, NDArray[np.float64]]:
        """Sums over each example's masked tokens (R,), in place of logits (M, V), and relations.

        The logits of a thousand examples would take gigabytes.
        """
        labels, sequences = batch.token_labels, batch.sequence_ids
        assert labels is not None
        asked = labels != IGNORE_INDEX
        logits = getattr(output, model.token_outputs[0])  # named by whether there are two heads
        losses, found = _scores(model.xp.to_host(logits), labels[asked])

        def each(values: NDArray[Any]) -> NDArray[np.float64]:
            return np.bincount(sequences[asked], values, batch.num_sequences).astype(np.float64)

        rows = {"losses": each(losses), "found": each(found)}
        if self.next_sentence:
            relation = model.xp.to_host(output.seq_relationship_logits)
            loss, right = _scores(relation, np.asarray(batch.labels))
            rows |= {"next_loss": loss, "next_right": right.astype(np.float64)}
        return rows

    def metrics(self, outputs: Outputs, features: Features) -> dict[str, float]:
        """Means over all masked tokens, and over all examples.

        `mlm_baseline` is the accuracy of always saying the token that is asked for most often,
        `nsp_baseline` that of always saying the more frequent of "next" and "random".
        `loss` is the sum of both.
        """
        assert features.token_labels is not None
        labels = np.concatenate(features.token_labels)
        labels = labels[labels != IGNORE_INDEX]
        mlm_loss = float(np.sum(outputs["losses"]) / len(labels))
        metrics = {
            "loss": mlm_loss,
            "mlm_loss": mlm_loss,
            "perplexity": math.exp(min(mlm_loss, 700.0)),
            "mlm_accuracy": float(np.sum(outputs["found"]) / len(labels)),
            "mlm_baseline": float(np.bincount(labels).max() / len(labels)),
        }
        if self.next_sentence:
            metrics["nsp_loss"] = float(np.mean(outputs["next_loss"]))
            metrics["nsp_accuracy"] = float(np.mean(outputs["next_right"]))
            relations = np.bincount(np.asarray(features.labels))
            metrics["nsp_baseline"] = float(relations.max() / relations.sum())
            metrics["loss"] += metrics["nsp_loss"]
        return metrics


def _scores(
    logits: NDArray[Any], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Cross-entropy, and whether the highest logit is the label's, of each row (M, K)."""
    rows = np.arange(len(labels))
    best = logits.argmax(axis=1)
    highest = logits[rows, best]
    total = np.exp(logits - highest[:, None]).sum(axis=1, dtype=np.float64)
    losses = np.log(total) - (logits[rows, labels] - highest)
    return losses.astype(np.float64), best == labels
