"""The picture of a log."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("next_sentence", [True, False])
def test_training_stands_beside_the_held_out_loss_of_the_same_kind(
    next_sentence: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="the [plot] extra is not installed")
    drawn, plain = list[Any](), figure.Figure.savefig
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, *a, **k: drawn.append(self) or plain(self, *a, **k)
    )
    log = tmp_path / "log.jsonl"
    held_out = {"eval_loss": 2.75, "eval_mlm_loss": 2.0}
    held_out |= {"eval_nsp_loss": 0.75} if next_sentence else {"eval_loss": 2.0}
    entries = [{"step": 1, "loss": 3.0}, {"step": 1, **held_out}]
    log.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert plot_log(log, tmp_path / "curves.png", next_sentence)
    lines = {line.get_label(): line.get_ydata()[0] for line in drawn[0].axes[0].lines}
    if next_sentence:
        assert (lines["training: sum of both"], lines["held out: sum of both"]) == (3.0, 2.75)
        assert lines["held out: next sentence"] == 0.75
    else:
        assert lines == {"training: masked tokens": 3.0, "held out: masked tokens": 2.0}
