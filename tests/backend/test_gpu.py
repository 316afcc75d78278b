"""The CuPy backend on a real GPU, held to NumPy in float64. Without one, all skip and say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import device_checks as checks
import numpy as np
import pytest

from minibert import BertConfig
from minibert.backend import PRECISIONS
from minibert.backend.cupy_backend import CupyBackend, why_unavailable
from minibert.backend.numpy_backend import NumpyBackend
from minibert.optim import RULES

REASON = why_unavailable()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(REASON is not None, reason=f"no GPU to test on: {REASON}"),
]
DTYPES = ("float64", "float32")


@pytest.fixture(scope="module")
def gpu() -> CupyBackend:
    return CupyBackend()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", checks.LAYERS)
def test_every_layer(gpu: CupyBackend, layer: str, dtype: str) -> None:
    checks.check_layer(gpu, layer, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_whole_model(
    gpu: CupyBackend, make_model: Any, problem_config: BertConfig, given: Any, dtype: str
) -> None:
    checks.check_model(gpu, make_model, problem_config, given, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", checks.KINDS)
def test_every_head(gpu: CupyBackend, kind: str, dtype: str) -> None:
    checks.check_head(gpu, kind, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_evaluation(
    gpu: CupyBackend, make_model: Any, tiny: BertConfig, inputs: Any, dtype: str
) -> None:
    checks.check_outputs(gpu, make_model, tiny, inputs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_training_steps(
    gpu: CupyBackend, make_model: Any, problem_config: BertConfig, given: Any, dtype: str, rule: str
) -> None:
    checks.check_training(gpu, make_model, problem_config, given, dtype, rule)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_runs_give_the_same_bytes(
    gpu: CupyBackend, make_model: Any, problem_config: BertConfig, given: Any, dtype: str
) -> None:
    checks.check_two_runs(gpu, make_model, problem_config, given, dtype)


def test_checkpoints_move_between_devices(
    gpu: CupyBackend, make_model: Any, tiny: BertConfig, inputs: Any, tmp_path: Path
) -> None:
    checks.check_checkpoint(gpu, make_model, tiny, inputs, tmp_path)
    checks.check_optimizer_state(gpu)


@pytest.mark.parametrize("place", checks.PLACES)
def test_dropout_decisions_have_the_bits_of_numpy(gpu: CupyBackend, place: tuple[int, ...]) -> None:
    checks.check_keep_decisions(gpu, place)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "ids"), [(1, 1), (4097, 2), (4096, 512), (70_000, 30_000)])
def test_rows_of_one_id_are_added(gpu: CupyBackend, rows: int, ids: int, dtype: str) -> None:
    checks.check_sum_rows(gpu, np.random.default_rng(rows).integers(0, ids, rows), 48, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_at_full_size(gpu: CupyBackend, dtype: str) -> None:
    """BERT-base's attention, one long sequence and a run of four; and its bias gradient."""
    rng = np.random.default_rng(0)
    for G, n in ((1, 512), (4, 128)):
        q, k = (rng.normal(size=(G, n, 12, 64)).astype(dtype) for _ in range(2))
        a, b = (gpu.to_device(x).transpose(0, 2, 1, 3) for x in (q, k))
        got = gpu.to_host(gpu.matmul(a, b.swapaxes(-1, -2)))
        want = np.einsum("gihd,gjhd->ghij", q.astype(float), k.astype(float))
        checks.assert_close(got, want, checks.BOUND[dtype])
    x = rng.normal(size=(4096, 768)).astype(dtype)
    got = gpu.to_host(gpu.sum(gpu.to_device(x), axis=0))
    checks.assert_close(got, x.astype(float).sum(axis=0), checks.BOUND[dtype])
    flat = gpu.to_device(x).ravel()
    want = np.array(np.square(x.astype(float)).sum())
    checks.assert_close(np.asarray(gpu.to_host(gpu.dot(flat, flat))), want, checks.BOUND[dtype])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_twice_gives_the_same_bytes(make_trainer: Any, precision: str) -> None:
    runs = []
    for output in ("first", "second"):
        trainer = make_trainer(CupyBackend(precision=precision), output, max_steps=20)
        trainer.train()
        runs.append(trainer.model.xp.to_host(trainer.model.parameters.flat).tobytes())
    assert runs[0] == runs[1]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_resumes_on_the_gpu_and_on_the_cpu(
    make_trainer: Any, tmp_path: Path, precision: str
) -> None:
    """There to the same bytes, here to what rounding leaves."""
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    last = {"resume_from_checkpoint": str(tmp_path / "whole" / "checkpoint-3")}
    flats = []
    for xp, output, more in (
        (CupyBackend(precision=precision), "whole", {}),
        (CupyBackend(precision=precision), "gpu", last),
        (NumpyBackend(), "cpu", last),
    ):
        trainer = make_trainer(xp, output, **options | more)
        trainer.train()
        flats.append(np.asarray(xp.to_host(trainer.model.parameters.flat)))
    whole, gpu, cpu = flats
    assert gpu.tobytes() == whole.tobytes()
    assert np.linalg.norm(cpu - whole) < 0.02 * np.linalg.norm(whole)


@pytest.mark.parametrize("some", [False, True], ids=["all rows", "some rows"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_layer_at_full_size(gpu: CupyBackend, precision: str, some: bool) -> None:
    """BERT-base's, on 5 sequences of mixed lengths, dropout on; rounding errors alone."""
    checks.check_full_layer(CupyBackend(precision=precision), some=some)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_returns_before_the_device_is_done(
    make_trainer: Any, precision: str, accumulation: int
) -> None:
    """The device is kept busy for about half a second; no clock is read here."""
    trainer = make_trainer(
        CupyBackend(precision=precision), gradient_accumulation_steps=accumulation
    )
    checks.check_that_a_step_does_not_wait(trainer, 10**9)


def test_memory_is_counted(gpu: CupyBackend) -> None:
    before = gpu.memory()
    array = gpu.zeros(before // 4 + 1_000_000, dtype="float32")
    gpu.synchronize()
    assert gpu.memory() >= array.nbytes
