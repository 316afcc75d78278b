"""One side of `cpu.py`, in a process of its own: does jobs and says how long they took.

    python benchmarks/_cpu_worker.py SIDE MODEL_DIRECTORY

A line on standard input is a job and a number of steps, `train-32x128 1`; the answer is one line of
JSON with the seconds of each. At the end of the input it says the process's peak resident memory,
in bytes. Jobs are `train-FORM` and `infer-FORM`; `_cpu_sides.py` has the forms.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import _common  # noqa: F401  (puts this folder last on the path)
from _cpu_sides import SIDES, Side, Step, make_batches


def peak_memory() -> int:
    """Bytes of resident memory at their highest."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def make_step(side: Side, job: str) -> Step:
    kind, _, form = job.partition("-")
    batches = make_batches(form)
    return side.training(batches) if kind == "train" else side.inference(batches)


def serve(side: Side) -> None:
    """Answer every line of the input."""
    steps: dict[str, Step] = {}
    for line in sys.stdin:
        job, count = line.split()
        if job not in steps:
            steps[job] = make_step(side, job)
        seconds = []
        for _ in range(int(count)):
            start = time.perf_counter()
            steps[job]()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)
    print(json.dumps(peak_memory()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="One side of benchmarks/cpu.py.")
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("directory")
    args = parser.parse_args()
    serve(SIDES[args.side](args.directory))


if __name__ == "__main__":
    main()
