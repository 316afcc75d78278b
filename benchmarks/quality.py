"""The same fine-tuning by minibert and by transformers: MiniLM on one of several tasks.

    python benchmarks/quality.py movie-reviews [--seeds 0 1 2] [--threads 1]
    python benchmarks/quality.py sst2 | rte | stsb | wnut17 | squad

All but the movie reviews want MINIBERT_TEST_DATA, a folder that holds data/sst2, data/rte, …

Both sides see the same examples in the same batches (sorted by length within windows, which spares
PyTorch most of its padding), with AdamW (weight decay 0.01 on weights), a linear schedule with
10 % warm-up, clipping at 1.0 and dropout 0.1; RECIPES has the rest. Dropout masks and the new
head's initial weights are each side's own. minibert's side is what scripts/finetune.py does with
the flags that are printed, and its metrics judge both. Needs the [crosscheck] extra.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import markdown, positive, require

from minibert import BertConfig, BertTokenizer, InputError
from minibert.data.features import Features, by_length
from minibert.hub import DEFAULT_MODEL, movie_reviews, resolve_model
from minibert.io.command_line import Parser, run
from minibert.tasks.base import Task
from minibert.training.arguments import TrainingArguments
from minibert.training.kinds import KINDS, TaskArguments, load_model
from minibert.training.trainer import Trainer


class Recipe(NamedTuple):
    """One row of the README's table."""

    train: str
    test: str
    metric: str
    kind: str = "text-classification"
    epochs: int = 1
    learning_rate: float = 2e-4
    batch_size: int = 32
    max_seq_length: int = 128
    max_train_samples: int | None = None
    percent: bool = False  # the metric comes in percent

    def flags(self) -> str:
        """What scripts/finetune.py is given."""
        samples = f" --max_train_samples {self.max_train_samples}" if self.max_train_samples else ""
        return (
            f"--task {self.kind} --train_file {self.train} --test_file {self.test} "
            f"--num_train_epochs {self.epochs} --learning_rate {self.learning_rate:g} "
            f"--per_device_train_batch_size {self.batch_size} "
            f"--max_seq_length {self.max_seq_length}{samples} --group_by_length"
        )


RECIPES = {
    "movie-reviews": Recipe("train.tsv", "test.tsv", "accuracy"),
    "sst2": Recipe(
        "sst2/train.tsv", "sst2/dev.tsv", "accuracy", max_train_samples=20_000
    ),
    "rte": Recipe(
        "rte/train.tsv", "rte/dev.tsv", "accuracy", epochs=3, learning_rate=1e-4, batch_size=16
    ),
    "stsb": Recipe(
        "stsb/stsb-en-train.csv", "stsb/stsb-en-test.csv", "spearman",
        learning_rate=1e-4, batch_size=16,
    ),
    "wnut17": Recipe(
        "wnut17/wnut17train.conll", "wnut17/emerging.test.annotated", "f1",
        kind="token-classification", epochs=3, learning_rate=3e-4, batch_size=16,
        max_seq_length=256,
    ),
    "squad": Recipe(
        "squad/train-new-wiki.json", "squad/dev-v1.1.json", "f1",
        kind="question-answering", batch_size=16, max_seq_length=384, percent=True,
    ),
}  # fmt: skip


class Job(NamedTuple):
    """What both sides are given."""

    train: Features
    test: Features
    task: Task
    args: TrainingArguments
    directory: Path


def main() -> None:
    options = parse_arguments()
    recipe, rows = RECIPES[options.task], []
    print(f"python scripts/finetune.py {recipe.flags()}", flush=True)
    for seed in options.seeds:
        job = make_job(recipe, options, seed)
        for side, train in (("minibert", train_minibert), ("transformers", train_transformers)):
            if options.only not in (None, side):
                continue
            start = time.perf_counter()
            reached = train(job)
            rows.append({"side": side, "seed": seed, **reached,
                         "seconds": round(time.perf_counter() - start, 1)})  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    table = []
    for side in dict.fromkeys(row["side"] for row in rows):
        scale = 1 if recipe.percent else 100
        scores = [scale * row[recipe.metric] for row in rows if row["side"] == side]
        seconds = statistics.median(row["seconds"] for row in rows if row["side"] == side)
        spread = f"{min(scores):.2f} … {max(scores):.2f}"
        table.append((side, f"{statistics.mean(scores):.2f}", spread, f"{seconds:.0f}"))
    mean = f"{recipe.metric}, mean of {len(options.seeds)}"
    print("\n" + markdown((options.task, mean, "spread", "seconds"), table))


