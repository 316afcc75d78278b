"""Random weights, as Hugging Face's BERT draws them or as Google's does."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from minibert.config import BertConfig
from minibert.errors import InputError

INITIALIZATIONS = ("huggingface", "google")


def initialize(
    name: str, shape: tuple[int, ...], config: BertConfig, seed: int, like: str = "huggingface"
) -> NDArray[np.float32]:
    """One parameter: random numbers for weights, biases 0, layer norms 1 and 0.

    like "huggingface": N(0, initializer_range²), and the padding row of the word table is zero.
    "google": the same cut off at twice that deviation (what lies beyond is drawn again, so the
    deviation that results is 0.88 times as large), and all rows are random.

    Each parameter has a stream of its own, from the seed and its name, so that a model with
    another head has the same encoder.
    """
    if like not in INITIALIZATIONS:
        raise InputError(f"initialization {like!r}: choose one of {', '.join(INITIALIZATIONS)}")
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if "LayerNorm" in name:
        return np.ones(shape, np.float32)
    generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    values = generator.standard_normal(shape, np.float32)
    if like == "google":
        while (outside := np.abs(values) > 2).any():
            values[outside] = generator.standard_normal(int(outside.sum()), np.float32)
    values *= np.float32(config.initializer_range)
    padded = name.endswith("word_embeddings.weight") and config.pad_token_id is not None
    if padded and like == "huggingface":
        values[config.pad_token_id] = 0
    return values


def sinusoids(rows: int, columns: int, size: float) -> NDArray[np.float32]:
    """(rows, columns) positions as waves of growing length, `size` their root mean square.

    Row t is sin(t/λ), cos(t/λ) for λ = 10000^(2i/columns), so that row t + k is a fixed rotation of
    row t: what is k tokens away is found in the same way everywhere. Source: Vaswani et al., arXiv
    1706.03762, section 3.5.
    """
    half = -(-columns // 2)
    angle = np.arange(rows)[:, None] / 10000.0 ** (2 * np.arange(half) / columns)
    waves = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)[:, :columns]
    return (waves * math.sqrt(2) * size).astype(np.float32)
