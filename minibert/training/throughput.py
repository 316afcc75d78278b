"""How fast the machine multiplies, and how much of that a training step uses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minibert.backend import Backend
from minibert.config import BertConfig
from minibert.packing import PackedBatch
from minibert.parallel import Workers


def training_flops(config: BertConfig, batch: PackedBatch) -> float:
    """Floating-point operations of the products in one forward and backward of a packed batch.

    Forward: 2·(4H² + 2HF) a token and layer in the linears, 4·n²·H a sequence of n tokens and
    layer in attention. The backward multiplies twice as much.
    """
    H, F, L = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    linears = 2.0 * (4 * H * H + 2 * H * F) * batch.num_tokens
    attention = 4.0 * H * float(np.sum(np.diff(batch.offsets).astype(np.float64) ** 2))
    return 3.0 * L * (linears + attention)


def measured_gemm_rate(xp: Backend, workers: Workers, dtype: str, seconds: float = 0.2) -> float:
    """FLOP/s of large matrix products, all workers at once: the speed limit of this machine."""
    dtype = xp.storage if dtype == "float32" else dtype
    n = 1024 if xp.name == "numpy" else 8192
    pairs = [tuple(xp.ones((n, n), dtype=dtype) for _ in range(2)) for _ in range(workers.threads)]

    def multiply(pair: tuple[object, ...]) -> None:
        xp.matmul(*pair)

    workers.map(multiply, pairs)  # warm up
    xp.synchronize()
    rounds, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        workers.map(multiply, pairs)
        rounds += 1
        xp.synchronize()
    return rounds * len(pairs) * 2.0 * n**3 / (time.perf_counter() - start)


class Meter:
    """Tokens a second and the share of the machine's measured GEMM rate, since the last reading."""

    def __init__(self, config: BertConfig, gemm_rate: float) -> None:
        self.config, self.gemm_rate = config, gemm_rate
        self._tokens, self._flops, self._start = 0, 0.0, time.perf_counter()

    def count(self, batch: PackedBatch) -> None:
        """One training step on this batch was done."""
        self._tokens += batch.num_tokens
        self._flops += training_flops(self.config, batch)

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
