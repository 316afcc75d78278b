#!/usr/bin/env python3
"""Classify texts with a fine-tuned model.

    python scripts/predict.py --model DIR "a text" "another"
    python scripts/predict.py --model DIR --file texts.txt --jsonl > answers.jsonl
    cat texts.txt | python scripts/predict.py --model DIR

One text a line from a file or standard input; a tab separates the two texts of a pair.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from minibert import InputError
from minibert.io.command_line import Parser, run
from minibert.pipelines import TextClassificationPipeline


def main() -> None:
    args = parse_arguments()
    texts = args.texts or read_lines(args.file)
    pairs = split_pairs(texts)
    if empty := sum(not first.strip() for first, _ in pairs):
        print(f"warning: {empty} of {len(pairs)} texts are empty", file=sys.stderr)
    classify = TextClassificationPipeline.from_pretrained(
        args.model, backend=args.backend, threads=args.threads
    )
    classify.quiet = False
    regression = classify.task.problem_type == "regression"
    everything = args.all or classify.task.problem_type == "multi_label_classification"
    second_texts(pairs)
    inputs = [a if b is None else {"text": a, "text_pair": b} for a, b in pairs]
    results = classify(inputs, top_k=None if everything else 1)
    for text, answers in zip(texts, results, strict=True):
        if args.jsonl:
            print(json.dumps({"text": text, "answers": answers}, ensure_ascii=False))
        else:
            names = ["" if regression else f"{answer['label']} " for answer in answers]
            shown = "  ".join(f"{n}{a['score']:.4f}" for n, a in zip(names, answers, strict=True))
            print(f"{shown}\t{text}")


def read_lines(file: str | None) -> list[str]:
    """Texts from a file, or standard input; empty lines count, so that lines stay aligned."""
    if file is None and sys.stdin.isatty():
        raise InputError("no text: give texts as arguments, --file, or standard input")
    try:
        data = Path(file).read_bytes() if file else sys.stdin.buffer.read()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    source = file or "standard input"
    lines = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{source}, line {number}: not UTF-8 ({error.reason})") from None
    if not lines:
        raise InputError(f"{source} is empty")
    return lines


def split_pairs(texts: list[str]) -> list[tuple[str, str | None]]:
    """Each text, with what follows its first tab."""
    pairs = []
    for text in texts:
        first, tab, second = text.partition("\t")
        pairs.append((first, second if tab else None))
    return pairs


def second_texts(pairs: list[tuple[str, str | None]]) -> list[str] | None:
    """The second texts, where all lines have one; None where none has."""
    seconds = [second for _, second in pairs if second is not None]
    if seconds and len(seconds) != len(pairs):
        number = next(i for i, (_, second) in enumerate(pairs, 1) if second is None)
        raise InputError(f"text {number} has no second text after a tab, but others have")
    return seconds or None


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts to classify")
    parser.add_argument("--model", required=True, metavar="DIR", help="a fine-tuned model")
    parser.add_argument("--file", help="one text a line, instead of arguments")
    parser.add_argument("--all", action="store_true", help="every label with its score")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object a line")
    parser.add_argument("--backend", choices=("auto", "numpy", "cupy"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    args = parser.parse_args()
    if args.texts and args.file:
        raise InputError("texts were given as arguments and by --file: choose one of the two")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"threads must be at least 1, got {args.threads}")
    return args


if __name__ == "__main__":
    run(main)
