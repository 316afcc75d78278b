"""The picture of a pretraining: its curves from log.jsonl, with the [plot] extra."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minibert.io.files import atomic_write

Curve = tuple[str, str]  # an entry of the log, and its name in the picture
MASKED: Sequence[Curve] = (
    ("loss", "training: masked tokens"),
    ("eval_mlm_loss", "held out: masked tokens"),
)
BOTH: Sequence[Curve] = (
    ("loss", "training: sum of both"),
    ("eval_loss", "held out: sum of both"),
    ("eval_mlm_loss", "held out: masked tokens"),
    ("eval_nsp_loss", "held out: next sentence"),
)
ACCURACIES: Sequence[Curve] = (
    ("eval_mlm_accuracy", "masked tokens"),
    ("eval_mlm_baseline", "always the most frequent token"),
    ("eval_nsp_accuracy", "next sentence"),
    ("eval_nsp_baseline", "always the more frequent answer"),
)


def plot_log(log: Path, picture: Path, next_sentence: bool = True) -> bool:
    """Draw the losses and accuracies of a log as a PNG; False where matplotlib is not installed.

    next_sentence: whether it was trained too, so that training's loss is the sum of both.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = BOTH if next_sentence else MASKED
    for axes, title, curves in ((left, "loss", losses), (right, "accuracy, held out", ACCURACIES)):
        _draw(axes, title, entries, curves)
    right.set_ylim(0, 1)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    atomic_write(picture, content.getvalue())
    return True


def _draw(axes: Any, title: str, entries: list[dict[str, Any]], curves: Sequence[Curve]) -> None:
    for name, label in curves:
        points = [(entry["step"], entry[name]) for entry in entries if name in entry]
        if points:
            style = "--" if name.endswith("baseline") else "-"
            style += "o" * (len(points) == 1)  # which no line would show
            axes.plot(*zip(*points, strict=True), style, label=label)
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
