"""Memory that is used again: only when nobody holds it any more, and enough for a steady step.

A step is steady once every thread has made arrays of its batch's sizes, and while none of them is
let go (see IDLE). A batch larger than all before it takes new memory.
"""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from allocations import Allocations

from minibert import BertConfig, BertForMaskedLM, BertForSequenceClassification
from minibert.backend.buffers import ALIGNMENT, IDLE, SLACK, SMALL, Buffers
from minibert.models import Run
from minibert.optim import Optimizer, clip_scale, global_norm
from minibert.packing import PackedBatch, pack_sequences
from minibert.parallel import Workers

LARGE = (SMALL // 4,)  # float32
MB = 1 << 20


def address(array: Any) -> int:
    return int(array.ctypes.data)


@pytest.fixture
def buffers() -> Buffers:
    return Buffers()


@pytest.mark.parametrize("shape", [(), 0, (0, 3), 3, (2, 3), (300, 100), 2 * LARGE[0], (2, *LARGE)])
@pytest.mark.parametrize("dtype", ["float32", np.float64, np.complex128, bool, "int64"])
def test_an_array_like_any_other(buffers: Buffers, shape: Any, dtype: Any) -> None:
    array, other = buffers.empty(shape, dtype), np.empty(shape, dtype)
    assert (array.shape, array.dtype, array.strides) == (other.shape, other.dtype, other.strides)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    array[...] = 1
    assert (array == 1).all()
    if array.nbytes >= SMALL:
        assert address(array) % ALIGNMENT == 0


def test_memory_serves_again_when_its_array_has_gone(buffers: Buffers) -> None:
    place = address(buffers.empty(LARGE, np.float32))
    assert address(buffers.empty((LARGE[0] // 2, 2), np.float32)) == place


@pytest.mark.parametrize(
    "hold",
    [
        lambda a: a[3:],
        lambda a: a.reshape(2, -1).T,
        memoryview,
        lambda a: a.view(np.int32)[::2].reshape(4, -1)[1:],
        lambda a: {"kept": [np.asarray(a[:1])]},
    ],
    ids=["slice", "reshaped", "buffer", "views of views", "in a container"],
)
def test_nothing_is_used_again_while_a_view_of_it_is_held(
    buffers: Buffers, hold: Callable[[Any], Any]
) -> None:
    array = buffers.empty(LARGE, np.float32)
    place, held = address(array), hold(array)
    del array
    others = [buffers.empty(LARGE, np.float32) for _ in range(3)]
    assert place not in map(address, others)
    del held
    assert address(buffers.empty(LARGE, np.float32)) == place


def test_memory_that_ends_on_another_thread_comes_back_to_its_own(buffers: Buffers) -> None:
    array = [buffers.empty(LARGE, np.float32)]
    place, seen = address(array[0]), []

    def drop() -> None:
        array.clear()
        seen.append(address(buffers.empty(LARGE, np.float32)))

    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()
    assert seen != [place]  # that thread has memory of its own
    assert address(buffers.empty(LARGE, np.float32)) == place


def test_the_smallest_that_fits_and_none_far_too_large(buffers: Buffers) -> None:
    arrays = {n: buffers.empty((n, *LARGE), np.float32) for n in (1, 3, 5, 9)}
    places = {n: address(array) for n, array in arrays.items()}
    arrays.clear()
    held = buffers.empty((3 * LARGE[0] - 7,), np.float32)
    assert address(held) == places[3]
    assert address(buffers.empty((3, *LARGE), np.float32)) == places[5]
    small = buffers.empty((4 * LARGE[0],), np.float32)
    assert address(small) == places[5]
    assert address(buffers.empty((9 // SLACK, *LARGE), np.float32)) != places[9]


def test_memory_that_served_nobody_for_long_is_let_go(buffers: Buffers) -> None:
    for n in range(2, 20):  # longer and longer, one at a time
        buffers.empty((n, *LARGE), np.float32)
    held = buffers.empty((40, *LARGE), np.float32)
    for _ in range(2 * IDLE):
        buffers.empty(LARGE, np.float32)
    assert not buffers._free  # but the one that served
    held[...] = 1  # what is in use stays


# ---- A training step ----


def batch_of(lengths: list[int], seed: int, masked: bool) -> PackedBatch:
    rng = np.random.default_rng(seed)
    ids = [rng.integers(5, 3000, n) for n in lengths]
    if not masked:
        return pack_sequences(ids, labels=rng.integers(0, 2, len(ids)))
    labels = [np.where(np.arange(len(row)) % 7 == 3, row, -100) for row in ids]
    return pack_sequences(ids, token_labels=labels)


def training(model: Any) -> Callable[[PackedBatch], float]:
    """A whole step: forward, backward, clipping and update."""
    gradients = model.parameters.zeros_like()
    flat, workers = model.parameters.flat, model.workers
    optimizer = Optimizer(model.xp, flat, model.parameters.layout.decayed, workers=workers)

    def step(batch: PackedBatch) -> float:
        gradients.flat.fill(0)
        run = Run(0, optimizer.steps)
        loss = model.accumulate_gradients(batch, gradients, run).loss
        norm = global_norm(model.xp, gradients.flat, workers)
        optimizer.step(gradients.flat, 1e-4, clip_scale(norm, 1.0))
        return float(loss)

    return step


ALLOCATIONS = Allocations(above=MB)
LENGTHS = ([128] * 12, [7, 60, 300, 41, 9] * 4, [20, 90, 128, 33, 71, 5] * 2, [50] * 4)
EACH_KIND = pytest.mark.parametrize("kind", [BertForSequenceClassification, BertForMaskedLM])
THREADS = pytest.mark.parametrize("threads", [1, 2])


def small_model(kind: Any, threads: int, checkpointing: bool = False) -> Any:
    """An activation of LENGTHS has up to 3 MB, the logits 3, the gradient of their table 1.5."""
    config = BertConfig(
        vocab_size=3000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=512, num_labels=2,
    )  # fmt: skip
    model = kind(config, backend="numpy", threads=threads)
    model.gradient_checkpointing = checkpointing
    return model


@EACH_KIND
@THREADS
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
def test_a_steady_step_allocates_nothing_large(
    kind: Any, threads: int, checkpointing: bool
) -> None:
    """Not one allocation of over 1 MB, once the sizes have been seen, in whatever order they come.

    Each is counted, also what is freed at once. What NumPy did not allocate is in the second
    measure: Python's and NumPy's memory together never rise by 1 MB a thread above what they were
    before the step.
    """
    step = training(small_model(kind, threads, checkpointing))
    masked = kind is BertForMaskedLM
    for batch in 3 * [batch_of(lengths, 0, masked) for lengths in LENGTHS]:
        step(batch)
    gc.collect()
    tracemalloc.start()
    try:
        for seed, lengths in enumerate(LENGTHS[::-1]):
            batch = batch_of(lengths, 1 + seed, masked)  # of other tokens
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            with ALLOCATIONS.counting() as large:
                step(batch)
            assert large == []
            assert tracemalloc.get_traced_memory()[1] - before < threads * MB
    finally:
        tracemalloc.stop()


@EACH_KIND
@THREADS
def test_sizes_not_seen_before_are_allocated_once(kind: Any, threads: int) -> None:
    """A larger batch than all before has its memory made, and from the third step on none."""
    step = training(small_model(kind, threads))

    def counts(lengths: list[int]) -> list[int]:
        found = []
        for seed in range(4):
            batch = batch_of(lengths, seed, kind is BertForMaskedLM)
            with ALLOCATIONS.counting() as large:
                step(batch)
            found.append(len(large))
        return found

    with ThreadPoolExecutor(1) as thread:  # whose buffers are new
        for lengths in ([128] * 12, [300] * 12):
            first, _, *later = thread.submit(counts, lengths).result()
            assert first > 0
            assert later == [0, 0]


def test_every_large_allocation_is_counted() -> None:
    with ALLOCATIONS.counting() as large:
        array = np.empty(MB + 1, np.uint8)
        array = np.zeros(MB // 4, np.float64)
        array = array * 2
        Workers(2).map(lambda n: np.empty(n * MB, np.uint8), [3, 3])
        array.resize(MB // 2, refcheck=False)  # of float64
        np.empty(MB, np.uint8)  # not over 1 MB
    np.empty(2 * MB, np.uint8)  # outside
    assert large == [MB + 1, 2 * MB, 2 * MB, 3 * MB, 3 * MB, 4 * MB]
