"""benchmarks/gpu.py without a GPU: its arguments, table and file, and a step on the stand-in."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import cuda_on_cpu
import pytest

from minibert import BertConfig, BertForSequenceClassification
from minibert.backend import PRECISIONS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS = ["train-32x128", "memory", "launches", "train-mixed", "infer-32x128", "infer-mixed",
        "train-squad", "first-step", "first-step-warm"]  # fmt: skip


def check(file: Path, *arguments: str, hidden: Path | None = None) -> tuple[dict[str, Any], str]:
    """What a dry run wrote and printed; modules in the folder `hidden` hide installed ones."""
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--check", "--json", str(file)]
    path = [str(hidden)] * (hidden is not None) + [str(BENCHMARKS.parent)]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
    )  # fmt: skip
    return json.loads(file.read_text()), done.stdout


def test_every_case_is_measured(tmp_path: Path) -> None:
    content, table = check(tmp_path / "numbers.json", "--sides", "minibert")
    assert list(content["cases"]) == ROWS
    # Launches are counted by PyTorch's profiler.
    counted = ROWS if importlib.util.find_spec("torch") else [r for r in ROWS if r != "launches"]
    for name in counted:
        assert content["cases"][name]["minibert"], name
        assert f"| {name} " in table
    assert list(content["missing"]) == [name for name in ROWS if name not in counted]
    assert content["rates"]["minibert"] > 0


def test_a_side_that_cannot_run_loses_no_other(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no PyTorch here')\n")
    cases = ["train-mixed", "launches"]  # which asks minibert's own process for PyTorch's profiler
    content, table = check(
        tmp_path / "numbers.json", "--sides", "minibert", "eager", "--cases", *cases,
        hidden=tmp_path,
    )  # fmt: skip
    assert len(content["cases"]["train-mixed"]["minibert"]) == 2
    reason = "ImportError: no PyTorch here"
    sides = {"eager": reason}
    assert content["missing"] == {
        "matrix rate": sides, "train-mixed": sides, "launches": {"minibert": reason} | sides,
    }  # fmt: skip
    assert f"- train-mixed, eager: {reason}" in table


def test_no_turn_begins_when_the_time_is_over(tmp_path: Path) -> None:
    content, table = check(
        tmp_path / "numbers.json", "--sides", "minibert", "--minutes", "0", "--cases", "train-mixed"
    )
    assert content["missing"]["train-mixed"] == {"minibert": "no time was left"}
    assert "- train-mixed, minibert: no time was left" in table


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    module = load("_gpu_worker")
    monkeypatch.setattr(module, "PRODUCT", 64)
    return module


@pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason="needs g++ or clang++")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_minibert_works_on_a_device(
    worker: ModuleType, fake: Any, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minibert.backend.cupy_backend.why_unavailable", lambda: None)
    config = BertConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=3, intermediate_size=20
    )
    BertForSequenceClassification(config, backend="numpy").save_pretrained(tmp_path / "model")
    orders: list[dict[str, Any]] = [
        {"job": "train", "lengths": [9, 4]}, {"steps": 2}, {"ask": "memory"}, {"ask": "rate"},
        {"job": "infer", "lengths": [9, 4]}, {"steps": 1},
        {"job": "squad", "lengths": [9, 4]}, {"steps": 1},
    ]  # fmt: skip
    answers = worker.serve(
        lambda: worker.Minibert(str(tmp_path / "model"), precision, check=False),
        map(json.dumps, orders),
    )
    assert [list(json.loads(answer)) for answer in answers] == [
        [], ["seconds"], ["memory"], ["rate"], [], ["seconds"], [], ["seconds"],
    ]  # fmt: skip


def test_a_job_that_fails_is_answered_and_the_next_is_done(worker: ModuleType) -> None:
    class Side:
        def train(self, batch: dict[str, Any]) -> Any:
            raise MemoryError(f"no room for {len(batch['labels'])}\nat all")

        def infer(self, batch: dict[str, Any]) -> Any:
            return lambda: None

        def synchronize(self) -> None:
            pass

    orders = [{"job": "train", "lengths": [8]}, {"job": "infer", "lengths": [8]}, {"steps": 1}]
    failed, taken, done = map(json.loads, worker.serve(Side, map(json.dumps, orders)))
    assert failed == {"error": "MemoryError: no room for 1", "unfit": False}
    assert taken == {}
    assert list(done) == ["seconds"]


def test_the_longest_kernels_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    gpu = load("gpu")
    args = Namespace(precision="tf32", sides=["minibert"], rounds=1, steps=1, minutes=1, check=True)
    bench = gpu.Bench(Path(), args)
    bench.results["launches"] = {"minibert": [3.0]}
    bench.kernels["minibert"] = {"sgemm" * 20: (2, 1500.0), "add": (1, 20.0)}
    table = gpu.report(bench)
    assert f"- 1.50 ms in 2 of {('sgemm' * 20)[:60]}\n- 0.02 ms in 1 of add\n" in table


@pytest.mark.crosscheck
def test_pytorch_takes_part(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="cross-checks need the [crosscheck] extra")
    cases = ("train-mixed", "infer-mixed", "train-squad")
    content, table = check(tmp_path / "numbers.json", "--cases", *cases)
    assert content["missing"] == {}
    for name in cases:
        assert {side: len(numbers) for side, numbers in content["cases"][name].items()} == {
            "minibert": 2,
            "eager": 2,
            "compile": 2,
        }
    assert "eager ÷ minibert" in table
