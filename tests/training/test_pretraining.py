"""Pretraining a tiny model: it learns, resumes to the same bytes, and follows transformers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toy_corpus

from minibert.data import pretraining
from minibert.data.features import Features
from minibert.data.pretraining import Phase, PretrainingData
from minibert.data.token_store import TokenStore
from minibert.errors import Interrupted
from minibert.packing import PackedBatch, unpack
from minibert.tasks.pre_training import PreTraining
from minibert.training import trainer as trainer_module
from minibert.training.pretraining_arguments import PretrainingArguments
from minibert.training.trainer import Trainer

WEIGHTS = ("model.safetensors", "optimizer.safetensors")


@pytest.fixture(autouse=True)
def _quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "measured_gemm_rate", lambda *_: 1e9)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return toy_corpus.make_store(tmp_path_factory.mktemp("toy"), documents=24)


def make(
    store: TokenStore, output: Path, *, next_sentence: bool = True, model: Any = None,
    held_out: Features | None = None, data: PretrainingData | None = None, **arguments: Any,
) -> Trainer:  # fmt: skip
    settings = {"per_device_train_batch_size": 16, "learning_rate": 5e-3, "threads": 1}
    settings |= {"backend": "numpy", "disable_tqdm": True, "warmup_ratio": 0.1}
    args = PretrainingArguments(output_dir=str(output), **settings | arguments)
    model = model or toy_corpus.model(dtype=args.dtype)
    data = data or toy_corpus.data(store, next_sentence=next_sentence)
    return Trainer(model, args, PreTraining(next_sentence), data, held_out)


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def test_both_tasks_are_learnt(store: TokenStore, tmp_path: Path) -> None:
    """Far better than always saying the most frequent token, and than guessing."""
    model = toy_corpus.model(**NO_DROPOUT)
    held_out = toy_corpus.data(store).sample(99, 120)
    trainer = make(store, tmp_path, model=model, held_out=held_out, max_steps=250, save_steps=10**6)
    before = trainer.evaluate(held_out)
    trainer.train()
    after = trainer.evaluate(held_out)
    assert after["mlm_accuracy"] > 0.5 > 2 * after["mlm_baseline"]
    assert after["nsp_accuracy"] > 0.8 > after["nsp_baseline"]
    assert after["loss"] < before["loss"] / 2
    assert after["perplexity"] == pytest.approx(np.exp(after["mlm_loss"]))
    assert after["loss"] == pytest.approx(after["mlm_loss"] + after["nsp_loss"])


@pytest.mark.parametrize("optim", ["lamb", "adamw_torch"])
def test_without_next_sentences(optim: str, store: TokenStore, tmp_path: Path) -> None:
    model = toy_corpus.model(**NO_DROPOUT)
    held_out = toy_corpus.data(store, next_sentence=False).sample(99, 60)
    rate = {"lamb": 0.03, "adamw_torch": 5e-3}[optim]
    trainer = make(
        store, tmp_path, next_sentence=False, model=model, held_out=held_out, optim=optim,
        learning_rate=rate, max_steps=120, save_strategy="no",
    )  # fmt: skip
    trainer.train()
    after = trainer.evaluate(held_out)
    assert after.keys() == {"loss", "mlm_loss", "perplexity", "mlm_accuracy", "mlm_baseline"}
    assert after["mlm_accuracy"] > 1.5 * after["mlm_baseline"]


def test_a_resumed_run_ends_in_the_same_bytes(store: TokenStore, tmp_path: Path) -> None:
    """Interrupted in the middle of the second epoch, with dropout and evaluations."""
    held_out = toy_corpus.data(store).sample(99, 20)
    run: dict[str, Any] = {"held_out": held_out, "eval_steps": 5, "save_steps": 100}
    epoch = len(make(store, tmp_path / "none").order.epoch(0))
    run["max_steps"] = epoch + 8
    make(store, tmp_path / "whole", **run).train()
    cut = make(store, tmp_path / "cut", **run)
    plain = cut.step

    def step(batch: PackedBatch) -> Any:
        result = plain(batch)
        if result.step == epoch + 3:
            cut.request_stop()
        return result

    cut.step = step  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        cut.train()
    again = make(
        store,
        tmp_path / "cut",
        model=toy_corpus.model(seed=9),
        resume_from_checkpoint="last",
        **run,
    )
    assert again.train().step == epoch + 8
    for name in WEIGHTS:
        files = [tmp_path / run / f"checkpoint-{epoch + 8}" / name for run in ("whole", "cut")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_epochs_are_how_often_the_corpus_was_seen_in_two_phases(
    store: TokenStore, tmp_path: Path
) -> None:
    """Those of the first phase, with the part of that which it ends in, and those of the second.

    In log and state; a resumed run has the bytes of an uninterrupted one.
    """
    short, long = (toy_corpus.data(store, length) for length in (24, 48))
    (before,), (after,) = short.phases, long.phases
    whole = len(short.order(42, 16, None, 1).epoch(0))
    last, end = whole + whole // 2, whole + whole // 2 + 5
    data = replace(short, phases=(Phase(before.rule, last), Phase(after.rule)))
    run: dict[str, Any] = {"data": data, "max_steps": end, "save_steps": last + 1}
    run |= {"logging_steps": 1, "save_total_limit": 9}
    trainer = make(store, tmp_path, **run)
    second, third = trainer.order.share(1), trainer.order.count(2)
    trainer.train()
    state = json.loads((tmp_path / f"checkpoint-{end}/trainer_state.json").read_text())
    epochs = [entry["epoch"] for entry in state["log"]]
    wanted = [step / whole for step in range(1, whole + 1)]
    wanted += [1 + second * step / (last - whole) for step in range(1, last - whole + 1)]
    wanted += [1 + second + step / third for step in range(1, 6)]
    assert 0.4 < second < 0.6
    assert epochs == pytest.approx(wanted, abs=1e-4)
    assert state["epoch"] == epochs[-1]
    files = [tmp_path / f"checkpoint-{end}" / name for name in WEIGHTS]
    bytes_before = [file.read_bytes() for file in files]
    again = make(store, tmp_path, resume_from_checkpoint=f"{tmp_path}/checkpoint-{last + 1}", **run)
    assert [entry["epoch"] for entry in again.train().log] == epochs
    assert [file.read_bytes() for file in files] == bytes_before


def test_a_run_plans_the_epochs_that_it_trains(store: TokenStore, tmp_path: Path, monkeypatch):
    """None to know its length; none that is over when it goes on."""
    planned, plain = list[int](), pretraining.plan

    def plan(rule: Any, seed: int, epoch: int) -> Any:
        planned.append(epoch)
        return plain(rule, seed, epoch)

    monkeypatch.setattr(pretraining, "plan", plan)
    run: dict[str, Any] = {"num_train_epochs": 3.0}
    counts = [make(store, tmp_path, **run).order.count(epoch) for epoch in range(2)]
    run["save_steps"] = sum(counts) + 1
    trainer = make(store, tmp_path, **run)
    assert trainer.total_steps == 3 * counts[0]
    assert not planned
    trainer.train()
    assert planned[:3] == [0, 1, 2]
    planned.clear()
    start = tmp_path / f"checkpoint-{sum(counts) + 1}"
    make(store, tmp_path, resume_from_checkpoint=str(start), **run).train()
    assert planned[0] == 2


def test_a_dry_run_does_a_step_of_each_phase(store: TokenStore, tmp_path: Path, monkeypatch):
    """The time is that of both, on a clock on which a token takes a second."""
    now, trained = [0.0], list[int]()
    trainer = make(store, tmp_path / "none", max_steps=100, dry_run=True)
    rules = [toy_corpus.data(store, length).phases[0].rule for length in (12, 40)]
    phases = (Phase(rules[0], 70), Phase(rules[1]))
    trainer.train_features = replace(toy_corpus.data(store), phases=phases)
    trainer.order = trainer.train_features.order(42, 16, None, 1)
    plain = trainer.step

    def step(batch: PackedBatch) -> Any:
        trained.append(int(np.diff(batch.offsets).max()))
        now[0] += 12.0 if trained[-1] <= 12 else 60.0
        return plain(batch)

    monkeypatch.setattr(trainer, "step", step)
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    said = trainer.dry_run("Nothing.")
    assert max(trained[:2]) <= 12 < min(trained[2:])
    assert len(trained) == 4
    assert "12.00 s for a step of 192 tokens; then loss " in said
    assert "60.00 s for a step of 640 tokens; about " in said
    minutes = float(re.search(r"about ([\d.]+) minutes for 100 steps", said)[1])
    assert 0.9 * (70 * 12 + 30 * 60) / 60 < minutes <= (70 * 12 + 30 * 60) / 60
    assert said.endswith("GiB. Nothing.")
    assert not (tmp_path / "none").exists()


def test_the_metrics_are_those_of_the_whole_logits(store: TokenStore, tmp_path: Path) -> None:
    features = toy_corpus.data(store).sample(3, 30)
    trainer = make(store, tmp_path, held_out=features)
    got = trainer.evaluate(features)
    batch = features.batch(np.arange(len(features)))
    output = trainer.model.forward(batch)
    asked = batch.token_labels[batch.token_labels != -100]
    logits = output.prediction_logits.astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(asked)), asked]
    assert got["mlm_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert got["mlm_accuracy"] == pytest.approx((logits.argmax(axis=1) == asked).mean())
    assert got["mlm_baseline"] == pytest.approx(max(np.bincount(asked)) / len(asked))
    relation = output.seq_relationship_logits.argmax(axis=1)
    assert got["nsp_accuracy"] == pytest.approx((relation == batch.labels).mean())
    next_ones = np.mean(batch.labels == 0)
    assert got["nsp_baseline"] == pytest.approx(max(next_ones, 1 - next_ones))
    assert got["loss"] == pytest.approx(float(output.loss), rel=1e-5)


@pytest.mark.crosscheck
def test_twenty_steps_of_transformers(store: TokenStore, tmp_path: Path) -> None:
    """The loss curve in float64: same weights, batches, masks, AdamW, schedule and clipping."""
    torch = pytest.importorskip("torch", reason="the oracle is transformers on PyTorch")
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    model = toy_corpus.model(dtype="float64", **NO_DROPOUT)
    model.save_pretrained(tmp_path / "start")
    theirs = transformers.BertForPreTraining.from_pretrained(
        tmp_path / "start", dtype=torch.float64, attn_implementation="eager"
    ).train()
    trainer = make(
        store, tmp_path, model=model, dtype="float64", max_steps=20, optim="adamw_torch",
        adam_epsilon=1e-8, learning_rate=1e-3,
    )  # fmt: skip
    plain = [p for name, p in theirs.named_parameters() if "bias" in name or "LayerNorm" in name]
    others = [p for p in theirs.parameters() if all(p is not q for q in plain)]
    groups = [{"params": others, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0)
    curves: list[list[float]] = [[], []]
    addresses = [address for epoch in range(2) for address in trainer.order.epoch(epoch)]
    for step, address in enumerate(addresses[:20]):
        batch = trainer.train_features.batch(address)
        for group in optimizer.param_groups:
            group["lr"] = trainer.args.learning_rate * trainer.rate(step)
        loss = theirs(**padded(batch, torch)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        curves[0].append(loss.item())
        curves[1].append(float(trainer.step(batch).loss))
    np.testing.assert_allclose(curves[1], curves[0], rtol=0, atol=1e-8)
    assert len(curves[0]) == 20
    assert np.mean(curves[0][-5:]) < np.mean(curves[0][:5])  # and something was learnt


def padded(batch: PackedBatch, torch: Any) -> dict[str, Any]:
    """A packed batch as transformers takes it."""
    ones = np.ones(batch.num_tokens, np.int64)
    arrays = {"input_ids": batch.input_ids, "attention_mask": ones}
    arrays |= {"token_type_ids": batch.token_type_ids, "labels": batch.token_labels + 100}
    arrays = {name: unpack(np, values, batch) for name, values in arrays.items()}
    arrays["labels"] -= 100  # zero at padding becomes −100
    arrays["next_sentence_label"] = batch.labels
    return {name: torch.tensor(values) for name, values in arrays.items()}
