"""Each kind of loss in turn, and a training run, for the tests of devices."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cupy
import pytest
import toy

from minibert import BertConfig, BertForSequenceClassification
from minibert.backend import Backend
from minibert.tasks.classification import Classification
from minibert.training import trainer as trainer_module
from minibert.training.arguments import TrainingArguments
from minibert.training.trainer import Trainer


@pytest.fixture
def problem_config(tiny: BertConfig, problem: tuple[str, Any]) -> BertConfig:
    labels = 1 if problem[0] == "regression" else 3
    return tiny.replace(problem_type=problem[0], num_labels=labels)


@pytest.fixture
def given(inputs: dict[str, Any], problem: tuple[str, Any]) -> dict[str, Any]:
    return inputs | {"labels": problem[1]}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fake module that `import cupy` finds."""
    module = fake_cupy.module()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def make_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    """A maker of trainers of a tiny model on any backend; output in tmp_path / "run"."""
    monkeypatch.setattr(trainer_module, "measured_gemm_rate", lambda *_: 1e9)

    def make(xp: Backend, output: str = "run", **arguments: Any) -> Trainer:
        arguments = {"eval_strategy": "no", "save_strategy": "no"} | arguments
        arguments |= {"output_dir": str(tmp_path / output), "precision": xp.precision}
        args = TrainingArguments(**toy.SETTINGS | {"load_best_model_at_end": False} | arguments)
        task = Classification("single_label_classification", {"neg": 0, "pos": 1})
        model = BertForSequenceClassification(
            toy.config(**task.config_changes()), backend=xp, seed=1, threads=1
        )
        parts = [
            task.features(toy.examples(toy.reviews(count, seed)), toy.tokenizer(), 24)[0]
            for count, seed in ((96, 0), (24, 9))
        ]
        return Trainer(model, args, task, *parts)

    return make
