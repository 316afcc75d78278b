"""One side of `gpu.py`, in a process of its own.

    python benchmarks/_gpu_worker.py {minibert,eager,compile} PRECISION MODEL_DIRECTORY [--check]

A line on standard input is a JSON object, and so is the line that answers it:

    {"job": "train", "infer" or "squad",               take up a job              {}
     "lengths": [128, …]}
    {"steps": 10}                                      do so many steps of it     {"seconds": 0.1}
    {"ask": "memory"}                                  peak bytes on the device   {"memory": 1}
    {"ask": "launches"}                                kernels, copies of a step  {"launches": 1,
                                                       and of each name           "kernels": {…}}
    {"ask": "rate"}                                    FLOP/s of large products   {"rate": 1.0}

"train" and "infer" are a classifier's, "squad" trains a model that answers questions. The seconds
are those of all the steps, from the first call until the device is done. What fails answers
{"error": "why", "unfit": whether this side can do nothing at all}; out of memory, say.
--check: on a CPU, to try the benchmark itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import _common  # noqa: F401  (puts this folder last on the path)
import numpy as np

Step = Callable[[], object]
LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 1e-5, 0.01, 1.0
PRODUCT, CHECKED = 8192, 256  # rows and columns of a large matrix, and of one on a CPU


def make_batch(job: str, lengths: list[int]) -> dict[str, Any]:
    """Random ids, padded to the longest; the same on all sides."""
    rng, B, S = np.random.default_rng(sum(lengths)), len(lengths), max(lengths)
    mask = (np.arange(S) < np.array(lengths)[:, None]).astype(np.int64)
    batch = {"input_ids": rng.integers(1000, 30000, (B, S)) * mask, "attention_mask": mask}
    if job == "squad":
        start, end = np.sort(rng.integers(0, lengths, (2, B)), axis=0)
        return batch | {"start_positions": start, "end_positions": end}
    return batch | {"labels": rng.integers(0, 2, B)}


class Minibert:
    """minibert, a step as its trainer does it."""

    def __init__(self, directory: str, precision: str, check: bool) -> None:
        self.directory = directory
        self.how = {"backend": "numpy" if check else "cupy", "precision": precision}
        self.load("BertForSequenceClassification")

    def load(self, name: str) -> None:
        import minibert

        self.model = getattr(minibert, name).from_pretrained(self.directory, **self.how)
        self.xp = self.model.xp

    def infer(self, batch: dict[str, Any]) -> Step:
        packed = self.model.pack(batch["input_ids"], batch["attention_mask"])
        return lambda: self.model.forward(packed)

    def train(self, batch: dict[str, Any]) -> Step:
        from minibert.models import Run
        from minibert.optim import LossScale, Optimizer, clip_scale, global_norm

        model, xp = self.model, self.xp
        packed = model.send_ahead(model.pack(**batch))
        gradients, decayed = model.parameters.zeros_like(), model.parameters.layout.decayed
        optimizer = Optimizer(xp, model.parameters.flat, decayed, weight_decay=WEIGHT_DECAY)
        scaling = LossScale(xp) if xp.precision == "fp16" else None

        def step() -> object:
            gradients.flat.fill(0)
            model.loss_scale = None if scaling is None else scaling.scale
            output = model.accumulate_gradients(packed, gradients, Run(0, optimizer.steps))
            norm = global_norm(xp, gradients.flat, model.workers)
            if scaling is None:
                scale = clip_scale(norm, MAX_NORM)
            else:
                norm, scale = scaling.unscale(norm, MAX_NORM)
            optimizer.step(gradients.flat, LEARNING_RATE, scale)
            model.send_ahead(packed)
            return output.loss

        return step

    def squad(self, batch: dict[str, Any]) -> Step:
        self.load("BertForQuestionAnswering")
        return self.train(batch)

    def synchronize(self) -> None:
        self.xp.synchronize()

    def memory(self) -> int:
        return int(self.xp.memory())

    def multiply(self) -> tuple[Step, int]:
        """A large product, in the type in which the encoder's operands are stored; its size."""
        from minibert.training.throughput import random_matrix

        n = CHECKED if self.xp.name == "numpy" else PRODUCT
        a = random_matrix(self.xp, n, "float32")
        return lambda: self.xp.matmul(a, a), n


