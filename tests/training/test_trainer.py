"""The training loop on a task that a tiny model learns in a second."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy

from minibert.data.features import Features
from minibert.errors import CheckpointError, InputError, Interrupted, TrainingDiverged
from minibert.layers.encoder_layer import EncoderLayerCache
from minibert.models import base
from minibert.models.encoder import LayerInputs
from minibert.tasks.classification import Classification
from minibert.training import throughput
from minibert.training import trainer as trainer_module
from minibert.training.arguments import TrainingArguments
from minibert.training.state import checkpoints
from minibert.training.trainer import Trainer, lower_is_better

TASK = Classification("single_label_classification", {"neg": 0, "pos": 1})
WEIGHTS = ("model.safetensors", "optimizer.safetensors")
RESULTS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "eval_loss", "eval_accuracy")


@pytest.fixture(autouse=True)
def _quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes 0.2 s, and the rate is only shown."""
    monkeypatch.setattr(trainer_module, "measured_gemm_rate", lambda *_: 1e9)


def features(rows: list[tuple[Any, ...]], task: Classification = TASK) -> Features:
    return task.features(toy.examples(rows), toy.tokenizer(), 24)[0]


def make(
    output: Path,
    *,
    rows: list[tuple[Any, ...]] | None = None,
    task: Classification = TASK,
    model: Any = None,
    **arguments: Any,
) -> Trainer:
    """A trainer on 96 texts in steps of 16: 6 steps an epoch."""
    args = TrainingArguments(output_dir=str(output), **toy.SETTINGS | arguments)
    if model is None:
        model = toy.model(dtype=args.dtype, threads=args.threads, **task.config_changes())
    train, held_out = rows or toy.reviews(96), rows or toy.reviews(24, seed=9)
    return Trainer(model, args, task, features(train, task), features(held_out, task))


def files(checkpoint: Path) -> dict[str, bytes]:
    return {name: (checkpoint / name).read_bytes() for name in WEIGHTS}


def log(output: Path) -> list[dict[str, Any]]:
    """Each line of log.jsonl, without the rates, which are never twice the same."""
    lines = (output / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k in RESULTS} for line in lines]


def state(checkpoint: Path) -> dict[str, Any]:
    content = json.loads((checkpoint / "trainer_state.json").read_text())
    return {name: value for name, value in content.items() if name not in ("log", "identity")}


