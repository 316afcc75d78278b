"""A live model of transformers, observed with hooks: its tensors under a trace's names.

Needs PyTorch and transformers, the [crosscheck] extra. Nothing in their code is changed: modules
are observed by forward hooks, and softmax, which is no module, by a `TorchFunctionMode`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minibert.errors import InputError
from minibert.verify.trace.setup import Recipe, Setup
from minibert.verify.trace.tensors import layout_of

Arrays = dict[str, NDArray[Any]]


def run_transformers(setup: Setup, dtype: str = "float64", attention: str = "eager") -> Arrays:
    """Everything of a trace that transformers computes, by the trace's names.

    attention: "eager", or "sdpa", whose scores and probabilities cannot be seen. Of `UNTRAINED`
    dtypes there is no training.
    """
    torch = _torch()
    model = load(setup, dtype, attention)
    seen: dict[str, Any] = {}
    arguments = _arguments(setup, dtype)
    with _observed(model, setup, seen):
        output = model(**arguments)
    for name, tensor in output.items():
        if name not in ("loss", "hidden_states", "attentions"):
            _keep(name, tensor, seen)
    result: Arrays = {}
    if setup.has_loss:
        seen["loss"] = output.loss
        output.loss.backward()
        for name, parameter in _named_parameters(model):
            gradient = parameter.grad
            zero = torch.zeros_like(parameter) if gradient is None else gradient
            result[f"gradient/{name}"] = _array(zero)
    for name, tensor in seen.items():
        result[f"activation/{name}"] = _array(tensor)
        if tensor.retains_grad and tensor.grad is not None:
            result[f"gradient/{name}"] = _array(tensor.grad)
    if setup.recipe is not None and setup.has_loss and dtype not in UNTRAINED:
        for rule in TRAINED:
            if rule in setup.recipe.rules:
                result |= _train(setup, setup.recipe, rule, dtype, attention)
    return result


UNTRAINED = ("float16", "bfloat16")
"""Nobody trains with parameters of 16 bits: Adam's eps of 1e-8 is 0 in float16."""


def _array(tensor: Any) -> NDArray[Any]:
    """A tensor for NumPy, which has no bfloat16: that becomes float32."""
    tensor = tensor.detach()
    array: NDArray[Any] = (tensor.float() if tensor.dtype == _torch().bfloat16 else tensor).numpy()
    return array


def _torch() -> Any:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError(
            f"{error.name} is missing: python -m pip install -e '.[crosscheck]' installs PyTorch "
            "and transformers"
        ) from None
    logging: Any = transformers.logging
    logging.set_verbosity_error()
    return torch


