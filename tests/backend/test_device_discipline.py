"""The whole of minibert on a strict fake device: the same numbers, and no hidden transfer.

The fake refuses what would make a GPU's host wait, or fail there: a device array turned into a
number, a truth value or a host array; a host array among device arrays; a name CuPy lacks.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cuda_on_cpu
import device_checks as checks
import fake_cupy
import numpy as np
import pytest
from numpy.typing import NDArray

from minibert import BertConfig, BertModel
from minibert.backend import PRECISIONS
from minibert.backend.ahead import Ahead
from minibert.backend.cupy_backend import CupyBackend
from minibert.backend.cupy_twins import attention
from minibert.layers.dropout import DropoutKey
from minibert.layers.encoder_layer import encoder_layer_backward, encoder_layer_forward
from minibert.models.encoder import encoder_weights, settings
from minibert.models.shards import Run
from minibert.optim import RULES
from minibert.packing import pack
from minibert.parameters import accumulate

pytestmark = pytest.mark.skipif(
    cuda_on_cpu.COMPILER is None, reason="needs g++ or clang++ to run CUDA kernels on the CPU"
)
DTYPES = ("float32", "float64")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> CupyBackend:
    """The CuPy backend over a fake CuPy."""
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    return CupyBackend()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", checks.LAYERS)
def test_every_layer(device: CupyBackend, layer: str, dtype: str) -> None:
    checks.check_layer(device, layer, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_whole_model(
    device: CupyBackend, make_model: Any, problem_config: BertConfig, given: Any, dtype: str
) -> None:
    checks.check_model(device, make_model, problem_config, given, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", checks.KINDS)
def test_every_head(device: CupyBackend, kind: str, dtype: str) -> None:
    device.module.to_host.clear()
    checks.check_head(device, kind, dtype)
    read = len(device.module.to_host)
    assert read == len(checks.KINDS[kind][0].shapes(checks.small_config())) + 1  # the test's own


@pytest.mark.parametrize("dtype", DTYPES)
def test_evaluation(
    device: CupyBackend, make_model: Any, tiny: BertConfig, inputs: Any, dtype: str
) -> None:
    checks.check_outputs(device, make_model, tiny, inputs, dtype)
    model = make_model(tiny, BertModel, backend=device, dtype=dtype)
    assert device.to_host(model(**inputs).last_hidden_state).dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_training_steps(
    device: CupyBackend, make_model: Any, problem_config: BertConfig, given: Any, dtype: str,
    rule: str,
) -> None:  # fmt: skip
    checks.check_training(device, make_model, problem_config, given, dtype, rule)


def test_a_step_copies_only_ids_and_labels_to_the_device_and_nothing_back(
    device: CupyBackend, make_model: Any, problem_config: BertConfig, given: Any
) -> None:
    model = make_model(problem_config, backend=device, dtype="float32")
    gradient, batch = model.parameters.zeros_like(), pack(**given)
    device.module.to_device.clear()
    device.module.to_host.clear()
    model.accumulate_gradients(batch, gradient, Run(1, 2))
    assert device.module.to_host == []
    # Three kinds of ids, six numbers of each sequence and its square, the first rows and each
    # row's place among them, the labels.
    sizes = [array.size for array in device.module.to_device]
    B, T = batch.num_sequences, batch.num_tokens
    assert sizes == [T, T, T, 6 * B, B + T, np.size(given["labels"])]


LENGTHS = {"equal": (8, 8, 8), "mixed": (9, 1, 4, 4, 7)}
ROWS: dict[str, Callable[[tuple[int, ...]], Any]] = {
    "all": lambda offsets: None,
    "first tokens": lambda offsets: offsets[:-1],
    "every third": lambda offsets: range(0, offsets[-1], 3),
}


def launches_of_a_layer(model: Any, lengths: tuple[int, ...], rows: Any) -> int:
    """Of a model's first layer, forward and backward, with dropout and the sum into gradients."""
    xp, both = model.xp, (model.parameters, model.parameters.zeros_like())
    w, target = (encoder_weights(each, 1).layers[0] for each in both)
    offsets = (0, *np.cumsum(lengths).tolist())
    x = xp.ones((offsets[-1], model.config.hidden_size), dtype="float32")
    given = w, offsets, settings(model.config), DropoutKey(1, 2, 1, 0), rows(offsets)
    fake_cupy.LAUNCHES.clear()
    y, cache = encoder_layer_forward(xp, x, *given)
    _, dw = encoder_layer_backward(xp, y, cache)
    accumulate(xp, target, dw)
    return len(fake_cupy.LAUNCHES)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_a_layer_takes_at_most_forty_launches(
    device: CupyBackend, make_model: Any, lengths: tuple[int, ...], rows: Any, precision: str
) -> None:
    """33, and one that rounds to 16 bits; no more where some rows go on alone, as in the last."""
    model = make_model(backend=CupyBackend(precision=precision), dtype="float32")
    rounding = precision in ("bf16", "fp16")
    assert launches_of_a_layer(model, lengths, rows) == 33 + rounding


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_a_second_size_of_squares_takes_six_launches(
    device: CupyBackend, make_model: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CELLS", 0)
    model = make_model(backend=device, dtype="float32")
    for lengths, second in (((30, 27), 0), ((30, 20, 10), 6), ((30, 2, 20, 10), 6)):
        assert launches_of_a_layer(model, lengths, rows) == 33 + second


def test_a_layers_gradient_is_added_wherever_its_sum_lies(
    device: CupyBackend, make_model: Any
) -> None:
    """In the flat buffer, where vectors are neighbours, and in arrays of their own."""
    model = make_model(backend=device, dtype="float32")
    w, flat = (
        encoder_weights(each, 1).layers[0]
        for each in (model.parameters, model.parameters.zeros_like())
    )
    apart = type(w)(*(device.full(array.shape, 2.0, dtype="float32") for array in w))
    x = device.to_device(np.random.default_rng(0).normal(size=(70, 12)), "float32")
    key = DropoutKey(1, 2, 1, 0)
    y, cache = encoder_layer_forward(device, x, w, (0, 9, 70), settings(model.config), key)
    _, dw = encoder_layer_backward(device, y, cache)
    for _ in range(2):
        accumulate(device, flat, dw)
    accumulate(device, apart, dw)
    for name, once in dw.dense(device)._asdict().items():
        want = device.to_host(once)
        got, other = (device.to_host(getattr(target, name)) for target in (flat, apart))
        checks.assert_close(got, 2 * want, 1e-6, name)
        checks.assert_close(other, 2 + want, 1e-6, name)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_steady_step_neither_reads_nor_waits(
    device: CupyBackend, make_trainer: Any, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    """Between two lines of the log nothing comes back; ids and labels are sent ahead, in one piece
    for all the parts into which a batch is cut.
    """
    trainer = make_trainer(
        device, max_steps=12, logging_steps=5, gradient_accumulation_steps=accumulation
    )
    fake, seen = device.module, []
    take_step = trainer.step

    def step(batch: Any) -> Any:
        read, waited, sent = len(fake.to_host), len(fake.waits), len(fake.on_stream)
        result = take_step(batch)
        assert (len(fake.to_host), len(fake.waits)) == (read, waited)
        seen.append((trainer.state.step, read, fake.on_stream[sent:]))
        return result

    monkeypatch.setattr(trainer, "step", step)
    trainer.train()
    reads = {number: read for number, read, _ in seen}
    for logged, last in ((0, 5), (5, 10), (10, 12)):  # no read from the step after to the next log
        assert len({reads[n] for n in range(logged + 1, last + 1)}) == 1
    # What a part copies itself: where its sequences are, and which rows go on.
    assert all(streams == ["main"] * 2 * accumulation for *_, streams in seen)
    assert fake.on_stream.count("side") == 4 * 13


@pytest.mark.parametrize("kind", checks.KINDS)
def test_what_was_sent_is_read_and_not_copied_again(
    device: CupyBackend, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, by any head, in two shards; the places of arrays in the host's memory tell."""
    model_class, changes = checks.KINDS[kind]
    config = checks.small_config(**changes)
    _, batch = checks.random_model(model_class, config, checks.LENGTHS)
    model = model_class(config, backend=device, dtype="float32")
    copied, read = dict[str, list[Span]](side=[], main=[]), set[Span]()
    asarray, take = device.module.asarray, Ahead.take

    def copy(array: Any, **how: Any) -> Any:
        if isinstance(array, np.ndarray):
            copied[fake_cupy._Stream.current.name].append(Span.of(array))
        return asarray(array, **how)

    def taken(self: Ahead, array: Any) -> Any:
        result = take(self, array)
        if result is not None:
            read.add(Span.of(array))
        return result

    monkeypatch.setattr(device.module, "asarray", copy)
    monkeypatch.setattr(Ahead, "take", taken)
    batch = model.send_ahead(batch)
    model.accumulate_gradients(batch, model.parameters.zeros_like(), Run(3, 5), shards=2)
    assert len(copied["side"]) == 3 + (batch.labels is not None) + ("token class" in kind)
    for sent in copied["side"]:
        assert sum(piece.size for piece in read if piece.within(sent)) == sent.size
        assert not any(piece.within(sent) for piece in copied["main"])


class Span(NamedTuple):
    """Where an array lies."""

    start: int
    size: int

    @classmethod
    def of(cls, array: NDArray[Any]) -> Span:
        return cls(array.ctypes.data, array.nbytes)

    def within(self, other: Span) -> bool:
        return other.start <= self.start < other.start + other.size


def test_a_step_that_waits_is_seen(device: CupyBackend, make_trainer: Any) -> None:
    """What a GPU is asked in test_gpu.py, of a step as it is and of one that reads its loss."""
    trainer = make_trainer(device)
    checks.check_that_a_step_does_not_wait(trainer, 1000)
    take_step = trainer.step

    def step(batch: Any) -> Any:
        result = take_step(batch)
        device.to_host(result.loss)
        return result

    trainer.step = step
    with pytest.raises(AssertionError, match="the host waited"):
        checks.check_that_a_step_does_not_wait(trainer, 1000)


def test_what_was_sent_ahead_lives_until_its_readers_are_done(device: CupyBackend) -> None:
    """CuPy may hand freed memory to the next copy, which then must wait for those who read it."""
    batches = [np.arange(5) + i for i in range(4)]
    device.send_ahead(batches[:1])
    side = device._ahead._stream
    for number in (1, 2):
        got = device.to_host(device.to_device(batches[number - 1]))
        assert side.waits == [f"main {n}" for n in range(1, number)]
        np.testing.assert_array_equal(got, batches[number - 1])
        alive = weakref.ref(device._ahead._sent[0].device)
        device.send_ahead(batches[number : number + 1])  # main records the end of this step
        assert alive() is not None
        assert device._ahead._before[0] == f"main {number + 1}"
    device.send_ahead(batches[3:])
    assert alive() is None
    assert side.waits[-1] == "main 3"  # before it let go


def test_pieces_of_what_was_sent_are_there(device: CupyBackend) -> None:
    """Until the next is sent; what is no contiguous piece of it, or of another type, is copied."""
    x, pairs = np.arange(6), np.arange(10.0).reshape(5, 2)
    device.send_ahead([x, pairs])
    main, on_stream = fake_cupy._Stream.current, device.module.on_stream
    for piece in (x, x[:2], x[2:], x[:0], pairs[1:4], x):
        got = device.to_host(device.to_device(piece))
        np.testing.assert_array_equal(got, piece)
        assert got.shape == piece.shape
    assert on_stream == ["side"] * 2
    assert main.waits == ["side 1"]  # once, for all that was sent
    for other in (x[::2], pairs[:, 0], x.view(float), np.arange(6)):
        np.testing.assert_array_equal(device.to_host(device.to_device(other)), other)
    assert on_stream == ["side"] * 2 + ["main"] * 4
    device.send_ahead([])
    device.to_device(x)
    assert on_stream[-1] == "main"


def test_checkpoints_move_between_devices(
    device: CupyBackend, make_model: Any, tiny: BertConfig, inputs: Any, tmp_path: Path
) -> None:
    checks.check_checkpoint(device, make_model, tiny, inputs, tmp_path)
    checks.check_optimizer_state(device)


def test_two_runs_give_the_same_bytes(
    device: CupyBackend, make_model: Any, problem_config: BertConfig, given: Any
) -> None:
    checks.check_two_runs(device, make_model, problem_config, given, "float32")


# ---- The fake itself ----


@pytest.mark.parametrize(
    "misuse",
    [
        float, int, bool, list, np.asarray, np.exp,
        lambda x: x + np.ones(3), lambda x: np.ones(3) * x, lambda x: x[np.array([0, 1])],
        lambda x: x[[0, 1]], lambda x: x[x > 0], lambda x: x.item(), lambda x: x.tolist(),
        lambda x: x.__setitem__(0, np.ones(())), lambda x: "yes" if x[0] > 0 else "no",
    ],
)  # fmt: skip
def test_the_fake_refuses_hidden_transfers(device: CupyBackend, misuse: Any) -> None:
    x = device.ones(3, dtype="float32")
    with pytest.raises(TypeError):
        misuse(x)
