"""The benchmarks' reports on made-up samples, their arguments, and a profile of a tiny model."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Load = Callable[..., ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """A benchmark as a module, called with these arguments."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])

    def load(script: str, *arguments: str) -> ModuleType:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        spec = importlib.util.spec_from_file_location(f"benchmark {script}", BENCHMARKS / script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def cpu(load: Load) -> ModuleType:
    return load("cpu.py")


# ---- cpu.py: the report ----

TRAIN = {"minibert": [0.6, 1.2, 0.7], "eager": [1.0, 2.0, 1.0], "compiled": [1.0, 1.0, 3.0]}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_shows_ratios_within_rounds_and_their_range(cpu: ModuleType) -> None:
    assert cpu.row("train-mixed", TRAIN) == [
        "train-mixed", "1,000 (1,000 … 2,000) ms", "0.60 (0.60 … 0.70)", "–", "–",
        "1.00 (0.50 … 3.00)", "–", "–", "3",
    ]  # fmt: skip


def test_five_rounds_have_quartiles_one_has_none(cpu: ModuleType) -> None:
    samples = {"minibert": [1.0, 2.0, 3.0, 4.0, 50.0], "eager": [1.0] * 5}
    assert cpu.row("infer-32x128", samples)[2] == "3.00 (2.00 … 4.00)"
    assert cpu.row("memory", {"minibert": [3e9], "eager": [6e9]})[1:3] == ["6,000 MB", "0.50"]


def test_without_the_base_all_is_shown_as_measured(cpu: ModuleType) -> None:
    row = cpu.row("infer-1x20", {"minibert": [0.5], "products": [0.25]})
    assert row == ["infer-1x20", "–", "500 ms", "–", "–", "–", "–", "250 ms", "1"]


def test_the_report_says_what_was_left_out_and_whether_torch_compiled(cpu: ModuleType) -> None:
    left_out = {"kept": "not asked for", "onnx": "no onnx", "grouped": "not asked for"}
    lines = cpu.report({"train-mixed": TRAIN}, left_out, {"threads": "2"}).splitlines()
    header = ["÷ eager", "eager", "minibert", "kept", "grouped", "compiled", "onnx", "products"]
    assert cells(lines[0]) == [*header, "rounds"]
    assert lines[3:] == [
        "", "- train-mixed: a training step, 32 sentences of mixed length",
        "", "left out: kept, grouped: not asked for", "", "left out: onnx: no onnx",
        "", "threads 2, torch.compile measured",
    ]  # fmt: skip


def test_time_for_a_token(cpu: ModuleType) -> None:
    results = {"infer-8x25": {"minibert": [0.2]}}
    first, _, equal, mixed = cpu.tokens_table(results).splitlines()
    assert cells(first)[1:] == ["8", "32", "128"]
    assert cells(equal)[1:] == ["1000", "–", "–"]
    assert cells(mixed)[1:] == ["–", "–", "–"]
    results["infer-32x25"] = {"minibert": [0.4]}
    assert cpu.tokens_table(results).endswith("\n\nlargest ÷ smallest: 2.00")
    assert not cpu.tokens_table({"infer-8x25": {}, "infer-1x20": {"minibert": [1.0]}})


def test_the_file_has_every_sample(cpu: ModuleType) -> None:
    results = {"train-mixed": {"minibert": [0.5], "eager": [1.0]}}
    content = json.loads(cpu.as_json(results, {"onnx": "why"}, {"threads": "2"}))
    assert content == {
        "settings": {"threads": "2", "torch.compile": "not measured"},
        "left_out": {"onnx": "why"},
        "cases": {"train-mixed": {
            "what": "a training step, 32 sentences of mixed length",
            "ratios": {"minibert": {"median": 0.5, "low": 0.5, "high": 0.5}},
            "samples": results["train-mixed"],
        }},
    }  # fmt: skip


def test_only_chosen_columns_run(cpu: ModuleType) -> None:
    left_out = cpu.unable(quick=False, chosen=["minibert", "eager"])
    assert cpu.COLUMNS.keys() - left_out.keys() == {"minibert", "eager", "minibert-checkpointing"}


# ---- Arguments ----


@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("cpu.py", "--rounds -1", "--rounds: '-1' is no whole number above 0"),
        ("cpu.py", "--layers 0", "--layers: '0' is no whole number above 0"),
        ("cpu.py", "--json nowhere/x", "nowhere is no directory: make it first"),
        ("cpu.py", "--json .", ". cannot be written: name another file"),
        ("profile.py", "--batch 3x", "'3x' is no batch: 32x128, say, or mixed, or 8mixed"),
        ("profile.py", "--batch 0x3", "'0x3' is no batch"),
        ("profile.py", "--steps 0", "--steps: '0' is no whole number above 0"),
        ("profile.py", "--hidden_size 48", "48 is no multiple of 64: give --heads too"),
        ("optimizer.py", "--rounds 0", "--rounds: '0' is no whole number above 0"),
        ("predict.py", "--sentences 0", "--sentences: '0' is no whole number above 0"),
        ("finetune_run.py", "--threads 0", "--threads: '0' is no whole number above 0"),
        ("quality.py", "rte --threads 0", "--threads: '0' is no whole number above 0"),
        ("pretraining_speed.py", "c --rounds 0", "--rounds: '0' is no whole number above 0"),
        ("pretraining_quality.py", "m --threads 0", "--threads: '0' is no whole number above 0"),
        ("pretraining_data.py", "c --copies 0", "--copies: '0' is no whole number above 0"),
    ],
)
def test_a_bad_argument_is_one_line(
    script: str, arguments: str, says: str, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refusal(load(script, *arguments.split()), capsys)


def refusal(module: ModuleType, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a benchmark ends."""
    with pytest.raises(SystemExit) as stop:
        module.run(module.main)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ".py: error: " in line
    return line


@pytest.mark.parametrize(
    ("script", "arguments", "missing", "extras"),
    [
        ("cpu.py", "--columns kept", "torch and transformers", "crosscheck,benchmark"),
        ("predict.py", "", "torch and transformers", "crosscheck"),
        ("quality.py", "rte", "torch and transformers", "crosscheck"),
        ("pretraining_speed.py", "corpus", "torch and transformers", "crosscheck"),
        ("finetune_run.py", "", "torch and transformers and accelerate", "crosscheck,benchmark"),
        ("profile.py", "--picture a.png", "matplotlib", "plot"),
    ],
)
def test_a_missing_package_is_said_before_any_work(
    script: str, arguments: str, missing: str, extras: str, load: Load,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    module = load(script, *arguments.split())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    line = refusal(module, capsys)
    assert line.endswith(f"needs {missing}: python -m pip install -e '.[{extras}]'")


def test_the_help_explains_the_columns(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    module = load("cpu.py", "--help")
    with pytest.raises(SystemExit, match="0"):
        module.main()
    assert "- grouped: the same as eager, with" in capsys.readouterr().out


def test_a_picture_of_no_known_kind(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    line = refusal(load("profile.py", "--picture", "a.xyz"), capsys)
    assert "--picture a.xyz: no kind of picture; known are ." in line


# ---- profile.py ----


def test_a_tiny_profile(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    size = "--layers 1 --hidden_size 64 --batch 2x4 --steps 1 --threads 1 --gradient_checkpointing"
    load("profile.py", *size.split()).main()
    operations, places, settings = capsys.readouterr().out.split("\n\n")
    assert {"linear", "attention", "AdamW"} < {cells(line)[0] for line in operations.splitlines()}
    assert [cells(line)[0] for line in places.splitlines()][2:] == [
        "embeddings", "layer 0", "head", "update", "rest", "all",
    ]  # fmt: skip
    for table in (operations, places):  # the shares add up
        shares = [cells(line)[-1] for line in table.splitlines()[2:-1]]
        assert sum(float(share.rstrip("%")) for share in shares) == pytest.approx(100, abs=1)
    assert "gradient checkpointing (forward: with what is computed again)" in settings


def test_a_picture_has_all_the_time(load: Load) -> None:
    profile = load("profile.py")
    layers, ways = ("layer 0", "head"), ("forward", "backward")
    seconds = {
        (layer, f"op {i}", way): 1e-3 * i for layer in layers for i in range(12) for way in ways
    }
    found = profile.stacks(seconds)
    assert list(found) == [f"op {i}" for i in range(11, 2, -1)] + ["others"]
    assert found["op 11"] == pytest.approx({"layer 0": 22, "head": 22})
    assert found["others"] == pytest.approx({"layer 0": 2 * (0 + 1 + 2), "head": 2 * (0 + 1 + 2)})
    few = {key: value for key, value in seconds.items() if key[1] in ("op 1", "op 2")}
    assert list(profile.stacks(few)) == ["op 2", "op 1"]


# ---- finetune_run.py ----


def test_trainer_is_probed_on_equal_texts(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    finetune_run = load("finetune_run.py")
    assert [finetune_run.PROBE_TEXTS % size for size in finetune_run.BATCH_SIZES] == [0, 0, 0]
    rates = {(16, 1): 10.0, (32, 1): 30.0, (64, 1): 20.0, (32, 0): 31.0}
    monkeypatch.setattr(
        finetune_run, "ask", lambda what, *, batch, workers, **job: rates[batch, workers]
    )
    assert finetune_run.probe("model", "data") == rates


def test_a_whole_run_s_table(load: Load) -> None:
    finetune_run = load("finetune_run.py")
    runs: dict[str, list[Any]] = {
        "minibert": [finetune_run.Run(10, 80), finetune_run.Run(12, 84)],
        "Trainer": [finetune_run.Run(20, 81), finetune_run.Run(18, 81)],
    }
    _, _, ours, theirs = map(cells, finetune_run.report(runs, 32).splitlines())
    assert ours == ["minibert, batch 32", "11.0", "82.00 (80.00 … 84.00)", "1.75 (1.50 … 2.00)"]
    assert theirs == ["Trainer, batch 32", "19.0", "81.00 (81.00 … 81.00)", "1"]
