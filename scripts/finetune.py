#!/usr/bin/env python3
"""Fine-tune a pretrained BERT on your own text.

    python scripts/finetune.py
        MiniLM on movie reviews, positive or negative, for one epoch at learning rate 2e-4. Model
        and data are fetched once.

    python scripts/finetune.py --train_file train.tsv --validation_file dev.tsv
        Classify texts or pairs of texts: TSV, CSV or JSONL with sentence1[, sentence2], label (or
        the first columns). Numbers with a point as labels make it a regression, lists of labels
        multi-label.

    python scripts/finetune.py --task token-classification --train_file train.conll …
        Tag words: CoNLL columns (word first, tag last), or JSONL with tokens and ner_tags.

    python scripts/finetune.py --task question-answering --train_file train-v2.0.json …
        Find answers: SQuAD's JSON, version 1.1 or 2.0, or JSONL with question, context, answers.

    python scripts/finetune.py --task multiple-choice --train_file train.jsonl …
        Choose the right ending: question (or context), choices, label; or SWAG's columns.

    python scripts/finetune.py --task sentence-embedding --train_file pairs.tsv …
        Embed texts: pairs with a score learn that cosine, pairs without one to find each other.

    python scripts/finetune.py --model_name_or_path google-bert/bert-base-uncased …
        Any BERT: a local directory or a name on the hub.

    python scripts/finetune.py --do_eval --model_name_or_path DIR --validation_file dev.tsv
        Measure a finished model; with --do_predict and --test_file, write predictions.jsonl.

    python scripts/finetune.py --resume_from_checkpoint last …
        Go on after Ctrl-C, to the same bytes as if nothing had happened.

The flags are those of transformers' run_glue.py, run_ner.py and run_qa.py; --config FILE.json reads
them from a file.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minibert import BertConfig, BertTokenizer, InputError
from minibert.checkpoint.model_card import model_card
from minibert.checkpoint.sentence_transformers import read_sentence_settings
from minibert.data.features import Features
from minibert.data.labels import labels_of
from minibert.data.splits import hold_out
from minibert.hub import DEFAULT_MODEL, movie_reviews, resolve_model
from minibert.io.command_line import Parser, run
from minibert.io.files import atomic_write
from minibert.models import BertPreTrainedModel
from minibert.pipelines import task_of
from minibert.tasks.base import Outputs, Task
from minibert.tasks.classification import Classification
from minibert.tasks.question_answering import QuestionAnswering
from minibert.tasks.sentence_embedding import SentenceEmbedding
from minibert.training.arguments import TrainingArguments, option, parse
from minibert.training.evaluation import predict
from minibert.training.kinds import KINDS, Examples, TaskArguments, load_model
from minibert.training.state import refuse_overwriting
from minibert.training.trainer import Trainer

REVIEWS = "10,566 movie-review snippets (Hutto & Gilbert 2014)"
REVIEWS_RECIPE = {"num_train_epochs": 1.0, "learning_rate": 2e-4}
"""One epoch at a rate that suits MiniLM: minutes on a laptop. Flags override it."""


@dataclass
class DataArguments:
    """What to train, on what. Files may be compressed (.gz)."""

    task: str | None = option(
        None, "what to learn", tuple(KINDS),
        shown="text-classification; of a finished model, its own",
    )  # fmt: skip
    model_name_or_path: str = option(
        DEFAULT_MODEL, "a local directory or a name on the hub", metavar="DIR"
    )
    model_revision: str | None = option(None, "of a model on the hub: a branch, tag or commit")
    train_file: str | None = option(
        None, "training data", shown="the movie reviews", metavar="FILE"
    )
    validation_file: str | None = option(
        None, "chooses the best checkpoint", shown="a part of train_file", metavar="FILE"
    )
    test_file: str | None = option(
        None, "measured once, at the end; without labels: predicted", metavar="FILE"
    )
    validation_split_percentage: int = option(
        10, "of train_file, where no validation_file is given"
    )
    max_seq_length: int = option(
        128,
        "longer texts are truncated to that many tokens; questions: the windows' length",
        shown="128; question-answering 384",
    )
    max_train_samples: int | None = option(None, "use the first N training examples")
    max_eval_samples: int | None = option(None, "use the first N validation examples")
    max_predict_samples: int | None = option(None, "use the first N test examples")
    ignore_mismatched_sizes: bool = option(False, "replace a head of other labels by a new one")
    do_train: bool = option(False, "train", shown="all three, unless some of them are named")
    do_eval: bool = option(False, "evaluate on the validation file", shown="as do_train")
    do_predict: bool = option(False, "measure or predict the test file", shown="as do_train")

    def __post_init__(self) -> None:
        if not (self.do_train or self.do_eval or self.do_predict):
            self.do_train = self.do_eval = self.do_predict = True
        if self.max_seq_length < 3:
            raise InputError(f"max_seq_length must be at least 3, got {self.max_seq_length}")
        if not 0 < self.validation_split_percentage < 100:
            raise InputError("validation_split_percentage must be between 1 and 99")

    @property
    def description(self) -> str:
        """The training data in words."""
        return self.train_file or REVIEWS


def main() -> None:
    data, special, args = parse(
        Parser(__doc__), (DataArguments, TaskArguments, TrainingArguments), recipe=defaults
    )
    output = Path(args.output_dir)
    if args.dry_run and not data.do_train:
        raise InputError("--dry_run does a training step: it wants --do_train")
    free = args.overwrite_output_dir or args.resume_from_checkpoint or args.dry_run
    refuse_overwriting(output, bool(free or not data.do_train))
    data.task = data.task or task_of_model(data)
    files = read_data(data, special)
    directory = resolve_model(data.model_name_or_path, revision=data.model_revision)
    tokenizer = BertTokenizer.from_pretrained(directory)
    task = make_task(directory, files, data, special)
    parts = choose_examples(files, data, args.seed)
    check_labels(task, parts)
    model = make_model(directory, task, data, special, args)
    limit = min(data.max_seq_length, model.config.max_position_embeddings)
    features = {
        name: encode(name, examples, task, tokenizer, limit, model.config)
        for name, examples in parts.items()
    }
    describe(model, task, features, data, args)
    if data.do_train:
        evaluated = features.get("validation") if data.do_eval else None
        trainer = Trainer(model, args, task, features["train"], evaluated, tokenizer)
        print(f"{trainer.total_steps} steps", flush=True)
        if args.dry_run:
            print(trainer.dry_run())
            return
        trainer.train()
    results, outputs = measure(model, task, features, data, args)
    if data.do_train:
        save(output, trainer, data, results)
    if data.do_predict and data.test_file:
        if outputs is None:  # without labels it was not measured
            outputs, _ = answered(model, features["test"], args, "predicting")
        write_predictions(output, task, outputs, features["test"], parts["test"])
    report(results, task, parts, output, data)


def defaults(named: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe of the default run, and the windows of SQuAD; else what --help shows."""
    if named.get("task") == "question-answering":
        return {"max_seq_length": 384}
    return {} if named.get("train_file") or named.get("task") else REVIEWS_RECIPE


