"""Check your own JAX layer against a golden trace, forward and backward.

    python scripts/readers/jax_reader.py tests/fixtures/nano [EPS]

Needs jax and safetensors. The layer here is the embeddings' layer norm; put yours in its place.
"""

import json
import sys

import jax
import jax.numpy as jnp
from safetensors.numpy import load_file

jax.config.update("jax_enable_x64", True)


def my_layer(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


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
    x = golden("activation/bert.embeddings.sum")
    weight, bias = golden(f"weight/{name}.weight"), golden(f"weight/{name}.bias")
    y, pull_back = jax.vjp(lambda *args: my_layer(*args, eps), x, weight, bias)
    dx, dweight, dbias = pull_back(jnp.asarray(golden(f"gradient/{name}")))
    real = golden("input/attention_mask")[..., None] == 1
    failed, is_double = False, x.dtype == "float64"
    for key, mine in {
        f"activation/{name}": jnp.where(real, y, 0),
        "gradient/bert.embeddings.sum": jnp.where(real, dx, 0),
        f"gradient/{name}.weight": dweight,
        f"gradient/{name}.bias": dbias,
    }.items():
        error = float(jnp.linalg.norm(mine - golden(key)) / jnp.linalg.norm(golden(key)))
        budget = explained[key]["budget_float32"] * (2.0**-29 if is_double else 1)
        failed |= error > budget
        print(f"{key}: error {error:.1e}, budget {budget:.1e}")
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        refuse("usage: jax_reader.py TRACE [EPS]")
    sys.exit(main(sys.argv[1], *map(float, sys.argv[2:])))
