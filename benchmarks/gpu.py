"""minibert against transformers on PyTorch, eager and compiled: BERT-base on one GPU.

    python benchmarks/gpu.py --precision tf32 [--cases CASE …] [--minutes M] [--json FILE]

Needs a GPU, CuPy (`[cuda13]`), PyTorch with CUDA and transformers; `--sides minibert` needs no
PyTorch. All sides load the same random weights, see the same batches and compute in the same
precision on the same GPU, in one run; each is a process of its own. They take turns, so that
whatever else happens meets all of them; a ratio is taken within a round, and the table shows
medians. A step is forward, backward, clipping and AdamW (PyTorch's fused one); the loss is not
read. Prints Markdown.

What fails is left out and said below the table; every number is in FILE as soon as it is known.
With `--minutes` no turn begins later than that: the cases stand in the order of their worth.

`--check` tries the benchmark itself on a CPU, with a tiny model: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

from _common import Spread, describe, markdown, new_file, positive

from minibert.io.command_line import Parser, run

WORKER = Path(__file__).with_name("_gpu_worker.py")
SIDES = ("minibert", "eager", "compile")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
PACKAGES = ("minibert", "numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "transformers")
WARM_UP = 5  # steps: compilation, the memory pool, the clocks
TURN = 0.5  # seconds that a turn takes at most, about
BATCHES = (32, 64, 128, 256)  # of SQuAD; the best counts
SEARCH = 3  # rounds at each of them
LONGEST = 12  # kernels shown

Numbers = dict[str, list[float]]  # of each side, one a round


class Failed(Exception):
    """A side has no number; the message says why."""


class NoTime(Failed):
    """`--minutes` are over."""


class Unfit(Failed):
    """The side cannot run here at all."""


class Worker:
    """A process of one side; see `_gpu_worker.py`."""

    def __init__(self, side: str, bench: Bench, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, str(WORKER), side, bench.precision, str(bench.directory)]
        command += ["--check"] * bench.check
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=os.environ | (environment or {})
        )
        self._deadline = bench.deadline
        self.jobs: list[tuple[str, list[int]]] = []

    def order(self, **what: Any) -> dict[str, Any]:
        """The answer; raises Failed where there is none, or none in time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise NoTime("no time was left")
        end = threading.Timer(min(left + 60, threading.TIMEOUT_MAX), self._process.kill)
        end.start()
        try:
            print(json.dumps(what), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            end.cancel()
        if not line:
            raise Failed(f"the process ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise (Unfit if answer["unfit"] else Failed)(answer["error"])
        return answer

    def take_up(self, job: str, lengths: list[int]) -> None:
        """Begin a job, with the steps that are slower than all later ones."""
        if self.jobs and self.jobs[-1] == (job, lengths):
            return
        self.order(job=job, lengths=lengths)
        self.order(steps=WARM_UP)
        self.jobs.append((job, lengths))

    def turn(self, steps: int) -> float:
        """Seconds a step."""
        return float(self.order(steps=steps)["seconds"]) / steps

    def close(self) -> None:
        self._process.kill()  # nothing to lose
        with self._process:  # closes the pipes and waits
            pass


class Bench:
    """What all cases share: the settings, the processes that run, and what was found."""

    def __init__(self, directory: Path, args: argparse.Namespace) -> None:
        self.directory, self.precision, self.check = directory, args.precision, args.check
        self.sides, self.rounds, self.steps = tuple(args.sides), args.rounds, args.steps
        self.deadline = time.monotonic() + 60 * args.minutes
        self.rates: dict[str, float] = {}  # FLOP/s of large products
        self.results: dict[str, Numbers] = {}
        self.missing: dict[str, dict[str, str]] = {}  # of each case, why a side has no number
        self.kernels: dict[str, dict[str, tuple[int, float]]] = {}  # times and µs in a step
        self._workers: dict[str, Worker] = {}
        self._unfit: dict[str, Unfit] = {}

    def worker(self, side: str, only: tuple[str, list[int]] | None = None) -> Worker:
        """The process of this side; a new one if it has done another job than `only`."""
        if side in self._unfit:
            raise self._unfit[side]
        worker = self._workers.get(side)
        if worker is not None and only is not None and any(job != only for job in worker.jobs):
            self.drop(side)
        if side not in self._workers:
            self._workers[side] = Worker(side, self)
        return self._workers[side]

    def drop(self, *sides: str) -> None:
        """End these processes, or all: their memory is free again."""
        for side in sides or tuple(self._workers):
            if side in self._workers:
                self._workers.pop(side).close()

    def each(self, case: str, ask: Callable[[str], list[float]]) -> None:
        """`ask` every side for its numbers of a case."""
        numbers = self.results[case] = {}
        for side in self.sides:
            try:
                numbers[side] = ask(side)
            except Failed as failure:
                self.fail(case, side, failure)

    def fail(self, case: str, side: str, failure: Failed) -> None:
        self.missing.setdefault(case, {})[side] = str(failure)
        self.results.get(case, {}).pop(side, None)
        self.drop(side)
        if isinstance(failure, Unfit):
            self._unfit[side] = failure

    def content(self) -> dict[str, Any]:
        return {
            "precision": self.precision, "gpu": gpu_name(), "rates": self.rates,
            "cases": self.results, "missing": self.missing, "kernels": self.kernels,
        }  # fmt: skip


# ---- Ways to measure ----


def a_step(bench: Bench, name: str, case: Case) -> None:
    """Seconds a step: the sides take turns."""
    steps: dict[str, int] = {}

    def begin(side: str) -> list[float]:
        worker = bench.worker(side)
        worker.take_up(case.job, case.lengths)
        steps[side] = _steps_of_a_turn(bench, worker)
        return []

    bench.each(name, begin)
    for _ in range(bench.rounds):
        for side, numbers in tuple(bench.results[name].items()):
            try:
                numbers.append(bench.worker(side).turn(steps[side]))
            except NoTime as failure:
                if not numbers:  # else fewer rounds are better than none
                    bench.fail(name, side, failure)
            except Failed as failure:
                bench.fail(name, side, failure)


def _steps_of_a_turn(bench: Bench, worker: Worker) -> int:
    return int(max(1, min(bench.steps, round(TURN / max(worker.turn(3), 1e-6)))))


def at_the_best_batch(bench: Bench, name: str, case: Case) -> None:
    """Seconds a sequence: of each side, at the batch size at which it is fastest."""
    bench.drop()  # it takes all the memory there is

    def search(side: str) -> list[float]:
        best: list[float] = []
        for B in BATCHES[:1] if bench.check else BATCHES:
            try:
                worker = bench.worker(side, only=(case.job, case.lengths * B))
                worker.take_up(case.job, case.lengths * B)
                steps = _steps_of_a_turn(bench, worker)
                numbers = [worker.turn(steps) / B for _ in range(min(bench.rounds, SEARCH))]
            except Failed:
                if not best:
                    raise
                break  # out of memory, most likely
            finally:
                bench.drop(side)
            if best and Spread.of(numbers).median > Spread.of(best).median:
                break
            best = numbers
        return best

    bench.each(name, search)


def peak_memory(bench: Bench, name: str, case: Case) -> None:
    """Bytes that the process holds on the device."""
    bench.each(name, lambda side: _asked(bench, side, case, "memory"))


def launches(bench: Bench, name: str, case: Case) -> None:
    """Kernels and copies of one step; and which take how long."""
    bench.each(name, lambda side: _asked(bench, side, case, "launches"))


def _asked(bench: Bench, side: str, case: Case, what: str) -> list[float]:
    worker = bench.worker(side, only=(case.job, case.lengths))
    worker.take_up(case.job, case.lengths)
    answer = worker.order(ask=what)
    if "kernels" in answer:
        bench.kernels[side] = answer["kernels"]
    return [float(answer[what])]


def first_step(bench: Bench, name: str, case: Case) -> None:
    """Seconds from the start of a process until its first step is done: at first no kernel is
    compiled, then, for the case of `AGAIN`, all are.
    """
    bench.drop()
    again: Numbers = {}

    def start(side: str) -> list[float]:
        variables = ("CUPY_CACHE_DIR", "CUDA_CACHE_PATH", "TORCHINDUCTOR_CACHE_DIR")
        with tempfile.TemporaryDirectory() as cache:
            environment = {v: f"{cache}/{v}" for v in (*variables, "TRITON_CACHE_DIR")}
            cold = _start(bench, side, case, environment)
            again[side] = [_start(bench, side, case, environment)]
        return [cold]

    bench.each(name, start)
    bench.results[AGAIN] = again


def _start(bench: Bench, side: str, case: Case, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    worker = Worker(side, bench, environment)
    try:
        worker.order(job=case.job, lengths=case.lengths)
        worker.order(steps=1)
        return time.perf_counter() - start
    finally:
        worker.close()


# ---- Cases ----


def mixed_lengths(count: int) -> list[int]:
    """As sentences have them: quantiles of a log-normal distribution, mean 25, at most 60."""
    normal = NormalDist(math.log(25) - 0.5**2 / 2, 0.5)
    return [min(round(math.exp(normal.inv_cdf((i + 0.5) / count))), 60) for i in range(count)]


class Case(NamedTuple):
    measure: Callable[[Bench, str, Case], None]
    job: str
    lengths: list[int]
    what: str
    unit: str = "ms"


EQUAL, MIXED = [128] * 32, mixed_lengths(32)
AGAIN = "first-step-warm"
CASES = {  # the most telling first; those that follow share its processes where they can
    "train-32x128": Case(a_step, "train", EQUAL, "a training step, 32 × 128 tokens"),
    "memory": Case(peak_memory, "train", EQUAL, "peak memory of training 32 × 128", "MB"),
    "launches": Case(launches, "train", EQUAL, "kernels and copies of a step, 32 × 128", ""),
    "train-mixed": Case(
        a_step, "train", MIXED, "a training step, 32 sentences, padded to the longest by PyTorch"
    ),
    "infer-32x128": Case(a_step, "infer", EQUAL, "inference, 32 × 128 tokens"),
    "infer-mixed": Case(a_step, "infer", MIXED, "inference, 32 sentences"),
    "train-squad": Case(
        at_the_best_batch,
        "squad",
        [384],
        "training to answer questions, length 384, each side's best batch",
        "seq/s",
    ),
    "first-step": Case(first_step, "train", EQUAL, "start to first step, nothing compiled", "s"),
}
ROWS = CASES | {AGAIN: Case(first_step, "train", EQUAL, "the same, all in caches", "s")}


# ---- The report ----


def flops(case: Case) -> float:
    """Of a step's products, on real tokens, as minibert makes them.

    For a classifier 9 of the last layer's 12 products are made for the first tokens alone.
    """
    import numpy as np

    from minibert import BertConfig
    from minibert.packing import pack_sequences
    from minibert.training.throughput import training_flops

    c, batch = BertConfig(), pack_sequences([np.zeros(n, np.int64) for n in case.lengths])
    rows = None if case.job == "squad" else batch.num_sequences
    return training_flops(c, batch, rows) / (3 if case.job == "infer" else 1)


def row(name: str, bench: Bench) -> list[str]:
    """A line of the table: each side, how many times as fast as eager, share of the rate."""
    case, numbers = ROWS[name], bench.results[name]
    shows: dict[str, Callable[[float], str]] = {
        "ms": lambda x: f"{1e3 * x:,.2f} ms",
        "s": lambda x: f"{x:,.1f} s",
        "MB": lambda x: f"{1e-6 * x:,.0f} MB",
        "seq/s": lambda x: f"{1 / x:,.0f} seq/s",
        "": lambda x: f"{x:,.0f}",
    }
    show = shows[case.unit]
    cells = [show(Spread.of(numbers[side]).median) if numbers.get(side) else "–" for side in SIDES]
    times = "–"
    if numbers.get("eager") and numbers.get("minibert") and all(numbers["minibert"]):
        pairs = zip(numbers["eager"], numbers["minibert"], strict=False)
        spread = Spread.of([theirs / ours for theirs, ours in pairs])
        times = f"{spread.median:.2f} ({spread.low:.2f} – {spread.high:.2f})"
    share, rate = "–", max(bench.rates.values(), default=0.0)
    if case.unit in ("ms", "seq/s") and numbers.get("minibert") and rate and not bench.check:
        share = f"{flops(case) / Spread.of(numbers['minibert']).median / rate:.0%}"
    return [name, *cells, times, share]


def report(bench: Bench) -> str:
    header = ["case", *SIDES, "eager ÷ minibert", "of the matrix rate"]
    lines = [markdown(header, [row(name, bench) for name in bench.results]), ""]
    lines += [f"- {name}: {ROWS[name].what}" for name in bench.results]
    for side, kernels in bench.kernels.items():
        lines += ["", f"longest in {side}'s step of 32 × 128:", ""] if kernels else []
        for kernel, (count, taken) in [*kernels.items()][:LONGEST]:
            lines.append(f"- {1e-3 * taken:.2f} ms in {count} of {kernel[:60]}")
    reasons = [(name, *pair) for name, why in bench.missing.items() for pair in why.items()]
    if reasons:
        lines += ["", "Not measured:", ""]
        lines += [f"- {name}, {side}: {reason}" for name, side, reason in reasons]
    measured = ", ".join(f"{side} {rate / 1e12:,.1f} TFLOP/s" for side, rate in bench.rates.items())
    settings = {"precision": bench.precision, "GPU": gpu_name(), "dropout": "0.1"}
    lines += ["", f"matrix rate ({bench.precision}): {measured or '–'}"]
    lines += ["", describe(settings, PACKAGES)]
    if bench.check:
        lines += ["", "A check of the benchmark on a CPU with a tiny model: no measurement."]
    return "\n".join(lines)


def gpu_name() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"


def measure_rates(bench: Bench) -> None:
    """FLOP/s of large products in this precision, by minibert and by PyTorch."""
    for side in bench.sides[:2]:
        try:
            bench.rates[side] = float(bench.worker(side).order(ask="rate")["rate"])
        except Failed as failure:
            bench.fail("matrix rate", side, failure)
    bench.drop()  # the matrices are no part of the memory that a step takes


# ---- Running ----


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_model(directory: Path, tiny: bool) -> None:
    """Random weights in the shapes of BERT-base."""
    from minibert import BertConfig, BertForSequenceClassification

    sizes: dict[str, Any] = {"num_labels": 2}
    if tiny:
        sizes |= {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        sizes |= {"intermediate_size": 32}
    BertForSequenceClassification(BertConfig(**sizes), backend="numpy").save_pretrained(directory)


def arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--precision", choices=PRECISIONS, default="tf32", help="of all sides")
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE",
                        help=", ".join(SIDES))  # fmt: skip
    parser.add_argument("--rounds", type=positive, default=9, help="turns of each side")
    parser.add_argument("--steps", type=positive, default=20, help="steps in a turn, at most")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="M",
                        help="begin no turn later; one may take a minute more")  # fmt: skip
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write every number there")
    parser.add_argument("--check", action="store_true", help="try the benchmark on a CPU")
    args: argparse.Namespace = parser.parse_args()
    args.cases = args.cases or list(CASES)
    if args.check:
        args.precision, args.rounds, args.steps = "fp32", 2, 1
    else:
        from minibert.backend.cupy_backend import why_unavailable

        if problem := why_unavailable():
            parser.error(f"{problem} (--check tries the benchmark without a GPU)")
    return args


def main() -> None:
    args = arguments()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "model"
        make_model(directory, args.check)
        bench = Bench(directory, args)
        try:
            measure_rates(bench)
            for name in args.cases:
                say(f"{name} …")
                CASES[name].measure(bench, name, CASES[name])
                say(" | ".join(row(name, bench)))
                if args.json is not None:  # now, so that a run that is stopped leaves some
                    content = json.dumps(bench.content(), indent=1)
                    args.json.write_text(content + "\n", encoding="utf-8")
        finally:
            bench.drop()
            print(report(bench))


if __name__ == "__main__":
    run(main)
