#!/usr/bin/env python3
"""Ask a fine-tuned model.

    python scripts/predict.py --model DIR "a text" "another"
    python scripts/predict.py --model DIR --file texts.txt --jsonl > answers.jsonl
    cat texts.txt | python scripts/predict.py --model DIR

What it answers follows from what the model was trained for, or from --task:

    text-classification   labels. A tab separates the two texts of a pair.
    token-classification  the entities of a text, and where they stand
    question-answering    "question<tab>context", or questions about one --context (text or file)
    multiple-choice       the right choice of {"question": …, "choices": […]}, from a .jsonl file
    fill-mask             the words that may stand where the text says [MASK]
    sentence-similarity   "text<tab>another": the cosine of their embeddings
    feature-extraction    a vector for each text, with --jsonl: of a sentence encoder the text's
                          embedding, of another model the vector of [CLS]

Texts stand one a line in a file or on standard input; in a .jsonl file each line is a text in
quotes or an object with the fields of transformers' pipelines ("text", "text_pair", "question",
"context", "source_sentence", "sentences").
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minibert import InputError
from minibert.checkpoint.sentence_transformers import read_sentence_settings
from minibert.hub import resolve_model
from minibert.io.command_line import Parser, run
from minibert.pipelines import (
    ALIASES,
    PIPELINES,
    Pipeline,
    SentenceSimilarityPipeline,
    pipeline,
    task_of,
)

PAIRS = {
    "text-classification": ("text", "text_pair"),
    "question-answering": ("question", "context"),
    "sentence-similarity": ("source_sentence", "sentences"),
}


def main() -> None:
    args = parse_arguments()
    directory = resolve_model(args.model)
    task = ALIASES.get(args.task, args.task) or task_of(directory)
    lines = args.texts or read_lines(args.file)
    inputs = [as_input(task, line, number, args) for number, line in enumerate(lines, 1)]
    check_texts(task, lines, inputs)
    answer = pipeline(task, directory, backend=args.backend, threads=args.threads)
    answer.quiet = False
    results = answers(answer, task, directory, inputs, options_of(task, args, answer))
    show = SHOW[task]
    for line, result in zip(lines, results, strict=True):
        if args.jsonl:
            rows = result if isinstance(result, list) else [result]
            shown = line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)
            print(json.dumps({"text": shown, "answers": rows}, ensure_ascii=False))
        else:
            print(f"{show(result, answer)}\t{line}")


def answers(
    answer: Pipeline, task: str, directory: Path, inputs: list[Any], options: dict[str, Any]
) -> list[Any]:
    """One result an input; for feature-extraction one vector each."""
    if task != "feature-extraction":
        results: list[Any] = answer.answers(inputs, **options)
        return results
    if read_sentence_settings(directory) is None:
        return [rows[0][0] for rows in answer.answers(inputs)]  # [CLS]
    encoder = SentenceSimilarityPipeline.from_pretrained(directory)
    encoder.quiet = False
    return encoder.embed(inputs).tolist()


# ---- In ----


def read_lines(file: str | None) -> list[Any]:
    """Texts from a file, or standard input; empty lines count, so that lines stay aligned."""
    if file is None and sys.stdin.isatty():
        raise InputError("no text: give texts as arguments, --file, or standard input")
    try:
        data = Path(file).read_bytes() if file else sys.stdin.buffer.read()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    source = file or "standard input"
    lines: list[Any] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            text = line.decode("utf-8")
            lines.append(json.loads(text) if source.endswith(".jsonl") else text)
        except UnicodeDecodeError as error:
            raise InputError(f"{source}, line {number}: not UTF-8 ({error.reason})") from None
        except ValueError as error:
            end = "" if data.endswith(b"\n") else "; does the file end in the middle of it?"
            raise InputError(f"{source}, line {number}: not JSON ({error}){end}") from None
    if not lines:
        raise InputError(f"{source} is empty")
    return lines


def as_input(task: str, line: Any, number: int, args: argparse.Namespace) -> Any:
    """A line as the task's pipeline takes it."""
    if not isinstance(line, str):
        return line
    if task == "question-answering" and args.context is not None:
        return {"question": line, "context": args.context}
    if task not in PAIRS:
        return line
    first, tab, second = line.partition("\t")
    if tab:
        one, two = PAIRS[task]
        return {one: first, two: [second] if two == "sentences" else second}
    if task == "question-answering":
        raise InputError(f"text {number} has no context after a tab; pass --context for all")
    if task == "sentence-similarity":
        raise InputError(f"text {number} has no second text after a tab to compare it with")
    return line