def task_of_model(data: DataArguments) -> str:
    """What a finished model is measured in; a new one learns to classify."""
    if data.do_train:
        return "text-classification"
    directory = resolve_model(data.model_name_or_path, revision=data.model_revision)
    if read_sentence_settings(directory) is not None:
        return "sentence-embedding"
    found = task_of(directory)
    return found if found in KINDS else "text-classification"  # which says what is missing


def read_data(data: DataArguments, special: TaskArguments) -> dict[str, Examples]:
    """The examples of whole files, by "train", "validation" and "test"; those that are wanted."""
    paths = {
        "train": data.train_file, "validation": data.validation_file, "test": data.test_file
    }  # fmt: skip
    if not any(paths.values()):
        if data.task != "text-classification":
            raise InputError(
                f"task {data.task} wants a --train_file; --help has the forms of files"
            )
        infix = ".regression" if special.problem_type == "regression" else ""
        paths = {name: str(movie_reviews() / f"{name}{infix}.tsv") for name in paths}
    elif data.do_train and not paths["train"]:
        raise InputError(
            "a --validation_file or --test_file was given without --train_file; to measure a "
            "finished model, add --do_eval or --do_predict"
        )
    if not data.do_train:
        paths = needed_to_measure(paths, data)
    read = KINDS[data.task].read
    files = {name: read(Path(path), special) for name, path in paths.items() if path}
    refuse_pairs_and_singles(list(files.values()))
    return files


