"""A whole fine-tuning run, MiniLM on the movie reviews: scripts/finetune.py against Trainer.

    python benchmarks/finetune_run.py [--seeds 0 1 2] [--threads 2] [--max_steps N]

From a text file to a saved model and its test accuracy: start, load, tokenise, one epoch of 8,456
reviews, 1,054 test reviews, save. transformers' Trainer has its best settings for a CPU: batches
grouped by length, padded to their longest, sdpa attention, fused AdamW, its
best batch size of 16, 32 and 64, its batches made by a worker process or by itself, whichever is
faster, and glibc's allocator kept from returning memory. What is best is found first and not
counted: each setting trains twice on the same 1,280 texts, and the second time is taken. minibert
gets Trainer's best batch size, whatever its own would be. Both have learning rate 2e-4 with 10 %
warm-up and linear decay, AdamW with weight decay 0.01, clipping at 1.0. Runs take turns, a process
each. Prints Markdown. Needs the extras `[crosscheck,benchmark]`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from _common import KEPT, Spread, describe, markdown, positive, require, set_threads

from minibert.hub import DEFAULT_MODEL, movie_reviews, resolve_model
from minibert.io.command_line import Parser, run

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "finetune.py"
LEARNING_RATE, WARMUP, WEIGHT_DECAY, MAX_LENGTH = 2e-4, 0.1, 0.01, 128
BATCH_SIZES, PROBE_TEXTS = (16, 32, 64), 1280  # whole batches of each size


class Run(NamedTuple):
    """A run of one side."""

    seconds: float
    accuracy: float  # on the test part, in percent


def main() -> None:
    options = parse_arguments()
    if options.trainer is not None:  # this process is transformers' side
        name, job = json.loads(options.trainer)
        print(ANSWERS[name](**job))
        return
    set_threads(options.threads)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    model, data = str(resolve_model(DEFAULT_MODEL)), str(movie_reviews())  # fetched off the clock
    rates = probe(model, data)
    best, workers = max(rates, key=rates.__getitem__)
    runs: dict[str, list[Run]] = {"minibert": [], "Trainer": []}
    for seed in options.seeds:
        runs["minibert"].append(minibert(model, data, best, seed, options.max_steps))
        runs["Trainer"].append(trainer(model, data, best, workers, seed, options.max_steps))
        for side, done in runs.items():
            print(f"seed {seed}  {side:9}{done[-1].seconds:7.1f} s  {done[-1].accuracy:.2f} %")
    print("\n" + report(runs, best))
    tried = (f"batch {s}, workers {w}: {rate:,.0f} texts/s" for (s, w), rate in rates.items())
    print(f"\nTrainer: {'; '.join(tried)}")
    print(describe({"threads": options.threads}, ("minibert", "numpy", "torch", "transformers")))


def report(runs: dict[str, list[Run]], batch: int) -> str:
    rows = []
    speedup = Spread.of(
        [b.seconds / a.seconds for a, b in zip(runs["minibert"], runs["Trainer"], strict=True)]
    )
    for side, done in runs.items():
        accuracies = [each.accuracy for each in done]
        rows.append([
            f"{side}, batch {batch}",
            f"{statistics.median(each.seconds for each in done):.1f}",
            f"{statistics.mean(accuracies):.2f} ({min(accuracies):.2f} … {max(accuracies):.2f})",
            f"{speedup.median:.2f} ({speedup.low:.2f} … {speedup.high:.2f})"
            if side == "minibert" else "1",
        ])  # fmt: skip
    return markdown(["a whole run", "seconds", "test accuracy", "speed-up"], rows)


# ---- minibert: the script, as a user runs it ----


def minibert(model: str, data: str, batch: int, seed: int, max_steps: int) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(SCRIPT), "--model_name_or_path", model,
            "--train_file", f"{data}/train.tsv", "--test_file", f"{data}/test.tsv",
            "--do_train", "--do_predict", "--output_dir", folder, "--overwrite_output_dir",
            "--num_train_epochs", "1", "--max_steps", str(max_steps), "--seed", str(seed),
            "--per_device_train_batch_size", str(batch), "--max_seq_length", str(MAX_LENGTH),
            "--learning_rate", str(LEARNING_RATE), "--warmup_ratio", str(WARMUP),
            "--weight_decay", str(WEIGHT_DECAY), "--group_by_length", "--backend", "numpy",
            "--save_strategy", "no", "--logging_steps", "50", "--disable_tqdm",
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        results = json.loads((Path(folder) / "all_results.json").read_text(encoding="utf-8"))
    return Run(seconds, 100 * results["test_accuracy"])


# ---- transformers: this file again, in a process of its own ----


def trainer(model: str, data: str, batch: int, workers: int, seed: int, max_steps: int) -> Run:
    start = time.perf_counter()
    job = {"seed": seed, "max_steps": max_steps}
    accuracy = ask(train, model=model, data=data, batch=batch, workers=workers, **job)
    return Run(time.perf_counter() - start, 100 * accuracy)


def probe(model: str, data: str) -> dict[tuple[int, int], float]:
    """(batch size, worker processes) → texts a second; without a worker the best size alone."""
    job = {"model": model, "data": data}
    rates = {(size, 1): ask(rate, **job, batch=size, workers=1) for size in BATCH_SIZES}
    best, _ = max(rates, key=rates.__getitem__)
    return rates | {(best, 0): ask(rate, **job, batch=best, workers=0)}


def ask(what: Callable[..., float], **job: object) -> float:
    """The answer of a function below, from a process that does nothing else."""
    command = [sys.executable, __file__, "--trainer", json.dumps([what.__name__, job])]
    environment = os.environ | KEPT
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def train(model: str, data: str, batch: int, workers: int, seed: int, max_steps: int) -> float:
    """What run_glue.py does; the accuracy."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        options = {"max_steps": max_steps, "seed": seed, "num_train_epochs": 1}
        trainer, test = make_trainer(model, data, folder, batch, workers, options)
        trainer.train()
        found = trainer.predict(sorted(test, key=lambda row: len(row["input_ids"])))
        trainer.save_model(folder)
    return float(np.mean(found.predictions.argmax(-1) == found.label_ids))