def load(setup: Setup, dtype: str, attention: str) -> Any:
    """Their model of the same class with the setup's weights, in evaluation."""
    import transformers

    torch = _torch()
    if not hasattr(transformers, setup.kind.__name__):
        raise InputError(f"transformers has no {setup.kind.__name__}: trace another head")
    values = setup.config.to_dict()
    values |= {"attn_implementation": attention, "dtype": getattr(torch, dtype)}
    if setup.kind.__name__ == "BertForQuestionAnswering":
        values |= {"id2label": {0: "start", 1: "end"}, "label2id": {"start": 0, "end": 1}}
    config = transformers.BertConfig(**values)
    kind = getattr(transformers, setup.kind.__name__)
    model = kind(config).to(getattr(torch, dtype))
    bare = kind.__name__ == "BertModel"
    state = {
        name.removeprefix("bert.") if bare else name: torch.tensor(np.asarray(array))
        for name, array in setup.weights.items()
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    model.tie_weights()
    odd = [name for name in missing if "predictions" not in name] + unexpected
    if odd:
        raise InputError(f"transformers' {kind.__name__} has other parameters: {odd[0]}")
    return model.eval()


def _arguments(setup: Setup, dtype: str) -> dict[str, Any]:
    torch = _torch()
    tensors = {name: torch.tensor(np.asarray(array)) for name, array in setup.inputs.items()}
    return {
        name: tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def _named_parameters(model: Any) -> Iterator[tuple[str, Any]]:
    bare = type(model).__name__ == "BertModel"
    for name, parameter in model.named_parameters():
        yield f"bert.{name}" if bare else name, parameter


# ---- Observation ----

SKIPPED = ("bert", "bert.encoder", "cls", "cls.predictions")
"""Modules that return what another one does, in a tuple."""


@contextmanager
def _observed(model: Any, setup: Setup, seen: dict[str, Any]) -> Iterator[None]:
    """Fills `seen` with what every module returns, while the block runs; gradients are kept."""
    prefix = "bert." if type(model).__name__ == "BertModel" else ""
    handles = []
    for name, module in model.named_modules():
        if not name or prefix + name in SKIPPED or name.endswith("layer"):
            continue
        handles.append(module.register_forward_hook(_hook(prefix + name, seen)))
    try:
        with _softmax_observer(seen):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, seen: dict[str, Any]) -> Any:
    """Keeps what a module returns; of a layer norm also what it was given, and its statistics."""

    def hook(module: Any, given: tuple[Any, ...], returned: Any) -> None:
        result = returned[0] if isinstance(returned, tuple) else returned
        _keep(name, result, seen)
        if name.endswith("LayerNorm"):
            summed = "sum" if name.startswith("bert.embeddings") else "residual"
            x = given[0]
            if not name.startswith("cls"):
                _keep(name.replace("LayerNorm", summed), x, seen)
            variance = x.var(-1, unbiased=False)
            seen[f"{name}.mean"] = x.mean(-1).detach()
            seen[f"{name}.rstd"] = (variance + module.eps).rsqrt().detach()

    return hook


def _keep(name: str, tensor: Any, seen: dict[str, Any]) -> None:
    if tensor.requires_grad:
        tensor.retain_grad()
    seen[name] = tensor


def _softmax_observer(seen: dict[str, Any]) -> Any:
    """A mode that sees every call of softmax: of each layer's scores, in order."""
    torch = _torch()
    from torch.overrides import TorchFunctionMode

    count = itertools.count()

    def observe(self: Any, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is torch.nn.functional.softmax:
            prefix = f"bert.encoder.layer.{next(count)}.attention.self."
            _keep(f"{prefix}scores", args[0], seen)
            _keep(f"{prefix}probs", result, seen)
        return result

    return type("Observer", (TorchFunctionMode,), {"__torch_function__": observe})()


# ---- Training ----

TRAINED = ("adamw_torch", "adam")


def _train(setup: Setup, recipe: Recipe, rule: str, dtype: str, attention: str) -> Arrays:
    """Parameters and moments after the recipe's steps, by PyTorch's own optimizer."""
    torch, model = _torch(), load(setup, dtype, attention)
    named = dict(_named_parameters(model))
    layout = layout_of(setup)
    decayed = [name for name, start in layout.starts.items() if start < layout.decayed]
    groups = [
        {"params": [named[n] for n in decayed], "weight_decay": recipe.weight_decay},
        {"params": [p for n, p in named.items() if n not in decayed], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if rule == "adamw_torch" else torch.optim.Adam
    optimizer = kind(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps)
    arguments, result = _arguments(setup, dtype), {}
    for step in range(1, max(recipe.steps) + 1):
        optimizer.zero_grad()
        model(**arguments).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_norm)
        optimizer.step()
        if step not in recipe.steps:
            continue
        for name, parameter in named.items():
            state = optimizer.state.get(parameter, {})
            where = f"training/{rule}/step_{step}"
            result[f"{where}/parameters/{name}"] = _array(parameter).copy()
            for mine, theirs in (("m", "exp_avg"), ("v", "exp_avg_sq")):
                if theirs in state:
                    result[f"{where}/{mine}/{name}"] = _array(state[theirs]).copy()
    return result
