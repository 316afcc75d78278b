"""minibert against transformers on PyTorch, eager and compiled: BERT-base on one GPU.

    python benchmarks/gpu.py --precision tf32 [--cases CASE …] [--json FILE]

Needs a GPU, CuPy (`[cuda13]`), PyTorch with CUDA and transformers. All sides load the same random
weights, see the same batches and compute in the same precision on the same GPU, in one run; each is
a process of its own. They take turns, so that whatever else happens meets all of them; a ratio is
taken within a round, and the table shows medians. A step is forward, backward, clipping and AdamW
(PyTorch's fused one); the loss is not read. Prints Markdown.

`--check` tries the benchmark itself on a CPU, with a tiny model: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

from _common import Spread, machine, markdown

WORKER = Path(__file__).with_name("_gpu_worker.py")
SIDES = ("minibert", "eager", "compile")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
PACKAGES = ("minibert", "numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "transformers")
WARM_UP = 5  # steps: compilation, the memory pool, the clocks
BATCHES = (8, 16, 32, 64, 128, 256)  # of SQuAD; the best counts

Numbers = dict[str, list[float]]  # of each side, one a round


class OutOfMemory(Exception):
    """A job does not fit."""


class Worker:
    """A process of one side; see `_gpu_worker.py`."""

    def __init__(self, side: str, bench: Bench, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, str(WORKER), side, bench.precision, str(bench.directory)]
        command += ["--check"] * bench.check
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=os.environ | (environment or {})
        )

    def order(self, **what: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended early, exit status {self._process.wait()}: see above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise OutOfMemory(answer["error"])
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # nothing to lose
        with self._process:  # closes the pipes and waits
            pass


class Bench(NamedTuple):
    """What all cases share."""

    directory: Path  # the model
    precision: str
    sides: tuple[str, ...]
    rounds: int
    steps: int  # a turn
    check: bool

    @contextmanager
    def workers(self) -> Iterator[dict[str, Worker]]:
        with ExitStack() as stack:
            yield {side: stack.enter_context(Worker(side, self)) for side in self.sides}


# ---- Ways to measure ----


def a_step(bench: Bench, job: str, lengths: list[int]) -> Numbers:
    """Seconds a step."""
    numbers: Numbers = {side: [] for side in bench.sides}
    with bench.workers() as workers:
        for worker in workers.values():
            worker.order(job=job, lengths=lengths)
            worker.order(steps=WARM_UP)
        for _ in range(bench.rounds):
            for side, worker in workers.items():
                numbers[side].append(worker.order(steps=bench.steps)["seconds"] / bench.steps)
    return numbers


def at_the_best_batch(bench: Bench, job: str, lengths: list[int]) -> Numbers:
    """Seconds a sequence: of each side, at the batch size at which it is fastest."""
    best: Numbers = {}
    for side in bench.sides:
        for B in BATCHES[:1] if bench.check else BATCHES:
            with Worker(side, bench) as worker:
                try:
                    worker.order(job=job, lengths=lengths * B)
                    worker.order(steps=WARM_UP)
                    turns = [worker.order(steps=bench.steps) for _ in range(bench.rounds)]
                except OutOfMemory:
                    break
            numbers = [turn["seconds"] / bench.steps / B for turn in turns]
            if side not in best or Spread.of(numbers).median < Spread.of(best[side]).median:
                best[side] = numbers
    return best


def peak_memory(bench: Bench, job: str, lengths: list[int]) -> Numbers:
    """Bytes that the process holds on the device."""
    return _asked(bench, job, lengths, "memory")


def launches(bench: Bench, job: str, lengths: list[int]) -> Numbers:
    """Kernels and copies of one step."""
    return _asked(bench, job, lengths, "launches")


def _asked(bench: Bench, job: str, lengths: list[int], what: str) -> Numbers:
    numbers: Numbers = {}
    for side in bench.sides:
        with Worker(side, bench) as worker:
            worker.order(job=job, lengths=lengths)
            worker.order(steps=WARM_UP)
            numbers[side] = [float(worker.order(ask=what)[what])]
    return numbers


def first_step(bench: Bench, job: str, lengths: list[int]) -> Numbers:
    """Seconds from the start of a process until its first step is done, no kernel compiled yet."""
    return _first_steps(bench, job, lengths)[0]


def first_step_again(bench: Bench, job: str, lengths: list[int]) -> Numbers:
    """The same when everything compiled lies in its cache."""
    return _first_steps(bench, job, lengths)[1]


def _first_steps(bench: Bench, job: str, lengths: list[int]) -> tuple[Numbers, Numbers]:
    cold: Numbers = {}
    warm: Numbers = {}
    for side in bench.sides:
        with tempfile.TemporaryDirectory() as cache:
            names = ("CUPY_CACHE_DIR", "CUDA_CACHE_PATH", "TORCHINDUCTOR_CACHE_DIR")
            environment = {name: f"{cache}/{name}" for name in (*names, "TRITON_CACHE_DIR")}
            for numbers in (cold, warm):
                start = time.perf_counter()
                with Worker(side, bench, environment) as worker:
                    worker.order(job=job, lengths=lengths)
                    worker.order(steps=1)
                    numbers[side] = [time.perf_counter() - start]
    return cold, warm


# ---- Cases ----


def mixed_lengths(count: int) -> list[int]:
    """As sentences have them: quantiles of a log-normal distribution, mean 25, at most 60."""
    normal = NormalDist(math.log(25) - 0.5**2 / 2, 0.5)
    return [min(round(math.exp(normal.inv_cdf((i + 0.5) / count))), 60) for i in range(count)]


class Case(NamedTuple):
    measure: Callable[[Bench, str, list[int]], Numbers]
    job: str
    lengths: list[int]
    what: str
    unit: str = "ms"


EQUAL, MIXED = [128] * 32, mixed_lengths(32)
CASES = {
    "train-32x128": Case(a_step, "train", EQUAL, "a training step, 32 × 128 tokens"),
    "train-mixed": Case(
        a_step, "train", MIXED, "a training step, 32 sentences, padded to the longest by PyTorch"
    ),
    "train-squad": Case(
        at_the_best_batch, "train", [384], "training, length 384, each side's best batch", "seq/s"
    ),
    "infer-32x128": Case(a_step, "infer", EQUAL, "inference, 32 × 128 tokens"),
    "infer-mixed": Case(a_step, "infer", MIXED, "inference, 32 sentences"),
    "memory": Case(peak_memory, "train", EQUAL, "peak memory of training 32 × 128", "MB"),
    "launches": Case(launches, "train", EQUAL, "kernels and copies of a step, 32 × 128", ""),
    "first-step": Case(first_step, "train", EQUAL, "start to first step, nothing compiled", "s"),
    "first-step-warm": Case(first_step_again, "train", EQUAL, "the same, all in caches", "s"),
}


# ---- The report ----


def flops(case: Case) -> float:
    """Of a step's products, on real tokens."""
    import numpy as np

    from minibert import BertConfig
    from minibert.packing import pack_sequences
    from minibert.training.throughput import training_flops

    batch = pack_sequences([np.zeros(n, np.int64) for n in case.lengths])
    return training_flops(BertConfig(), batch) / (1 if case.job == "train" else 3)


