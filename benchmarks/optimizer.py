"""AdamW on the parameters of BERT-base: minibert against torch.optim.AdamW, interleaved.

    python benchmarks/optimizer.py [--parameters 110000000] [--threads 2] [--rounds 7]

Prints the median time of one update and its quartiles (of fewer than five rounds the least and the
greatest), in Markdown. The rows of torch need torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from _common import Spread, describe, markdown, positive

from minibert.io.command_line import Parser, run
from minibert.optim import Optimizer, global_norm
from minibert.parallel import Workers

Subject = Callable[[], object]
VARIANTS_OF_TORCH = (("plain", False, False), ("foreach", True, False), ("fused", False, True))


def minibert_subjects(start: np.ndarray, gradient: np.ndarray, threads: int) -> dict[str, Subject]:
    workers, size = Workers(threads), start.size
    optimizer = Optimizer(np, start.copy(), size, weight_decay=0.01, workers=workers)
    return {
        "minibert AdamW": lambda: optimizer.step(gradient, 1e-5, 0.5),
        "minibert global norm": lambda: global_norm(np, gradient, workers),
    }


def naive_subject(start: np.ndarray, gradient: np.ndarray) -> Subject:
    """The textbook's lines on the whole buffer, with a temporary for each operation."""
    p, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    steps = 0

    def step() -> None:
        nonlocal p, m, v, steps
        steps += 1
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        corrected, scale = m / (1 - 0.9**steps), v / (1 - 0.999**steps)
        p = p - 1e-5 * (corrected / (np.sqrt(scale) + 1e-8) + 0.01 * p)

    return step


def torch_subjects(start: np.ndarray, gradient: np.ndarray, threads: int) -> dict[str, Subject]:
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    torch.set_num_threads(threads)
    subjects: dict[str, Subject] = {}
    for name, foreach, fused in VARIANTS_OF_TORCH:
        parameter = torch.from_numpy(start.copy()).requires_grad_()
        parameter.grad = torch.from_numpy(gradient)
        adamw = torch.optim.AdamW(
            [parameter], lr=1e-5, weight_decay=0.01, foreach=foreach, fused=fused
        )
        subjects[f"torch AdamW, {name}"] = adamw.step
    return subjects


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--parameters", type=positive, default=110_000_000)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, default=7)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    start = rng.standard_normal(args.parameters, dtype=np.float32)
    gradient = rng.standard_normal(args.parameters, dtype=np.float32) * np.float32(1e-3)
    subjects = minibert_subjects(start, gradient, args.threads)
    subjects["NumPy AdamW, unblocked"] = naive_subject(start, gradient)
    subjects |= torch_subjects(start, gradient, args.threads)

    times: dict[str, list[float]] = {name: [] for name in subjects}
    for round_number in range(args.rounds + 1):
        for name, subject in subjects.items():
            before = time.perf_counter()
            subject()
            if round_number:  # the first touches its memory
                times[name].append(1e3 * (time.perf_counter() - before))

    rows = [
        [name, f"{spread.median:.0f}", f"{spread.low:.0f} – {spread.high:.0f}"]
        for name, spread in ((name, Spread.of(taken)) for name, taken in times.items())
    ]
    print(markdown(["one update", "median ms", "spread"], rows), end="\n\n")
    settings = {"parameters": f"{args.parameters:,} float32", "threads": args.threads}
    print(describe(settings, ("minibert", "numpy", "torch")))


if __name__ == "__main__":
    run(main)
