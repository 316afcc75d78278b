"""The picture of a log."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from minibert.training.plot import plot_log


def write_log(folder: Path) -> Path:
    path = folder / "log.jsonl"
    lines = [{"step": step, "loss": 9.0 / step, "learning_rate": 0.1} for step in range(1, 9)]
    lines.append(
        {"step": 8, "eval_mlm_loss": 2.0, "eval_mlm_accuracy": 0.5, "eval_mlm_baseline": 0.1}
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_log_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the [plot] extra is not installed")
    picture = tmp_path / "curves.png"
    assert plot_log(write_log(tmp_path), picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000


def test_without_matplotlib_there_is_no_picture(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not plot_log(write_log(tmp_path), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
