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
from dataclasses import asdict
from pathlib import Path

from minibert import BertTokenizer, InputError
from minibert.checkpoint.model_card import model_card
from minibert.checkpoint.sentence_transformers import read_sentence_settings
from minibert.config import BertConfig
from minibert.data.features import Features
from minibert.hub import resolve_model
from minibert.io.command_line import Parser, run
from minibert.io.files import atomic_write
from minibert.io.numbers import counted
from minibert.models import BertPreTrainedModel
from minibert.pipelines.trained_for import (
    OF_ARCHITECTURE,
    check_architectures,
    check_trained,
    task_of,
)
from minibert.tasks.base import Outputs, Task
from minibert.tasks.classification import Classification
from minibert.tasks.question_answering import QuestionAnswering
from minibert.training.arguments import TrainingArguments, parse
from minibert.training.evaluation import predict
from minibert.training.finetuning import (
    check_labels,
    choose_examples,
    encode,
    make_task,
    read_data,
)
from minibert.training.finetuning_arguments import DataArguments, defaults
from minibert.training.kinds import KINDS, Examples, TaskArguments, load_model
from minibert.training.state import claim_output, refuse_overwriting, saving
from minibert.training.trainer import Trainer


def main() -> None:
    data, special, args = parse(
        Parser(__doc__), (DataArguments, TaskArguments, TrainingArguments), recipe=defaults
    )
    output = Path(args.output_dir)
    check_output(output, data, args)
    # A finished model says what it is measured in; a new one is fetched when the data are read.
    directory = None if data.do_train else model_directory(data)
    data.task = data.task or (task_of_model(directory) if directory else "text-classification")
    files = read_data(data, special)
    directory = directory or model_directory(data)
    tokenizer = BertTokenizer.from_pretrained(directory)
    task = make_task(directory, files, data, special)
    parts = choose_examples(files, data, args.seed)
    check_labels(task, parts)
    model = make_model(directory, task, data, special, args)
    limit = min(data.length, model.config.max_position_embeddings)
    features = {
        name: encode(name, examples, task, tokenizer, limit, model.config)
        for name, examples in parts.items()
    }
    describe(model, task, parts, features, data, args)
    if data.do_train:
        evaluated = features.get("validation") if data.do_eval else None
        trainer = Trainer(model, args, task, features["train"], evaluated, tokenizer)
        print(counted(trainer.total_steps, "step"), flush=True)
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
    report(results, task, parts)
    if data.do_train:
        suggest(output, data.task, parts["train"])


def check_output(output: Path, data: DataArguments, args: TrainingArguments) -> None:
    if args.dry_run and not data.do_train:
        raise InputError("--dry_run does a training step: it wants --do_train")
    if data.do_train:
        claim_output(output, args)
    else:
        refuse_overwriting(output, overwrite=True)


def model_directory(data: DataArguments) -> Path:
    return resolve_model(data.model_name_or_path, revision=data.model_revision)


def task_of_model(directory: Path) -> str:
    """What a finished model is measured in."""
    if read_sentence_settings(directory) is not None:
        return "sentence-embedding"
    found = task_of(directory)
    return found if found in KINDS else "text-classification"  # which says what is missing


def make_model(
    directory: Path,
    task: Task,
    data: DataArguments,
    special: TaskArguments,
    args: TrainingArguments,
) -> BertPreTrainedModel:
    asked = data.task or "text-classification"
    if not data.do_train:
        check_architectures(BertConfig.from_pretrained(directory), asked, data.model_name_or_path)
    model = load_model(
        task,
        directory,
        special,
        data.length,
        backend=args.backend,
        dtype=args.dtype,
        precision=args.precision,
        seed=args.seed,
        threads=args.threads,
        ignore_mismatched_sizes=data.ignore_mismatched_sizes and data.do_train,
    )
    if not data.do_train and data.task != "sentence-embedding":
        check_trained(model, asked, data.model_name_or_path)
    print(f"model {data.model_name_or_path}\n{model.load_report}")
    return model


def describe(
    model: BertPreTrainedModel,
    task: Task,
    parts: dict[str, Examples],
    features: dict[str, Features],
    data: DataArguments,
    args: TrainingArguments,
) -> None:
    counts = {name: f"{len(part):,} {name}" for name, part in parts.items()}
    if isinstance(task, QuestionAnswering):
        counts = {
            name: f"{s} ({counted(len(features[name]), 'window')})" for name, s in counts.items()
        }
    mean = next(iter(features.values())).lengths.mean()
    where = model.xp.name
    where += f", {counted(model.workers.threads, 'thread')}" * (where == "numpy")
    changes = task.config_changes()
    precision = args.dtype if args.precision == "fp32" else args.precision
    names = getattr(task, "label2id", None)  # none of a number, a span, a choice
    labels = f", {counted(len(names), 'label')}" if names else ""
    print(f"data: {', '.join(counts.values())} examples, {mean:.1f} tokens on average")
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
    hyperparameters |= {"steps": trainer.state.step, "max_seq_length": data.length}
    card = model_card(
        output.resolve().name,
        base_model=data.model_name_or_path,
        data=data.description,
        hyperparameters=hyperparameters,
        seed=trainer.args.seed,
        metrics=results,
        task=OF_ARCHITECTURE[type(trainer.model).__name__],
    )
    with saving(output):
        trainer.model.save_pretrained(output, tokenizer=trainer.tokenizer, card=card)
    atomic_write(output / "all_results.json", json.dumps(results, indent=1) + "\n")


def write_predictions(
    output: Path, task: Task, outputs: Outputs, features: Features, test: Examples
) -> None:
    rows = task.predictions(outputs, features)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    output.mkdir(parents=True, exist_ok=True)
    atomic_write(output / "predictions.jsonl", "\n".join(lines) + "\n")
    print(f"{counted(len(lines), 'prediction')} for {test.path}: {output / 'predictions.jsonl'}")


def report(results: dict[str, float], task: Task, parts: dict[str, Examples]) -> None:
    for prefix, name in (("eval", "validation"), ("test", "test")):
        metrics = {k[5:]: v for k, v in results.items() if k.startswith(prefix + "_")}
        if metrics:
            shown = "  ".join(f"{k} {v:.4f}{class_of(k, task)}" for k, v in metrics.items())
            print(f"{name} ({counted(len(parts[name]), 'held-out example')})  {shown}")


def class_of(metric: str, task: Task) -> str:
    """Which class the F1 (precision, recall) of two is of: the second; shown once, at F1."""
    if metric != "f1" or not isinstance(task, Classification):
        return ""
    if task.problem_type != "single_label_classification" or len(task.label2id) != 2:
        return ""
    return f" (of {max(task.label2id, key=task.label2id.__getitem__)})"


def suggest(output: Path, task: str, train: Examples) -> None:
    """Print a command that uses the model."""
    given = {
        "multiple-choice": '"your question" --choices "one" "another"',
        "question-answering": '"your question" --context "your text"',
        "sentence-embedding": '"your text" --jsonl',
    }.get(task, '"your text"')
    if task == "text-classification" and train.sentence2 is not None:
        given = """'{"text": "your text", "text_pair": "another"}'"""
    command = f"scripts/predict.py --model {shlex.quote(str(output))} {given}"
    print(f"model saved; try\n  {Path(sys.executable).name} {command}")


if __name__ == "__main__":
    run(main)
