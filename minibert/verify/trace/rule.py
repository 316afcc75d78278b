"""The counter rule: random numbers that any language can make again in ten lines."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.config import BertConfig
from minibert.layers.encoder_layer import SITES
from minibert.models import Run
from minibert.models.encoder import head_site
from minibert.parameters import Layout

PIECE = """\
M0, M1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157
W0, W1 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
def piece(seed, site, step, stream, use, d):  # whole numbers; % 2**64: they have 64 bits
    c, k, d = [int(d) // 16 + 1, int(stream), int(step), int(use)], [int(seed), int(site)], int(d)
    for _ in range(10):  # Philox4x64-10; >> 64: the upper half of a 128-bit product
        p, q = M0 * c[0], M1 * c[2]
        c = [q >> 64 ^ c[1] ^ k[0], q % 2**64, p >> 64 ^ c[3] ^ k[1], p % 2**64]
        k = [(k[0] + W0) % 2**64, (k[1] + W1) % 2**64]
    return c[d % 16 // 4] >> 16 * (d % 4) & 0xFFFF
def keep(seed, site, step, stream, d, p):
    return piece(seed, site, step, stream, 0, d) >= min(round(p * 65536), 65535)
"""
"""The rule as a program; a test runs this very text."""

DROPOUT = (
    "An element that is kept is multiplied by 65536/(65536 - min(round(p*65536), 65535)).",
    "Rows (R, F), tokens or sequences: stream 0; row r, feature f has d = r*F + f. Tokens are "
    "counted over the real ones alone, row after row of the batch.",
    "Attention probabilities: stream = 1 + the number of real tokens in earlier rows; the "
    "decisions of a sequence of n tokens have d = (head*n + query)*n + key.",
)

WEIGHTS = (
    "Element d of the flattened parameter number n (its place in `layout`) is "
    "centre + (piece(seed, n, 0, 0, 1, d) - 32768)/32768 * width, with centre 1 for a "
    "LayerNorm.weight, else 0: exact in float32."
)


def rule_weights(
    layout: Layout, seed: int, width: float, only: Collection[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Every parameter, or some, by `WEIGHTS`; `width` is a power of two."""
    return {
        name: _uniform(seed, n, shape, width, float(name.endswith("LayerNorm.weight")))
        for n, (name, shape) in enumerate(layout.shapes.items())
        if only is None or name in only
    }


def _uniform(
    seed: int, site: int, shape: tuple[int, ...], width: float, centre: float
) -> NDArray[np.float32]:
    values = pieces(seed, site, int(np.prod(shape))).astype(np.float64)
    return (centre + (values - 32768) / 32768 * width).astype(np.float32).reshape(shape)


def pieces(seed: int, site: int, count: int) -> NDArray[np.uint16]:
    """piece(seed, site, 0, 0, 1, d) for d = 0 … count − 1, by NumPy's Philox."""
    generator = np.random.Philox(counter=[0, 0, 0, 1], key=[seed, site])
    words = generator.random_raw(-(-count // 4)).astype("<u8", copy=False)
    return words.view("<u2")[:count]


def dropout_sites(config: BertConfig, run: Run, head: str | None) -> Mapping[str, Any]:
    """What a trace says of its dropout: seed, step, and each module's site and probability."""
    hidden, attention = config.hidden_dropout_prob, config.attention_probs_dropout_prob
    sites = {"bert.embeddings.dropout": (0, hidden)}
    for i in range(config.num_hidden_layers):
        layer, first = f"bert.encoder.layer.{i}.", 1 + SITES * i
        sites[f"{layer}attention.self.dropout"] = (first, attention)
        sites[f"{layer}attention.output.dropout"] = (first + 1, hidden)
        sites[f"{layer}output.dropout"] = (first + 2, hidden)
    if head is not None:
        sites[head] = (head_site(config), config.head_dropout)
    modules = {name: {"site": site, "p": p} for name, (site, p) in sites.items()}
    return {"seed": run.seed, "step": run.step, "rule": list(DROPOUT), "modules": modules}
