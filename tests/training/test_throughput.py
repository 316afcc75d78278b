from __future__ import annotations

import numpy as np
import pytest
import toy

from minibert import BertForSequenceClassification
from minibert.backend import get_backend
from minibert.config import BertConfig
from minibert.packing import pack_sequences
from minibert.parallel import Workers
from minibert.training import throughput
from minibert.training.throughput import Meter, measured_gemm_rate, training_flops

BATCH = pack_sequences([np.array([2, 5, 3]), np.array([2, 5, 6, 7, 3])])


def test_flops_by_hand():
    """BERT-base, 128 tokens: each matrix product m·k·n counted as 2·m·k·n, one after the other."""
    n, H, F, N, D, L = 128, 768, 3072, 12, 64, 12
    products = 4 * [(n, H, H)] + [(n, H, F), (n, F, H)] + N * [(n, D, n), (n, n, D)]
    forward = L * sum(2 * m * k * columns for m, k, columns in products)
    batch = pack_sequences([np.zeros(n, np.int64)])
    assert training_flops(BertConfig(), batch) == 3 * forward


def test_behind_the_last_attention_only_some_rows_go_on():
    """BERT-base, 128 tokens, 2 of which the head reads."""
    n, R, H, F, N, D, L = 128, 2, 768, 3072, 12, 64, 12
    attention = 3 * [(n, H, H)] + N * [(n, D, n), (n, n, D)]
    layers = L * attention
    for rows in (L - 1) * [n] + [R]:
        layers += [(rows, H, H), (rows, H, F), (rows, F, H)]
    forward = sum(2 * m * k * columns for m, k, columns in layers)
    batch = pack_sequences([np.zeros(n, np.int64)])
    assert training_flops(BertConfig(), batch, rows=R) == 3 * forward


def test_attention_goes_by_the_square_of_each_length():
    config = toy.config()
    split = training_flops(config, pack_sequences([np.zeros(4, np.int64)] * 2))
    whole = training_flops(config, pack_sequences([np.zeros(8, np.int64)]))
    assert whole - split == 3 * config.num_hidden_layers * 4 * config.hidden_size * (64 - 2 * 16)


def test_the_gemm_rate_is_that_of_a_machine():
    rate = measured_gemm_rate(get_backend("numpy"), Workers(1), "float32", seconds=0.01)
    assert 1e8 < rate < 1e15


@pytest.mark.parametrize("storage", ["float32", "float16", "uint16"])
@pytest.mark.parametrize("n", [4, 12])
def test_the_operands_are_normal_numbers_as_they_are_stored(
    monkeypatch: pytest.MonkeyPatch, storage: str, n: int
):
    """Also bfloat16's, read as what they stand for; the block of 4 rows is there 9 times."""
    monkeypatch.setattr(throughput, "BLOCK", 4)
    xp = get_backend("numpy")
    monkeypatch.setattr(xp, "storage", storage)
    x = throughput.random_matrix(xp, n, "float32")
    assert (x.shape, x.dtype) == ((n, n), storage)
    if storage == "uint16":
        x = (x.astype(np.uint32) << 16).view(np.float32)
    normal = np.random.default_rng(0).standard_normal((4, 4))
    np.testing.assert_allclose(x, np.tile(normal, (n // 4, n // 4)), rtol=2**-7)
    assert throughput.random_matrix(xp, n, "float64").dtype == "float64"


def test_the_meter_counts_the_time_of_steps_only(monkeypatch: pytest.MonkeyPatch):
    model = BertForSequenceClassification(toy.config(), backend="numpy", threads=1)
    clock = iter([0.0, 3.0, 8.0, 10.0, 10.0, 14.0, 14.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    meter = Meter(model, gemm_rate=1000.0)  # made at 0 s
    meter.count(BATCH)
    with meter.paused():  # from 3 s to 8 s
        pass
    meter.count(BATCH)
    rates = meter.read()  # at 10 s
    assert rates["tokens_per_second"] == round(2 * 8 / 5, 1)
    flops = 2 * training_flops(toy.config(), BATCH, rows=2)  # its head reads the first tokens
    assert rates["gemm_share"] == pytest.approx(flops / 5 / 1000, rel=1e-6)
    meter.count(BATCH)
    assert meter.read()["tokens_per_second"] == 2.0  # at 14 s: what was read is forgotten
