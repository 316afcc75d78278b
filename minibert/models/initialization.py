"""Random weights as Hugging Face's BERT draws them."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from minibert.config import BertConfig


def initialize(
    name: str, shape: tuple[int, ...], config: BertConfig, seed: int
) -> NDArray[np.float32]:
    """One parameter: N(0, initializer_range²) for weights, biases 0, layer norms 1 and 0.

    The padding row of the word table is zero. Each parameter has a stream of its own, from the
    seed and its name, so that a model with another head has the same encoder.
    """
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if "LayerNorm" in name:
        return np.ones(shape, np.float32)
    generator = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
    values = generator.standard_normal(shape, np.float32)
    values *= np.float32(config.initializer_range)
    if name.endswith("word_embeddings.weight") and config.pad_token_id is not None:
        values[config.pad_token_id] = 0
    return values
