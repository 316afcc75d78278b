#!/usr/bin/env python3
"""Fine-tuning MiniLM: minibert against transformers with the same recipe, over several seeds.

    python benchmarks/quality.py movie-reviews
    MINIBERT_TEST_DATA=DIR python benchmarks/quality.py sst2       # DIR/data/sst2/{train,dev}.tsv

Both sides: the same examples in the same batches of 32 (sorted by length within windows, which
spares PyTorch most of its padding), one epoch, learning rate 2e-4, AdamW (weight decay 0.01 on
weights), linear schedule with 10 % warm-up, clipping at 1.0, dropout 0.1. Dropout masks and the new
head's initial weights are each side's own. Needs the [crosscheck] extra.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minibert import BertForSequenceClassification, BertTokenizer, InputError
from minibert.data.features import Features
from minibert.data.readers import read_examples
from minibert.hub import DEFAULT_MODEL, movie_reviews, resolve_model
from minibert.io.command_line import run
from minibert.tasks.classification import Classification
from minibert.training.arguments import TrainingArguments
from minibert.training.trainer import Trainer


class Job(NamedTuple):
    """What both sides are given."""

    train: Features
    test: Features
    task: Classification
    args: TrainingArguments
    directory: Path


def main() -> None:
    options = parse_arguments()
    rows = []
    for seed in range(options.seeds):
        job = make_job(options, seed)
        for side, train in (("minibert", train_minibert), ("transformers", train_transformers)):
            if options.only not in (None, side):
                continue
            start = time.perf_counter()
            accuracy = train(job)
            rows.append({"side": side, "seed": seed, "accuracy": accuracy,
                         "seconds": round(time.perf_counter() - start, 1)})  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    print(f"\n| {options.task} | accuracy, mean of {options.seeds} seeds | spread | seconds |")
    print("|---|---|---|---|")
    for side in dict.fromkeys(row["side"] for row in rows):
        scores = [100 * row["accuracy"] for row in rows if row["side"] == side]
        seconds = statistics.median(row["seconds"] for row in rows if row["side"] == side)
        spread = f"{min(scores):.2f} … {max(scores):.2f}"
        print(f"| {side} | {statistics.mean(scores):.2f} | {spread} | {seconds:.0f} |")


def make_job(options: argparse.Namespace, seed: int) -> Job:
    if options.task == "movie-reviews":
        files = [movie_reviews() / "train.tsv", movie_reviews() / "test.tsv"]
    else:
        folder = os.environ.get("MINIBERT_TEST_DATA")
        if not folder:
            raise InputError("sst2 wants MINIBERT_TEST_DATA, a folder that holds data/sst2")
        files = [Path(folder) / "data" / "sst2" / name for name in ("train.tsv", "dev.tsv")]
    train, test = (read_examples(path) for path in files)
    train = train.head(options.max_train_samples)
    directory = resolve_model(DEFAULT_MODEL)
    task, tokenizer = Classification.of(train), BertTokenizer.from_pretrained(directory)
    args = TrainingArguments(
        num_train_epochs=options.epochs, seed=seed, learning_rate=options.learning_rate,
        eval_strategy="no", save_strategy="no", logging_steps=10**6, threads=options.threads,
        group_by_length=True, output_dir="unused", backend=options.backend,
    )  # fmt: skip
    features = [task.features(examples, tokenizer, 128)[0] for examples in (train, test)]
    return Job(*features, task, args, directory)


def train_minibert(job: Job) -> float:
    model = BertForSequenceClassification.from_pretrained(
        job.directory, seed=job.args.seed, threads=job.args.threads, backend=job.args.backend,
        **job.task.config_changes(),
    )  # fmt: skip
    trainer = Trainer(model, job.args, job.task, job.train)
    for epoch_batches in epochs(trainer):
        for indices in epoch_batches:
            trainer.step(job.train.batch(indices))
    return trainer.evaluate(job.test)["accuracy"]


def epochs(trainer: Trainer) -> list[list[np.ndarray]]:
    """The batches of every epoch: the same for both sides."""
    return [trainer.order.epoch(e) for e in range(int(trainer.args.num_train_epochs))]


def train_transformers(job: Job) -> float:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(job.args.seed)
    if job.args.threads:
        torch.set_num_threads(job.args.threads)
    device = "cuda" if job.args.backend != "numpy" and torch.cuda.is_available() else "cpu"
    model = transformers.BertForSequenceClassification.from_pretrained(
        job.directory, num_labels=len(job.task.label2id)
    ).to(device)
    probe = BertForSequenceClassification.from_pretrained(
        job.directory, backend="numpy", **job.task.config_changes()
    )
    trainer = Trainer(probe, job.args, job.task, job.train)  # for its batches and rates alone
    plain = [p for n, p in model.named_parameters() if "bias" in n or "LayerNorm" in n]
    decayed = [p for n, p in model.named_parameters() if not ("bias" in n or "LayerNorm" in n)]
    groups = [{"params": decayed, "weight_decay": job.args.weight_decay},
              {"params": plain, "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    model.train()
    step = 0
    for epoch_batches in epochs(trainer):
        for indices in epoch_batches:
            for group in optimizer.param_groups:
                group["lr"] = job.args.learning_rate * trainer.rate(step)
            model(**padded(job.train, indices, device)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), job.args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    model.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(job.test), 64):
            batch = padded(job.test, range(start, min(start + 64, len(job.test))), device)
            right += int((model(**batch).logits.argmax(-1) == batch["labels"]).sum())
    return right / len(job.test)


def padded(features: Features, indices: object, device: str) -> dict[str, object]:
    """A batch as transformers takes it, padded to its longest."""
    import torch

    rows = [features.ids[i] for i in indices]
    width = max(map(len, rows))
    ids, mask = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for row, (target, real) in zip(rows, zip(ids, mask, strict=True), strict=True):
        target[: len(row)], real[: len(row)] = row, 1
    labels = features.labels[np.asarray(indices)]
    arrays = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("movie-reviews", "sst2"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--max_train_samples", type=int, default=20_000)
    parser.add_argument("--threads", type=int, help="for both sides (default: all cores)")
    parser.add_argument("--backend", choices=("auto", "numpy", "cupy"), default="numpy")
    parser.add_argument("--only", choices=("minibert", "transformers"))
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