def check_texts(task: str, lines: list[Any], inputs: list[Any]) -> None:
    """Warn of empty texts; refuse pairs among single texts."""
    texts = [line.partition("\t")[0] for line in lines if isinstance(line, str)]
    if empty := sum(not text.strip() for text in texts):
        print(f"warning: {empty} of {len(lines)} texts are empty", file=sys.stderr)
    single = [isinstance(value, str) for value in inputs]
    if task == "text-classification" and any(single) and not all(single):
        number = single.index(True) + 1
        raise InputError(f"text {number} has no second text after a tab, but others have")


def options_of(task: str, args: argparse.Namespace, answer: Any) -> dict[str, Any]:
    """The pipeline's options, of those that were given."""
    several = task == "text-classification" and "multi" in answer.task.problem_type
    everything = {
        "text-classification": {"top_k": None if args.all or several else args.top_k or 1},
        "token-classification": {
            "aggregation_strategy": args.aggregation_strategy, "stride": args.stride
        },
        "question-answering": {
            "top_k": args.top_k or 1, "handle_impossible_answer": args.handle_impossible_answer
        },
        "multiple-choice": {"top_k": None if args.all else args.top_k or 1},
        "fill-mask": {"top_k": args.top_k or 5, "targets": args.targets},
    }  # fmt: skip
    return everything.get(task, {})


# ---- Out: a result as a line ----


def show_labels(result: Any, answer: Any) -> str:
    regression = answer.task.problem_type == "regression"
    names = ["" if regression else f"{row['label']} " for row in result]
    return "  ".join(f"{n}{row['score']:.4f}" for n, row in zip(names, result, strict=True))


def show_entities(result: Any, answer: Any) -> str:
    kind = "entity" if any("entity" in row for row in result) else "entity_group"
    return "  ".join(
        f"{row[kind]} {row['start']}:{row['end']} {row['word']!r} {row['score']:.4f}"
        for row in result
    )


def show_spans(result: Any, answer: Any) -> str:
    rows = result if isinstance(result, list) else [result]
    return "  ".join(
        f"{row['answer']!r} {row['start']}:{row['end']} {row['score']:.4f}" for row in rows
    )


def show_choices(result: Any, answer: Any) -> str:
    rows = result if isinstance(result, list) else [result]
    return "  ".join(f"{row['label']} {row['choice']!r} {row['score']:.4f}" for row in rows)


def show_fills(result: Any, answer: Any) -> str:
    masks = result if isinstance(result[0], list) else [result]
    return " | ".join(
        "  ".join(f"{row['token_str']} {row['score']:.4f}" for row in rows) for rows in masks
    )


def show_numbers(result: Any, answer: Any) -> str:
    return " ".join(f"{number:.4f}" for number in result)


SHOW: dict[str, Callable[[Any, Any], str]] = {
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
    parser.add_argument("--file", help="one text a line, instead of arguments")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object a line")
    parser.add_argument("--all", action="store_true", help="every label with its score")
    parser.add_argument("--top_k", type=int, help="so many answers, best first")
    parser.add_argument(
        "--context", metavar="TEXT", help="what all questions are about, or its file"
    )
    parser.add_argument(
        "--handle_impossible_answer", action="store_true", help="an answer may be the empty text"
    )
    parser.add_argument(
        "--aggregation_strategy",
        choices=("none", "simple", "first", "average", "max"),
        default="simple",
        help="how pieces become entities (default: simple)",
    )
    parser.add_argument("--stride", type=int, help="read long texts in windows that share N tokens")
    parser.add_argument("--targets", nargs="+", metavar="WORD", help="fill-mask: only these words")
    parser.add_argument("--backend", choices=("auto", "numpy", "cupy"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    args = parser.parse_args()
    if args.texts and args.file:
        raise InputError("texts were given as arguments and by --file: choose one of the two")
    for name in ("threads", "top_k"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"{name} must be at least 1, got {getattr(args, name)}")
    if args.context is not None:
        args.context = context_of(args.context)
    return args


def context_of(value: str) -> str:
    """A text, or the contents of the file that bears this name."""
    path = Path(value)
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else value
    except OSError:  # a text that is too long for a name
        return value
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason})") from None


if __name__ == "__main__":
    run(main)