def needed_to_measure(paths: dict[str, str | None], data: DataArguments) -> dict[str, str | None]:
    """The files that a finished model is measured on; a part of train_file, if no other is."""
    validation, test = paths["validation"], paths["test"]
    train = None if validation or not data.do_eval else paths["train"]
    if data.do_eval and not (train or validation):
        raise InputError("--do_eval wants a --validation_file")
    if data.do_predict and not test:
        raise InputError("--do_predict wants a --test_file")
    return {
        "train": train,
        "validation": validation if data.do_eval else None,
        "test": test if data.do_predict else None,
    }


def refuse_pairs_and_singles(files: list[Examples]) -> None:
    for other in files[1:]:
        pairs = [getattr(file, "sentence2", None) is not None for file in (files[0], other)]
        if pairs[0] != pairs[1]:
            one, two = (other, files[0]) if pairs[0] else (files[0], other)
            raise InputError(f"{two.path} has pairs of texts, but {one.path} has single ones")


def choose_examples(
    files: dict[str, Examples], data: DataArguments, seed: int
) -> dict[str, Examples]:
    """Hold out a part for validation where there is no file for it; then the first N of each."""
    parts = dict(files)
    if "validation" not in parts and data.do_eval:
        share = data.validation_split_percentage / 100
        parts["train"], parts["validation"] = hold_out(parts["train"], share, seed)
        held = len(parts["validation"])
        print(f"validation: {held} examples held out of {data.train_file}")
    if not data.do_train:
        parts.pop("train", None)
    most = {
        "train": data.max_train_samples,
        "validation": data.max_eval_samples,
        "test": data.max_predict_samples,
    }
    return {
        name: part if (count := most[name]) is None else part.head(count)
        for name in most
        if (part := parts.get(name)) is not None
    }


def make_task(
    directory: Path, files: dict[str, Examples], data: DataArguments, special: TaskArguments
) -> Task:
    """The task of the whole training file, or of a finished model where nothing is trained."""
    config = BertConfig.from_pretrained(directory)
    if data.do_train:
        return KINDS[data.task].make(files["train"], special, config)
    return KINDS[data.task].of_model(config, special, list(files.values()))


def check_labels(task: Task, parts: dict[str, Examples]) -> None:
    """Refuse a label that the task does not know, before the model is loaded."""
    for name, examples in parts.items():
        if hasattr(task, "labels"):
            task.labels(examples)
        if name == "validation" and isinstance(task, SentenceEmbedding) and task.scale is not None:
            labels_of(examples)  # pairs without scores would be measured otherwise


def make_model(
    directory: Path,
    task: Task,
    data: DataArguments,
    special: TaskArguments,
    args: TrainingArguments,
) -> BertPreTrainedModel:
    model = load_model(
        task,
        directory,
        special,
        data.max_seq_length,
        backend=args.backend,
        dtype=args.dtype,
        precision=args.precision,
        seed=args.seed,
        threads=args.threads,
        ignore_mismatched_sizes=data.ignore_mismatched_sizes and data.do_train,
    )
    report = model.load_report
    if report and report.missing and not data.do_train:
        raise InputError(
            f"{data.model_name_or_path} has no trained head for {data.task} (the file lacks "
            f"{', '.join(report.missing)}): train it first, with --do_train and a --train_file"
        )
    print(f"model {data.model_name_or_path}\n{report}")
    return model


def encode(
    name: str,
    examples: Examples,
    task: Task,
    tokenizer: BertTokenizer,
    limit: int,
    config: BertConfig,
) -> Features:
    features, truncated = task.features(examples, tokenizer, limit)
    if truncated:
        questions = isinstance(task, QuestionAnswering)  # whose contexts are never cut
        what, length = ("questions", task.max_query_length) if questions else ("texts", limit)
        print(f"warning: {truncated} of {len(examples)} {name} {what} were cut to {length} tokens")
    highest = max(int(ids.max()) for ids in features.ids)  # now, not when the batch comes
    if highest >= config.vocab_size:
        raise InputError(
            f"{examples.path}: the tokenizer gives id {highest}, but the model's vocab_size is "
            f"{config.vocab_size}: do tokenizer and model belong together?"
        )
    return features


def describe(
    model: BertPreTrainedModel,
    task: Task,
    features: dict[str, Features],
    data: DataArguments,
    args: TrainingArguments,
) -> None:
    counts = ", ".join(f"{len(part):,} {name}" for name, part in features.items())
    mean = next(iter(features.values())).lengths.mean()
    where = model.xp.name if model.xp.name != "numpy" else f"numpy, {model.workers.threads} threads"
    changes = task.config_changes()
    precision = args.dtype if args.precision == "fp32" else args.precision
    labels = f", {model.config.num_labels} label(s)" if changes else ""
    print(f"data: {counts} examples, {mean:.1f} tokens on average")
    print(f"task: {changes.get('problem_type', data.task)}{labels}")
    print(f"{model.parameters.layout.size:,} parameters, {precision}, on {where}", flush=True)


