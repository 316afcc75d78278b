"""minibert against PyTorch and ONNX Runtime, BERT-base on a CPU: time and memory.

    python benchmarks/cpu.py [--quick] [--cases CASE …] [--columns COLUMN …] [--json FILE]

Needs the extras `[crosscheck,benchmark]`; `--columns minibert products` needs none. The columns:

- eager: transformers on eager PyTorch as it comes (sdpa attention, fused AdamW);
- kept: the same, with glibc's allocator kept from returning memory to the system;
- grouped: the same as eager, with the batches of mixed length cut from sentences sorted by length;
- compiled: torch.compile of the same model; wants a C++ compiler;
- onnx: ONNX Runtime on the model exported by torch.onnx, inference only;
- products: NumPy's matrix products of every layer's every row and nothing else; no lower bound, as
  `Products` in `_cpu_sides.py` explains.

All load the same random weights and see the same batches: mixed lengths are 128 sentences (mean 25,
longest 60) in 4 batches, padded to the longest of each but for minibert. The sides take turns,
A B C A B C, so that whatever else the machine does meets all; a ratio is taken within a round, and
the table shows medians and, in brackets, quartiles, of fewer than five rounds the least and the
greatest. Prints Markdown. A full run takes about 20 minutes on two cores, `--quick`
(2 layers, whose embeddings weigh more than in the whole model) below 3.

Each side runs in a process of its own. In one process minibert's allocator settings would serve
PyTorch as well, and neither start-up nor peak memory could be told apart. Only one side has work at
a time, and a turn begins after a pause: an idle OpenMP or OpenBLAS thread first spins, for up to
some 30 ms, before it sleeps and leaves its core to the others.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from _common import (
    KEPT,
    Spread,
    describe,
    machine,
    markdown,
    new_file,
    positive,
    require,
    set_threads,
)
from _cpu_sides import POOL, make_batches

from minibert.io.command_line import Parser, run

WORKER = Path(__file__).with_name("_cpu_worker.py")
PACKAGES = ("minibert", "numpy", "torch", "transformers", "onnxruntime")
PAUSE = 0.1  # s
TURN = 0.5  # s: short steps are repeated to fill a turn


class Column(NamedTuple):
    """A side of the comparison: which process does the work, and how it is set up."""

    side: str  # of `_cpu_sides.py`
    environment: dict[str, str] = {}  # noqa: RUF012
    grouped: bool = False  # mixed batches come sorted by length
    wants: tuple[str, ...] = ()  # modules


COLUMNS = {
    "minibert": Column("minibert"),
    "eager": Column("eager"),
    "kept": Column("eager", KEPT),
    "grouped": Column("eager", grouped=True),
    "compiled": Column("compiled"),
    "onnx": Column("onnx", wants=("onnxruntime", "onnx", "onnxscript")),
    "products": Column("products"),
    "minibert-checkpointing": Column("minibert-checkpointing"),
}
BASE = "eager"  # what ratios are taken to
OTHERS = ("kept", "grouped", "compiled", "onnx", "products")
Samples = dict[str, list[float]]  # of each column, one number a round


class Failed(Exception):
    """A worker ended early."""


class Worker:
    """A process of one side; see `_cpu_worker.py`."""

    def __init__(self, column: Column, directory: Path) -> None:
        command = [sys.executable, str(WORKER), column.side, str(directory)]
        pipe, environment = subprocess.PIPE, os.environ | column.environment
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment
        )

    def seconds(self, job: str, steps: int) -> float:
        """The mean time of so many steps."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `_answer` says so
            print(job, steps, file=self._process.stdin, flush=True)
        return float(statistics.mean(self._answer()))

    def finish(self) -> int:
        """End the process; its peak memory in bytes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = self._answer()
        self._process.wait()
        return int(peak)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"its process ended with status {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # nothing to lose; it has ended already unless something failed
        with suppress(BrokenPipeError), self._process:  # closes the pipes and waits
            pass


class Team:
    """One worker for each process that the columns need, started when first asked for."""

    def __init__(self, directory: Path, left_out: dict[str, str], stack: ExitStack) -> None:
        self.directory, self.left_out, self._stack = directory, left_out, stack
        self._workers: dict[tuple[str, ...], Worker] = {}

    def of(self, name: str) -> Worker:
        column = COLUMNS[name]
        key = (column.side, *column.environment)
        if key not in self._workers:
            self._workers[key] = self._stack.enter_context(Worker(column, self.directory))
        return self._workers[key]

    def able(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if name not in self.left_out]

    @contextmanager
    def leaving_out(self, name: str, samples: Samples) -> Iterator[None]:
        """A column whose process fails in the block is left out from then on, by name."""
        try:
            yield
        except Failed as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            self.left_out[name] = str(error)
            samples.pop(name, None)


# ---- Three ways to measure; each returns one number a round and column ----


def steps(team: Team, case: Case, rounds: int) -> Samples:
    """Seconds a step, from processes that take turns."""
    samples: Samples = {name: [] for name in team.able(case.columns)}
    counts = {}
    for name in list(samples):
        with team.leaving_out(name, samples):
            time.sleep(PAUSE)
            counts[name] = warm_up(team.of(name), job_of(case, name))
    for _ in range(rounds):
        for name in list(samples):
            with team.leaving_out(name, samples):
                time.sleep(PAUSE)
                job = job_of(case, name)
                samples[name].append(team.of(name).seconds(job, counts[name]))
    return samples


def job_of(case: Case, name: str) -> str:
    return case.job.replace("mixed", "grouped") if COLUMNS[name].grouped else case.job


def warm_up(worker: Worker, job: str) -> int:
    """The number of steps that make a turn: all batches of mixed length."""
    whole = POOL if job.endswith(("-mixed", "-grouped")) else 1
    # A step of each shape; the second compiles for any shape.
    worker.seconds(job, 2 if whole > 1 or job.startswith("infer") else 1)
    if job.startswith("train"):
        return whole
    seconds = worker.seconds(job, 1)
    return max(whole, round(TURN / seconds))


def startup(team: Team, case: Case, rounds: int) -> Samples:
    """Seconds from the start of a process to its first result; the page cache is warm."""
    samples: Samples = {name: [] for name in team.able(case.columns)}
    for number in range(rounds + 1):
        for name in list(samples):
            start = time.perf_counter()
            with team.leaving_out(name, samples), Worker(COLUMNS[name], team.directory) as worker:
                worker.seconds(case.job, 1)
                if number:  # the first warms the cache
                    samples[name].append(time.perf_counter() - start)
    return samples


def memory(team: Team, case: Case, _: int) -> Samples:
    """Peak resident bytes of a process that does three steps. Once: it hardly varies."""
    samples: Samples = {name: [] for name in team.able(case.columns)}
    for name in list(samples):
        with team.leaving_out(name, samples):
            samples[name].append(peak(name, case.job, team.directory))
    return samples


@functools.cache
def peak(name: str, job: str, directory: Path) -> int:
    with Worker(COLUMNS[name], directory) as worker:
        worker.seconds(job, 3)
        return worker.finish()


class Case(NamedTuple):
    measure: Callable[[Team, Case, int], Samples]
    job: str
    columns: tuple[str, ...]  # the first is the one that the case is about
    rounds: int
    what: str


TORCH = ("minibert", "eager", "kept", "compiled", "products")
INFER = ("minibert", "eager", "kept", "compiled", "onnx", "products")
CASES = {
    "train-32x128": Case(steps, "train-32x128", TORCH, 3, "a training step, 32 × 128 tokens"),
    "train-mixed": Case(
        steps, "train-mixed", (*TORCH, "grouped"), 3,
        "a training step, 32 sentences of mixed length",
    ),
    "infer-1x20": Case(steps, "infer-1x20", INFER, 11, "inference, one sentence of 20 tokens"),
    "infer-1x128": Case(steps, "infer-1x128", INFER, 11, "inference, one sequence of 128 tokens"),
    "infer-32x128": Case(steps, "infer-32x128", INFER, 5, "inference, 32 × 128 tokens"),
    "infer-mixed": Case(
        steps, "infer-mixed", (*INFER, "grouped"), 3, "inference, 32 sentences of mixed length"
    ),
    "startup": Case(
        startup, "infer-1x20", ("minibert", "eager"), 5, "Python, import, load, first sentence"
    ),
    "memory": Case(
        memory, "train-32x128", ("minibert", "eager"), 1, "peak memory of training, 32 × 128 tokens"
    ),
    "memory-checkpointing": Case(
        memory, "train-32x128", ("minibert-checkpointing", "eager"), 1,
        "peak memory, minibert's with gradient checkpointing",
    ),
}  # fmt: skip
SIZES = (8, 32, 128)
TOKENS = {
    f"infer-{form}": Case(steps, f"infer-{form}", ("minibert",), 5, f"inference, {what}")
    for size in SIZES
    for form, what in (
        (f"{size}x25", f"{size} sentences of 25 tokens"),
        (f"{size}mixed", f"{size} sentences of mixed length"),
    )
}
"""Time for each real token: it should not depend on the batch."""


# ---- The report ----


def ratios(samples: Samples) -> dict[str, Spread]:
    """Each column ÷ the base, round by round."""
    base = samples.get(BASE, [])
    return {
        name: Spread.of([a / b for a, b in zip(values, base, strict=True)])
        for name, values in samples.items()
        if name != BASE and base
    }


def row(name: str, samples: Samples) -> list[str]:
    """A line of the table: the base as it was measured, all else as its ratio to it.

    Without the base, all as it was measured.
    """
    case = CASES[name]
    scale, unit = (1e-6, "MB") if case.measure is memory else (1e3, "ms")
    found = ratios(samples)

    def cell(column: str) -> str:
        values = samples.get(column)
        if not values:
            return "–"
        if column in found:
            return with_spread(found[column], ".2f", len(values))
        taken = Spread.of([scale * value for value in values])
        return f"{with_spread(taken, ',.0f', len(values))} {unit}"

    cells = [cell(column) for column in (BASE, case.columns[0], *OTHERS)]
    return [name, *cells, str(max(map(len, samples.values()), default=0))]


def with_spread(spread: Spread, form: str, rounds: int) -> str:
    median, low, high = (format(value, form) for value in spread)
    return f"{median} ({low} … {high})" if rounds > 1 else median


def report(results: dict[str, Samples], left_out: dict[str, str], settings: dict[str, str]) -> str:
    header = ["÷ eager", BASE, "minibert", *OTHERS, "rounds"]
    rows = [row(name, samples) for name, samples in results.items() if name in CASES]
    parts = [markdown(header, rows)] if rows else []
    parts += [tokens_table(results)]
    parts += ["\n".join(f"- {name}: {CASES[name].what}" for name in results if name in CASES)]
    for why in dict.fromkeys(left_out.values()):
        names = ", ".join(name for name, reason in left_out.items() if reason == why)
        parts.append(f"left out: {names}: {why}")
    parts += [describe(settings | whether_compiled(results))]
    return "\n\n".join(filter(None, parts))


def whether_compiled(results: dict[str, Samples]) -> dict[str, str]:
    ran = any(samples.get("compiled") for samples in results.values())
    return {"torch.compile": "measured" if ran else "not measured"}


def tokens_table(results: dict[str, Samples]) -> str:
    """µs for each real token, and the largest ÷ the smallest."""
    found = {}
    for name in TOKENS.keys() & results.keys():
        if own := results[name].get("minibert"):
            (batch,) = make_batches(name.removeprefix("infer-"))
            found[name] = 1e6 * statistics.median(own) / int(batch.attention_mask.sum())
    if not found:
        return ""
    rows = []
    for kind, form in (("25 tokens each", "x25"), ("mixed lengths", "mixed")):
        names = [f"infer-{size}{form}" for size in SIZES]
        rows.append([kind, *(f"{found[name]:.0f}" if name in found else "–" for name in names)])
    table = markdown(["µs a token, batches of", *map(str, SIZES)], rows)
    if len(found) == 1:
        return table
    return f"{table}\n\nlargest ÷ smallest: {max(found.values()) / min(found.values()):.2f}"


def as_json(results: dict[str, Samples], left_out: dict[str, str], settings: dict[str, str]) -> str:
    """Every sample, in seconds or bytes."""
    every = CASES | TOKENS
    cases = {
        name: {
            "what": every[name].what,
            "ratios": {column: spread._asdict() for column, spread in ratios(samples).items()},
            "samples": samples,
        }
        for name, samples in results.items()
    }
    whole = {"settings": settings | whether_compiled(results), "left_out": left_out, "cases": cases}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


# ---- Running ----


def make_model(directory: Path, layers: int) -> None:
    """Random weights in the shapes of BERT-base, in Hugging Face's layout."""
    from minibert import BertConfig, BertForSequenceClassification

    config = BertConfig(num_hidden_layers=layers, num_labels=2)
    BertForSequenceClassification(config, backend="numpy").save_pretrained(directory)


