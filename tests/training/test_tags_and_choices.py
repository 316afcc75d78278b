"""Token classification and multiple choice from a file to a trained model, in a second each."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import toy

from minibert.data.conll import read_tagged
from minibert.data.multiple_choice import read_multiple_choice
from minibert.tasks.multiple_choice import MultipleChoice
from minibert.tasks.token_classification import TokenClassification
from minibert.training import trainer as trainer_module
from minibert.training.arguments import TrainingArguments
from minibert.training.trainer import Trainer


@pytest.fixture(autouse=True)
def _quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "measured_gemm_rate", lambda *_: 1e9)


def train(task: Any, train_examples: Any, held_out: Any, output: Path) -> dict[str, float]:
    """The metrics of a model trained for the task, on examples it has not seen."""
    args = TrainingArguments(output_dir=str(output), **toy.SETTINGS)
    config = toy.config(**task.config_changes())
    model = task.model_class(config, backend="numpy", seed=1, threads=1)
    parts = (task.features(part, toy.tokenizer(), 24)[0] for part in (train_examples, held_out))
    features, other = parts
    trainer = Trainer(model, args, task, features, other)
    trainer.train()
    return trainer.evaluate(other)


def write_tagged(path: Path, count: int, seed: int) -> Path:
    """Words of toy's reviews; a good or bad one is an entity, with "very" before it where it is."""
    rows = []
    for text, label in toy.reviews(count, seed):
        before = ""
        for word in text.split():
            tag = "O"
            if word in toy.GOOD + toy.BAD:
                tag = f"I-{label}" if before == "very" else f"B-{label}"
                if before == "very":
                    rows[-1] = f"very B-{label}"
            rows.append(f"{word} {tag}")
            before = word
        rows.append("")
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_a_tagger_learns(tmp_path: Path) -> None:
    files = [read_tagged(write_tagged(tmp_path / f"{n}.conll", n, n)) for n in (160, 40)]
    task = TokenClassification.of(files[0])
    assert list(task.label2id) == ["B-neg", "B-pos", "I-neg", "I-pos", "O"]
    metrics = train(task, *files, tmp_path / "out")
    assert metrics["f1"] > 0.9
    assert metrics["accuracy"] > 0.95


def write_choices(path: Path, count: int, seed: int) -> Path:
    """The good word among two bad ones."""
    rng, lines = random.Random(seed), []
    for _ in range(count):
        choices = [rng.choice(toy.GOOD), *rng.choices(toy.BAD, k=2)]
        right = choices[0]
        rng.shuffle(choices)
        row = {"question": " ".join(rng.choices(toy.OTHERS, k=3)), "choices": choices}
        lines.append(json.dumps(row | {"answer": right}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_choosing_is_learnt(tmp_path: Path) -> None:
    files = [read_multiple_choice(write_choices(tmp_path / f"{n}.jsonl", n, n)) for n in (96, 24)]
    assert train(MultipleChoice.of(files[0]), *files, tmp_path / "out")["accuracy"] > 0.9
