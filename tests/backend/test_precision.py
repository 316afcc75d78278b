"""Products in tf32, bf16 and fp16: what is rounded, and how much the results may differ for it.

The stand-in's cuBLAS multiplies 16-bit operands as a GPU does (products and sums in float32), cuts
float32 ones off for TF32, and refuses combinations of types that cuBLAS has not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cuda_on_cpu
import device_checks as checks
import fake_cupy
import numpy as np
import pytest

from minibert import BertConfig, BertForSequenceClassification
from minibert.backend import PRECISIONS, get_backend
from minibert.backend.cupy_backend import CupyBackend
from minibert.backend.cupy_twins import attention
from minibert.backend.numpy_backend import NumpyBackend
from minibert.errors import InputError, TrainingDiverged
from minibert.models.shards import Run
from minibert.optim import LossScale, Optimizer
from minibert.packing import pack
from minibert.parallel import Workers
from minibert.training import throughput
from minibert.training.arguments import TrainingArguments

needs_compiler = pytest.mark.skipif(
    cuda_on_cpu.COMPILER is None, reason="needs g++ or clang++ to run CUDA kernels on the CPU"
)


@pytest.fixture(params=PRECISIONS)
def precise(request: pytest.FixtureRequest, fake: Any) -> CupyBackend:
    return CupyBackend(precision=request.param)


@pytest.fixture
def device(fake: Any) -> CupyBackend:
    return CupyBackend(precision="fp16")


@needs_compiler
def test_errors_are_those_of_the_stored_type(
    precise: CupyBackend, make_model: Any, tiny: BertConfig, inputs: Any
) -> None:
    """All gradients together: within 16 roundings of float64's; 16 bits are really used."""
    given = inputs | {"labels": np.array([2, 0, -100, 1, 2])}
    flat = []
    for backend, dtype in ((NumpyBackend(reference=True), "float64"), (precise, "float32")):
        model = make_model(tiny, backend=backend, dtype=dtype)
        gradient = model.parameters.zeros_like()
        model.accumulate_gradients(pack(**given), gradient, Run(11, 4))
        flat.append(np.asarray(backend.to_host(gradient.flat), np.float64))
    error = np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0])
    unit = checks.UNIT[precise.precision]
    assert error < 16 * unit
    assert error > unit / 4