def steps(output: Path) -> list[int]:
    return [step for step, _ in checkpoints(output)]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Call `act(trainer)` when that step is done, in the middle of training."""
    plain = Trainer.step

    def stepped(self: Trainer, batch: Any) -> Any:
        result = plain(self, batch)
        if self.state.step == step:
            act(self)
        return result

    monkeypatch.setattr(Trainer, "step", stepped)


# ---- It learns ----

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"group_by_length": True, "length_window": 2},
        {"max_tokens_per_batch": 120},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        {"optim": "adam_google", "adam_epsilon": 1e-6, "lr_scheduler_type": "google"},
    ],
)
def test_the_toy_task_is_learned_to_the_last_text(tmp_path, arguments):
    model = toy.model(**NO_DROPOUT, **TASK.config_changes())
    run = {"num_train_epochs": 12, "learning_rate": 0.005, "warmup_ratio": 0.3}
    run |= {"logging_steps": 1, "save_strategy": "no", "load_best_model_at_end": False}
    trainer = make(tmp_path, rows=toy.reviews(192), model=model, **run, **arguments)
    trainer.train()
    assert trainer.evaluate(features(toy.reviews(100, seed=5)))["accuracy"] == 1.0
    losses = [line["loss"] for line in log(tmp_path) if "loss" in line]
    assert np.mean(losses[:5]) > 0.6
    assert np.mean(losses[-5:]) < 0.1


ROWS = toy.reviews(96)
TASKS: dict[str, list[tuple[Any, ...]]] = {
    "three classes": [("the film", "none") if i % 3 == 0 else row for i, row in enumerate(ROWS)],
    "pairs": [(first, *row) for (first, _), row in zip(reversed(ROWS), ROWS, strict=True)],
    "regression": [(text, 1.5 if name == "pos" else -0.5) for text, name in ROWS],
    "multi-label": [(text, ["film"] * ("film" in text) + [name]) for text, name in ROWS],
}


@pytest.mark.parametrize("name", TASKS)
def test_every_kind_of_task_is_learned(name, tmp_path):
    task = Classification.of(toy.examples(TASKS[name]))
    model = toy.model(seed=3, initializer_range=0.2, **NO_DROPOUT, **task.config_changes())
    trainer = make(tmp_path, rows=TASKS[name], task=task, model=model, save_strategy="no")
    before = trainer.evaluate(trainer.eval_features)
    trainer.train()
    after = trainer.evaluate(trainer.eval_features)
    assert after["loss"] < before["loss"] / 2
    assert after[task.best_metric] > 0.8 > before[task.best_metric]


def test_training_ends_where_the_steps_end(tmp_path):
    assert make(tmp_path, max_steps=7).total_steps == 7
    assert make(tmp_path, num_train_epochs=2).total_steps == 12
    assert make(tmp_path, num_train_epochs=1.5).total_steps == 9
    assert make(tmp_path, num_train_epochs=0.01).total_steps == 1
    trainer = make(tmp_path, max_steps=7, warmup_ratio=0.5, logging_steps=1)
    assert trainer.train().step == 7
    rates = [line["learning_rate"] for line in log(tmp_path) if "loss" in line]
    want = [i / 4 for i in range(4)] + [1.0, 2 / 3, 1 / 3]  # a warm-up of ⌈3.5⌉ steps, then down
    np.testing.assert_allclose(rates, 0.01 * np.array(want))


@pytest.mark.parametrize("threads", [1, 2])
def test_accumulated_parts_are_one_large_batch(threads, tmp_path):
    """k parts of b examples: the numbers of one batch of k·b, dropout included."""
    common = {"dtype": "float64", "max_steps": 5, "threads": threads, "eval_strategy": "no"}
    parts = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4}
    whole = make(tmp_path / "a", per_device_train_batch_size=12, **common)
    cut = make(tmp_path / "b", **parts, **common)
    shards: list[set[int]] = [set(), set()]
    for trainer, seen in zip((whole, cut), shards, strict=True):
        plain = trainer.model.accumulate_gradients

        def spy(batch, buffers, run, count, plain=plain, seen=seen):
            seen.add(count)
            return plain(batch, buffers, run, count)

        trainer.model.accumulate_gradients = spy
        trainer.train()
    assert shards == [{threads}, {4 * threads}]  # it does take less memory
    np.testing.assert_allclose(
        cut.model.parameters.flat, whole.model.parameters.flat, rtol=1e-9, atol=1e-12
    )
    for a, b in zip(log(tmp_path / "a"), log(tmp_path / "b"), strict=True):
        assert a == pytest.approx(b, rel=1e-9)


def test_more_threads_give_the_same_numbers(tmp_path):
    one, two = (
        make(tmp_path / str(n), dtype="float64", max_steps=4, threads=n, eval_strategy="no")
        for n in (1, 2)
    )
    for trainer in (one, two):
        trainer.train()
    np.testing.assert_allclose(
        one.model.parameters.flat, two.model.parameters.flat, rtol=1e-9, atol=1e-12
    )


def test_without_dropout_a_step_is_that_of_loss_and_gradients(tmp_path):
    """The step written out: gradients of the whole batch, clipped, one AdamW update at t = 1."""
    model = toy.model(dtype="float64", **NO_DROPOUT, **TASK.config_changes())
    trainer = make(tmp_path, model=model, dtype="float64", weight_decay=0.0, max_grad_norm=0.01)
    before = trainer.model.parameters.flat.copy()
    batch = trainer.train_features.batch(trainer.order.epoch(0)[0])
    gradients = model.parameters.zeros_like()
    loss = model.accumulate_gradients(batch, gradients, None).loss
    result = trainer.step(batch)
    norm = np.linalg.norm(gradients.flat)
    assert (result.step, result.rate) == (1, 0.01)
    assert float(result.loss) == pytest.approx(float(loss), rel=1e-12)
    assert result.gradient_norm == pytest.approx(norm, rel=1e-12)
    g = gradients.flat * 0.01 / (norm + 1e-6)
    want = before - 0.01 * g / (np.abs(g) + 1e-8)
    np.testing.assert_allclose(trainer.model.parameters.flat, want, atol=1e-9)


# ---- It goes on where it stopped, to the same bytes ----

INTERESTING: dict[str, dict[str, Any]] = {
    "dropout and windows": {"group_by_length": True, "length_window": 2},
    "tokens": {"max_tokens_per_batch": 90, "gradient_accumulation_steps": 2},
    "two threads": {"threads": 2},
    "sgd": {"optim": "sgd", "learning_rate": 0.1},
}


@pytest.mark.parametrize("name", INTERESTING)
def test_a_resumed_run_ends_in_the_same_bytes(name, tmp_path):
    """From each of its checkpoints, most of them in the middle of an epoch."""
    run = {
        **{"max_steps": 14, "save_strategy": "steps", "save_steps": 4, "save_total_limit": 9},
        **{"eval_strategy": "steps", "eval_steps": 3, "logging_steps": 1},
        **{"load_best_model_at_end": False, "early_stopping_patience": 4},
        **INTERESTING[name],
    }
    make(tmp_path / "whole", **run).train()
    assert steps(tmp_path / "whole") == [4, 8, 12, 14]
    for step in (4, 8):
        again = tmp_path / f"from {step}"
        start = tmp_path / "whole" / f"checkpoint-{step}"
        model = toy.model(seed=77, threads=run.get("threads", 1), **TASK.config_changes())
        make(again, model=model, resume_from_checkpoint=str(start), **run).train()
        for later in (12, 14):
            end = f"checkpoint-{later}"
            assert files(again / end) == files(tmp_path / "whole" / end)
            assert state(again / end) == state(tmp_path / "whole" / end)
        assert log(again) == log(tmp_path / "whole")


def test_gradient_checkpointing_reaches_every_step(tmp_path, monkeypatch):
    """The numbers say nothing: they are the same bytes without it."""
    seen, forward = set(), base.encoder_forward

    def noted(*args: Any, **options: Any) -> Any:
        x, cache = forward(*args, **options)
        seen.update(map(type, cache.layers))
        return x, cache

    monkeypatch.setattr(base, "encoder_forward", noted)
    weights = []
    for flag, kept in ((False, EncoderLayerCache), (True, LayerInputs)):
        seen.clear()
        trainer = make(tmp_path / str(flag), num_train_epochs=1.0, gradient_checkpointing=flag)
        trainer.train()
        assert seen == {kept}
        weights.append(trainer.model.parameters.flat.tobytes())
    assert weights[0] == weights[1]


def test_two_equal_runs_are_equal(tmp_path):
    for name in "ab":
        make(tmp_path / name, max_steps=5).train()
    assert files(tmp_path / "a/checkpoint-5") == files(tmp_path / "b/checkpoint-5")
    make(tmp_path / "c", max_steps=5, seed=1).train()
    assert files(tmp_path / "a/checkpoint-5") != files(tmp_path / "c/checkpoint-5")


def test_early_stopping_is_resumed_with_its_patience(tmp_path, monkeypatch):
    """Accuracies by step; a run cut at step 4 stops where the whole one does."""
    scores = {1: 0.5, 2: 0.4, 3: 0.9, 4: 0.8, 5: 0.7, 6: 0.9, 7: 1.0}
    monkeypatch.setattr(
        Trainer, "evaluate", lambda self, *_: {"loss": 1.0, "accuracy": scores[self.state.step]}
    )
    run = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    run |= {"early_stopping_patience": 3, "save_total_limit": 9, "max_steps": 7}
    whole = make(tmp_path / "whole", **run)
    assert whole.train().step == 6  # 0.9 again is no gain
    assert (whole.state.best_step, whole.state.best_metric) == (3, 0.9)
    start = tmp_path / "whole/checkpoint-4"
    cut = make(tmp_path / "cut", resume_from_checkpoint=str(start), **run)
    assert cut.train().step == 6
    stopped = make(tmp_path / "whole", resume_from_checkpoint="last", **run)
    assert stopped.train().step == 6
    patient = run | {"early_stopping_patience": 4}
    assert make(tmp_path / "whole", resume_from_checkpoint="last", **patient).train().step == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number, tmp_path, monkeypatch, capsys):
    run = {"max_steps": 9, "load_best_model_at_end": False, "eval_strategy": "no"}
    make(tmp_path / "whole", **run).train()
    previous = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda _: os.kill(os.getpid(), number))
        message = r"saved at step 4 of 9; go on .* --resume_from_checkpoint '.*cut it/checkpoint-4'"
        with pytest.raises(Interrupted, match=message) as caught:
            make(tmp_path / "cut it", **run).train()
    assert caught.value.by == number
    assert "interrupted: finishing this step and saving" in capsys.readouterr().out
    assert signal.getsignal(number) is previous
    make(tmp_path / "cut it", resume_from_checkpoint="last", **run).train()
    assert files(tmp_path / "cut it/checkpoint-9") == files(tmp_path / "whole/checkpoint-9")


def test_a_second_signal_stops_at_once(tmp_path, monkeypatch):
    def twice(_: Trainer) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)  # in this thread: two cannot melt into one

    at_step(monkeypatch, 2, twice)
    # A job in a shell's background is started with SIGINT ignored, and Python leaves it so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, max_steps=9).train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed: then 42, now 1"),
        ({"learning_rate": 0.02}, r"learning_rate: then 0.01, now 0.02"),
        ({"max_steps": 8}, r"max_steps: then 6, now 8; total_steps: then 6, now 8"),
        ({"threads": 2}, "threads: then 1, now 2"),
        ({"metric_for_best_model": "loss"}, "metric_for_best_model: then None, now 'loss'"),
        ({"rows": toy.reviews(96, seed=3)}, "data: then "),
        ({"model": toy.model(hidden_dropout_prob=0.3)}, "hidden_dropout_prob: then 0.1, now 0.3"),
    ],
)
def test_a_different_run_is_not_resumed(change, message, tmp_path):
    run = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    make(tmp_path, **run).train()
    other = make(tmp_path, **run | change, resume_from_checkpoint="last")
    with pytest.raises(
        CheckpointError, match=rf"different run \(.*{message}.*Resume with the same"
    ):
        other.train()


def test_what_decides_no_number_may_change(tmp_path):
    make(tmp_path, max_steps=6, eval_strategy="no", save_strategy="steps", save_steps=4).train()
    changes = {"logging_steps": 1, "save_total_limit": 1, "eval_tokens_per_batch": 64}
    start = str(tmp_path / "checkpoint-4")
    again = make(tmp_path, max_steps=6, resume_from_checkpoint=start, **changes)
    assert again.train().step == 6


# ---- What is kept ----


def test_the_best_checkpoint_is_kept_and_loaded(tmp_path, monkeypatch):
    scores = iter([0.5, 0.9, 0.6, 0.7, 0.8])
    monkeypatch.setattr(Trainer, "evaluate", lambda *_: {"loss": 1.0, "accuracy": next(scores)})
    trainer = make(tmp_path, num_train_epochs=5)
    trainer.train()
    assert steps(tmp_path) == [12, 30]  # save_total_limit 2: the best and the last
    assert (trainer.state.best_step, trainer.state.best_metric) == (12, 0.9)
    trainer.model.save_pretrained(tmp_path / "end")
    best, last = (tmp_path / f"checkpoint-{n}/model.safetensors" for n in (12, 30))
    assert (tmp_path / "end/model.safetensors").read_bytes() == best.read_bytes()
    assert best.read_bytes() != last.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "best"),
    [
        ({}, 2),
        ({"metric_for_best_model": "loss"}, 3),
        ({"metric_for_best_model": "eval_f1"}, 1),
        ({"metric_for_best_model": "f1", "greater_is_better": False}, 3),
    ],
)
def test_a_metric_chooses_the_best(arguments, best, tmp_path, monkeypatch):
    evaluations = iter(
        [
            {"accuracy": 0.5, "f1": 0.6, "loss": 0.8},
            {"accuracy": 0.7, "f1": 0.5, "loss": 0.9},
            {"accuracy": 0.7, "f1": 0.4, "loss": 0.7},
        ]
    )
    monkeypatch.setattr(Trainer, "evaluate", lambda *_: next(evaluations))
    often = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "no", "max_steps": 3}
    assert make(tmp_path, **often, **arguments).train().best_step == best


def test_an_unknown_metric_is_refused_before_training(tmp_path):
    with pytest.raises(
        InputError, match=r"'bleu' is unknown: choose one of loss, accuracy, f1, pre"
    ):
        make(tmp_path, metric_for_best_model="bleu")


def test_checkpoints_are_written_when_asked(tmp_path):
    run = {"max_steps": 8, "load_best_model_at_end": False, "eval_strategy": "no"}
    for name, arguments, want in (
        ("epoch", {}, [6, 8]),
        ("steps", {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 3}, [3, 6, 8]),
        ("two", {"save_strategy": "steps", "save_steps": 1}, [7, 8]),
        ("no", {"save_strategy": "no"}, []),
    ):
        make(tmp_path / name, **run, **arguments).train()
        assert steps(tmp_path / name) == want
        leftovers = {path.name for path in (tmp_path / name).iterdir()} - {"log.jsonl"}
        assert leftovers == {f"checkpoint-{step}" for step in want}


def test_an_earlier_run_is_not_mixed_with_a_new_one(tmp_path):
    """Its checkpoints would be the newest, and `last` would find them."""
    make(tmp_path, max_steps=8).train()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds the checkpoints of an earlier run: resume it, set"):
        make(tmp_path, max_steps=4).train()
    assert steps(tmp_path) == [6, 8]
    make(tmp_path, max_steps=4, overwrite_output_dir=True, logging_steps=2).train()
    assert steps(tmp_path) == [4]
    assert [line["step"] for line in log(tmp_path)] == [2, 4, 4]
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("metric", ["loss", "mse", "perplexity", "mlm_loss", "nsp_loss"])
def test_of_losses_the_lowest_is_the_best(metric: str) -> None:
    assert lower_is_better(metric)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "spearman", "mlm_accuracy", "nsp_accuracy"])
def test_of_scores_the_highest_is_the_best(metric: str) -> None:
    assert not lower_is_better(metric)


def test_a_best_checkpoint_that_is_gone_is_said(tmp_path, monkeypatch, capsys):
    scores = iter([0.9, 0.6])
    monkeypatch.setattr(Trainer, "evaluate", lambda *_: {"loss": 1.0, "accuracy": next(scores)})
    often = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 4, "save_strategy": "steps"}
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda trainer: trainer.request_stop())
        with pytest.raises(Interrupted):
            make(tmp_path / "a", **often).train()
    start = str(tmp_path / "a/checkpoint-3")
    make(tmp_path / "b", **often, resume_from_checkpoint=start).train()
    assert "checkpoint-2, the best checkpoint, is gone" in capsys.readouterr().out


# ---- A full disk ----


@pytest.mark.parametrize("how", ["fsync", "weights", "state"])
def test_a_full_disk_leaves_the_checkpoint_before(how, tmp_path, monkeypatch):
    run = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "no"}
    make(tmp_path / "whole", **run).train()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        places = {
            "fsync": (os, "fsync"),
            "weights": (trainer_module.training_state, "write_safetensors"),
            "state": (Path, "write_text"),
        }
        at_step(patch, 4, lambda _: patch.setattr(*places[how], full))
        message = r"checkpoint-4 could not be saved: .*No space left on device.*before is whole"
        with pytest.raises(OSError, match=message):
            make(tmp_path / "full", **run).train()
    assert steps(tmp_path / "full") == [2]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["checkpoint-2"]
    make(tmp_path / "full", resume_from_checkpoint="last", **run).train()
    assert files(tmp_path / "full/checkpoint-6") == files(tmp_path / "whole/checkpoint-6")


# ---- NaN and infinity ----


@pytest.mark.parametrize("threads", [1, 2])
def test_an_absurd_rate_stops_before_anything_is_saved(threads, tmp_path):
    """The first update makes the weights absurd, the second step finds out, without warnings."""
    trainer = make(tmp_path, learning_rate=1e30, threads=threads, save_strategy="steps")
    with pytest.raises(TrainingDiverged, match=r"^step 2: .* first such tensor is the output of "):
        trainer.train()
    assert trainer.state.step == 1
    assert steps(tmp_path) == []


def test_a_poisoned_weight_is_named_and_the_last_good_checkpoint_stays(tmp_path, monkeypatch):
    name = "bert.encoder.layer.1.output.dense.weight"

    def poison(trainer: Trainer) -> None:
        trainer.model.parameters[name][2, 3] = np.nan

    at_step(monkeypatch, 3, poison)
    run = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "no"}
    with pytest.raises(
        TrainingDiverged, match=rf"step 3: .* is parameter {name} \(NaN in 1 of 240"
    ):
        make(tmp_path, **run).train()
    assert steps(tmp_path) == [1, 2]


def test_weights_that_are_not_finite_end_no_training(tmp_path, monkeypatch):
    at_step(monkeypatch, 6, lambda trainer: trainer.model.parameters.flat.fill(np.inf))
    with pytest.raises(TrainingDiverged, match=r"step 6: .* is parameter .*infinity"):
        make(tmp_path, max_steps=6, save_strategy="no", eval_strategy="no").train()


def test_a_device_is_asked_when_a_step_is_logged(tmp_path, monkeypatch):
    """A GPU's norm is a 0-d array that is not read back at each step."""
    plain = trainer_module.global_norm
    monkeypatch.setattr(trainer_module, "global_norm", lambda *a: np.asarray(plain(*a)))
    run = {"logging_steps": 4, "max_steps": 9, "save_strategy": "no", "eval_strategy": "no"}
    make(tmp_path / "well", **run).train()
    spoil = "bert.pooler.dense.bias"
    at_step(monkeypatch, 6, lambda trainer: trainer.model.parameters[spoil].fill(np.nan))
    with pytest.raises(TrainingDiverged, match="step 5 to 8: "):
        make(tmp_path / "ill", **run).train()


