#!/usr/bin/env python3
"""Find the passages of a text file, or of a folder of text and code, that mean what you ask.

    python scripts/search.py minibert "where is a checkpoint written?"
        A folder: its text files in chunks of 12 lines that overlap by 3. Hidden and generated
        folders, binary files and files over 1 MB are left out, and counted.

    python scripts/search.py notes.txt "what did we decide about the budget?" --top_k 3
        A text file, or one in .gz: each line is a passage (--cut paragraphs: what blank lines
        separate).

    python scripts/search.py --index notes.index notes.txt && python scripts/search.py notes.index …
        Make an index in a place of your choice, a new or empty folder or an older index; search
        it without its source.

The first search of a file or folder makes its index (with MiniLM some 20 chunks or 200 short lines
a second and core) and keeps it in $MINIBERT_CACHE/search (~/.cache/minibert/search); later ones
embed only what has changed. Ctrl-C keeps what is done. The answers are cosines (1 at most), places,
and the lines of a passage that hold most of the query's words. MiniLM reads 256 tokens of each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minibert.errors import CheckpointError, InputError, Interrupted, Terminated
from minibert.hub import DEFAULT_MODEL, resolve_model
from minibert.hub.package_index import cache_directory
from minibert.io.command_line import Parser, run
from minibert.io.numbers import counted
from minibert.pipelines import SentenceSimilarityPipeline
from minibert.search import Cut, Hit, SearchIndex
from minibert.search.index import FORMAT, Changes, model_sha256
from minibert.search.passages import WAYS
from minibert.tasks.sentence_embedding import unit_rows

SHOWN = 4  # lines of a passage that are printed


def main() -> None:
    args = parse_arguments()
    source = Path(args.source)
    if SearchIndex.is_index(source):
        index = SearchIndex.load(source)
        if args.model or args.cut or args.index or args.rebuild:
            raise InputError(
                f"{source} is an index and is searched as it is: --model, --cut, --index and "
                f"--rebuild go with its source, {index.source}"
            )
        embed = Embedder(index.model, args)
        if embed.sha256 != index.model_sha256:
            raise InputError(
                f"{source} was made with another {index.model} than the one that is there now; "
                f"make it again: python scripts/search.py --index {source} {index.source}"
            )
    else:
        index, embed = prepare(source, args)
    if not args.queries:
        return
    found = index.search(embed(args.queries), args.top_k)
    for query, hits in zip(args.queries, found, strict=True):
        if args.jsonl:
            print_jsonl(query, hits)
        else:
            print_hits(query, hits, heading=len(args.queries) > 1)


def prepare(source: Path, args: argparse.Namespace) -> tuple[SearchIndex, Embedder]:
    """The index of a file or folder, made or brought up to date, and its model."""
    place = Path(args.index) if args.index else default_place(source)
    if args.index is None and place.is_dir() and not SearchIndex.is_index(place):
        shutil.rmtree(place)  # the cache's own, and damaged
    SearchIndex.check_place(place)
    cut = Cut(args.cut or ("chunks" if source.is_dir() else "lines"))
    old = None if args.rebuild else old_index(place, args)
    embed = Embedder(args.model or (old.model if old else DEFAULT_MODEL), args)
    index = SearchIndex(source.resolve(), embed.name, embed.sha256, cut)
    if old and (old.model_sha256, old.cut, old.source) == (embed.sha256, cut, index.source):
        index = old
    changes = index.update(embed, quiet=args.jsonl)
    if changes.any:
        index.save(place)
    if changes.interrupted:
        by = signal.SIGTERM if isinstance(changes.interrupted, Terminated) else signal.SIGINT
        raise Interrupted(f"{counted(len(index), 'passage')} indexed; the same command goes on", by)
    if not len(index):
        raise InputError(f"{source} holds no text to search{skipped_text(changes)}")
    if changes.any:
        report(index, changes, place)
    return index, embed


def old_index(place: Path, args: argparse.Namespace) -> SearchIndex | None:
    """The index that is there; a damaged one counts as none in the cache, which is our own."""
    if not SearchIndex.is_index(place):
        return None
    try:
        return SearchIndex.load(place)
    except CheckpointError:
        if args.index is not None:
            raise
        name = args.model or DEFAULT_MODEL
        print(f"the index in {place} is damaged: it is made again, with {name}", file=sys.stderr)
        return None


class Embedder:
    """Texts → unit vectors, by a model that is loaded once."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        directory = resolve_model(name)
        self.name = str(directory.resolve()) if Path(name).is_dir() else name
        self.sha256 = model_sha256(directory)
        self.pipeline = SentenceSimilarityPipeline.from_pretrained(
            directory,
            backend=args.backend,
            threads=args.threads,
            truncation=True,  # without a warning: --help says how much is read
        )

    def __call__(self, texts: Sequence[str]) -> Any:
        """(R, H), rows of length 1."""
        return unit_rows(self.pipeline.embed(texts))


