#!/usr/bin/env python3
"""Ask a fine-tuned model.

    python scripts/predict.py --model DIR "a text" "another"
    python scripts/predict.py --model DIR --file texts.txt --jsonl > answers.jsonl
    cat texts.txt | python scripts/predict.py --model DIR

What it answers follows from what the model was trained for, or from --task:

    text-classification   labels. A tab separates the two texts of a pair.
    token-classification  the entities of a text, and where they stand
    question-answering    "question<tab>context", or questions about one --context TEXT or
                          --context_file FILE
    multiple-choice       the right one of --choices "one" "another" …, or of an object's
                          {"question": …, "choices": […]}
    fill-mask             the words that may stand where the text says [MASK]
    sentence-similarity   "text<tab>another": the cosine of their embeddings
    feature-extraction    a vector for each text, with --jsonl: of a sentence encoder the text's
                          embedding, of another model the vector of [CLS]

Standard input holds a text a line, and is answered as it arrives. A --file may be plain text, a
text a line, or any file that finetune.py reads for the task (.tsv, .csv, .jsonl, SQuAD's .json,
.conll; also with .gz): labels in it are ignored. In .jsonl a line is a text in quotes or an object,
{"text": …, "text_pair": …}, {"question": …, "context": …}, {"source_sentence": …, "sentences": […]}
or with the names of training files; objects may hold more.

A line of output is the answer, a tab and the text. With --jsonl it is {"input": …, "output": …}:
the text or object as it was given, and what the Python pipeline of the task returns for it in a
list of inputs, as {"label": …, "score": …}; --top_k and --all make it a list, best first (so it is
for a model with several labels a text). feature-extraction: one list of numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minibert import InputError
from minibert.checkpoint.sentence_transformers import read_sentence_settings
from minibert.data.text_files import read_text
from minibert.hub import resolve_model
from minibert.io.command_line import Parser, run
from minibert.pipelines import ALIASES, PIPELINES, Pipeline, pipeline, task_of
from minibert.pipelines.inputs import (
    Item,
    Shared,
    items_of_file,
    items_of_stream,
    items_of_texts,
)

OF_TASKS = {
    "all": ("text-classification", "multiple-choice"),
    "top_k": ("text-classification", "multiple-choice", "question-answering", "fill-mask"),
    "context": ("question-answering",),
    "context_file": ("question-answering",),
    "handle_impossible_answer": ("question-answering",),
    "choices": ("multiple-choice",),
    "aggregation_strategy": ("token-classification",),
    "stride": ("token-classification",),
    "targets": ("fill-mask",),
}
AT_ONCE = 4096  # texts that are batched by length together

Ask = Callable[[list[Any]], list[Any]]
"""Inputs of the task's pipeline → a result for each."""
Show = Callable[[Any, Any], str]
"""(result, pipeline) → a text for people."""


def main() -> None:
    args = parse_arguments()
    directory = resolve_model(args.model)
    task = ALIASES.get(args.task, args.task) or task_of(directory)
    check_options(task, args)
    parts = read_items(task, args)
    # A sentence encoder's vectors are embeddings.
    encoder = task == "feature-extraction" and read_sentence_settings(directory) is not None
    kind = "sentence-similarity" if encoder else task
    answer = pipeline(kind, directory, backend=args.backend, threads=args.threads)
    answer.quiet = False
    ask, at_once = asker(task, encoder, answer, args)
    for items in parts:
        warn_of_empty(items)
        for start in range(0, len(items), at_once):
            portion = items[start : start + at_once]
            for item, result in zip(portion, results(answer, ask, portion), strict=True):
                print(line_of(item, result, args.jsonl, SHOW[task], answer))
            sys.stdout.flush()


def asker(task: str, encoder: bool, answer: Any, args: argparse.Namespace) -> tuple[Ask, int]:
    """What answers inputs, and how many at once."""
    if encoder:
        return lambda values: answer.embed(values).tolist(), AT_ONCE
    if task == "feature-extraction":  # of [CLS]; the vectors of all tokens take memory
        return lambda values: [
            rows[0, 0].tolist() for rows in answer.answers(values, return_tensors=True)
        ], AT_ONCE // 16
    options = options_of(task, args, answer)
    if task == "token-classification":
        return lambda values: answer.answers(
            values, is_split_into_words=any(isinstance(v, list) for v in values), **options
        ), AT_ONCE
    return lambda values: answer.answers(values, **options), AT_ONCE


def results(answer: Pipeline, ask: Ask, items: list[Item]) -> Iterator[Any]:
    """One result an item; those before one that is to blame for an error, which names its place."""
    try:
        yield from ask([item.value for item in items])
    except InputError:
        answer.quiet = True
        ask([])  # an option may be to blame
        for item in items:
            try:
                yield from ask([item.value])
            except InputError as error:
                said = str(error).removeprefix("text 0: ").removeprefix("input 0: ")
                said = said.replace("text 0 (", "the text (")
                raise InputError(f"{item.place}: {said}") from None
        raise


# ---- In ----


def read_items(task: str, args: argparse.Namespace) -> Iterator[list[Item]]:
    """The inputs in parts; arguments and files, but not a stream, are read before the model."""
    context = args.context
    if args.context_file is not None:
        context = read_text(Path(args.context_file))
    shared = Shared(context, args.choices)
    if args.texts:
        return iter([items_of_texts(task, args.texts, shared)])
    if args.file is not None:
        return iter([items_of_file(task, Path(args.file), shared)])
    if sys.stdin.isatty():
        raise InputError("no text: give texts as arguments, --file, or standard input")
    return items_of_stream(task, sys.stdin.buffer, shared)


