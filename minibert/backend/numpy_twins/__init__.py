"""Faster float32 twins of layer functions on the CPU: row blocks that stay in cache.

Each function here has the name and signature of a function in `layers/`, whose docstring holds the
mathematics. The plain function remains the definition; one test holds every twin to it.

What pays on a CPU is to visit memory once. Element-wise work runs over blocks of rows of about
100,000 elements (400 kB, half an L2 cache) with `out=` arguments, so that ten operations on a block
cost one trip to memory.

The embeddings have no twin: the sum of the rows of one id, all that is slow in their gradient, is
`sum_rows` of `numpy_backend.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minibert.backend.numpy_twins import together
from minibert.backend.numpy_twins.add_norm import (
    add_norm_backward,
    add_norm_forward,
    layer_norm_backward,
    layer_norm_forward,
)
from minibert.backend.numpy_twins.attention import (
    attention_backward,
    attention_forward,
    attention_forward_only,
)
from minibert.backend.numpy_twins.cross_entropy import (
    cross_entropy_backward,
    cross_entropy_forward,
)
from minibert.backend.numpy_twins.dropout import dropout_backward, dropout_forward
from minibert.backend.numpy_twins.gelu import gelu_backward, gelu_forward, gelu_forward_only
from minibert.backend.numpy_twins.linear import linear_backward, linear_forward
from minibert.backend.numpy_twins.select import select_backward, select_forward

TWINS: dict[str, Callable[..., Any]] = {
    "add_norm_forward": add_norm_forward,
    "add_norm_backward": add_norm_backward,
    "layer_norm_forward": layer_norm_forward,
    "layer_norm_backward": layer_norm_backward,
    "attention_forward": attention_forward,
    "attention_backward": attention_backward,
    "gelu_forward": gelu_forward,
    "gelu_backward": gelu_backward,
    "linear_forward": linear_forward,
    "linear_backward": linear_backward,
    "dropout_forward": dropout_forward,
    "dropout_backward": dropout_backward,
    "select_forward": select_forward,
    "select_backward": select_backward,
    "cross_entropy_forward": cross_entropy_forward,
    "cross_entropy_backward": cross_entropy_backward,
}

FORWARD_ONLY_TWINS = TWINS | {
    "attention_forward": attention_forward_only,
    "gelu_forward": gelu_forward_only,
}
"""For inference: the same results, and no time or memory spent on what a backward would need."""

TOGETHER_TWINS = FORWARD_ONLY_TWINS | {
    "linear_forward": together.linear_forward,
    "multi_head_attention_forward": together.multi_head_attention_forward,
    "feed_forward_forward": together.feed_forward_forward,
    "add_norm_forward": together.add_norm_forward,
}
"""For inference on so few tokens that the threads had better share each product."""
