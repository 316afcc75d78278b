#!/usr/bin/env python3
"""Ask a fine-tuned model.

    python scripts/predict.py --model DIR "a text" "another"
    python scripts/predict.py --model DIR --file texts.txt --jsonl > answers.jsonl
    cat texts.txt | python scripts/predict.py --model DIR

What it answers follows from what the model was trained for, or from --task:

    text-classification       labels. A tab separates the two texts of a pair.
    token-classification      the entities of a text, and where they stand
    question-answering        "question<tab>context", or questions about one --context TEXT or
                              --context_file FILE
    multiple-choice           the right one of --choices "one" "another" …, or of an object's
                              {"question": …, "choices": […]}
    fill-mask                 the words that may stand where the text says [MASK]
    next-sentence-prediction  "text<tab>another": IsNext or NotNext. (A model with both heads of
                              pretraining fills masks, unless --task names this.)
    sentence-similarity       "text<tab>another": the cosine of their embeddings
    feature-extraction        a vector for each text, with --jsonl: of a sentence encoder the text's
                              embedding, of another model the vector of [CLS]

Arguments, standard input (answered as it arrives) and a --file are read in one of these forms:

    text         a text a line
    jsonl        JSON a line: an object, a text in quotes or a list of words. An object is {"text":
                 …, "text_pair": …}, {"question": …, "context": …}, {"source_sentence": …,
                 "sentences": […]}, or a line of a training file; it may hold more.
    tsv, csv, conll, squad
                 files that finetune.py reads, for --file and standard input; labels are ignored.

A file's suffix says its form: .txt; .jsonl, .json, .ndjson; .tsv, .csv; for words .conll, .bio,
.iob, .iob2 and .tsv; for questions SQuAD's .json; also with .gz. Otherwise the first line does:
lines are JSON if it begins with {" or [", a file's are words if it ends in a tag (O, B-…, I-…),
and texts if not. --format overrides both. What stands before a bad line of text or JSON is
answered; the other forms are answered whole or not at all.

Texts longer than the model's window are cut, and counted in a line on stderr (token-classification
reads them whole with --stride). A question that fills a window is answered by the empty text.

A line of output is the answer, a tab and the text. With --jsonl it is {"input": …, "output": …}:
the text or object as it was given, and what the Python pipeline of the task returns for it in a
list of inputs, as {"label": …, "score": …}; --top_k and --all make it a list, best first (so it is
for a model with several labels a text). feature-extraction: one list of numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minibert import InputError
from minibert.checkpoint.sentence_transformers import read_sentence_settings
from minibert.data.columns import Named
from minibert.data.text_files import read_text
from minibert.hub import resolve_model
from minibert.io.command_line import Parser, run
from minibert.pipelines import ALIASES, PIPELINES, Pipeline, pipeline, task_of
from minibert.pipelines.inputs import (
    FORMS,
    Item,
    Items,
    items_of_file,
    items_of_stream,
    items_of_texts,
)
from minibert.pipelines.options import Reading
from minibert.pipelines.outputs import json_line, plain_line
from minibert.pipelines.values import Shared

LABELS = ("text-classification", "next-sentence-prediction")
TEXTS = (*LABELS, "token-classification", "fill-mask", "sentence-similarity", "feature-extraction")
OF_TASKS = {
    "all": (*LABELS, "multiple-choice"),
    "top_k": (*LABELS, "multiple-choice", "question-answering", "fill-mask"),
    "text_column": TEXTS,
    "text_pair_column": (*LABELS, "sentence-similarity"),
    "context": ("question-answering",),
    "context_file": ("question-answering",),
    "handle_impossible_answer": ("question-answering",),
    "choices": ("multiple-choice",),
    "aggregation_strategy": ("token-classification",),
    "stride": ("token-classification",),
    "targets": ("fill-mask",),
}
AT_ONCE = 4096  # texts that are batched by length together

Ask = Callable[[list[Any], Reading], list[Any]]
"""Inputs of the task's pipeline → a result for each; what became of them is noted."""


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
    reading, first = Reading(), None
    try:
        for portion in portions(parts, at_once):
            first = first or portion[0].place
            found = results(answer, ask, portion, reading)
            for item, result in zip(portion, found, strict=True):
                print(
                    json_line(item, result)
                    if args.jsonl
                    else plain_line(item, result, task, answer)
                )
            sys.stdout.flush()
    except InputError:
        answer.warn(reading)
        raise
    try:
        answer.report(reading)
    except InputError as error:  # of all questions; it names the first
        raise InputError(f"{first}: {_without_number(str(error))}") from None


def portions(parts: Items, at_once: int) -> Iterator[list[Item]]:
    """The inputs in parts of at most so many, none of them empty."""
    for items in parts:
        warn_of_empty(items)
        for start in range(0, len(items), at_once):
            yield items[start : start + at_once]


def asker(task: str, encoder: bool, answer: Any, args: argparse.Namespace) -> tuple[Ask, int]:
    """What answers inputs, and how many at once."""
    if encoder:
        return lambda values, reading: answer.vectors(values, reading).tolist(), AT_ONCE
    if task == "feature-extraction":  # of [CLS]; the vectors of all tokens take memory
        return lambda values, reading: [
            rows[0, 0].tolist() for rows in answer.answers(values, reading, return_tensors=True)
        ], AT_ONCE // 16
    options = options_of(task, args, answer)
    if task == "token-classification":
        return lambda values, reading: answer.answers(
            values, reading, is_split_into_words=any(isinstance(v, list) for v in values), **options
        ), AT_ONCE
    return lambda values, reading: answer.answers(values, reading, **options), AT_ONCE