@contextmanager
def saved_model(layers: int) -> Iterator[Path]:
    """A directory with a model, for the duration of the run.

    Written by another process: Linux counts the memory of the process that starts a worker towards
    the worker's own peak, so this one stays small.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "model"
        maker = multiprocessing.get_context("spawn").Process(
            target=make_model, args=(directory, layers)
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit("the model could not be written: see above")
        yield directory


def set_environment(threads: int) -> None:
    """For the workers: equal threads, no network, and compiled modules kept as Python does."""
    set_threads(threads)
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def unable(quick: bool, chosen: Sequence[str]) -> dict[str, str]:
    """The columns that do not run here, and why."""
    reasons = {}
    for name, column in COLUMNS.items():
        missing = [module for module in column.wants if importlib.util.find_spec(module) is None]
        if missing:
            reasons[name] = f"{' and '.join(missing)} not installed"
    if not any(map(shutil.which, ("c++", "g++", "clang++", "clang", "gcc"))):
        reasons["compiled"] = "no C++ compiler"
    if quick:
        reasons["compiled"] = "not in the quick mode: compiling takes longer than all the rest"
        reasons["kept"] = "not in the quick mode: a second PyTorch, at most a tenth faster"
    # With minibert its other self, whose cell is in the same column of the table.
    others = [name for name in COLUMNS if name.removesuffix("-checkpointing") not in chosen]
    return reasons | dict.fromkeys(others, "not among --columns")


def measure(
    names: list[str],
    layers: int,
    rounds: int | None,
    left_out: dict[str, str],
    record: Callable[..., None],
) -> tuple[dict[str, Samples], dict[str, str]]:
    """The results of these cases, and the columns left out, those that fail among them."""
    results: dict[str, Samples] = {}
    with saved_model(layers) as directory:
        for kind in ("train", "infer", "startup", "memory"):
            with ExitStack() as stack:  # at most one kind's workers at a time: they need memory
                team = Team(directory, left_out, stack)
                for name in (name for name in names if name.startswith(kind)):
                    print(f"{name} …", file=sys.stderr, flush=True)
                    case = (CASES | TOKENS)[name]
                    results[name] = case.measure(team, case, rounds or case.rounds)
                    record(results, left_out)
    return results, left_out


def arguments() -> argparse.Namespace:
    every, parser = [*CASES, *TOKENS], Parser(__doc__)
    columns = ("minibert", BASE, *OTHERS)
    parser.add_argument("--cases", nargs="+", choices=every, metavar="CASE", help=", ".join(every))
    parser.add_argument("--columns", nargs="+", choices=columns, default=columns, metavar="COLUMN",
                        help=f"{', '.join(columns)}; ratios want {BASE}")  # fmt: skip
    parser.add_argument("--rounds", type=positive, help="of each case (default: 3 to 11)")
    parser.add_argument("--layers", type=positive, help="of the model (default: 12)")
    parser.add_argument("--threads", type=positive, default=2, help="of each side")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write every sample there")
    parser.add_argument("--quick", action="store_true", help="2 layers, 2 rounds, not all columns")
    args: argparse.Namespace = parser.parse_args()
    args.layers = args.layers or (2 if args.quick else 12)
    args.cases = args.cases or (list(CASES) if args.quick else every)
    args.rounds = args.rounds or (2 if args.quick else None)
    if set(args.columns) - {"minibert", "products"}:
        require(("torch", "transformers"), "crosscheck,benchmark")
    return args


def main() -> None:
    args = arguments()
    set_environment(args.threads)
    settings = {"layers": str(args.layers), "threads": str(args.threads), "dropout": "0.1"}
    settings |= machine(PACKAGES)
    left_out = unable(args.quick, args.columns)

    def record(results: dict[str, Samples], left_out: dict[str, str]) -> None:
        if args.json is not None:  # after each case, so that a run that is stopped leaves some
            args.json.write_text(as_json(results, left_out, settings), encoding="utf-8")

    results, left_out = measure(args.cases, args.layers, args.rounds, left_out, record)
    print(report(results, left_out, settings))


if __name__ == "__main__":
    run(main)
