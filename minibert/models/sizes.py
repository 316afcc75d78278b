"""The sizes of BERT that Google published, by name.

Devlin et al. 2019 (base and large); Turc et al. 2019, "Well-Read Students Learn Better" (the
smaller ones).
"""

from __future__ import annotations

from typing import Any

from minibert.config import BertConfig
from minibert.errors import InputError

SIZES = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}
"""Layers and hidden size; a head has 64 of it, the feed-forward layer four times as many."""


def sized_config(size: str, vocab_size: int, **changes: Any) -> BertConfig:
    """The configuration of a BERT called `size`. InputError for another name."""
    if size not in SIZES:
        raise InputError(f"model_size {size!r}: choose one of {', '.join(SIZES)}")
    layers, hidden = SIZES[size]
    shape: dict[str, Any] = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": hidden // 64,
        "intermediate_size": 4 * hidden,
    }
    return BertConfig(vocab_size=vocab_size, **shape | changes)
