"""Pretraining steps by minibert and by transformers on eager PyTorch, timed in turns.

    python benchmarks/pretraining_speed.py novels/ [--model_size mini] [--threads 2] [--rounds 7]

Both sides have the same weights (float32) and the same batches of 32 × 128 tokens with the same
masks: forward, backward, clipping and AdamW. PyTorch gets its tensors ready made; minibert packs
its batches from the store inside its time. Needs the [crosscheck] extra.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from _common import Spread, machine, markdown, positive, require

from minibert.data.corpus import Corpus
from minibert.data.masking import Masking
from minibert.data.pretraining import Phase, PretrainingData
from minibert.data.segments import SentencePairs, hold_out
from minibert.data.tokenizing import tokenised
from minibert.io.command_line import Parser, run
from minibert.models import BertForPreTraining
from minibert.models.sizes import SIZES, sized_config
from minibert.packing import PackedBatch, unpack
from minibert.tasks.pre_training import PreTraining
from minibert.tokenization.training import train_tokenizer
from minibert.training.pretraining_arguments import PretrainingArguments
from minibert.training.trainer import Trainer


def main() -> None:
    options = parse_arguments()
    for name, value in machine(["numpy", "torch", "transformers"]).items():
        print(f"{name}: {value}")
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(options, Path(folder))
        trainer.model.save_pretrained(f"{folder}/model")
        addresses = endless(trainer)

        def ours() -> None:
            trainer.step(trainer.train_features.batch(next(addresses)))

        theirs = make_theirs(f"{folder}/model", trainer, options.threads)
        times: dict[str, list[float]] = {"minibert": [], "transformers": []}
        for round_ in range(options.rounds + 1):
            for name, step in (("minibert", ours), ("transformers", theirs)):
                seconds = timed(step, options.steps)
                if round_:  # the first warms up
                    times[name].append(seconds)
    ratio = Spread.of([a / b for a, b in zip(*times.values(), strict=True)])
    rows = [(name, f"{1000 * Spread.of(sample).median:.1f}") for name, sample in times.items()]
    print("\n" + markdown((f"{options.model_size}, 32 × 128", "ms a step"), rows))
    print(f"\nminibert ÷ transformers: {ratio.median:.3f} ({ratio.low:.3f} … {ratio.high:.3f})")


def timed(step: Callable[[], None], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def make_trainer(options: argparse.Namespace, folder: Path) -> Trainer:
    corpus = Corpus([options.corpus])
    tokenizer = train_tokenizer((p.text for p in corpus.paragraphs()), options.vocab_size)
    store = tokenised(corpus, tokenizer, folder / "store")
    rule = SentencePairs(store, hold_out(store, 0, 0)[0], 128)
    data = PretrainingData(Masking.by(tokenizer), (Phase(rule),))
    config = sized_config(options.model_size, len(tokenizer))
    model = BertForPreTraining(config, backend="numpy", threads=options.threads)
    args = PretrainingArguments(
        max_steps=10**6, threads=options.threads, output_dir=str(folder), optim="adamw_torch",
        adam_epsilon=1e-8,
    )  # fmt: skip
    return Trainer(model, args, PreTraining(), data)


def endless(trainer: Trainer) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from trainer.order.epoch(epoch)
        epoch += 1


def make_theirs(directory: str, trainer: Trainer, threads: int) -> Callable[[], None]:
    """A step of transformers' model on the same batches."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.BertForPreTraining.from_pretrained(directory).train()
    plain = [p for n, p in model.named_parameters() if "bias" in n or "LayerNorm" in n]
    decayed = [p for n, p in model.named_parameters() if not ("bias" in n or "LayerNorm" in n)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
    addresses = islice(endless(trainer), 16)
    ready = [padded(trainer.train_features.batch(address)) for address in addresses]
    count = 0

    def step() -> None:
        nonlocal count
        batch = {name: torch.from_numpy(a) for name, a in ready[count % len(ready)].items()}
        count += 1
        optimizer.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def padded(batch: PackedBatch) -> dict[str, np.ndarray]:
    """A packed batch as transformers takes it; −100 at padding."""
    assert batch.token_labels is not None
    ones = np.ones(batch.num_tokens, np.int64)
    arrays: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": ones}
    arrays |= {"token_type_ids": batch.token_type_ids, "labels": batch.token_labels + 100}
    arrays = {name: unpack(np, values, batch) for name, values in arrays.items()}
    arrays["labels"] -= 100
    return arrays | {"next_sentence_label": batch.labels}


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("corpus", help="text, as scripts/pretrain.py takes it")
    parser.add_argument("--model_size", choices=SIZES, default="mini")
    parser.add_argument("--vocab_size", type=positive, default=8000)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, default=7)
    parser.add_argument("--steps", type=positive, default=5, help="of each round")
    args: argparse.Namespace = parser.parse_args()
    require(("torch", "transformers"), "crosscheck")
    return args


if __name__ == "__main__":
    run(main)
