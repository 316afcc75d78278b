"""What a backend on a device must show: run on a GPU, and without one on the strict fake.

The oracle is always NumPy's plain functions in float64, on the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert import BertConfig, BertForSequenceClassification
from minibert.backend import Backend, Deferred
from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.dropout import DropoutKey
from minibert.layers.encoder_layer import (
    EncoderLayerSettings,
    EncoderLayerWeights,
    encoder_layer_backward,
    encoder_layer_forward,
)
from minibert.models.shards import Run
from minibert.optim import Optimizer, clip_scale, global_norm
from minibert.packing import pack
from minibert.training.trainer import Trainer
from minibert.verify.layer_cases import LayerCase, layer_cases
from minibert.verify.model_cases import KINDS, LENGTHS, random_model, small_config

LAYERS = {case.layer: case for case in layer_cases()}
BOUND = {"float64": 1e-12, "float32": 2e-5}
"""Largest difference, relative to a tensor's largest number."""
OVERALL = {"float64": 1e-12, "float32": 5e-6}
"""Of all gradients together: ‖difference‖/‖gradient‖."""

PLACES = [  # seed, site, step, stream, first, count, threshold
    (0, 0, 0, 0, 0, 1, 6554),
    (42, 3, 7, 0, 0, 16, 6554),
    (42, 3, 7, 0, 15, 2, 6554),
    (42, 3, 7, 5, 16, 33, 1),
    (2**63, 99, 2**40, 2**33, 2**40 + 7, 1000, 32768),
    (1, 2, 3, 4, 5, 100_000, 65535),
    (1, 2, 3, 4, 5, 0, 6554),
]


def assert_close(got: Any, want: Any, bound: float, what: str = "", like: Any = None) -> None:
    """`got` is within `bound` of `want`, relative to the largest number in `like` (or `want`)."""
    assert got.shape == want.shape, what
    scale = max(np.abs(want if like is None else like).max(initial=0), 1e-3)
    np.testing.assert_allclose(got, want, rtol=0, atol=bound * scale, err_msg=what)


# ---- Layers ----


