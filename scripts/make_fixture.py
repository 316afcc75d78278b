#!/usr/bin/env python3
"""Write tests/fixtures/transformers_*: what transformers computes for a small random BERT.

    python scripts/make_fixture.py [DIR]        (needs the [crosscheck] extra)

The default tests hold minibert to these files without PyTorch; a cross-check test makes them anew.
Nothing in the model is at its initial value (biases, layer norms), and no two sizes are equal.

transformers_inputs.safetensors   weights (float32, exact in float64 too), token ids, labels
transformers_float64.safetensors  results in float64: hidden states, attentions; for each kind of
                                  head logits, loss and gradients; a trajectory of AdamW
transformers_float32.safetensors  the same without attentions and trajectory, in float32
transformers.json                 the configuration and the versions

To stay small, gradients and trajectories of large arrays are thinned out (see `thinned`), except
for one head's float64 gradients, which are whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

from minibert.io import command_line

CONFIG = {
    "vocab_size": 101,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 20,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
HEADS = {"single_label_classification": 3, "regression": 1, "multi_label_classification": 5}
WHOLE = "single_label_classification"  # the head whose gradients are whole, and which is trained
LENGTHS = (15, 1, 9, 13, 2, 9)
STEPS = (1, 2, 3, 10)
ADAMW = {"lr": 1e-3, "weight_decay": 0.01, "eps": 1e-8, "max_norm": 1.0}
Arrays = dict[str, np.ndarray]


def thinned(array: np.ndarray) -> np.ndarray:
    """A small array as it is, of a large one each 17th element (17 divides no size)."""
    return array if array.size <= 512 else array.reshape(-1)[::17].copy()


def make_inputs() -> Arrays:
    """Weights under their names, a head's under "PROBLEM/name", and the batch."""
    rng = np.random.default_rng(20)
    arrays: Arrays = {}
    for problem, labels in HEADS.items():
        config = transformers.BertConfig(**CONFIG, num_labels=labels)
        with torch.device("meta"):
            shapes = transformers.BertForSequenceClassification(config).state_dict()
        for name, parameter in shapes.items():
            key = f"{problem}/{name}" if name.startswith("classifier") else name
            if key not in arrays:
                centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
                arrays[key] = rng.normal(centre, 0.2, tuple(parameter.shape)).astype(np.float32)
    B, S, K = len(LENGTHS), max(LENGTHS), HEADS["multi_label_classification"]
    mask = (np.arange(S) < np.array(LENGTHS)[:, None]).astype(np.int64)
    ids = rng.integers(1, CONFIG["vocab_size"], (B, S)) * mask
    ids[0, 5] = 0  # the padding token, attended to
    return arrays | {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, (B, S)) * mask,
        "single_label_classification/labels": np.array([2, 0, -100, 1, 2, 0]),
        "regression/labels": rng.normal(size=(B, 1)),
        "multi_label_classification/labels": rng.integers(0, 2, (B, K)).astype(np.float64),
    }


def load(inputs: Arrays, problem: str, dtype: torch.dtype) -> torch.nn.Module:
    """The model of transformers with these weights; no dropout, attention spelled out."""
    config = transformers.BertConfig(
        **CONFIG, num_labels=HEADS[problem], problem_type=problem, attn_implementation="eager"
    )
    model = transformers.BertForSequenceClassification(config).to(dtype)
    weights = {
        name: inputs.get(name, inputs.get(f"{problem}/{name}")) for name in model.state_dict()
    }
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return model.eval()


def run(model: torch.nn.Module, inputs: Arrays, problem: str) -> Any:
    """The output, its loss differentiated."""
    labels = torch.tensor(inputs[f"{problem}/labels"])
    output = model(
        **{k: torch.tensor(inputs[k]) for k in ("input_ids", "attention_mask", "token_type_ids")},
        labels=labels.to(model.dtype) if labels.is_floating_point() else labels,
        output_hidden_states=True,
        output_attentions=True,
    )
    model.zero_grad()
    output.loss.backward()
    return output


def results(inputs: Arrays, dtype: torch.dtype) -> Arrays:
    """Hidden states of real tokens (T, H), attentions (B, N, S, S), zero in the rows of padding;
    for each head logits, loss and gradients.
    """
    arrays: Arrays = {}
    real = torch.tensor(inputs["attention_mask"]) == 1
    for problem in HEADS:
        model = load(inputs, problem, dtype)
        output = run(model, inputs, problem)
        whole = dtype == torch.float64 and problem == WHOLE
        arrays[f"{problem}/logits"] = output.logits.detach().numpy()
        arrays[f"{problem}/loss"] = output.loss.detach().numpy()
        for name, parameter in model.named_parameters():
            gradient = parameter.grad.numpy()
            arrays[f"{problem}/gradient/{name}"] = gradient if whole else thinned(gradient)
    for i, hidden in enumerate(output.hidden_states):
        arrays[f"hidden_states/{i}"] = hidden[real].detach().numpy()
    if dtype == torch.float64:
        for i, attention in enumerate(output.attentions):
            arrays[f"attentions/{i}"] = (attention * real[:, None, :, None]).detach().numpy()
    return arrays


def trajectory(inputs: Arrays) -> Arrays:
    """Losses and parameters of ten float64 steps of clipped AdamW, without dropout."""
    model = load(inputs, WHOLE, torch.float64)
    named = list(model.named_parameters())
    plain = [p for name, p in named if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in named if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=ADAMW["lr"], eps=ADAMW["eps"], weight_decay=ADAMW["weight_decay"]
    )
    arrays, losses = {}, []
    for step in range(1, max(STEPS) + 1):
        losses.append(run(model, inputs, WHOLE).loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), ADAMW["max_norm"])
        optimizer.step()
        if step in STEPS:
            for name, parameter in named:
                arrays[f"step_{step}/{name}"] = thinned(parameter.detach().numpy().copy())
    return arrays | {"losses": np.array(losses)}


def main(directory: Path) -> None:
    """Write the four files into `directory`."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # the order of a sum depends on it
    directory.mkdir(parents=True, exist_ok=True)
    inputs = make_inputs()
    float64 = results(inputs, torch.float64) | trajectory(inputs)
    save_file(inputs, directory / "transformers_inputs.safetensors")
    save_file(float64, directory / "transformers_float64.safetensors")
    save_file(results(inputs, torch.float32), directory / "transformers_float32.safetensors")
    about = {
        "made_by": "scripts/make_fixture.py",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "config": CONFIG,
        "heads": HEADS,
        "adamw": ADAMW,
        "steps": STEPS,
    }
    (directory / "transformers.json").write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    here = Path(__file__).parent.parent / "tests" / "fixtures"
    parser = command_line.Parser(__doc__)
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path, default=here)
    command_line.run(lambda: main(parser.parse_args().directory))
