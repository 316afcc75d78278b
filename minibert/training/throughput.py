"""How fast the machine multiplies, and how much of that a training step uses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.backend import Array, Backend
from minibert.config import BertConfig
from minibert.models import BertPreTrainedModel
from minibert.packing import PackedBatch
from minibert.parallel import Workers


def training_flops(config: BertConfig, batch: PackedBatch, rows: int | None = None) -> float:
    """Floating-point operations of the encoder's products in one training step.

    Forward: 2·(4H² + 2HF) a token and layer in the linears, 4·n²·H a sequence of n tokens and
    layer in attention. The backward multiplies twice as much. `rows`: how many of all tokens go on
    behind the last layer's attention (default: all). A head's products are left out.
    """
    H, F, L = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    behind = 2.0 * (H * H + 2 * H * F)  # a token, from the end of attention to that of the layer
    linears = L * (2.0 * 3 * H * H + behind) * batch.num_tokens
    if rows is not None:
        linears -= behind * (batch.num_tokens - rows)
    attention = 4.0 * H * float(np.sum(np.diff(batch.offsets).astype(np.float64) ** 2))
    return 3.0 * (linears + L * attention)


BLOCK = 1024  # rows and columns


def random_matrix(xp: Backend, n: int, dtype: str) -> Array:
    """(n, n) numbers from a normal distribution, as the encoder stores its operands.

    (Ones would be multiplied faster on a GPU: bits that do not change take little power, so that
    the clock stays higher.) If n is a multiple of `BLOCK`, it is one block many times.
    """
    x: NDArray[Any] = np.random.default_rng(0).standard_normal((min(n, BLOCK),) * 2)
    storage = xp.storage if dtype == "float32" else dtype
    if storage == "uint16":  # bfloat16: the upper half of a float32
        x = x.astype(np.float32).view(np.uint32) >> 16
    block, times = xp.to_device(x.astype(storage)), n // len(x)
    for axis in (0, 1) if times > 1 else ():
        block = xp.concatenate([block] * times, axis=axis)
    return block


def measured_gemm_rate(xp: Backend, workers: Workers, dtype: str, seconds: float = 0.2) -> float:
    """FLOP/s of large matrix products, all workers at once: the speed limit of this machine."""
    n = BLOCK if xp.name == "numpy" else 8 * BLOCK
    operands = [random_matrix(xp, n, dtype)] * workers.threads

    def square(x: Array) -> None:
        xp.matmul(x, x)

    workers.map(square, operands)  # warm up
    xp.synchronize()
    rounds, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        workers.map(square, operands)
        rounds += 1
        xp.synchronize()
    return rounds * len(operands) * 2.0 * n**3 / (time.perf_counter() - start)


class Meter:
    """Tokens a second and the share of the machine's measured GEMM rate, since the last reading."""

    def __init__(self, model: BertPreTrainedModel, gemm_rate: float) -> None:
        self.model, self.gemm_rate = model, gemm_rate
        self._tokens, self._flops, self._start = 0, 0.0, time.perf_counter()

    def count(self, batch: PackedBatch) -> None:
        """One training step on this batch was done."""
        self._tokens += batch.num_tokens
        rows = self.model.rows_read(batch)
        self._flops += training_flops(self.model.config, batch, None if rows is None else len(rows))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time in the block, an evaluation say, is not training time."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Rates since the last reading, which they reset."""
        seconds = time.perf_counter() - self._start
        rates = {
            "tokens_per_second": round(self._tokens / seconds, 1),
            "gemm_share": round(self._flops / seconds / self.gemm_rate, 4),
        }
        self._tokens, self._flops, self._start = 0, 0.0, time.perf_counter()
        return rates
