"""Metrics of classification and regression, on host arrays."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]
Score = Callable[[NDArray[np.bool_], NDArray[np.bool_]], float]


def accuracy(predicted: NDArray[np.generic], labels: NDArray[np.generic]) -> float:
    """The share of rows that agree; (R,), or (R, K) where a whole row must."""
    agree = predicted == labels
    return float(np.mean(agree.all(axis=-1) if agree.ndim > 1 else agree))


def f1(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """F1 of one class: 2·TP/(2·TP + FP + FN); 0 where there is nothing to find and none found."""
    hits = int(np.sum(predicted & truth))
    total = int(np.sum(predicted)) + int(np.sum(truth))
    return 2 * hits / total if total else 0.0


def precision(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """TP/(TP + FP) of one class; 0 where none is found."""
    return int(np.sum(predicted & truth)) / max(1, int(np.sum(predicted)))


def recall(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """TP/(TP + FN) of one class; 0 where there is nothing to find."""
    return precision(truth, predicted)


def macro(score: Score, predicted: Classes, labels: Classes, num_labels: int) -> float:
    """The mean of the score (f1, precision, recall) of all classes that occur in either.

    The micro average of single labels, all rows together, is their accuracy.
    """
    occurring = [k for k in range(num_labels) if np.any(predicted == k) or np.any(labels == k)]
    return float(np.mean([score(predicted == k, labels == k) for k in occurring]))


def matthews(predicted: Classes, labels: Classes, num_labels: int) -> float:
    """Matthews' correlation, for any number of classes (Gorodkin 2004, as in scikit-learn).

    0 where either side has one class only.
    """
    confusion = np.zeros((num_labels, num_labels), np.float64)
    np.add.at(confusion, (labels, predicted), 1)
    truth, guess, n = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    covariance = np.trace(confusion) * n - truth @ guess
    spread = (n * n - guess @ guess) * (n * n - truth @ truth)
    return float(covariance / math.sqrt(spread)) if spread > 0 else 0.0


def pearson(x: Floats, y: Floats) -> float:
    """Correlation of two (R,) arrays; 0 where either is constant."""
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / norm if norm > 0 else 0.0


def spearman(x: Floats, y: Floats) -> float:
    """Correlation of ranks; ties share the mean of their ranks."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(x: Floats) -> Floats:
    _, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[which]


def classification_metrics(logits: Floats, labels: Classes) -> dict[str, float]:
    """accuracy, Matthews, and F1, precision and recall: of class 1 where there are two, else macro.

    Their micro average over all classes is the accuracy.
    """
    num_labels = logits.shape[1]
    predicted = logits.argmax(axis=1)

    def averaged(score: Score) -> float:
        if num_labels == 2:
            return score(predicted == 1, labels == 1)
        return macro(score, predicted, labels, num_labels)

    return {
        "accuracy": accuracy(predicted, labels),
        "f1": averaged(f1),
        "precision": averaged(precision),
        "recall": averaged(recall),
        "matthews_correlation": matthews(predicted, labels, num_labels),
    }


def regression_metrics(logits: Floats, labels: Floats) -> dict[str, float]:
    """pearson, spearman and the mean squared error of (R, 1) or (R,) arrays."""
    x, y = logits.reshape(-1), labels.reshape(-1)
    return {
        "pearson": pearson(x, y),
        "spearman": spearman(x, y),
        "mse": float(np.mean((x - y) ** 2)),
    }


def multi_label_metrics(logits: Floats, labels: Floats) -> dict[str, float]:
    """F1, precision and recall, micro and macro, and the share of rows right in every label.

    A logit > 0 says yes.
    """
    predicted, truth = logits > 0, labels > 0.5
    scores: dict[str, Score] = {"f1": f1, "precision": precision, "recall": recall}
    micro = {name: score(predicted, truth) for name, score in scores.items()}
    columns = list(zip(predicted.T, truth.T, strict=True))
    means = {
        f"{name}_macro": float(np.mean([score(*column) for column in columns]))
        for name, score in scores.items()
    }
    return micro | means | {"accuracy": accuracy(predicted, truth)}
