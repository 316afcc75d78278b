"""Faster float32 twins of layer functions on a GPU: fused kernels, and few of them.

Each function here has the name and signature of a function in `layers/`, whose docstring holds the
mathematics. The plain function remains the definition; one test holds every twin to it.

What pays on a GPU is to visit memory once, and to ask for little: a launch costs the host about ten
microseconds. So `encoder_layer` is one twin, whose kernels take biases, dropout, residuals and sums
over rows on the way, gather the rows that go on, and spread their gradients: 33 launches forward
and backward, with the sum into the gradients, and 6 products more where attention's squares have
two sizes. The others serve the ends of the network.

A step is not replayed as a CUDA graph: CuPy (14.2) refuses cuBLAS while a stream is captured, and
each step's dropout and learning rate are numbers in its launches, which a replay would repeat.

With `--precision bf16` or `fp16` the operands of the encoder's products, and what is kept of them
for the backward, have 16 bits. Between layers, in statistics, softmax and sums all is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minibert.backend.cupy_twins.activation import gelu_backward, gelu_forward
from minibert.backend.cupy_twins.attention import attention_backward, attention_forward
from minibert.backend.cupy_twins.cross_entropy import (
    cross_entropy_backward,
    cross_entropy_forward,
)
from minibert.backend.cupy_twins.embeddings import embeddings_backward, embeddings_forward
from minibert.backend.cupy_twins.encoder_layer import (
    encoder_layer_backward,
    encoder_layer_forward,
)
from minibert.backend.cupy_twins.norm import (
    add_norm_backward,
    add_norm_forward,
    layer_norm_backward,
    layer_norm_forward,
)

TWINS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(add_norm_forward, add_norm_backward, layer_norm_forward, layer_norm_backward),
        *(attention_forward, attention_backward, gelu_forward, gelu_backward),
        *(embeddings_forward, embeddings_backward),
        *(encoder_layer_forward, encoder_layer_backward),
        *(cross_entropy_forward, cross_entropy_backward),
    )
}