def row(name: str, numbers: Numbers, rate: float, check: bool) -> list[str]:
    """A line of the table: each side, how many times as fast as eager, share of the rate."""
    case = CASES[name]
    show = {
        "ms": lambda x: f"{1e3 * x:,.2f} ms",
        "s": lambda x: f"{x:,.1f} s",
        "MB": lambda x: f"{1e-6 * x:,.0f} MB",
        "seq/s": lambda x: f"{1 / x:,.0f} seq/s",
        "": lambda x: f"{x:,.0f}",
    }[case.unit]
    cells = [show(Spread.of(numbers[side]).median) if numbers.get(side) else "–" for side in SIDES]
    times = "–"
    if numbers.get("eager") and numbers.get("minibert") and all(numbers["minibert"]):
        pairs = zip(numbers["eager"], numbers["minibert"], strict=True)
        spread = Spread.of([theirs / ours for theirs, ours in pairs])
        times = f"{spread.median:.2f} ({spread.low:.2f} – {spread.high:.2f})"
    share = "–"
    if case.unit in ("ms", "seq/s") and numbers.get("minibert") and not check:
        share = f"{flops(case) / Spread.of(numbers['minibert']).median / rate:.0%}"
    return [name, *cells, times, share]


def report(results: dict[str, Numbers], rates: dict[str, float], bench: Bench) -> str:
    header = ["case", *SIDES, "eager ÷ minibert", "of the matrix rate"]
    best = max(rates.values())
    rows = [row(name, numbers, best, bench.check) for name, numbers in results.items()]
    lines = [markdown(header, rows), ""]
    lines += [f"- {name}: {CASES[name].what}" for name in results]
    measured = ", ".join(f"{side} {rate / 1e12:,.1f} TFLOP/s" for side, rate in rates.items())
    settings = {"precision": bench.precision, "GPU": gpu_name(), "dropout": "0.1"}
    settings |= machine(PACKAGES)
    lines += ["", f"matrix rate ({bench.precision}): {measured}"]
    lines += ["", ", ".join(f"{name} {value}" for name, value in settings.items())]
    if bench.check:
        lines += ["", "A check of the benchmark on a CPU with a tiny model: no measurement."]
    return "\n".join(lines)


