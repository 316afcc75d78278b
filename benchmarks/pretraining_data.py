"""Does the data of pretraining keep up, and does memory stay as it is when the corpus grows?

    python benchmarks/pretraining_data.py novels.tar.xz
    python benchmarks/pretraining_data.py novels/ --model_size mini --copies 1 10

For each number of copies of the corpus a process of its own tokenises it, and another makes the
batches of an epoch, on one core each. Their memory is what they hold themselves (RssAnon, sampled):
pages of the mapped store are the system's, which takes them back when it needs them. Beside it
stands what training a model of that size takes in, on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

from _common import machine, markdown, positive

from minibert import BertTokenizer
from minibert.data.corpus import Corpus
from minibert.data.masking import Masking
from minibert.data.pretraining import Phase, PretrainingData
from minibert.data.segments import SentencePairs, hold_out
from minibert.data.tokenizing import tokenised
from minibert.io.command_line import Parser, run
from minibert.models import BertForPreTraining
from minibert.models.sizes import SIZES, sized_config
from minibert.tasks.pre_training import PreTraining
from minibert.tokenization.training import train_tokenizer
from minibert.training.pretraining_arguments import PretrainingArguments
from minibert.training.trainer import Trainer

ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


def main() -> None:
    options = parse_arguments()
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
        return
    for name, value in machine(["numpy", "tokenizers"]).items():
        print(f"{name}: {value}")
    with tempfile.TemporaryDirectory() as folder:
        ask(options, "vocabulary", folder, 1)
        rows = []
        for copies in options.copies:
            built = ask(options, "build", folder, copies)
            made = ask(options, "batches", folder, copies)
            numbers = (built["tokens"], built["rate"], built["mib"],
                       1000 * made["start"], made["rate"], made["mib"])  # fmt: skip
            rows.append((f"{copies} ×", *(f"{number:,.0f}" for number in numbers)))
        trained = ask(options, "training", folder, options.copies[0])
    header = ("corpus", "tokens", "tokenised, tokens/s", "MiB", "plan of an epoch, ms",
              "batches, tokens/s", "MiB")  # fmt: skip
    print("\n" + markdown(header, rows))
    print(
        f"\ntraining {options.model_size}: {trained['rate']:,.0f} tokens/s; the data comes "
        f"{made['rate'] / trained['rate']:.0f} × as fast"
    )


def ask(options: argparse.Namespace, part: str, folder: str, copies: int) -> Any:
    """One part in a process of its own."""
    command = [sys.executable, __file__, options.corpus, "--part", part, "--folder", folder]
    command += ["--copies", str(copies), "--model_size", options.model_size]
    command += ["--seconds", str(options.seconds), "--vocab_size", str(options.vocab_size)]
    output = subprocess.check_output(command, env=os.environ | ONE_CORE, text=True)
    return json.loads(output.splitlines()[-1])


class Memory:
    """The most anonymous memory of this process inside the block, in MiB."""

    def __enter__(self) -> Memory:
        self.most, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            (now,) = (int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self.most = max(self.most, now / 1024)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


# ---- Each part: in a process of its own ----


def vocabulary(options: argparse.Namespace) -> dict[str, float]:
    texts = (paragraph.text for paragraph in Corpus([options.corpus]).paragraphs())
    train_tokenizer(texts, options.vocab_size).save_pretrained(Path(options.folder) / "tokenizer")
    return {}


def store_of(options: argparse.Namespace) -> Any:
    tokenizer = BertTokenizer.from_pretrained(Path(options.folder) / "tokenizer")
    corpus = Corpus([options.corpus] * options.copies[0])
    return tokenised(
        corpus, tokenizer, Path(options.folder) / f"store-{options.copies[0]}"
    ), tokenizer


def build(options: argparse.Namespace) -> dict[str, float]:
    start = time.perf_counter()
    with Memory() as memory:
        store, _ = store_of(options)
    seconds = time.perf_counter() - start
    return {"tokens": len(store.ids), "rate": len(store.ids) / seconds, "mib": memory.most}


def data_of(options: argparse.Namespace) -> PretrainingData:
    store, tokenizer = store_of(options)
    rule = SentencePairs(store, hold_out(store, 0, 0)[0], 128)
    return PretrainingData(Masking.by(tokenizer), (Phase(rule),))


def batches(options: argparse.Namespace) -> dict[str, float]:
    data, tokens = data_of(options), 0
    with Memory() as memory:
        begin = time.perf_counter()
        epoch = data.order(0, 32, None, 1).epoch(0)
        start = time.perf_counter()
        for address in epoch:
            tokens += data.batch(address).num_tokens
            if time.perf_counter() - start > options.seconds:
                break
    seconds = time.perf_counter() - start
    return {"rate": tokens / seconds, "mib": memory.most, "start": start - begin}


def training(options: argparse.Namespace) -> dict[str, float]:
    data = data_of(options)
    config = sized_config(options.model_size, data.masking.vocab_size)
    model = BertForPreTraining(config, backend="numpy", threads=1)
    args = PretrainingArguments(max_steps=10**6, threads=1, output_dir=options.folder)
    trainer = Trainer(model, args, PreTraining(), data)
    ready = [data.batch(address) for address in islice(trainer.order.epoch(0), 8)]
    trainer.step(ready[0])
    tokens, start = 0, time.perf_counter()
    while time.perf_counter() - start < options.seconds:
        batch = ready[trainer.state.step % len(ready)]
        trainer.step(batch)
        tokens += batch.num_tokens
    return {"rate": tokens / (time.perf_counter() - start)}


PARTS = {
    "vocabulary": vocabulary,
    "build": build,
    "batches": batches,
    "training": training,
}


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("corpus", help="text, as scripts/pretrain.py takes it")
    parser.add_argument("--copies", type=positive, nargs="+", default=[1, 10])
    parser.add_argument("--model_size", choices=SIZES, default="mini")
    parser.add_argument("--vocab_size", type=positive, default=8000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args: argparse.Namespace = parser.parse_args()
    return args


if __name__ == "__main__":
    run(main)