def measure(
    model: BertPreTrainedModel,
    task: Task,
    features: dict[str, Features],
    data: DataArguments,
    args: TrainingArguments,
) -> tuple[dict[str, float], Outputs | None]:
    """Metrics of the final model, as eval_… and test_…; its outputs for a labelled test part."""
    results: dict[str, float] = {}
    tested: Outputs | None = None
    for prefix, name, wanted in (
        ("eval", "validation", data.do_eval),
        ("test", "test", data.do_predict),
    ):
        if not wanted or name not in features or not model.has_targets(features[name]):
            continue
        outputs, loss = answered(model, features[name], args, name)
        assert loss is not None  # there are targets
        metrics = {"loss": loss} | task.metrics(outputs, features[name])
        results |= {f"{prefix}_{key}": value for key, value in metrics.items()}
        if name == "test":
            tested = outputs
    return results, tested


def answered(
    model: BertPreTrainedModel, features: Features, args: TrainingArguments, description: str
) -> tuple[Outputs, float | None]:
    """The model's outputs, and the loss where there are labels, in batches as the flags say."""
    return predict(
        model,
        features,
        tokens_per_batch=args.eval_tokens_per_batch,
        batch_size=args.per_device_eval_batch_size,
        description=description,
        quiet=args.disable_tqdm,
    )


def save(output: Path, trainer: Trainer, data: DataArguments, results: dict[str, float]) -> None:
    args = asdict(trainer.args)
    shown = (
        "learning_rate", "lr_scheduler_type", "warmup_ratio", "optim", "weight_decay",
        "per_device_train_batch_size", "gradient_accumulation_steps", "max_grad_norm",
    )  # fmt: skip
    hyperparameters = {name: args[name] for name in shown}
    hyperparameters |= {"steps": trainer.state.step, "max_seq_length": data.max_seq_length}
    card = model_card(
        output.resolve().name,
        base_model=data.model_name_or_path,
        data=data.description,
        hyperparameters=hyperparameters,
        seed=trainer.args.seed,
        metrics=results,
    )
    trainer.model.save_pretrained(output, tokenizer=trainer.tokenizer, card=card)
    atomic_write(output / "all_results.json", json.dumps(results, indent=1) + "\n")


def write_predictions(
    output: Path, task: Task, outputs: Outputs, features: Features, test: Examples
) -> None:
    rows = task.predictions(outputs, features)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    output.mkdir(parents=True, exist_ok=True)
    atomic_write(output / "predictions.jsonl", "\n".join(lines) + "\n")
    print(f"{len(lines)} predictions for {test.path}: {output / 'predictions.jsonl'}")


def report(
    results: dict[str, float],
    task: Task,
    parts: dict[str, Examples],
    output: Path,
    data: DataArguments,
) -> None:
    for prefix, name in (("eval", "validation"), ("test", "test")):
        metrics = {k[5:]: v for k, v in results.items() if k.startswith(prefix + "_")}
        if metrics:
            shown = "  ".join(f"{k} {v:.4f}{class_of(k, task)}" for k, v in metrics.items())
            print(f"{name} ({len(parts[name]):,} held-out examples)  {shown}")
    if data.do_train:
        print(f"model saved; try\n  {Path(sys.executable).name} {suggestion(data.task, output)}")


def class_of(metric: str, task: Task) -> str:
    """Which class the F1 (precision, recall) of two is of: the second; shown once, at F1."""
    if metric != "f1" or not isinstance(task, Classification):
        return ""
    if task.problem_type != "single_label_classification" or len(task.label2id) != 2:
        return ""
    return f" (of {max(task.label2id, key=task.label2id.__getitem__)})"


def suggestion(task: str, output: Path) -> str:
    """A command that uses the model."""
    model = shlex.quote(str(output))
    text = {
        "multiple-choice": '"your question" --choices "one" "another"',
        "question-answering": '"your question" --context "your text"',
        "sentence-embedding": '"your text" --jsonl',
    }.get(task, '"your text"')
    return f"scripts/predict.py --model {model} {text}"


if __name__ == "__main__":
    run(main)
