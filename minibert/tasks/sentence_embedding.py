"""Sentence embeddings: pairs of texts, to be alike by a score or as one of all the pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from minibert.config import BertConfig
from minibert.data.features import Features
from minibert.data.labels import encode_labels
from minibert.data.readers import Examples
from minibert.errors import InputError
from minibert.models import BertForSentenceEmbedding, BertPreTrainedModel
from minibert.tasks.base import Outputs
from minibert.tasks.metrics import pearson, spearman
from minibert.tokenization import BertTokenizer

SCALES = (1.0, 5.0, 10.0, 100.0)  # highest scores in use: of cosines, of STS-B and SICK, …
BLOCK = 4096  # rows of a similarity matrix that are made at a time


@dataclass(frozen=True)
class SentenceEmbedding:
    """Pairs with a score learn that cosine; pairs without one learn to find each other.

    The wanted cosine is score / scale: STS-B's 0 … 5 becomes 0 … 1. Without scores the two texts
    of a pair belong together, and all the other pairs of a batch do not (in-batch contrast).
    """

    scale: float | None = None  # the score of texts that say the same; None: pairs without scores

    model_class: ClassVar[type[BertPreTrainedModel]] = BertForSentenceEmbedding

    @classmethod
    def of(cls, train: Examples, scale: float | None = None) -> SentenceEmbedding:
        """The task of a training file.

        Unless given, the scale is the smallest of SCALES that no score of the file is beyond, or
        else the highest score: so scores between −1 and 1 are taken as cosines.
        """
        if scale is not None and not 0 < scale < np.inf:
            raise InputError(f"--score_scale must be positive, got {scale}")
        if train.sentence2 is None:
            raise InputError(
                f"{train.path}: got single texts, wanted pairs (columns sentence1, sentence2 and "
                "perhaps label): an embedding is learnt from which texts belong together"
            )
        if train.labels is None:
            return cls()
        highest = float(np.abs(encode_labels(train, None, "regression")).max())
        usual = next((scale for scale in SCALES if highest <= scale), highest)
        return cls(usual if scale is None else scale)

    @classmethod
    def of_config(cls, config: BertConfig) -> SentenceEmbedding:
        """The task of any model: nothing of it is in the configuration."""
        return cls()

    def config_changes(self) -> dict[str, Any]:
        """What a model's configuration has to say for this task."""
        return {}

    def features(
        self, examples: Examples, tokenizer: BertTokenizer, max_length: int
    ) -> tuple[Features, int]:
        """Each text by itself, those of a pair neighbours, and how many were truncated."""
        columns = [examples.sentence1]
        if examples.sentence2 is not None:
            columns.append(examples.sentence2)
        texts = [text for pair in zip(*columns, strict=True) for text in pair]
        encodings, truncated = tokenizer.encode(texts, max_length=max_length)
        ids, type_ids = [e.ids for e in encodings], [e.type_ids for e in encodings]
        return Features(ids, type_ids, self.labels(examples), group=len(columns)), truncated

    def labels(self, examples: Examples) -> NDArray[Any] | None:
        """The wanted cosines of a file's pairs; InputError for a score beyond the scale."""
        if self.scale is None or examples.labels is None:
            return None
        cosines = encode_labels(examples, None, "regression") / self.scale
        if (beyond := np.abs(cosines) > 1).any():
            i = int(np.argmax(beyond))
            raise examples.error(
                i, f"the score {examples.labels[i]} divided by {self.scale:g} (--score_scale) "
                "is no cosine: correct it, or pass the highest score that there may be",
            )  # fmt: skip
        return cosines

    def metrics(self, outputs: Outputs, features: Features) -> dict[str, float]:
        """Of the cosines against scores; without scores, how pairs find each other."""
        y = unit_rows(np.asarray(outputs["sentence_embedding"], np.float64))
        first, second = y[0::2], y[1::2]
        if self.scale is None or features.labels is None:
            return retrieval(first, second)
        cosines = np.sum(first * second, axis=1)
        labels = features.labels.reshape(-1).astype(np.float64)
        return {"pearson": pearson(cosines, labels), "spearman": spearman(cosines, labels)}

    @property
    def metric_names(self) -> list[str]:
        """The names that `metrics` gives."""
        return ["accuracy", "mrr"] if self.scale is None else ["pearson", "spearman"]

    @property
    def best_metric(self) -> str:
        """The metric that chooses the best checkpoint."""
        return "accuracy" if self.scale is None else "spearman"

    def predictions(self, outputs: Outputs, features: Features) -> list[list[float]]:
        """The vector of each text."""
        vectors: list[list[float]] = self.decode(outputs).tolist()
        return vectors

    def decode(self, outputs: Outputs) -> NDArray[Any]:
        """(R, H), a vector for each text."""
        return np.asarray(outputs["sentence_embedding"])


def retrieval(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, float]:
    """How often row i of `first` is nearest to row i of `second` among all its rows ("accuracy"),
    and the mean of 1/its rank ("mrr").  Two (R, H) arrays of unit rows.
    """
    ranks = []
    for start in range(0, len(first), BLOCK):
        scores = first[start : start + BLOCK] @ second.T
        own = scores[np.arange(len(scores)), np.arange(start, start + len(scores))]
        # An equal text elsewhere is no mistake, and its score may differ by a rounding error.
        ranks.append(1 + np.sum(scores > own[:, None] + 1e-9, axis=1))
    rank = np.concatenate(ranks)
    return {"accuracy": float(np.mean(rank == 1)), "mrr": float(np.mean(1 / rank))}


def unit_rows(y: NDArray[Any]) -> NDArray[Any]:
    """Every row at length 1; a zero row stays zero."""
    norm = np.linalg.norm(y, axis=-1, keepdims=True)
    unit: NDArray[Any] = y / np.maximum(norm, np.finfo(y.dtype).tiny)
    return unit
