"""Checkpoints of a run: whole or absent, refused when damaged, the right ones removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from minibert import BertForSequenceClassification
from minibert.errors import CheckpointError, InputError
from minibert.optim import Optimizer
from minibert.training import state as training_state
from minibert.training.arguments import TrainingArguments
from minibert.training.state import (
    TrainingState,
    checkpoints,
    claim_output,
    find,
    rotate,
    start_afresh,
)

IDENTITY = {"seed": 3, "learning_rate": 0.1}


def optimizer_of(model: Any, **options: Any) -> Optimizer:
    p = model.parameters
    return Optimizer(model.xp, p.flat, p.layout.decayed, workers=model.workers, **options)


@pytest.fixture
def trained() -> tuple[Any, Optimizer]:
    model = toy.model()
    optimizer = optimizer_of(model)
    rng = np.random.default_rng(0)
    for _ in range(3):
        optimizer.step(rng.normal(size=model.parameters.flat.shape).astype(np.float32), 0.01)
    return model, optimizer


STATE = TrainingState(3, 0.9, 2, 1, [{"step": 3, "loss": 0.1}], 2.0625, 2, 1.5)


@pytest.fixture
def saved(trained: tuple[Any, Optimizer], tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint-3"
    training_state.save(path, trained[0], toy.tokenizer(), trained[1], STATE, IDENTITY)
    return path


def test_everything_comes_back(trained, saved):
    model = toy.model(seed=8)
    optimizer = optimizer_of(model)
    assert training_state.load(saved, model, optimizer, IDENTITY) == STATE
    assert model.parameters.flat.tobytes() == trained[0].parameters.flat.tobytes()
    assert optimizer.parameters is model.parameters.flat  # in place: it is the optimizer's too
    assert optimizer.steps == 3
    for name in "mv":
        assert getattr(optimizer, name).tobytes() == getattr(trained[1], name).tobytes()


def test_a_checkpoint_is_a_model_directory(trained, saved):
    model = BertForSequenceClassification.from_pretrained(saved, backend="numpy")
    assert model.parameters.flat.tobytes() == trained[0].parameters.flat.tobytes()
    names = {"config.json", "model.safetensors", "optimizer.safetensors", "trainer_state.json"}
    assert names | {"tokenizer.json", "vocab.txt"} <= {path.name for path in saved.iterdir()}


def test_others_may_read_it_if_the_umask_lets_them(saved, tmp_path):
    (tmp_path / "plain").write_text("")
    modes = {path.stat().st_mode for path in [tmp_path / "plain", *saved.iterdir()]}
    assert len(modes) == 1


def damaged_state(**changes: Any) -> Callable[[Path], Any]:
    def damage(path: Path) -> None:
        content = json.loads((path / "trainer_state.json").read_text()) | changes
        kept = {name: value for name, value in content.items() if value is not ...}
        (path / "trainer_state.json").write_text(json.dumps(kept))

    return damage


def cut(name: str, size: int) -> Callable[[Path], Any]:
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:size])


def test_a_checkpoint_from_before_there_were_sums_and_epochs_is_read(trained, saved):
    damaged_state(loss_sum=..., loss_steps=..., epoch=...)(saved)
    model = toy.model()
    state = training_state.load(saved, model, optimizer_of(model), IDENTITY)
    assert state == replace(STATE, loss_sum=0.0, loss_steps=0, epoch=0.0)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no state": (lambda p: (p / "trainer_state.json").unlink(), "cannot read .*trainer_state.json"),
    "half a state": (cut("trainer_state.json", 90), "not JSON .*; resume from another"),
    "no step": (damaged_state(step=...), "trainer_state.json: lacks 'step'"),
    "a step of text": (damaged_state(step="3"), "got step '3', wanted a number"),
    "a sum of text": (damaged_state(loss_sum="1"), "got loss_sum '1', wanted a number"),
    "half a step": (damaged_state(loss_steps=0.5), "got loss_steps 0.5, wanted a number"),
    "an epoch of text": (damaged_state(epoch="1"), "got epoch '1', wanted a number"),
    "no log": (damaged_state(log=None), "got log None, wanted a list of entries.*another check"),
    "a log of no steps": (damaged_state(log=[{"loss": 1.0}]), "got log .*loss.* with their steps"),
    "a text for the best": (damaged_state(best_metric="1"), "got best_metric '1', wanted a number"),
    "a step between": (damaged_state(best_step=0.5), "got best_step 0.5, wanted a number or null"),
    "less than no gain": (
        damaged_state(evaluations_without_gain=-1),
        "_gain -1, wanted a n",
    ),
    "no update count": (damaged_state(optimizer_step=...), "step must be an integer"),
    "no identity": (damaged_state(identity=None), "different run .*seed: then None, now 3"),
    "other identity": (damaged_state(identity={"seed": 4}), "seed: then 4, now 3; learning_rate"),
    "no moments": (lambda p: (p / "optimizer.safetensors").unlink(), "cannot read .*optimizer"),
    "half the moments": (cut("optimizer.safetensors", 999), "optimizer.safetensors: .*truncated"),
    "weights for moments": (
        lambda p: shutil.copy(p / "model.safetensors", p / "optimizer.safetensors"),
        "wants the tensors m and v, got ",
    ),
    "half the weights": (cut("model.safetensors", 9999), "model.safetensors: .*truncated"),
    "empty weights": (cut("model.safetensors", 0), "got 0 bytes, wanted a safetensors file"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "holds neither"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_refused(name, saved):
    damage, message = DAMAGE[name]
    damage(saved)
    model = toy.model()
    with pytest.raises(CheckpointError, match=message):
        training_state.load(saved, model, optimizer_of(model), IDENTITY)


def test_what_older_checkpoints_do_not_say_is_not_asked_of_them(saved):
    """They resume; one that says it must say the same."""
    model = toy.model()
    now = IDENTITY | {"embeddings_from_counts": True, "initializer_range": 0.02}
    training_state.load(saved, model, optimizer_of(model), now)
    damaged_state(identity=now | {"initializer_range": 0.05})(saved)
    with pytest.raises(CheckpointError, match=r"\(initializer_range: then 0.05, now 0.02\)"):
        training_state.load(saved, model, optimizer_of(model), now)


def test_another_model_or_rule_is_refused(saved):
    larger = toy.model(intermediate_size=24)
    with pytest.raises(CheckpointError, match="got shape"):
        training_state.load(saved, larger, optimizer_of(larger), IDENTITY)
    model = toy.model()
    with pytest.raises(CheckpointError, match="the optimizer's v is"):
        training_state.load(saved, model, optimizer_of(model, rule="sgd"), IDENTITY)


def test_a_save_that_fails_leaves_what_was_there(trained, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def fail(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(training_state, "write_safetensors", fail)
    with pytest.raises(OSError, match="no room"):
        training_state.save(saved, trained[0], None, trained[1], TrainingState(), IDENTITY)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint-3"]


def make_checkpoints(output: Path, *steps: int) -> Path:
    for step in steps:
        (output / f"checkpoint-{step}").mkdir(parents=True)
        (output / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    return output


def test_checkpoints_are_found_by_number(tmp_path):
    assert checkpoints(tmp_path / "none") == []
    make_checkpoints(tmp_path, 10, 9, 100)
    (tmp_path / "checkpoint-200").mkdir()  # not ours: without a state
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-300").write_text("a file")
    assert [step for step, _ in checkpoints(tmp_path)] == [9, 10, 100]
    assert find(tmp_path, "last") == tmp_path / "checkpoint-100"
    assert find(tmp_path / "elsewhere", str(tmp_path / "checkpoint-9")).name == "checkpoint-9"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("last", "holds no checkpoint-… to resume from: to begin anew, replace"),
        ("nowhere", "nowhere is no training checkpoint .*or 'last'"),
    ],
)
def test_what_is_no_checkpoint_is_refused(wanted, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        find(tmp_path, wanted)


@pytest.mark.parametrize(
    ("limit", "keep", "left"),
    [
        (9, {5, None}, [1, 2, 3, 4, 5]),
        (2, {5, None}, [4, 5]),
        (2, {5, 1}, [1, 5]),
        (3, {5, 1}, [1, 4, 5]),
        (3, {5, 4}, [3, 4, 5]),
        (1, {5}, [5]),
        (1, {5, 2}, [2, 5]),  # the best and the last always stay
        (2, {3, 1}, [1, 3]),  # after a resume from 2, say: 4 and 5 are of a lost run
    ],
)
def test_rotation_removes_the_oldest(limit, keep, left, tmp_path):
    rotate(make_checkpoints(tmp_path, 1, 2, 3, 4, 5), limit, keep)
    assert [step for step, _ in checkpoints(tmp_path)] == left


@pytest.mark.parametrize("remove", ["rotate", "start_afresh"])
def test_a_kill_while_one_is_removed_leaves_no_half(remove, tmp_path, monkeypatch):
    """Which `last` would find."""
    make_checkpoints(tmp_path, 1, 2)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # it comes to nothing
    if remove == "rotate":
        rotate(tmp_path, 1, {2})
    else:
        start_afresh(tmp_path, overwrite=True)
    assert [s for s, _ in checkpoints(tmp_path)] == ([2] if remove == "rotate" else [])


def arguments(output: Path, **values: Any) -> TrainingArguments:
    return TrainingArguments(output_dir=str(output), **values)


def test_a_place_is_claimed_before_anything_takes_time(tmp_path):
    out = tmp_path / "out"
    claim_output(out, arguments(out))
    assert not out.exists()  # until there is something to write
    (out / ".minibert-killed").mkdir(parents=True)
    claim_output(out, arguments(out))
    last = arguments(out, resume_from_checkpoint="last")
    with pytest.raises(CheckpointError, match="no checkpoint-… to resume from: to begin"):
        claim_output(out, last)
    (out / "mine").mkdir()
    with pytest.raises(InputError, match=r"is not empty: add --over.* is there, or choose"):
        claim_output(out, arguments(out))
    make_checkpoints(out, 3)
    with pytest.raises(InputError, match="there, --resume_from_checkpoint last to go on, or"):
        claim_output(out, arguments(out))
    claim_output(out, last)
    claim_output(out, arguments(out, overwrite_output_dir=True))
    file = out / "checkpoint-3/trainer_state.json"
    with pytest.raises(InputError, match="is a file; choose another --output_dir"):
        claim_output(file, arguments(file))
    with pytest.raises(InputError, match=r"--output_dir .*nothing can be written there"):
        claim_output(file / "deep", arguments(file / "deep"))
    claim_output(file / "deep", arguments(file / "deep", dry_run=True))


def test_starting_afresh(tmp_path):
    start_afresh(tmp_path / "new" / "deep", overwrite=False)
    assert (tmp_path / "new" / "deep").is_dir()
    make_checkpoints(tmp_path, 1, 2)
    for name in ("log.jsonl", "model.safetensors"):
        (tmp_path / name).write_text("old")
    with pytest.raises(InputError, match="holds the checkpoints of an earlier run"):
        start_afresh(tmp_path, overwrite=False)
    assert len(checkpoints(tmp_path)) == 2
    start_afresh(tmp_path, overwrite=True)
    # The earlier model stays until there is a new one.
    assert {path.name for path in tmp_path.iterdir()} == {"new", "model.safetensors"}