# ---- Small things ----


def test_the_log_has_a_line_for_each_logged_step_and_evaluation(tmp_path, capsys):
    make(tmp_path, max_steps=7, logging_steps=3).train()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], "eval_loss" in line) for line in lines] == [
        *((3, False), (6, False), (6, True), (7, False), (7, True))
    ]
    names = {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second"}
    assert lines[0].keys() == names | {"gemm_share"}
    assert lines[0]["epoch"] == 0.5
    assert lines[1]["epoch"] == 1.0
    assert [line["epoch"] for line in lines[2:]] == [1.0, 1.1667, 1.1667]
    assert all(line["tokens_per_second"] > 0 for line in lines if "loss" in line)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("step      3/7  epoch 0.50  loss ")
    assert all(word in shown[0] for word in (" lr ", " |g| ", " tokens/s ", "% of GEMM"))
    assert shown[2].startswith("step      6  evaluation  loss ")


def step_losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list to which every step of a trainer adds its loss."""
    losses, plain = list[float](), Trainer.step

    def stepped(self: Trainer, batch: Any) -> Any:
        result = plain(self, batch)
        losses.append(float(result.loss))
        return result

    monkeypatch.setattr(Trainer, "step", stepped)
    return losses


def test_the_loss_in_the_log_is_the_mean_since_the_line_before(tmp_path, monkeypatch, capsys):
    """As transformers' is; evaluations between do not begin it anew."""
    losses = step_losses(monkeypatch)
    often = {"eval_strategy": "steps", "eval_steps": 2}
    make(tmp_path, max_steps=8, logging_steps=3, **often).train()
    means = [np.mean(losses[first : first + 3]) for first in (0, 3, 6)]
    assert [line["loss"] for line in log(tmp_path) if "loss" in line] == pytest.approx(means)
    assert f"loss {means[0]:.4f}  lr" in capsys.readouterr().out


@pytest.mark.parametrize("step", [2, 4, 6])
def test_a_mean_that_a_stop_cuts_in_two_is_the_same(step, tmp_path):
    run = {"max_steps": 9, "logging_steps": 5, "save_strategy": "steps", "save_steps": 2}
    run |= {"save_total_limit": 9, "load_best_model_at_end": False}
    make(tmp_path / "whole", **run).train()
    start = tmp_path / "whole" / f"checkpoint-{step}"
    make(tmp_path / "again", resume_from_checkpoint=str(start), **run).train()
    assert log(tmp_path / "again") == log(tmp_path / "whole")
    ends = [state(tmp_path / name / "checkpoint-9") for name in ("whole", "again")]
    assert ends[0] == ends[1]


def test_a_checkpoint_from_before_there_were_sums_is_resumed(tmp_path, monkeypatch):
    """To the same bytes; the first line's loss is the mean since then."""
    run = {"max_steps": 6, "logging_steps": 5, "save_strategy": "steps", "save_steps": 3}
    losses = step_losses(monkeypatch)
    make(tmp_path, **run).train()
    whole, path = files(tmp_path / "checkpoint-6"), tmp_path / "checkpoint-3/trainer_state.json"
    content = json.loads(path.read_text())
    assert (content.pop("loss_sum"), content.pop("loss_steps")) == (sum(losses[:3]), 3)
    path.write_text(json.dumps(content))
    make(tmp_path, resume_from_checkpoint=str(path.parent), **run).train()
    assert files(tmp_path / "checkpoint-6") == whole
    found = [line["loss"] for line in log(tmp_path) if "loss" in line]
    assert found == pytest.approx([np.mean(losses[3:5]), losses[5]])


def test_the_rates_are_those_of_training_alone(tmp_path, monkeypatch):
    """On a clock on which a step takes a second and an evaluation a day."""
    now = [0.0]

    class Clock:
        perf_counter = staticmethod(lambda: now[0])

    def pass_time(method: str, seconds: float) -> None:
        plain = getattr(Trainer, method)

        def slow(*args: Any) -> Any:
            now[0] += seconds
            return plain(*args)

        monkeypatch.setattr(Trainer, method, slow)

    monkeypatch.setattr(throughput, "time", Clock)
    pass_time("step", 1.0)
    pass_time("evaluate", 86400.0)
    trainer = make(tmp_path, max_steps=4, logging_steps=2, eval_strategy="steps", eval_steps=1)
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    order, lengths = trainer.order.epoch(0), trainer.train_features.lengths
    for i, line in enumerate(line for line in lines if "loss" in line):
        tokens = sum(int(lengths[batch].sum()) for batch in order[2 * i : 2 * i + 2])
        assert line["tokens_per_second"] == tokens / 2


def test_a_dry_run_measures_a_step_and_writes_nothing(tmp_path):
    said = make(tmp_path / "none", dry_run=True).dry_run()
    for word in ("dry run: loss 0.", "minutes for 48 steps", "peak memory", "Nothing was written"):
        assert word in said
    assert not (tmp_path / "none").exists()


def test_examples_without_labels_or_none_at_all_are_refused(tmp_path):
    some = features(toy.reviews(8))
    none, unlabelled = Features([], [], np.zeros(0)), Features(some.ids, some.type_ids)
    args = TrainingArguments(output_dir=str(tmp_path), **toy.SETTINGS)
    for train, held_out, message in (
        (none, None, "the training data has no examples"),
        (unlabelled, None, "the training data has no labels"),
        (some, none, "the validation data has no examples"),
        (some, unlabelled, "the validation data has no labels"),
    ):
        with pytest.raises(InputError, match=message):
            Trainer(toy.model(), args, TASK, train, held_out)
    with pytest.raises(InputError, match="evaluation needs labels"):
        Trainer(toy.model(), args, TASK, some).evaluate(unlabelled)


def test_evaluation_does_not_depend_on_the_batches(tmp_path):
    trainer = make(tmp_path)
    whole = trainer.evaluate(trainer.eval_features)
    trainer.args.eval_tokens_per_batch = 9
    assert trainer.evaluate(trainer.eval_features) == pytest.approx(whole, rel=1e-6)


def test_without_evaluation_the_last_weights_are_the_result(tmp_path):
    trainer = make(tmp_path, max_steps=3, eval_strategy="no")
    trainer.train()
    trainer.model.save_pretrained(tmp_path / "end")
    last = tmp_path / "checkpoint-3/model.safetensors"
    assert (tmp_path / "end/model.safetensors").read_bytes() == last.read_bytes()
    assert trainer.state.best_step is None