def results(answer: Pipeline, ask: Ask, items: list[Item], reading: Reading) -> Iterator[Any]:
    """One result an item; those before one that is to blame for an error, which names its place."""
    try:
        yield from ask([item.value for item in items], reading)
    except InputError:
        answer.quiet, again = True, Reading()
        ask([], again)  # an option may be to blame
        for item in items:
            try:
                yield from ask([item.value], again)
            except InputError as error:
                raise InputError(f"{item.place}: {_without_number(str(error))}") from None
        raise


def _without_number(message: str) -> str:
    """An error about a list of one input, without its place there."""
    for begins in ("text 0: ", "input 0: ", "input, question '0': "):
        message = message.removeprefix(begins)
    return message.replace("text 0 (", "the text (").replace("input 0 (", "the text (")


def read_items(task: str, args: argparse.Namespace) -> Items:
    """The inputs in parts; files, but not a stream, are read before the model."""
    context = args.context
    if args.context_file is not None:
        context = read_text(Path(args.context_file))
    if context is not None and not context.strip():
        raise InputError(f"{args.context_file or '--context'}: the context is empty")
    shared = Shared(context, args.choices, Named(args.text_column, args.text_pair_column))
    if args.texts:
        return items_of_texts(task, args.texts, shared, args.format)
    if args.file is not None:
        return items_of_file(task, Path(args.file), shared, args.format)
    if sys.stdin.isatty():
        raise InputError("no text: give texts as arguments, --file, or standard input")
    return items_of_stream(task, sys.stdin.buffer, shared, args.format)


def warn_of_empty(items: list[Item]) -> None:
    texts = [
        item.value.get("text") if isinstance(item.value, dict) else item.value for item in items
    ]
    if empty := sum(isinstance(text, str) and not text.strip() for text in texts):
        print(f"warning: {empty} of {len(texts)} texts are empty", file=sys.stderr)


def options_of(task: str, args: argparse.Namespace, answer: Any) -> dict[str, Any]:
    """The pipeline's options, of those that were given."""
    names = ("top_k", "handle_impossible_answer", "stride", "targets")
    options = {name: getattr(args, name) for name in names if is_given(args, name)}
    if task == "token-classification":
        if (args.stride or 0) >= answer.max_length - 2:
            raise InputError(
                f"--stride must be less than the {answer.max_length - 2} tokens of a window, got "
                f"{args.stride}"
            )
        options["aggregation_strategy"] = args.aggregation_strategy or "simple"
    several = task == "text-classification" and "multi" in answer.problem_type
    if args.all or (several and args.top_k is None):
        options["top_k"] = None
    return options


# ---- Arguments ----


def check_options(task: str, args: argparse.Namespace) -> None:
    """Refuse options that say nothing about the task."""
    for name, tasks in OF_TASKS.items():
        if is_given(args, name) and task not in tasks:
            *others, last = tasks
            named = f"{', '.join(others)} and {last}" if others else last
            raise InputError(f"--{name} is for {named}; the task is {task}")


def is_given(args: argparse.Namespace, name: str) -> bool:
    value = getattr(args, name)
    return value is not None and value is not False  # 0 is given


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("texts", nargs="*", default=[], metavar="TEXT", help="texts to answer")
    parser.add_argument("--model", required=True, metavar="DIR", help="a directory or a hub name")
    parser.add_argument(
        "--task",
        choices=[*PIPELINES, *ALIASES],
        help="what to answer (default what the model was trained for)",
    )
    parser.add_argument("--file", metavar="FILE", help="texts, instead of arguments")
    parser.add_argument("--format", choices=FORMS, help="of the input (default see above)")
    parser.add_argument("--text_column", metavar="NAME", help="the text's column, or key in JSON")
    parser.add_argument("--text_pair_column", metavar="NAME", help="the second text's")
    parser.add_argument("--jsonl", action="store_true", help="write one JSON object a line")
    parser.add_argument("--all", action="store_true", help="every label with its score")
    parser.add_argument("--top_k", type=int, metavar="N", help="so many answers, best first")
    parser.add_argument("--context", metavar="TEXT", help="what all questions are about")
    parser.add_argument("--context_file", metavar="FILE", help="a text file that holds it")
    parser.add_argument("--choices", nargs="+", metavar="TEXT", help="what all questions choose of")
    parser.add_argument(
        "--handle_impossible_answer", action="store_true", help="an answer may be the empty text"
    )
    parser.add_argument(
        "--aggregation_strategy",
        choices=("none", "simple", "first", "average", "max"),
        help="how pieces become entities (default simple)",
    )
    parser.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="read long texts in windows that share N tokens",
    )
    parser.add_argument("--targets", nargs="+", metavar="WORD", help="fill-mask: only these words")
    parser.add_argument(
        "--backend", choices=("auto", "numpy", "cupy"), default="auto",
        help="where to compute (default auto)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default all cores)")
    args = parser.parse_args()
    check_arguments(args)
    return args


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse arguments that say nothing together, or that no task can have."""
    if args.texts and args.file:
        raise InputError("texts were given as arguments and by --file: choose one of the two")
    for one, other in (("all", "top_k"), ("context", "context_file")):
        if is_given(args, one) and is_given(args, other):
            raise InputError(f"--{one} and --{other} were given: choose one of the two")
    if args.choices and len(args.choices) < 2:
        raise InputError("--choices: two texts at least are wanted, got one")
    if args.stride is not None and args.aggregation_strategy == "none":
        raise InputError(
            "--stride wants entities, which windows can be merged by: choose another "
            "--aggregation_strategy than none"
        )
    if args.targets and not any(word.strip() for word in args.targets):
        raise InputError("--targets: at least one word is wanted, got empty texts")
    for name, least in (("threads", 1), ("top_k", 1), ("stride", 0)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise InputError(f"--{name} must be at least {least}, got {getattr(args, name)}")


if __name__ == "__main__":
    run(main)
