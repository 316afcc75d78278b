"""The sides of `cpu.py`: each makes a training or an inference step over the same batches.

A side imports its framework when it is made, so that a process has the one it runs and no other.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol

Step = Callable[[], object]
MEAN_LENGTH, MAX_LENGTH, LOG_SIGMA = 25, 60, 0.5
POOL, BATCH = 4, 32  # mixed lengths: 128 sentences, in 4 batches
LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 1e-5, 0.01, 1.0


# ---- Batches ----


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
    return [int(n) for n in np.random.default_rng(0).permutation(lengths)]


def make_batch(lengths: list[int]) -> Batch:
    """Random ids, padded to the longest; the same on all sides."""
    import numpy as np

    rng = np.random.default_rng(sum(lengths))
    B, S = len(lengths), max(lengths)
    mask = (np.arange(S) < np.array(lengths)[:, None]).astype(np.int64)
    return Batch(rng.integers(1000, 30000, (B, S)) * mask, mask, rng.integers(0, 2, B))


def make_batches(form: str) -> list[Batch]:
    """`BxS`; `mixed`, the pool, or `grouped`, the pool sorted by length; `Bmixed`, B sentences."""
    if form in ("mixed", "grouped"):
        lengths = mixed_lengths(POOL * BATCH)
        lengths = sorted(lengths) if form == "grouped" else lengths
        return [make_batch(lengths[i * BATCH : (i + 1) * BATCH]) for i in range(POOL)]
    if form.endswith("mixed"):
        return [make_batch(mixed_lengths(int(form.removesuffix("mixed"))))]
    count, length = map(int, form.split("x"))
    return [make_batch([length] * count)]


# ---- Sides. Their threads follow OMP_NUM_THREADS ----


class Side(Protocol):
    """What a worker runs."""

    def training(self, batches: list[Batch]) -> Step: ...

    def inference(self, batches: list[Batch]) -> Step: ...


class Minibert:
    """minibert as it comes."""

    def __init__(self, directory: str, checkpointing: bool = False) -> None:
        from minibert import BertForSequenceClassification

        self.model = BertForSequenceClassification.from_pretrained(directory, backend="numpy")
        self.model.gradient_checkpointing = checkpointing
        self._update: Callable[[Any], object] | None = None

    def inference(self, batches: list[Batch]) -> Step:
        supply = cycle(batches)

        def step() -> object:
            batch = next(supply)
            return self.model(batch.input_ids, batch.attention_mask)

        return step

    def training(self, batches: list[Batch]) -> Step:
        from minibert.packing import pack

        self._update = update = self._update or self._updating()
        supply = cycle([pack(b.input_ids, b.attention_mask, labels=b.labels) for b in batches])
        return lambda: update(next(supply))

    def _updating(self) -> Callable[[Any], object]:
        """Forward, backward, clipping and AdamW, as the trainer calls them."""
        from minibert.models import Run
        from minibert.optim import Optimizer, clip_scale, global_norm

        model, workers = self.model, self.model.workers
        gradients = model.parameters.zeros_like()
        decayed = model.parameters.layout.decayed
        optimizer = Optimizer(
            model.xp, model.parameters.flat, decayed, weight_decay=WEIGHT_DECAY, workers=workers
        )

        def update(batch: Any) -> object:
            gradients.flat.fill(0)
            output = model.accumulate_gradients(batch, gradients, Run(0, optimizer.steps))
            norm = global_norm(model.xp, gradients.flat, workers)
            optimizer.step(gradients.flat, LEARNING_RATE, clip_scale(norm, MAX_NORM))
            return float(output.loss)

        return update


class Transformers:
    """transformers on PyTorch, with its sdpa attention and fused AdamW; eager, or compiled."""

    def __init__(self, directory: str, compiled: bool = False) -> None:
        import torch
        from transformers import BertForSequenceClassification

        self.model = BertForSequenceClassification.from_pretrained(directory)
        self.call = torch.compile(self.model) if compiled else self.model
        self._optimizer: torch.optim.Optimizer | None = None

    @staticmethod
    def _supply(batches: list[Batch]) -> Iterator[dict[str, Any]]:
        import torch

        return cycle([{k: torch.tensor(a) for k, a in b._asdict().items()} for b in batches])

    def inference(self, batches: list[Batch]) -> Step:
        import torch

        supply = self._supply(batches)
        self.model.eval()

        def step() -> object:
            batch = next(supply)
            with torch.inference_mode():
                return self.call(batch["input_ids"], batch["attention_mask"])

        return step

    def training(self, batches: list[Batch]) -> Step:
        import torch

        model, supply = self.model.train(), self._supply(batches)
        self._optimizer = optimizer = self._optimizer or torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )

        def step() -> object:
            optimizer.zero_grad()
            loss = self.call(**next(supply)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
            optimizer.step()
            return loss.item()

        return step


class OnnxRuntime:
    """ONNX Runtime on the model that torch.onnx exports, with all its own optimisations."""

    def __init__(self, directory: str) -> None:
        import os

        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
        # As fast, and its threads sleep when it is another side's turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "model.onnx")
            export(directory, path)
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )

    def inference(self, batches: list[Batch]) -> Step:
        supply = cycle(batches)

        def step() -> object:
            batch = next(supply)
            ids, mask = batch.input_ids, batch.attention_mask
            return self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})

        return step

    def training(self, batches: list[Batch]) -> Step:
        raise NotImplementedError("ONNX Runtime is for inference")


def export(directory: str, path: str) -> None:
    """The model in that directory as an ONNX file, for batches of any shape."""
    import logging
    import warnings

    import torch
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(directory).eval()
    batch = make_batch([7, 9])
    inputs = [torch.tensor(batch.input_ids), torch.tensor(batch.attention_mask)]
    names = ["input_ids", "attention_mask"]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision
    warnings.simplefilter("ignore", FutureWarning)  # of its own code
    any_shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        model, tuple(inputs), path, dynamo=True, verbose=False, external_data=False,
        input_names=names, output_names=["logits"], dynamic_shapes=dict.fromkeys(names, any_shape),
    )  # fmt: skip


class Products:
    """The matrix products of every row and nothing else: a measure, and no lower bound.

    NumPy's, on shards of whole sequences with one thread each, into arrays that are there already.
    Less time is possible: minibert leaves out rows of the last layer that nobody reads, and cuts a
    single sentence's products so small that OpenBLAS does not copy the weights first. Nor are the
    products here those of a whole model: all layers share one layer's weights, which may stay in
    the cache where a model reads every layer's from memory.
    """

    def __init__(self, directory: str) -> None:
        from minibert import BertConfig
        from minibert.parallel import Workers

        self.config, self.workers = BertConfig.from_pretrained(directory), Workers()

    def inference(self, batches: list[Batch]) -> Step:
        return self._step(batches, times=1)

    def training(self, batches: list[Batch]) -> Step:
        """The backward of a product is two of the same size."""
        return self._step(batches, times=3)

    def _step(self, batches: list[Batch], times: int) -> Step:
        from minibert.packing import pack, split

        packed = (pack(b.input_ids, b.attention_mask) for b in batches)
        shards = [split(batch, self.workers.threads) for batch in packed]
        supply = cycle([[list(self._of(shard.offsets)) for shard in batch] for batch in shards])
        repeats = times * self.config.num_hidden_layers

        def run(products: list[Callable[[], object]]) -> None:
            for _ in range(repeats):
                for product in products:
                    product()

        return lambda: self.workers.map(run, next(supply))

    def _of(self, offsets: tuple[int, ...]) -> Iterator[Step]:
        """One layer's forward products on one shard."""
        import numpy as np

        H, F, N = (
            self.config.hidden_size, self.config.intermediate_size, self.config.num_attention_heads
        )  # fmt: skip
        T = offsets[-1]
        for width, rows in ((H, 3 * H), (H, H), (H, F), (F, H)):
            yield self._product(T, width, rows)
        qkv, context = np.ones((T, 3, N, H // N), np.float32), np.empty((T, N, H // N), np.float32)
        for start, stop in pairwise(offsets):
            q, k, v = qkv[start:stop].transpose(1, 2, 0, 3)
            scores, into = np.empty((N, len(q[0]), len(q[0])), np.float32), context[start:stop]
            yield partial(np.matmul, q, k.transpose(0, 2, 1), out=scores)
            yield partial(np.matmul, scores, v, out=into.transpose(1, 0, 2))

    @staticmethod
    def _product(T: int, width: int, rows: int) -> Step:
        import numpy as np

        x, W = np.ones((T, width), np.float32), np.ones((rows, width), np.float32)
        y = np.empty((T, rows), np.float32)
        return partial(np.matmul, x, W.T, out=y)


SIDES: dict[str, Callable[[str], Side]] = {
    "minibert": Minibert,
    "minibert-checkpointing": lambda directory: Minibert(directory, checkpointing=True),
    "eager": Transformers,
    "compiled": lambda directory: Transformers(directory, compiled=True),
    "onnx": OnnxRuntime,
    "products": Products,
}