class Torch:
    """transformers on PyTorch, eager or compiled."""

    def __init__(self, directory: str, precision: str, check: bool, compiled: bool) -> None:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        self.torch, self.device = torch, "cpu" if check else "cuda"
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.directory, self.compiled = directory, compiled and not check
        self.load("BertForSequenceClassification")

    def load(self, name: str) -> None:
        import transformers

        model = getattr(transformers, name).from_pretrained(self.directory)
        self.model = self.call = model.to(self.device)
        if self.compiled:
            self.call = self.torch.compile(self.model, dynamic=False)

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.dtype is None else self.torch.autocast("cuda", self.dtype)

    def _inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {name: self.torch.tensor(a, device=self.device) for name, a in batch.items()}

    def infer(self, batch: dict[str, Any]) -> Step:
        inputs = self._inputs({name: a for name, a in batch.items() if name != "labels"})
        self.model.eval()

        def step() -> object:
            with self.torch.inference_mode(), self._autocast():
                return self.call(**inputs)

        return step

    def train(self, batch: dict[str, Any]) -> Step:
        torch, model, inputs = self.torch, self.model.train(), self._inputs(batch)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        scaler = torch.amp.GradScaler(self.device, enabled=self.dtype == torch.float16)

        def step() -> object:
            optimizer.zero_grad()
            with self._autocast():
                loss = self.call(**inputs).loss
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            scaler.step(optimizer)
            scaler.update()
            return loss

        return step

    def squad(self, batch: dict[str, Any]) -> Step:
        self.load("BertForQuestionAnswering")
        return self.train(batch)

    def synchronize(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def memory(self) -> int:
        return int(self.torch.cuda.max_memory_reserved()) if self.device == "cuda" else 0

    def multiply(self) -> tuple[Step, int]:
        n = PRODUCT if self.device == "cuda" else CHECKED
        a = self.torch.randn(n, n, device=self.device, dtype=self.dtype or self.torch.float32)
        return lambda: a @ a, n


Side = Minibert | Torch


def seconds(side: Side, step: Step, count: int) -> float:
    side.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        step()
    side.synchronize()
    return time.perf_counter() - start


def launches(side: Side, step: Step) -> dict[str, Any]:
    """What the device was asked for in a step, by PyTorch's profiler: it sees CuPy's work too."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    kernels: dict[str, tuple[int, float]] = {}  # times, microseconds in all
    if torch.cuda.is_available():
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            step()
            side.synchronize()
        for event in seen.events():
            if event.device_type == torch.autograd.DeviceType.CUDA:
                count, time = kernels.get(event.name, (0, 0.0))
                kernels[event.name] = count + 1, time + event.time_range.elapsed_us()
    longest = dict(sorted(kernels.items(), key=lambda pair: -pair[1][1]))
    return {"launches": sum(count for count, _ in kernels.values()), "kernels": longest}


def rate(side: Side) -> float:
    """FLOP/s of a large product."""
    step, n = side.multiply()
    seconds(side, step, 3)
    return 20 * 2.0 * n**3 / seconds(side, step, 20)


def answer_to(order: dict[str, Any], side: Side, step: Step | None) -> dict[str, Any]:
    asked = order.get("ask")
    if asked == "memory":
        return {"memory": side.memory()}
    if asked == "rate":
        return {"rate": rate(side)}
    if step is None:
        raise ValueError("no job was taken up")
    if asked == "launches":
        return launches(side, step)
    return {"seconds": seconds(side, step, order["steps"])}


def serve(make_side: Callable[[], Side], orders: Iterable[str]) -> Iterator[str]:
    """The answer to every order, line by line."""
    side: Side | None = None
    step: Step | None = None
    for line in orders:
        order, answer = json.loads(line), dict[str, Any]()
        try:
            side = side or make_side()
            if "job" in order:
                step = None  # let go of the job before
                step = getattr(side, order["job"])(make_batch(order["job"], order["lengths"]))
            else:
                answer = answer_to(order, side, step)
        except Exception as error:  # whatever it is, the other cases go on
            traceback.print_exc()
            why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            answer = {"error": why, "unfit": side is None}
        yield json.dumps(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description="One side of benchmarks/gpu.py.")
    parser.add_argument("side", choices=("minibert", "eager", "compile"))
    parser.add_argument("precision")
    parser.add_argument("directory")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()

    def make_side() -> Side:
        how = args.directory, args.precision, args.check
        return Minibert(*how) if args.side == "minibert" else Torch(*how, args.side == "compile")

    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    for answer in serve(make_side, sys.stdin):
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