def gpu_name() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"


def matrix_rates(bench: Bench) -> dict[str, float]:
    """FLOP/s of large products in this precision, by minibert and by PyTorch."""
    rates = {}
    for side in bench.sides[:2]:
        with Worker(side, bench) as worker:
            rates[side] = float(worker.order(ask="rate")["rate"])
    return rates


# ---- Running ----


def make_model(directory: Path, tiny: bool) -> None:
    """Random weights in the shapes of BERT-base."""
    from minibert import BertConfig, BertForSequenceClassification

    sizes: dict[str, Any] = {"num_labels": 2}
    if tiny:
        sizes |= {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        sizes |= {"intermediate_size": 32}
    BertForSequenceClassification(BertConfig(**sizes), backend="numpy").save_pretrained(directory)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="minibert against transformers on a GPU.")
    parser.add_argument("--precision", choices=PRECISIONS, default="tf32", help="of all sides")
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, metavar="SIDE",
                        help=", ".join(SIDES))  # fmt: skip
    parser.add_argument("--rounds", type=int, default=9, help="turns of each side")
    parser.add_argument("--steps", type=int, default=20, help="steps in a turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--check", action="store_true", help="try the benchmark on a CPU")
    args = parser.parse_args()
    args.cases = args.cases or list(CASES)
    if missing := [
        name for name in ("torch", "transformers") if not importlib.util.find_spec(name)
    ]:
        parser.error(f"needs {' and '.join(missing)}: python -m pip install -e '.[crosscheck]'")
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
    results: dict[str, Numbers] = {}
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "model"
        make_model(directory, args.check)
        bench = Bench(
            directory, args.precision, tuple(args.sides), args.rounds, args.steps, args.check
        )
        rates = matrix_rates(bench)
        for name in args.cases:
            print(f"{name} …", file=sys.stderr, flush=True)
            case = CASES[name]
            results[name] = case.measure(bench, case.job, case.lengths)
            if args.json is not None:  # after each case, so that a run that is stopped leaves some
                content = {"rates": rates, "cases": results, "gpu": gpu_name()}
                args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(report(results, rates, bench))


if __name__ == "__main__":
    main()
