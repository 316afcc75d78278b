"""Does pretraining help? The movie reviews from a pretrained model and from random weights.

    python scripts/pretrain.py --corpus novels.tar.xz --output_dir outputs/novels …
    python benchmarks/pretraining_quality.py outputs/novels [--epochs 1 3] [--learning_rate 2e-4 …]

All sides are scripts/finetune.py with the same flags, vocabulary and architecture, for each number
of epochs and learning rate (its own are 1 and 2e-4). Random weights are drawn for each seed as
Hugging Face does, at 0.02; on the third side as the pretrained model's were, with embedding tables
as narrow as its are now, which alone lets words learn sooner. Accuracies are means over the seeds
on the validation part (1,056 reviews), by which a rate is to be chosen, and the test part (1,054).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _common import markdown, positive

from minibert import BertConfig, BertForPreTraining, BertTokenizer
from minibert.io.command_line import Parser, run
from minibert.training.counted_start import POSITIONS, TYPES, WORDS

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "finetune.py"
HUGGING_FACE = BertConfig().initializer_range
SIDES = ("pretrained", "random weights", "random, narrow tables")


def main() -> None:
    options = parse_arguments()
    for epochs in options.epochs:
        rows, best = [], dict.fromkeys(SIDES, (0.0, 0.0))
        for rate in options.learning_rate:
            row = [f"{rate:g}"]
            for side, scores in measure(epochs, rate, options).items():
                validation, test = (statistics.mean(part) for part in zip(*scores, strict=True))
                best[side] = max(best[side], (validation, test))
                each = ", ".join(f"{score:.2f}" for _, score in scores)
                row += [f"{validation:.2f}", f"{test:.2f}", each]
            rows.append(tuple(row))
        report(epochs, rows, best)


def report(
    epochs: float, rows: list[tuple[str, ...]], best: dict[str, tuple[float, float]]
) -> None:
    parts = ("validation", "test", "each seed")
    columns = [f"{side}: {part}" for side in SIDES for part in parts]
    print("\n" + markdown((f"learning rate ({epochs:g} epochs)", *columns), rows))
    print("\neach at its best rate by validation, pretraining gains")
    for side in SIDES[1:]:
        validation, test = (a - b for a, b in zip(best[SIDES[0]], best[side], strict=True))
        print(f"{test:.2f} points (test), {validation:.2f} (validation) over {side}")
    print(flush=True)


def measure(
    epochs: float, rate: float, options: argparse.Namespace
) -> dict[str, list[tuple[float, float]]]:
    """Validation and test accuracy of both sides, for each seed."""
    scores: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            starts = options.model, f"{folder}/random", f"{folder}/narrow"
            draw(options.model, *starts[1:], seed)
            for side, start in zip(SIDES, starts, strict=True):
                recipe = {"seed": seed, "num_train_epochs": epochs, "learning_rate": rate}
                pair = finetune(start, f"{folder}/finetuned", recipe, options.threads)
                scores[side].append(pair)
                print(
                    f"{epochs:g} epochs  rate {rate:g}  seed {seed}  {side:24} {pair[1]:.2f}",
                    flush=True,
                )
    return scores


def draw(model: str, directory: str, narrow: str, seed: int) -> None:
    """The same architecture and vocabulary with random weights, and with narrow tables."""
    pretrained = BertForPreTraining.from_pretrained(model, backend="numpy")
    config, tokenizer = pretrained.config, BertTokenizer.from_pretrained(model)
    usual = config.replace(initializer_range=HUGGING_FACE)
    random = BertForPreTraining(usual, backend="numpy", seed=1000 + seed)
    random.save_pretrained(directory, tokenizer=tokenizer)
    random = BertForPreTraining(config, backend="numpy", seed=1000 + seed)
    width = pretrained.parameters[WORDS].std() / config.initializer_range
    for name in (WORDS, POSITIONS, TYPES):
        random.parameters[name][...] *= width
    random.save_pretrained(narrow, tokenizer=tokenizer)


def finetune(
    start: str, output: str, recipe: dict[str, float], threads: int
) -> tuple[float, float]:
    """Validation and test accuracy in percent after fine-tuning the model in `start`."""
    flags = recipe | {"model_name_or_path": start, "output_dir": output, "threads": threads}
    command = [sys.executable, str(SCRIPT), "--group_by_length", "--disable_tqdm"]
    command += ["--overwrite_output_dir"]
    command += [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results = json.loads((Path(output) / "all_results.json").read_text())
    return 100 * results["eval_accuracy"], 100 * results["test_accuracy"]


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("model", help="the output directory of scripts/pretrain.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--learning_rate", type=float, nargs="+", default=[2e-4, 5e-4, 1e-3])
    parser.add_argument("--threads", type=positive, default=2)
    args: argparse.Namespace = parser.parse_args()
    return args


if __name__ == "__main__":
    run(main)
