"""The README's Python, block after block, as a reader would type it in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from minibert import BertForQuestionAnswering, BertForSequenceClassification
from minibert.hub import DEFAULT_MODEL

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names that the blocks leave to the reader; the models they name are toys, in this folder."""
    monkeypatch.chdir(tmp_path)
    for kind, place in (
        (BertForSequenceClassification, DEFAULT_MODEL),
        (BertForQuestionAnswering, "qa-model"),
    ):
        model = kind(toy.config(), backend="numpy", seed=1)
        model.save_pretrained(tmp_path / place, tokenizer=toy.tokenizer())
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    return {"z": np.zeros(3), "x": np.zeros(3)}


def test_every_block_runs_after_those_before_it(
    reader: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(BLOCKS) == 6
    for block in BLOCKS:
        whole = block.replace(
            'pipeline("sentence-similarity")', 'pipeline("sentence-similarity", name)'
        )
        exec(compile(whole, "README.md", "exec"), reader)
    printed = capsys.readouterr().out
    assert {"bert.embeddings.LayerNorm", "logits"} == set(np.load("mine.npz"))
    (promised,) = re.findall(r"print\(slope, dx\[2, 3\]\)  # (.*)", "".join(BLOCKS))
    slope, gradient = map(float, printed.splitlines()[-1].split())
    np.testing.assert_allclose([slope, gradient], [float(x) for x in promised.split()], rtol=1e-14)
    assert Path("my-model", "model.safetensors").exists()