def warn_of_empty(items: list[Item]) -> None:
    texts = [
        item.value.get("text") if isinstance(item.value, dict) else item.value for item in items
    ]
    if empty := sum(isinstance(text, str) and not text.strip() for text in texts):
        print(f"warning: {empty} of {len(texts)} texts are empty", file=sys.stderr)


def check_options(task: str, args: argparse.Namespace) -> None:
    """Refuse options that say nothing about the task."""
    for name, tasks in OF_TASKS.items():
        if is_given(args, name) and task not in tasks:
            raise InputError(f"--{name} is for {' and '.join(tasks)}; the task is {task}")


def is_given(args: argparse.Namespace, name: str) -> bool:
    value = getattr(args, name)
    return value is not None and value is not False  # 0 is given


def options_of(task: str, args: argparse.Namespace, answer: Any) -> dict[str, Any]:
    """The pipeline's options, of those that were given."""
    names = ("top_k", "handle_impossible_answer", "stride", "targets")
    options = {name: getattr(args, name) for name in names if is_given(args, name)}
    if task == "token-classification":
        options["aggregation_strategy"] = args.aggregation_strategy or "simple"
    several = task == "text-classification" and "multi" in answer.problem_type
    if args.all or (several and args.top_k is None):
        options["top_k"] = None
    return options


# ---- Out: a result as a line ----


def line_of(item: Item, result: Any, jsonl: bool, show: Show, answer: Pipeline) -> str:
    if jsonl:
        return json_of({"input": item.given, "output": result})
    given = item.given
    text = json_of(given) if isinstance(given, dict) else given
    words = given if isinstance(given, list) else text.split("\n")  # CSV texts may have lines
    return f"{show(result, answer)}\t{' '.join(words)}"


def json_of(value: Any) -> str:
    """On one line; half of a surrogate pair, which JSON can write, becomes "?"."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def rows_of(result: Any) -> list[Any]:
    return result if isinstance(result, list) else [result]


def show_labels(result: Any, answer: Any) -> str:
    regression = answer.problem_type == "regression"
    return "  ".join(
        ("" if regression else f"{row['label']} ") + f"{row['score']:.4f}"
        for row in rows_of(result)
    )


def show_entities(result: Any, answer: Any) -> str:
    kind = "entity" if any("entity" in row for row in result) else "entity_group"
    return "  ".join(
        f"{row[kind]} {row['start']}:{row['end']} {row['word']!r} {row['score']:.4f}"
        for row in result
    )


def show_spans(result: Any, answer: Any) -> str:
    return "  ".join(
        f"{row['answer']!r} {row['start']}:{row['end']} {row['score']:.4f}"
        for row in rows_of(result)
    )


def show_choices(result: Any, answer: Any) -> str:
    return "  ".join(
        f"{row['label']} {row['choice']!r} {row['score']:.4f}" for row in rows_of(result)
    )


def show_fills(result: Any, answer: Any) -> str:
    masks = result if isinstance(result[0], list) else [result]
    return " | ".join(
        "  ".join(f"{row['token_str']} {row['score']:.4f}" for row in rows) for rows in masks
    )


def show_numbers(result: Any, answer: Any) -> str:
    return " ".join(f"{number:.4f}" for number in result)


SHOW: dict[str, Show] = {
    "feature-extraction": show_numbers,
    "fill-mask": show_fills,
    "multiple-choice": show_choices,
    "question-answering": show_spans,
    "sentence-similarity": show_numbers,
    "text-classification": show_labels,
    "token-classification": show_entities,
}


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to answer")
    parser.add_argument("--model", required=True, metavar="DIR", help="a directory or a hub name")
    parser.add_argument(
        "--task", choices=[*PIPELINES, *ALIASES], help="default: what the model was trained for"
    )
    parser.add_argument("--file", help="texts, instead of arguments")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object a line")
    parser.add_argument("--all", action="store_true", help="every label with its score")
    parser.add_argument("--top_k", type=int, help="so many answers, best first")
    parser.add_argument("--context", metavar="TEXT", help="what all questions are about")
    parser.add_argument("--context_file", metavar="FILE", help="a text file that holds it")
    parser.add_argument("--choices", nargs="+", metavar="TEXT", help="what all questions choose of")
    parser.add_argument(
        "--handle_impossible_answer", action="store_true", help="an answer may be the empty text"
    )
    parser.add_argument(
        "--aggregation_strategy",
        choices=("none", "simple", "first", "average", "max"),
        help="how pieces become entities (default: simple)",
    )
    parser.add_argument("--stride", type=int, help="read long texts in windows that share N tokens")
    parser.add_argument("--targets", nargs="+", metavar="WORD", help="fill-mask: only these words")
    parser.add_argument("--backend", choices=("auto", "numpy", "cupy"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    args = parser.parse_args()
    if args.texts and args.file:
        raise InputError("texts were given as arguments and by --file: choose one of the two")
    for one, other in (("all", "top_k"), ("context", "context_file")):
        if is_given(args, one) and is_given(args, other):
            raise InputError(f"--{one} and --{other} were given: choose one of the two")
    if args.choices and len(args.choices) < 2:
        raise InputError("--choices: two texts at least are wanted, got one")
    for name in ("threads", "top_k"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"{name} must be at least 1, got {getattr(args, name)}")
    return args


if __name__ == "__main__":
    run(main)
