"""Labels as the losses take them: checked, and counted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.errors import InputError
from minibert.layers.losses import IGNORE_INDEX


def class_labels(
    labels: Any, size: int, num_labels: int, name: str = "labels", may_be_empty: bool = False
) -> tuple[NDArray[np.int64], int]:
    """Class numbers (size,) from 0 to num_labels − 1, or −100 for none; and how many are not −100.

    Raises InputError for another shape or dtype, a number out of range, and, unless it
    `may_be_empty`, where all are −100: the mean over nothing is NaN.
    """
    labels = np.asarray(labels)
    if labels.size != size or labels.dtype.kind not in "iub":
        raise InputError(
            f"{name} have shape {labels.shape} and dtype {labels.dtype}, want ({size},) integers"
        )
    labels = labels.reshape(size).astype(np.int64)
    bad = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= num_labels))
    if bad.any():
        raise InputError(
            f"{name}: label {labels[bad][0]} is out of range: there are {num_labels} "
            f"(0 … {num_labels - 1})"
        )
    count = int((labels != IGNORE_INDEX).sum())
    if not count and not may_be_empty:
        raise InputError(f"{name}: every label is -100 (ignored): there is nothing to learn from")
    return labels, count