@needs_compiler
@pytest.mark.parametrize("some", [False, True], ids=["all rows", "some rows"])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("cells", [attention.CELLS, 0], ids=["one size", "squares of many sizes"])
def test_a_layer_of_other_sizes(
    precise: CupyBackend, cells: int, backwards: bool, some: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any order of threads."""
    monkeypatch.setattr(attention, "CELLS", cells)
    monkeypatch.setattr(cuda_on_cpu.Kernel, "backwards", backwards)
    checks.check_full_layer(precise, (48, 80, 3, 36), some)


@needs_compiler
def test_a_layer_of_bert_base(precise: CupyBackend) -> None:
    """The very check that a GPU is given."""
    checks.check_full_layer(precise)


def test_the_compute_type_is_asked_for(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(fake.cuda.cublas, "gemmEx", lambda *given: asked.append(given[-2]))
    for precision in PRECISIONS:
        xp = CupyBackend(precision=precision)
        for sibling in (xp, xp.plain, xp.forward_only):
            assert sibling.precision == precision
            x = sibling.ones((2, 2), dtype="float32")
            sibling.matmul(x, x)
    assert asked == [68] * 3 + [77] * 9  # CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32


def test_the_speed_limit_is_that_of_the_operands(
    precise: CupyBackend, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(fake.cuda.cublas, "gemmEx", lambda *given: asked.append(given[8]))
    monkeypatch.setattr(throughput, "BLOCK", 2)
    throughput.measured_gemm_rate(precise, Workers(1), "float32", seconds=0)
    assert asked[0] == {"bf16": 14, "fp16": 2}.get(precise.precision, 0)  # cudaDataType_t


@pytest.mark.parametrize("dtype", ["float16", "uint16"])
def test_products_of_16_bits(device: CupyBackend, dtype: str) -> None:
    """Into 16 bits, into float32, and added to float32."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=shape).astype("f") for shape in ((4, 5), (5, 6), (4, 6)))
    left, right = (device.to_device(fake_cupy.narrowed(x, np.dtype(dtype))) for x in (a, b))
    want = fake_cupy.widened(left._glass) @ fake_cupy.widened(right._glass)
    got = device.matmul(left, right)
    assert got.dtype == dtype
    np.testing.assert_array_equal(device.to_host(got), fake_cupy.narrowed(want, np.dtype(dtype)))
    np.testing.assert_array_equal(device.to_host(device.matmul(left, right, dtype="float32")), want)
    out = device.to_device(c.copy())
    assert device.matmul(left, right, out=out, add=True) is out
    np.testing.assert_allclose(device.to_host(out), c + want, rtol=1e-6)


# ---- Training ----


@needs_compiler
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_losses_are_those_of_full_precision(fake: Any, make_trainer: Any, precision: str) -> None:
    logs = []
    for xp in (NumpyBackend(), CupyBackend(precision=precision)):
        trainer = make_trainer(xp, xp.name, max_steps=5, logging_steps=1)
        trainer.train()
        logs.append([entry["loss"] for entry in trainer.state.log])
        assert str(trainer.model.parameters.flat.dtype) == "float32"
    np.testing.assert_allclose(logs[1], logs[0], atol=0.01)


@needs_compiler
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_mean_loss_stays_on_the_device(fake: Any, make_trainer: Any, precision: str) -> None:
    """Nothing is read back between two lines of the log; the loss scale is not in it."""
    xp = CupyBackend(precision=precision)
    trainer = make_trainer(xp, max_steps=6, logging_steps=3)
    losses, reads, plain = list[Any](), list[int](), trainer.step

    def step(batch: Any) -> Any:
        reads.append(len(fake.to_host))
        result = plain(batch)
        losses.append(result.loss)
        return result

    trainer.step = step
    trainer.train()
    assert reads[0] == reads[1] == reads[2] < reads[3] == reads[4] == reads[5]
    each = [float(xp.to_host(loss)) for loss in losses]
    means = [np.mean(each[:3]), np.mean(each[3:])]
    assert [entry["loss"] for entry in trainer.state.log] == pytest.approx(means, rel=1e-12)


@needs_compiler
def test_fp16_resumes_to_the_same_bytes(fake: Any, make_trainer: Any, tmp_path: Path) -> None:
    def run(output: str, **changes: Any) -> Any:
        xp = CupyBackend(precision="fp16")
        arguments = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "output": output}
        trainer = make_trainer(xp, **arguments | changes)
        trainer.train()
        scale = xp.to_host(trainer.loss_scale.state())
        return xp.to_host(trainer.model.parameters.flat).tobytes(), scale.tolist()

    whole = run("whole")
    assert whole[1] == [65536, 6]
    assert run("again", resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3")) == whole


@needs_compiler
def test_a_run_moves_from_the_gpu_to_the_cpu(
    fake: Any, make_trainer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(CupyBackend(precision="bf16"), **options)
    whole.train()
    last = {"resume_from_checkpoint": str(tmp_path / "run" / "checkpoint-2")}
    resumed = make_trainer(NumpyBackend(), "host", **options | last)
    resumed.train()
    assert "resuming on numpy what cupy began" in capsys.readouterr().out
    flat = resumed.model.parameters.flat
    got = np.asarray(whole.model.xp.to_host(whole.model.parameters.flat))
    assert np.linalg.norm(got - flat) < 0.02 * np.linalg.norm(flat)


@needs_compiler
def test_a_step_that_overflows_is_left_out(device: CupyBackend) -> None:
    """Parameters and moments stay, the scale is halved; the norm is that of the true gradient."""
    scaling = LossScale(device)
    start = np.linspace(-1, 1, 7).astype("f")
    p = device.to_device(start.copy())
    optimizer = Optimizer(device, p, 3, rule="adamw_torch", weight_decay=0.1)
    for value, norm, scale in ((np.inf, 0, 32768), (np.nan, 0, 16384), (3 * 16384, 3, 16384)):
        gradient = np.zeros(7, "f")
        gradient[2] = value
        g = device.to_device(gradient)
        shown, factor = scaling.unscale(device.sqrt(device.dot(g, g)), 0.0)
        optimizer.step(g, 0.1, factor)
        assert device.to_host(shown) == norm
        assert device.to_host(scaling.scale) == scale
        changed = device.to_host(p) != start
        assert changed.any() == np.isfinite(value)
    assert changed.tolist() == [True] * 3 + [False] * 4  # decay, and one gradient
    np.testing.assert_allclose(device.to_host(optimizer.m)[2], 0.3, rtol=1e-6)


def test_the_scale_grows_after_many_good_steps(device: CupyBackend) -> None:
    scaling = LossScale(device)
    scaling.load_state(np.array([1024.0, 1998.0]))
    for number, (scale, good) in enumerate(((1024, 1999), (2048, 0), (2048, 1))):
        norm, factor = scaling.unscale(device.full((), 2048.0, dtype="float32"), 1.0)
        assert device.to_host(scaling.state()).tolist() == [scale, good], number
        assert device.to_host(norm) == 2048 / (1024 if number < 2 else 2048)
    np.testing.assert_allclose(device.to_host(factor), 1 / 2048, rtol=1e-5)  # norm 1: not clipped


@needs_compiler
def test_fp16_that_never_fits_is_an_error(fake: Any, make_trainer: Any) -> None:
    trainer = make_trainer(CupyBackend(precision="fp16"), max_steps=1, logging_steps=1)
    trainer.loss_scale.load_state(np.array([0.5, 0.0]))
    with pytest.raises(TrainingDiverged):
        trainer.train()


# ---- Refused ----


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_a_cpu_has_full_precision_only(tiny: BertConfig, precision: str) -> None:
    for backend in ("numpy", NumpyBackend()):
        with pytest.raises(InputError, match=rf"precision '{precision}' wants a GPU"):
            BertForSequenceClassification(tiny, backend=backend, precision=precision)
    with pytest.raises(InputError, match="leave out dtype float64"):
        BertForSequenceClassification(tiny, dtype="float64", precision=precision)


def test_other_misuse_is_refused() -> None:
    with pytest.raises(InputError, match="choose one of fp32, tf32, bf16, fp16"):
        get_backend("numpy", precision="fp8")
    with pytest.raises(InputError, match="lamb cannot skip a step"):
        TrainingArguments(precision="fp16", optim="lamb")