def default_place(source: Path) -> Path:
    """A folder in the cache, told by the path of what it is an index of, and by the format."""
    path = source.resolve()
    key = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return cache_directory() / "search" / f"{path.name}-{key}-v{FORMAT}"


def report(index: SearchIndex, changes: Changes, place: Path) -> None:
    print(
        f"indexed {counted(len(index), 'passage')} of {counted(len(index.files), 'file')} "
        f"({changes.embedded:,} new){skipped_text(changes)}; index: {place}",
        file=sys.stderr,
    )


def skipped_text(changes: Changes) -> str:
    """What was left out, as the end of a sentence."""
    counts = [f"{count:,} {reason}" for reason, count in sorted(changes.skipped.items())]
    return f"; left out: {', '.join(counts)}" if counts else ""


def print_jsonl(query: str, hits: list[Hit]) -> None:
    """One JSON object a passage, whole."""
    for hit in hits:
        values = {"query": query, "score": hit.score, "file": printable(hit.path)}
        print(json.dumps(values | hit.passage._asdict(), ensure_ascii=False))


def print_hits(query: str, hits: list[Hit], heading: bool) -> None:
    """Each passage as a score, a place, and the lines of it that speak most of the query."""
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    strong, faint, end = ("\033[1m", "\033[2m", "\033[0m") if colours else ("", "", "")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100
    if heading:
        print(f"{strong}{query}{end}\n")
    for hit in hits:
        first, lines = snippet(hit.passage.text, query)
        print(f"{hit.score:.3f}  {strong}{shown(hit.path)}:{hit.passage.line + first}{end}")
        for line in lines:
            print(f"       {faint}{line[: width - 7].rstrip()}{end}")
        print()


def snippet(text: str, query: str) -> tuple[int, list[str]]:
    """(place of the first line, up to SHOWN lines): those that hold most of the query's words."""
    words = {word for word in re.findall(r"\w+", query.casefold()) if len(word) > 2}
    lines = textwrap.dedent(text.expandtabs(4)).split("\n")

    def weight(start: int) -> int:
        there = "\n".join(lines[start : start + SHOWN]).casefold()
        return sum(word in there for word in words)

    start = max((i for i, line in enumerate(lines) if line.strip()), key=weight)
    return start, "\n".join(lines[start : start + SHOWN]).rstrip().split("\n")


def shown(path: Path) -> str:
    """A path below the current folder without the way to it."""
    here = Path.cwd()
    return printable(path.relative_to(here) if path.is_relative_to(here) else path)


def printable(path: Path) -> str:
    """A path whose bytes are not UTF-8 has "?" in their place."""
    return str(path).encode("utf-8", "replace").decode()


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("source", metavar="INDEX_OR_FOLDER", help="a text file, a folder, an index")
    parser.add_argument(
        "queries",
        nargs="*",
        default=[],
        metavar="QUERY",
        help="what you ask (none: only make the index)",
    )
    parser.add_argument(
        "--top_k", type=int, default=5, metavar="N", help="passages a query (default 5)"
    )
    parser.add_argument("--model", metavar="NAME", help=f"a sentence encoder: a directory or a hub "
                        f"name (default the index's, else {DEFAULT_MODEL})")  # fmt: skip
    parser.add_argument("--cut", choices=WAYS, help="how texts become passages (default a file "
                        "by lines, a folder in chunks)")  # fmt: skip
    parser.add_argument(
        "--index", metavar="DIR", help="where the index is kept (default in the cache)"
    )
    parser.add_argument("--rebuild", action="store_true", help="make the index anew")
    parser.add_argument("--jsonl", action="store_true", help="one JSON object a passage")
    parser.add_argument(
        "--backend", choices=("auto", "numpy", "cupy"), default="auto",
        help="where to compute (default auto)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default all cores)")
    args = parser.parse_args()
    if args.top_k < 1:
        raise InputError(f"--top_k must be at least 1, got {args.top_k}")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads must be at least 1, got {args.threads}")
    if blank := [query for query in args.queries if not query.strip()]:
        raise InputError(f"got an empty query {blank[0]!r}: say what you look for")
    return args


if __name__ == "__main__":
    run(main)