def moved(value: Any, xp: Backend, dtype: str) -> Any:
    """A copy of `value` with its arrays on the device, floating-point ones in `dtype`."""
    if isinstance(value, np.ndarray):
        return xp.to_device(value.copy(), dtype if value.dtype.kind == "f" else None)
    if isinstance(value, tuple) and not isinstance(value, DropoutKey):
        parts = [moved(part, xp, dtype) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def arrays_in(xp: Backend, result: Any) -> Iterator[NDArray[Any]]:
    """The arrays of a result on the host, tuples opened and tables filled."""
    if isinstance(result, Deferred):
        yield from arrays_in(xp, result.dense(xp))
    elif isinstance(result, tuple):
        for part in result:
            yield from arrays_in(xp, part)
    else:
        yield xp.to_host(result)


def run_layer(case: LayerCase, xp: Backend, dtype: str, dy: NDArray[Any] | None) -> list[Any]:
    """[y, the gradients] of a layer for a given upstream gradient (default: a fixed random one)."""
    y, cache = case.forward(xp, *moved(case.arguments(case.arrays), xp, dtype))
    dy = np.random.default_rng(5).normal(size=y.shape) if dy is None else dy
    gradients = case.backward(xp, xp.to_device(dy, dtype), cache)
    return list(arrays_in(xp, (y, gradients)))


def check_layer(xp: Backend, layer: str, dtype: str) -> None:
    want = run_layer(LAYERS[layer], NumpyBackend(reference=True), "float64", None)
    got = run_layer(LAYERS[layer], xp, dtype, None)
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.dtype == dtype
        assert_close(a, b, BOUND[dtype], f"{layer}: tensor {i}")


UNIT = {"fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-9, "fp16": 2.0**-12}
"""The largest relative error of rounding an operand of a product to the nearest, by precision.

To 16 bits our kernels round. TF32's operands are float32, and Hopper's product "will truncate lower
13 bits of the 32-bit input data" (NVIDIA, PTX ISA, wgmma.mma_async): an error of up to two of these
units, always towards zero. Whether cuBLAS rounds them before, its manual does not say. So the
stand-in cuts them off, and a bound in these units has to hold for that: of the 16 of
`check_full_layer` 10 are taken at BERT-base's size (2.5 if it rounds).
"""


def layer_shapes(H: int, F: int) -> list[tuple[int, ...]]:
    """Of `EncoderLayerWeights`."""
    attention: list[tuple[int, ...]] = [(3 * H, H), (3 * H,), (H, H), (H,), (H,), (H,)]
    return [*attention, (F, H), (F,), (H, F), (H,), (H,), (H,)]


def check_full_layer(
    xp: Backend, sizes: tuple[int, ...] = (768, 3072, 12, 128), some: bool = False
) -> None:
    """A layer of (H, F, heads) on sequences up to a length: forward, backward, all gradients.

    `some`: of every third row alone. Errors stay below 16 roundings of an operand. In fp32 those
    of the sums are larger: where K numbers are added up one after the other they grow as √K (Higham
    and Mary, SIAM J. Sci. Comput. 41, 2019). NumPy's own plain layer errs by 22 units of float32 at
    BERT-base's size, one whose products add up number by number by 33, and √F is 55.
    """
    H, F, heads, longest = sizes
    rng, lengths = np.random.default_rng(0), (1, longest // 9, longest // 2, longest, longest)
    offsets = (0, *np.cumsum(lengths).tolist())
    w = EncoderLayerWeights(*(rng.normal(0, 0.05, shape) for shape in layer_shapes(H, F)))
    w = w._replace(gamma_attention=1 + w.gamma_attention, gamma_output=1 + w.gamma_output)
    settings = EncoderLayerSettings(heads, "gelu", 1e-12, 0.1, 0.1)
    key, x, dy = DropoutKey(1, 2, 3, 0), *rng.normal(size=(2, offsets[-1], H))
    rows = range(2, len(x), 3) if some else None
    dy = dy[rows] if some else dy
    results = []
    for on, dtype in ((NumpyBackend(reference=True), "float64"), (xp, "float32")):
        given = moved(w, on, dtype), offsets, settings, key, rows
        y, cache = encoder_layer_forward(on, on.to_device(x.copy(), dtype), *given)
        gradients = encoder_layer_backward(on, on.to_device(dy.copy(), dtype), cache)
        results.append([np.asarray(a, np.float64) for a in arrays_in(on, (y, gradients))])
    bound = max(16 * UNIT[xp.precision], math.sqrt(F) * UNIT["fp32"])
    for i, (want, got) in enumerate(zip(*results, strict=True)):
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert error < bound, f"tensor {i}: {error / bound:.2f} of the bound"


# ---- Whole models ----


def step(
    make_model: Any, config: BertConfig, xp: Backend | str, dtype: str, given: dict[str, Any]
) -> tuple[Backend, Any, dict[str, Any]]:
    model = make_model(config, backend=xp, dtype=dtype)
    output, gradients = model.loss_and_gradients(**given, dropout=(11, 4))
    return model.xp, output, gradients


def check_model(
    xp: Backend, make_model: Any, config: BertConfig, given: dict[str, Any], dtype: str
) -> None:
    """Loss, logits and every gradient, with dropout."""
    _, want, gradients = step(make_model, config, NumpyBackend(reference=True), "float64", given)
    _, got, device_gradients = step(make_model, config, xp, dtype, given)
    assert_close(xp.to_host(got.loss), want.loss, BOUND[dtype], "loss")
    assert_close(xp.to_host(got.logits), want.logits, BOUND[dtype], "logits")
    flat = [
        np.concatenate([np.ravel(on.to_host(g[name])).astype(np.float64) for name in gradients])
        for on, g in ((NumpyBackend(), gradients), (xp, device_gradients))
    ]
    assert np.linalg.norm(flat[1] - flat[0]) <= OVERALL[dtype] * np.linalg.norm(flat[0])
    for name, gradient in gradients.items():
        # In exact arithmetic the key bias has the gradient 0: see layers/multi_head_attention.py.
        like = gradients[name.replace("key.bias", "query.bias")]
        assert_close(xp.to_host(device_gradients[name]), gradient, BOUND[dtype], name, like)


def check_head(xp: Backend, kind: str, dtype: str) -> None:
    """Loss and every gradient of any head, with dropout, in two shards."""
    model_class, changes = KINDS[kind]
    plain, batch = random_model(model_class, small_config(**changes), LENGTHS)
    arrays = {name: np.array(array) for name, array in plain.parameters.items()}
    results = []
    for backend, d in ((NumpyBackend(reference=True), "float64"), (xp, dtype)):
        model = model_class(plain.config, backend=backend, dtype=d, arrays=arrays, threads=1)
        gradients = model.parameters.zeros_like()
        output = model.accumulate_gradients(batch, gradients, Run(3, 5), shards=2)
        results.append({"loss": output.loss} | dict(gradients))
    want, got = results
    host = {name: np.asarray(xp.to_host(array), np.float64) for name, array in got.items()}
    error = sum(np.linalg.norm(host[name] - want[name]) ** 2 for name in want)
    assert error <= OVERALL[dtype] ** 2 * sum(np.linalg.norm(w) ** 2 for w in want.values())
    largest = max(want.values(), key=lambda gradient: np.abs(gradient).max())
    for name, gradient in want.items():
        zero = np.abs(gradient).max() < 1e-12 * np.abs(largest).max()  # in exact arithmetic
        assert_close(
            host[name], gradient, BOUND[dtype], f"{kind}: {name}", largest if zero else None
        )


def check_outputs(
    xp: Backend, make_model: Any, config: BertConfig, given: dict[str, Any], dtype: str
) -> None:
    """Evaluation, with hidden states and attentions."""
    options = {"output_hidden_states": True, "output_attentions": True}
    want = make_model(config, backend=NumpyBackend(reference=True))(**given, **options)
    got = make_model(config, backend=xp, dtype=dtype)(**given, **options)
    for name in ("hidden_states", "attentions"):
        for a, b in zip(getattr(got, name), getattr(want, name), strict=True):
            assert_close(xp.to_host(a), b, BOUND[dtype], name)


def check_two_runs(
    xp: Backend, make_model: Any, config: BertConfig, given: dict[str, Any], dtype: str
) -> None:
    """The same bytes twice."""
    runs = [train(make_model, config, xp, given, dtype, "adamw_torch", steps=2) for _ in range(2)]
    assert runs[0].tobytes() == runs[1].tobytes()


def train(
    make_model: Any, config: BertConfig, xp: Backend, given: dict[str, Any], dtype: str,
    rule: str, steps: int,
) -> NDArray[Any]:  # fmt: skip
    """The parameters (P,) after some clipped steps, on the host."""
    model = make_model(config, backend=xp, dtype=dtype)
    parameters = model.parameters
    optimizer = Optimizer(
        xp, parameters.flat, parameters.layout.decayed, rule=rule, weight_decay=0.1, eps=1e-3,
        workers=model.workers,
    )  # fmt: skip
    for number in range(steps):
        gradient = parameters.zeros_like()
        model.accumulate_gradients(pack(**given), gradient, Run(7, number), shards=2)
        norm = global_norm(xp, gradient.flat, model.workers)
        optimizer.step(gradient.flat, 0.01, clip_scale(norm, 1.0))
    return np.asarray(xp.to_host(parameters.flat))


def check_training(
    xp: Backend, make_model: Any, config: BertConfig, given: dict[str, Any], dtype: str, rule: str
) -> None:
    want = train(make_model, config, NumpyBackend(reference=True), given, "float64", rule, 3)
    got = train(make_model, config, xp, given, dtype, rule, 3)
    assert got.dtype == dtype
    assert_close(got, want, {"float64": 1e-11, "float32": 1e-4}[dtype], rule)


def check_checkpoint(
    xp: Backend, make_model: Any, config: BertConfig, given: dict[str, Any], directory: Path
) -> None:
    """What the device saves, the CPU loads bit by bit; and back."""
    on_device = make_model(config, backend=xp, dtype="float32")
    on_device.save_pretrained(directory / "from_device")
    load = BertForSequenceClassification.from_pretrained
    on_host = load(directory / "from_device", backend="numpy", threads=1)
    on_host.save_pretrained(directory / "from_host")
    again = load(directory / "from_host", backend=xp)
    for name, array in on_device.parameters.items():
        assert xp.to_host(array).tobytes() == on_host.parameters[name].tobytes()
        assert xp.to_host(array).tobytes() == xp.to_host(again.parameters[name]).tobytes()


def check_optimizer_state(xp: Backend) -> None:
    """A state saved on the device resumes on the host, and the other way round."""
    rng, host = np.random.default_rng(0), NumpyBackend()
    start, gradient = rng.normal(size=50), rng.normal(size=50)

    def run(first: Backend, second: Backend) -> NDArray[Any]:
        p, state = start, None
        for backend in (first, second):
            p = backend.to_device(p.copy())
            optimizer = Optimizer(backend, p, 30, rule="adamw_torch", weight_decay=0.1)
            if state is not None:
                optimizer.load_state_dict(state)
            optimizer.step(backend.to_device(gradient), 0.01)
            p = np.asarray(backend.to_host(p))
            moments = {"m": backend.to_host(optimizer.m), "v": backend.to_host(optimizer.v)}
            state = moments | {"step": optimizer.steps}
        return p

    want = run(host, host)
    for pair in ((xp, host), (host, xp)):
        np.testing.assert_allclose(run(*pair), want, rtol=1e-14)


# ---- Who waits for whom ----

SPIN = """
#define STORAGE float
extern "C" __global__ void spin(unsigned long long cycles) {
    long long start = clock64();
    while (clock64() - start < (long long)cycles) {}
}
"""


def check_that_a_step_does_not_wait(trainer: Trainer, cycles: int) -> None:
    """A turn of the training loop returns while the device is still at what was asked before.

    Two turns may wait: kernels are loaded and memory is taken, some of it, the page-locked pieces
    for copies, only while the device is behind. The third finds all of it there.
    """
    xp, features = trainer.model.xp, trainer.train_features
    batch = features.batch(trainer.order.epoch(0)[0])
    spin = xp.RawModule(code=SPIN).get_function("spin")
    over = []
    for _ in range(3):
        spin((1,), (32,), (cycles,))
        spinning = xp.cuda.get_current_stream().record()
        batch = trainer.model.send_ahead(batch)
        trainer.mean_loss.add(trainer.step(batch).loss)
        over.append(spinning.done)
        xp.synchronize()
        assert spinning.done
    assert not over[-1], "the host waited for the device"


# ---- The backend's own operations ----


def check_keep_decisions(xp: Backend, place: tuple[int, ...]) -> None:
    keep = xp.to_host(xp.keep_decisions(*place))
    want = NumpyBackend().keep_decisions(*place)
    assert keep.dtype == bool
    np.testing.assert_array_equal(keep, want)


def check_sum_rows(xp: Backend, ids: NDArray[Any], width: int, dtype: str) -> None:
    rows = np.random.default_rng(len(ids)).normal(size=(len(ids), width)).astype(dtype)
    got_ids, got = (xp.to_host(a) for a in xp.sum_rows(xp.to_device(ids), xp.to_device(rows)))
    assert got.dtype == dtype
    assert got.shape == (len(got_ids), width)
    assert (np.diff(got_ids) >= 0).all()
    unique, inverse = np.unique(ids, return_inverse=True)
    assert set(got_ids.tolist()) == set(unique.tolist())
    want = np.zeros((len(unique), width))
    np.add.at(want, inverse, rows.astype(np.float64))
    assert_close(got, want[np.searchsorted(unique, got_ids)], BOUND[dtype], "sums")
