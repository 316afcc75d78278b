"""Check your own PyTorch layer against a golden trace, forward and backward.

    python scripts/readers/pytorch_reader.py tests/fixtures/nano [EPS]

Needs torch and safetensors. The layer here is the embeddings' layer norm; put yours in its place.
"""

import json
import sys

import torch
from safetensors.torch import load_file


def my_layer(x, weight, bias, eps):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


def opened(path):
    """A function that gives the tensor of a name, and what the JSON says of each."""
    try:
        stored = load_file(path + ".safetensors")
        with open(path + ".json", encoding="utf-8") as file:
            explained = json.load(file)["tensors"]
    except OSError as error:
        refuse(f"cannot read the trace {path}: {error}")

    def golden(name):
        if name not in stored:
            refuse(f"the trace has no {name}: of a checkpoint, make it with trace --store_weights")
        if "stride" in explained[name]:
            refuse(f"{name} is thinned: make the trace without --limit")
        return stored[name]

    return golden, explained


def refuse(message):
    print(message, file=sys.stderr)
    sys.exit(2)


def main(path, eps=1e-12):
    golden, explained = opened(path)
    name = "bert.embeddings.LayerNorm"
    x = golden("activation/bert.embeddings.sum").requires_grad_()
    weight = golden(f"weight/{name}.weight").requires_grad_()
    bias = golden(f"weight/{name}.bias").requires_grad_()
    y = my_layer(x, weight, bias, eps)
    y.backward(golden(f"gradient/{name}"))  # zero at padding: what it does there does not count
    real = golden("input/attention_mask").bool()
    failed, is_double = False, x.dtype == torch.float64
    for key, mine in {
        f"activation/{name}": y.detach() * real[..., None],
        "gradient/bert.embeddings.sum": x.grad * real[..., None],
        f"gradient/{name}.weight": weight.grad,
        f"gradient/{name}.bias": bias.grad,
    }.items():
        error = float((mine - golden(key)).norm() / golden(key).norm())
        budget = explained[key]["budget_float32"] * (2.0**-29 if is_double else 1)
        failed |= error > budget
        print(f"{key}: error {error:.1e}, budget {budget:.1e}")
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        refuse("usage: pytorch_reader.py TRACE [EPS]")
    sys.exit(main(sys.argv[1], *map(float, sys.argv[2:])))