def make_job(recipe: Recipe, options: argparse.Namespace, seed: int) -> Job:
    kind, special = KINDS[recipe.kind], TaskArguments()
    folder = data_folder(options.task)
    train, test = (kind.read(folder / name, special) for name in (recipe.train, recipe.test))
    if recipe.max_train_samples:
        train = train.head(recipe.max_train_samples)
    directory = resolve_model(DEFAULT_MODEL)
    tokenizer = BertTokenizer.from_pretrained(directory)
    task = kind.make(train, special, BertConfig.from_pretrained(directory))
    args = TrainingArguments(
        num_train_epochs=recipe.epochs, seed=seed, learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size,
        eval_strategy="no", save_strategy="no", logging_steps=10**6, threads=options.threads,
        group_by_length=True, output_dir="unused", backend=options.backend,
    )  # fmt: skip
    first, second = (
        task.features(part, tokenizer, recipe.max_seq_length)[0] for part in (train, test)
    )
    return Job(first, second, task, args, directory)


def data_folder(task: str) -> Path:
    if task == "movie-reviews":
        return movie_reviews()
    folder = os.environ.get("MINIBERT_TEST_DATA")
    if not folder:
        raise InputError(f"{task} wants MINIBERT_TEST_DATA, a folder that holds data/{task}")
    return Path(folder) / "data"


def train_minibert(job: Job) -> dict[str, float]:
    model = load_model(
        job.task, job.directory, TaskArguments(), 0, seed=job.args.seed, threads=job.args.threads,
        backend=job.args.backend,
    )  # fmt: skip
    trainer = Trainer(model, job.args, job.task, job.train)
    for indices in batches(trainer):
        trainer.step(job.train.batch(indices))
    return trainer.evaluate(job.test)


def batches(trainer: Trainer) -> list[np.ndarray]:
    """The batches of all epochs: the same for both sides."""
    epochs = range(int(trainer.args.num_train_epochs))
    return [batch for epoch in epochs for batch in trainer.order.epoch(epoch)]


# ---- transformers ----


def train_transformers(job: Job) -> dict[str, float]:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(job.args.seed)
    if job.args.threads:
        torch.set_num_threads(job.args.threads)
    device = "cuda" if job.args.backend != "numpy" and torch.cuda.is_available() else "cpu"
    changes = dict(job.task.config_changes())
    labels = changes.get("num_labels") or len(changes["label2id"])
    model = getattr(transformers, job.task.model_class.__name__).from_pretrained(
        job.directory, num_labels=labels, problem_type=changes.get("problem_type")
    ).to(device)  # fmt: skip
    probe = load_model(job.task, job.directory, TaskArguments(), 0, backend="numpy")
    trainer = Trainer(probe, job.args, job.task, job.train)  # for its batches and rates alone
    plain = [p for n, p in model.named_parameters() if "bias" in n or "LayerNorm" in n]
    decayed = [p for n, p in model.named_parameters() if not ("bias" in n or "LayerNorm" in n)]
    groups = [{"params": decayed, "weight_decay": job.args.weight_decay},
              {"params": plain, "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    model.train()
    for step, indices in enumerate(batches(trainer)):
        for group in optimizer.param_groups:
            group["lr"] = job.args.learning_rate * trainer.rate(step)
        model(**padded(job.train, indices, device)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), job.args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return judge(model.eval(), job, probe.token_outputs, device)


def judge(model: Any, job: Job, token_outputs: tuple[str, ...], device: str) -> dict[str, float]:
    """The task's metrics of the outputs of transformers' model."""
    import torch

    outputs: dict[str, list[Any]] = {}
    lengths = job.test.lengths
    with torch.no_grad():
        for indices in by_length(lengths, 4096):
            results = model(**padded(job.test, indices, device))
            for name, values in results.items():
                if name == "loss":
                    continue
                places = outputs.setdefault(name, [None] * len(job.test))
                for i, row in zip(indices, values.cpu().numpy(), strict=True):
                    places[i] = row[: lengths[i]] if name in token_outputs else row
    return job.task.metrics(outputs, job.test)


def padded(features: Features, indices: Any, device: str) -> dict[str, Any]:
    """A batch as transformers takes it, padded to its longest."""
    import torch

    width = max(len(features.ids[i]) for i in indices)

    def table(rows: Any, fill: int = 0) -> np.ndarray:
        result = np.full((len(indices), width), fill, np.int64)
        for target, i in zip(result, indices, strict=True):
            target[: len(rows[i])] = rows[i]
        return result

    arrays = {"input_ids": table(features.ids), "token_type_ids": table(features.type_ids)}
    arrays["attention_mask"] = table([np.ones(len(row)) for row in features.ids])
    if features.token_labels is not None:
        arrays["labels"] = table(features.token_labels, -100)
    elif features.labels is not None and features.labels.shape[1:] == (2,):
        arrays["start_positions"], arrays["end_positions"] = features.labels[indices].T.copy()
    elif features.labels is not None:
        labels = features.labels[indices]
        arrays["labels"] = labels.astype(np.float32) if labels.dtype.kind == "f" else labels
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("task", choices=RECIPES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=positive, help="for both sides (default: all cores)")
    parser.add_argument("--backend", choices=("auto", "numpy", "cupy"), default="numpy")
    parser.add_argument("--only", choices=("minibert", "transformers"))
    args: argparse.Namespace = parser.parse_args()
    if args.only != "minibert":
        require(("torch", "transformers"), "crosscheck")
    return args


if __name__ == "__main__":
    run(main)
