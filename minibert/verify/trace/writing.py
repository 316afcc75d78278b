"""A setup written down as a trace, and a trace read back as a setup."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import minibert
from minibert import models
from minibert.checkpoint import load_checkpoint
from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.models import Run
from minibert.optim.rules import RULES
from minibert.verify.budget import budget_of
from minibert.verify.float32 import Measured, measured
from minibert.verify.trace.catalogue import HEADS
from minibert.verify.trace.format import Trace, TraceWriter, sha256, write
from minibert.verify.trace.rule import PIECE, dropout_sites, rule_weights
from minibert.verify.trace.setup import Recipe, Setup
from minibert.verify.trace.tensors import Tensor, given, layout_of

Weights = Mapping[str, Any]
"""Where a trace's weights are that it does not hold: {"file", "sha256", "names"} or {"seed", …}."""


def write_trace(
    path: Path, setup: Setup, *, limit: int | None = None, elsewhere: Weights | None = None
) -> int:
    """Write `path`.safetensors and `path`.json; returns the number of tensors.

    limit: larger tensors are thinned. elsewhere: says where the weights are, and the parameters
    under its "names" are then not stored.
    """

    def fill(writer: TraceWriter) -> None:
        absent = set((elsewhere or {}).get("names", ()))
        for tensor in given(setup):
            if tensor.name.removeprefix("weight/") not in absent:
                _add(writer, tensor)
        for each in measured(setup):
            _add(writer, each.tensor, **_lost(each))

    return write(path, describe(setup, elsewhere), fill, limit)


def _lost(each: Measured) -> dict[str, float]:
    """What the JSON says of a tensor's errors; of whole numbers nothing, they are exact."""
    if each.tensor.value.dtype.kind != "f":
        return {}
    if math.isinf(each.largest):  # measured against a norm of 0
        raise InputError(
            f"{each.tensor.name} is 0 but for rounding: the batch has nothing to learn from; a "
            "softmax needs two choices, or two pairs, or more"
        )
    plain = {} if each.plain is None else {"error_float32": float(f"{each.plain:.2g}")}
    return plain | {"budget_float32": budget_of(each.tensor.name, each.largest)}


def _add(writer: TraceWriter, tensor: Tensor, **about: Any) -> None:
    writer.add(
        tensor.name, tensor.value, meaning=tensor.meaning, formula=tensor.formula,
        aliases=tensor.aliases, axes=tensor.axes, scale=float(f"{tensor.scale:.3g}"), **about,
    )  # fmt: skip


CONVENTIONS = (
    "Activations are padded, (B, S, …), and zero where there is no token; compare real tokens "
    "alone. Masked keys have probability 0. Linear weights are (out, in).",
    "Names are those of transformers' modules: activation/NAME is the module's output, "
    "gradient/NAME the loss's gradient with respect to it, or to the parameter NAME.",
    "In a formula a name may lack the prefix of the tensor's own layer, or that and "
    "attention.self; d(X) is the gradient of X, 0 where the trace has none, as of a head without "
    "labels. Under dropout/ everything is of that pass.",
    "error_float32: relative L2 error of NumPy in float32. budget_float32: what is allowed; in "
    "float64 2**-29 of it, in float16 2**13, in bfloat16 2**16 times as much. An error is "
    "measured against the tensor's norm, or against `scale` where that is larger.",
)


def describe(setup: Setup, elsewhere: Weights | None) -> dict[str, Any]:
    """What the JSON says before it comes to the tensors."""
    layout = layout_of(setup)
    about: dict[str, Any] = {
        "made_by": f"minibert {minibert.__version__}",
        "model": setup.kind.__name__,
        "dtype": setup.dtype,
        "config": setup.config.to_dict(),
        "conventions": list(CONVENTIONS),
        "weights": dict(elsewhere or {"stored": True}),
        "random": PIECE.splitlines(),
    }
    if setup.dropout is not None and setup.has_loss:
        head = next((r.name for r in HEADS[setup.kind.__name__] if r.keep), None)
        about["dropout"] = dropout_sites(setup.config, setup.dropout, head)
    if setup.recipe is not None and setup.has_loss:
        about["training"] = _describe_training(setup.recipe, layout.decayed)
    places = zip(layout.shapes, layout.starts.values(), layout.shapes.values(), strict=True)
    about["layout"] = [[name, start, list(shape)] for name, start, shape in places]
    return about


def _describe_training(recipe: Recipe, decayed: int) -> dict[str, Any]:
    numbers = ("lr", "weight_decay", "beta1", "beta2", "eps", "max_norm", "steps")
    return {
        "what": "the same batch at every step, without dropout; the gradient is multiplied by "
        "min(1, max_norm/(norm + 1e-6)), norm that of all gradients together, before each step; "
        f"weight decay applies to the first {decayed} elements of the flat buffer alone",
        "moments": "with t = 1 at the first step, and before each rule: "
        "m ← beta1·m + (1 - beta1)·g, v ← beta2·v + (1 - beta2)·g², both 0 at the start",
        **{name: getattr(recipe, name) for name in numbers},
        "decayed": decayed,
        "rules": {name: inspect.getdoc(RULES[name].update) for name in recipe.rules},
    }


def setup_of(trace: Trace, weights: Path | None = None) -> Setup:
    """The setup that a trace was made from, to run it again.

    `weights`: the file that the trace names, where it does not hold its weights itself.
    """
    about = trace.about
    kind, config = getattr(models, about["model"]), BertConfig.from_dict(about["config"])
    setup = Setup(
        kind,
        config,
        _weights(trace, kind, config, weights),
        {n.removeprefix("input/"): trace.read(n) for n in trace.names() if n.startswith("input/")},
        about["dtype"],
    )
    if "dropout" in about:
        setup = setup.replace(dropout=Run(about["dropout"]["seed"], about["dropout"]["step"]))
    if "training" in about:
        names = Recipe.__dataclass_fields__.keys() & about["training"].keys()
        values = {name: about["training"][name] for name in names}
        rules, steps = tuple(values["rules"]), tuple(values["steps"])
        setup = setup.replace(recipe=Recipe(**values | {"rules": rules, "steps": steps}))
    return setup


def _weights(trace: Trace, kind: Any, config: BertConfig, file: Path | None) -> dict[str, Any]:
    elsewhere = trace.about["weights"]
    stored = {n.removeprefix("weight/"): trace.read(n) for n in trace.names() if n[:7] == "weight/"}
    if "seed" in elsewhere:
        return rule_weights(trace.layout, elsewhere["seed"], elsewhere["width"])
    if "file" not in elsewhere:
        return stored
    if file is None:
        raise InputError(
            f"{trace.path} does not hold its weights: name the file {elsewhere['file']} with "
            "--weights"
        )
    check_weights(trace, file)
    return load_checkpoint(file.parent, kind.shapes(config))[0] | stored


def check_weights(trace: Trace, file: Path) -> None:
    """InputError where a weight file is not the one that the trace was made with."""
    elsewhere = trace.about["weights"]
    if "file" not in elsewhere:
        raise InputError(f"{trace.path.name} needs no weight file: leave --weights {file} out")
    if not file.is_file():
        raise InputError(
            f"--weights {file}: there is no such file, want the {elsewhere['file']} that "
            f"{trace.path.name} was made with"
        )
    want, got = elsewhere["sha256"], sha256(file)
    if got != want:
        raise InputError(
            f"{file}: its sha256 is {got[:12]}…, but {trace.path.name} was made with "
            f"{want[:12]}…: compare with the weights of the trace, or make a trace of yours"
        )