def rate(model: str, data: str, batch: int, workers: int) -> float:
    """Training texts a second, in the second epoch of a part of the texts."""
    from transformers import TrainerCallback

    times = []

    class Clock(TrainerCallback):  # type: ignore[misc]  # mypy does not read transformers
        def on_epoch_end(self, *_: object, **__: object) -> None:
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        options = {"num_train_epochs": 2}
        trainer, _ = make_trainer(model, data, folder, batch, workers, options, PROBE_TEXTS)
        trainer.add_callback(Clock())
        trainer.train()
    return len(trainer.train_dataset) / (times[1] - times[0])


def make_trainer(
    model: str, data: str, folder: str, batch: int, workers: int, options: dict[str, Any],
    texts: int | None = None,
) -> tuple[Any, list[dict[str, Any]]]:  # fmt: skip
    """transformers' Trainer on so many texts, the first (they are in no order); the test part."""
    import transformers
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    transformers.logging.set_verbosity_error()
    transformers.set_seed(options.get("seed", 0))
    tokenizer = AutoTokenizer.from_pretrained(model)
    training, test = (read(Path(data) / f"{name}.tsv", tokenizer) for name in ("train", "test"))
    training = training[:texts]
    network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
    steps = options.get("max_steps", -1)
    if steps <= 0:
        steps = options["num_train_epochs"] * -(-len(training) // batch)
    arguments = TrainingArguments(
        folder, use_cpu=True, per_device_train_batch_size=batch, per_device_eval_batch_size=64,
        learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, optim="adamw_torch_fused",
        warmup_steps=round(WARMUP * steps), lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length", dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0, save_strategy="no", eval_strategy="no",
        report_to="none", logging_steps=50, disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = Trainer(
        network, arguments, train_dataset=training, processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    return trainer, test


def read(path: Path, tokenizer: Any) -> list[dict[str, Any]]:
    """Rows as transformers' collator takes them."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    names = header.split("\t")
    rows = [dict(zip(names, line.split("\t"), strict=True)) for line in lines]
    labels = {name: i for i, name in enumerate(sorted({row["label"] for row in rows}))}
    texts = [row["sentence"] for row in rows]
    ids = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    return [
        {"input_ids": each, "attention_mask": [1] * len(each), "labels": labels[row["label"]]}
        for each, row in zip(ids, rows, strict=True)
    ]


ANSWERS: dict[str, Callable[..., float]] = {"train": train, "rate": rate}


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=positive, default=2, help="of each side")
    parser.add_argument("--max_steps", type=int, default=-1, help="a part of the run, for a try")
    parser.add_argument("--trainer", help=argparse.SUPPRESS)
    args: argparse.Namespace = parser.parse_args()
    require(("torch", "transformers", "accelerate"), "crosscheck,benchmark")
    return args


if __name__ == "__main__":
    run(main)
