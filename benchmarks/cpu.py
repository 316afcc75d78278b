"""minibert against transformers on eager PyTorch, BERT-base on a CPU: time and memory.

    python benchmarks/cpu.py [--quick] [--cases CASE …] [--json FILE]

Needs the extra `[crosscheck]`. Both sides load the same random weights and see the same batches.
They take turns, A B A B, so that whatever else the machine does meets both; a ratio is taken within
a round, and the table shows the median of the rounds. Prints Markdown. A full run takes about 20
minutes, `--quick` (2 layers, whose embeddings weigh more than in the whole model) below 3.

Each side runs in a process of its own. In one process minibert's allocator settings would serve
PyTorch as well, and neither start-up nor peak memory could be told apart. Only one side has work at
a time, and a turn begins after a pause: an idle OpenMP or OpenBLAS thread first spins, for up to
some 30 ms, before it sleeps and leaves its core to the other side.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from _common import Spread, machine, markdown

WORKER = Path(__file__).with_name("_cpu_worker.py")
SIDES = ("minibert", "transformers")
PACKAGES = ("minibert", "numpy", "torch", "transformers")
PAUSE = 0.1  # s
TURN = 0.5  # s: short steps are repeated to fill a turn
STEADY = 0.1  # quartile spread ÷ median of the ratio, above which rounds are added

Samples = dict[str, list[float]]  # of each side, one number a round
Measure = Callable[["Bench", str, int], Samples]


class Worker:
    """A process of one side with one job; see `_cpu_worker.py`."""

    def __init__(self, side: str, job: str, directory: Path, torch_optimizer: str) -> None:
        command = [sys.executable, str(WORKER), side, job, str(directory)]
        command += ["--torch-optimizer", torch_optimizer]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def seconds(self, steps: int) -> float:
        """The mean time of so many steps."""
        assert self._process.stdin is not None
        print(steps, file=self._process.stdin, flush=True)
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
            raise SystemExit(f"a worker ended early, exit status {self._process.wait()}: see above")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # nothing to lose; it has ended already unless something failed
        with self._process:  # closes the pipes and waits
            pass


class Bench(NamedTuple):
    """What all cases share."""

    directory: Path  # the model
    torch_optimizer: str
    repeats: int
    most_repeats: int

    def worker(self, side: str, job: str) -> Worker:
        return Worker(side, job, self.directory, self.torch_optimizer)

    def rounds(self) -> Iterator[Samples]:
        """Yields the samples, to be extended by one round, until their ratio is steady."""
        samples: Samples = {side: [] for side in SIDES}
        for done in range(self.most_repeats):
            if done >= self.repeats and ratio(samples).relative <= STEADY:
                return
            yield samples


def ratio(samples: Samples) -> Spread:
    """minibert ÷ transformers, round by round."""
    return Spread.of([a / b for a, b in zip(*(samples[side] for side in SIDES), strict=True)])


# ---- Three ways to measure; each returns one number a round and side ----


def steps(bench: Bench, job: str, per_turn: int) -> Samples:
    """Seconds a step, from two processes that take turns."""
    with ExitStack() as stack:
        workers = {side: stack.enter_context(bench.worker(side, job)) for side in SIDES}
        for side in SIDES:
            time.sleep(PAUSE)
            workers[side].seconds(per_turn)  # warm-up
        if job.startswith("infer"):
            fastest = min(workers[side].seconds(1) for side in SIDES)
            per_turn = max(1, round(TURN / fastest))
        for samples in bench.rounds():
            for side in SIDES:
                time.sleep(PAUSE)
                samples[side].append(workers[side].seconds(per_turn))
    return samples


def startup(bench: Bench, job: str, _: int) -> Samples:
    """Seconds from the start of a process to its first result; the page cache is warm."""

    def first_result(side: str) -> float:
        start = time.perf_counter()
        with bench.worker(side, job) as worker:
            worker.seconds(1)
            return time.perf_counter() - start

    for side in SIDES:
        first_result(side)  # warms the cache
    for samples in bench.rounds():
        for side in SIDES:
            samples[side].append(first_result(side))
    return samples


def memory(bench: Bench, job: str, number: int) -> Samples:
    """Peak resident bytes of a process that does `number` steps. Once: it hardly varies."""
    samples: Samples = {side: [] for side in SIDES}
    for side in SIDES:
        with bench.worker(side, job) as worker:
            worker.seconds(number)
            samples[side].append(worker.finish())
    return samples


class Case(NamedTuple):
    measure: Measure
    job: str
    number: int  # of steps: a turn, or in all
    what: str


CASES = {
    "train-32x128": Case(steps, "train-32x128", 1, "a training step, 32 × 128 tokens"),
    "train-mixed": Case(
        steps, "train-mixed", 1, "a training step, 32 sentences, padded to the longest by PyTorch"
    ),
    "train-grouped": Case(
        steps, "train-grouped", 8, "the same, grouped by length from 256 sentences for PyTorch"
    ),
    "infer-1x20": Case(steps, "infer-1x20", 1, "inference, one sentence of 20 tokens"),
    "infer-1x128": Case(steps, "infer-1x128", 1, "inference, one sequence of 128 tokens"),
    "infer-32x128": Case(steps, "infer-32x128", 1, "inference, 32 × 128 tokens"),
    "infer-mixed": Case(steps, "infer-mixed", 1, "inference, 32 sentences"),
    "startup": Case(startup, "infer-1x20", 1, "start Python, import, load, first sentence"),
    "memory": Case(memory, "train-32x128", 3, "peak memory of training, 32 × 128 tokens"),
}


# ---- The report ----


def row(name: str, samples: Samples) -> list[str]:
    """A line of the table; `~` marks a ratio that did not become steady."""
    scale, unit = (1e-6, "MB") if CASES[name].measure is memory else (1e3, "ms")
    cells = [f"{scale * Spread.of(samples[side]).median:,.0f} {unit}" for side in SIDES]
    r, rounds = ratio(samples), len(samples[SIDES[0]])
    mark = "~" if r.relative > STEADY else ""
    return [name, *cells, f"{mark}{r.median:.2f}", f"{r.low:.2f} – {r.high:.2f}", str(rounds)]


def report(results: dict[str, Samples], settings: dict[str, str]) -> str:
    header = ["case", *SIDES, "ratio", "quartiles", "rounds"]
    lines = [markdown(header, [row(name, samples) for name, samples in results.items()]), ""]
    lines += [f"- {name}: {CASES[name].what}" for name in results]
    lines += ["", ", ".join(f"{name} {value}" for name, value in settings.items())]
    return "\n".join(lines)


def as_json(results: dict[str, Samples], settings: dict[str, str]) -> str:
    """Every sample, in seconds or bytes."""
    cases = {
        name: {"what": CASES[name].what, "ratio": ratio(samples)._asdict(), "samples": samples}
        for name, samples in results.items()
    }
    return json.dumps({"settings": settings, "cases": cases}, indent=1, ensure_ascii=False) + "\n"


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
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="minibert against transformers on a CPU.")
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--repeats", type=int, help="rounds; 3 × as many if noisy")
    parser.add_argument("--layers", type=int, help="of the model (default: 12)")
    parser.add_argument("--threads", type=int, default=2, help="of each side")
    parser.add_argument(
        "--torch-optimizer",
        choices=("default", "fused"),
        default="fused",
        help="torch.optim.AdamW as it comes, or fused, as transformers' Trainer has it",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--quick", action="store_true", help="2 layers, 3 rounds, no train-grouped")
    args = parser.parse_args()
    args.layers = args.layers or (2 if args.quick else 12)
    args.cases = args.cases or [name for name in CASES if name != "train-grouped" or not args.quick]
    args.repeats = args.repeats or (3 if args.quick else 9)
    if missing := [name for name in PACKAGES[2:] if importlib.util.find_spec(name) is None]:
        parser.error(f"needs {' and '.join(missing)}: python -m pip install -e '.[crosscheck]'")
    return args


def main() -> None:
    args = arguments()
    set_environment(args.threads)
    settings = {"layers": str(args.layers), "threads": str(args.threads)}
    settings |= {"AdamW of torch": args.torch_optimizer, "dropout": "0.1"} | machine(PACKAGES)
    results: dict[str, Samples] = {}
    with saved_model(args.layers) as directory:
        most_repeats = args.repeats if args.quick else 3 * args.repeats
        bench = Bench(directory, args.torch_optimizer, args.repeats, most_repeats)
        for name in args.cases:
            print(f"{name} …", file=sys.stderr, flush=True)
            case = CASES[name]
            results[name] = case.measure(bench, case.job, case.number)
            if args.json is not None:  # after each case, so that a run that is stopped leaves some
                args.json.write_text(as_json(results, settings), encoding="utf-8")
    print(report(results, settings))


if __name__ == "__main__":
    main()
