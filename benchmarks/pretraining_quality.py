"""Does pretraining help? The movie reviews from a pretrained model and from random weights.

    python scripts/pretrain.py --corpus novels.tar.xz --output_dir outputs/novels …
    python benchmarks/pretraining_quality.py outputs/novels [--seeds 0 1 2] [--threads 2]

Both sides are scripts/finetune.py with the same flags, vocabulary and architecture; the random
weights are drawn anew for each seed. Accuracy is that on the test part (1,054 reviews).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from _common import markdown

from minibert import BertConfig, BertForPreTraining, BertTokenizer
from minibert.io.command_line import run

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "finetune.py"


def main() -> None:
    options = parse_arguments()
    scores: dict[str, list[float]] = {"pretrained": [], "random weights": []}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            starts = {"pretrained": options.model, "random weights": f"{folder}/random"}
            draw(options.model, starts["random weights"], seed)
            for name, start in starts.items():
                accuracy = finetune(start, f"{folder}/{name}", seed, options)
                scores[name].append(100 * accuracy)
                print(f"seed {seed}  {name:14}  {100 * accuracy:.2f}", flush=True)
    rows = [
        (name, f"{statistics.mean(values):.2f}", ", ".join(f"{value:.2f}" for value in values))
        for name, values in scores.items()
    ]
    print("\n" + markdown(("movie reviews, from", "accuracy", "each seed"), rows))
    gain = statistics.mean(scores["pretrained"]) - statistics.mean(scores["random weights"])
    print(f"\npretraining gains {gain:.2f} points")


def draw(model: str, directory: str, seed: int) -> None:
    """The same architecture and vocabulary with random weights."""
    config, tokenizer = BertConfig.from_pretrained(model), BertTokenizer.from_pretrained(model)
    random = BertForPreTraining(config, backend="numpy", seed=1000 + seed)
    random.save_pretrained(directory, tokenizer=tokenizer)


def finetune(start: str, output: str, seed: int, options: argparse.Namespace) -> float:
    """Test accuracy after fine-tuning the model in `start`."""
    flags = {
        "model_name_or_path": start, "output_dir": output, "seed": seed,
        "num_train_epochs": options.epochs, "learning_rate": options.learning_rate,
        "threads": options.threads,
    }  # fmt: skip
    command = [sys.executable, str(SCRIPT), "--group_by_length", "--disable_tqdm"]
    command += [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    results = json.loads((Path(output) / "all_results.json").read_text())
    return float(results["test_accuracy"])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="the output directory of scripts/pretrain.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
