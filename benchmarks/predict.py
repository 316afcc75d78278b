"""Classifying a file of sentences: minibert's pipeline against transformers' on a CPU.

    python benchmarks/predict.py [--sentences 10000] [--repeats 3] [--threads 2]

MiniLM with a random head, sentences of mixed length (the movie reviews, as often as it takes).
transformers' pipeline pads a batch to its longest text, so its best batch size is looked for first,
on a part of the sentences; then both sides take turns in one process. Start-up and loading are not
counted, tokenising is. Prints Markdown; the spread is the quartiles, of fewer than five repeats the
least and the greatest. Needs the [crosscheck] extra.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from _common import Spread, describe, markdown, positive, require, set_threads

from minibert import BertForSequenceClassification, BertTokenizer, pipeline
from minibert.data.readers import read_examples
from minibert.hub import DEFAULT_MODEL, movie_reviews, resolve_model
from minibert.io.command_line import Parser, run

BATCH_SIZES = (1, 4, 8, 16, 32, 64)
PROBE = 640  # sentences on which the batch sizes are compared


def main() -> None:
    args = parse_arguments()
    set_threads(args.threads)
    texts = sentences(args.sentences)
    with tempfile.TemporaryDirectory() as temporary:
        directory = model_with_head(Path(temporary))
        ours = pipeline("text-classification", directory, backend="numpy", threads=args.threads)
        theirs = their_pipeline(directory, args.threads)
        best, tried = best_batch_size(theirs, texts[:PROBE])
        answers = ours(texts), theirs(texts, batch_size=best)  # warm, and the same
        differ = max(abs(a["score"] - b["score"]) for a, b in zip(*answers, strict=True))
        rounds = [
            (seconds(ours, texts), seconds(theirs, texts, batch_size=best))
            for _ in range(args.repeats)
        ]
    ratio = Spread.of([b / a for a, b in rounds])
    sides = [statistics.median(side) for side in zip(*rounds, strict=True)]
    rates = [f"{len(texts) / side:,.0f} texts/s" for side in sides]
    print(
        markdown(
            ["sentences", "minibert", f"transformers, batch {best}", "speed-up", "spread"],
            [[f"{len(texts):,}", *rates, f"{ratio.median:.2f}",
              f"{ratio.low:.2f} – {ratio.high:.2f}"]],
        )
    )  # fmt: skip
    print(f"\nbatch sizes, texts/s: {', '.join(f'{s}: {r:,.0f}' for s, r in tried.items())}")
    print(f"scores differ by at most {differ:.1e}")
    print(describe({"threads": args.threads}, ("minibert", "numpy", "torch", "transformers")))


def sentences(count: int) -> list[str]:
    texts = read_examples(movie_reviews() / "train.tsv").sentence1
    chosen = list(islice(cycle(texts), count))
    order = np.random.default_rng(0).permutation(count)
    return [chosen[i] for i in order]


def model_with_head(directory: Path) -> Path:
    source = resolve_model(DEFAULT_MODEL)
    model = BertForSequenceClassification.from_pretrained(source, backend="numpy", num_labels=2)
    model.save_pretrained(directory, tokenizer=BertTokenizer.from_pretrained(source))
    return directory


def their_pipeline(directory: Path, threads: int) -> Any:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    return transformers.pipeline("text-classification", model=str(directory), device="cpu")


def best_batch_size(classify: Any, texts: list[str]) -> tuple[int, dict[int, float]]:
    rates = {size: len(texts) / seconds(classify, texts, batch_size=size) for size in BATCH_SIZES}
    return max(rates, key=rates.__getitem__), rates


def seconds(classify: Callable[..., Any], texts: list[str], **options: Any) -> float:
    start = time.perf_counter()
    classify(texts, **options)
    return time.perf_counter() - start


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--sentences", type=positive, default=10_000)
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--threads", type=positive, default=2, help="of each side")
    args: argparse.Namespace = parser.parse_args()
    require(("torch", "transformers"), "crosscheck")
    return args


if __name__ == "__main__":
    run(main)
