"""One side of `cpu.py`, in a process of its own: does one job and says how long it took.

    python benchmarks/_cpu_worker.py {minibert,transformers} JOB MODEL_DIRECTORY

JOB is `train-FORM` or `infer-FORM`; FORM is `BxS` (B sequences of S tokens), `mixed` (32 sentences)
or `grouped` (256 sentences in 8 batches, one after the other). A line on standard input is a number
of steps; the answer is one line of JSON with the seconds of each. At the end of the input it says
the process's peak resident memory, in bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from statistics import NormalDist
from typing import Any, NamedTuple

Step = Callable[[], object]
MEAN_LENGTH, MAX_LENGTH, LOG_SIGMA = 25, 60, 0.5
GROUPS, GROUP = 8, 32  # a pool of 256 sequences is cut into 8 batches
LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 1e-5, 0.01, 1.0


class Batch(NamedTuple):
    """Padded NumPy arrays: (B, S), (B, S), (B,)."""

    input_ids: Any
    attention_mask: Any
    labels: Any


def mixed_lengths(count: int) -> list[int]:
    """Lengths as sentences have them: quantiles of a log-normal distribution, shuffled."""
    import numpy as np

    mu = math.log(MEAN_LENGTH) - LOG_SIGMA**2 / 2
    normal = NormalDist(mu, LOG_SIGMA)
    quantiles = (math.exp(normal.inv_cdf((i + 0.5) / count)) for i in range(count))
    lengths = [min(round(n), MAX_LENGTH) for n in quantiles]
    return np.random.default_rng(0).permutation(lengths).tolist()


def make_batch(lengths: list[int]) -> Batch:
    """Random ids, padded to the longest; the same on both sides."""
    import numpy as np

    rng = np.random.default_rng(sum(lengths))
    B, S = len(lengths), max(lengths)
    mask = (np.arange(S) < np.array(lengths)[:, None]).astype(np.int64)
    return Batch(rng.integers(1000, 30000, (B, S)) * mask, mask, rng.integers(0, 2, B))


def make_batches(form: str, group_by_length: bool) -> list[Batch]:
    """`form` is `BxS`, `mixed` (one batch) or `grouped` (the pool, in batches)."""
    if form == "mixed":
        return [make_batch(mixed_lengths(GROUP))]
    if form == "grouped":
        lengths = mixed_lengths(GROUPS * GROUP)
        lengths = sorted(lengths) if group_by_length else lengths
        return [make_batch(lengths[i * GROUP : (i + 1) * GROUP]) for i in range(GROUPS)]
    count, length = map(int, form.split("x"))
    return [make_batch([length] * count)]


class Minibert:
    """minibert as it comes. Its threads follow OMP_NUM_THREADS."""

    groups = False  # batches cost what their real tokens cost, in any order

    def __init__(self, directory: str) -> None:
        from minibert import BertForSequenceClassification

        self.model = BertForSequenceClassification.from_pretrained(directory, backend="numpy")

    def inference(self, batches: list[Batch]) -> Step:
        supply = cycle(batches)

        def step() -> object:
            batch = next(supply)
            return self.model(batch.input_ids, batch.attention_mask)

        return step

    def training(self, batches: list[Batch]) -> Step:
        """Forward, backward, clipping and AdamW, as the trainer calls them."""
        from minibert.models import Run
        from minibert.optim import Optimizer, clip_scale, global_norm
        from minibert.packing import pack

        model, workers = self.model, self.model.workers
        supply = cycle([pack(b.input_ids, b.attention_mask, labels=b.labels) for b in batches])
        gradients = model.parameters.zeros_like()
        decayed = model.parameters.layout.decayed
        optimizer = Optimizer(
            model.xp, model.parameters.flat, decayed, weight_decay=WEIGHT_DECAY, workers=workers
        )

        def step() -> object:
            gradients.flat.fill(0)
            output = model.accumulate_gradients(next(supply), gradients, Run(0, optimizer.steps))
            norm = global_norm(model.xp, gradients.flat, workers)
            optimizer.step(gradients.flat, LEARNING_RATE, clip_scale(norm, MAX_NORM))
            return float(output.loss)

        return step


class Transformers:
    """transformers on eager PyTorch, as it comes. Its threads follow OMP_NUM_THREADS."""

    groups = True  # in a pool of batches: a short sequence beside a long one costs its padding

    def __init__(self, directory: str, optimizer: str) -> None:
        from transformers import BertForSequenceClassification

        self.model = BertForSequenceClassification.from_pretrained(directory)
        self.optimizer = {"fused": True} if optimizer == "fused" else {}

    @staticmethod
    def _supply(batches: list[Batch]) -> Iterator[dict[str, Any]]:
        import torch

        return cycle([{k: torch.tensor(a) for k, a in b._asdict().items()} for b in batches])

    def inference(self, batches: list[Batch]) -> Step:
        import torch

        model, supply = self.model.eval(), self._supply(batches)

        def step() -> object:
            batch = next(supply)
            with torch.inference_mode():
                return model(batch["input_ids"], batch["attention_mask"])

        return step

    def training(self, batches: list[Batch]) -> Step:
        import torch

        model, supply = self.model.train(), self._supply(batches)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, **self.optimizer
        )

        def step() -> object:
            optimizer.zero_grad()
            loss = model(**next(supply)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            return loss.item()

        return step


def peak_memory() -> int:
    """Bytes of resident memory at their highest."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB


def serve(step: Step) -> None:
    """Answer every line of the input."""
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)
    print(json.dumps(peak_memory()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="One side of benchmarks/cpu.py.")
    parser.add_argument("side", choices=("minibert", "transformers"))
    parser.add_argument("job")
    parser.add_argument("directory")
    parser.add_argument("--torch-optimizer", choices=("default", "fused"), default="fused")
    args = parser.parse_args()
    kind, _, form = args.job.partition("-")
    side: Minibert | Transformers
    if args.side == "minibert":
        side = Minibert(args.directory)
    else:
        side = Transformers(args.directory, args.torch_optimizer)
    batches = make_batches(form, side.groups)
    serve(side.training(batches) if kind == "train" else side.inference(batches))


if __name__ == "__main__":
    main()
