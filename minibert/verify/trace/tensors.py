"""All tensors of a trace, in order: inputs, weights, forward, backward, dropout, training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minibert.models import Run
from minibert.packing import unpack
from minibert.parameters import Layout
from minibert.verify.trace.catalogue import Row, keep_mask, rows
from minibert.verify.trace.formulas import of_parameter, worded
from minibert.verify.trace.record import Call, Recording, record
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.training import training_states

INPUTS = {
    "input_ids": "token ids (B, S)",
    "attention_mask": "1 = a real token, 0 = padding (B, S)",
    "token_type_ids": "0 = first segment, 1 = second (B, S)",
}


LABELS = "what the loss compares with; -100 = ignored"


class Tensor(NamedTuple):
    """One tensor of a trace, on the host, padded (B, S, …) and zero where there is no token."""

    name: str
    value: NDArray[Any]
    meaning: str
    formula: str = ""
    aliases: tuple[str, ...] = ()
    axes: str = ""  # "tokens": (B, S, …), "pairs": (B, N, S, S), "rows": (B, …), "columns": (S, …)
    scale: float = 0.0  # of rounding errors, for what is zero in exact arithmetic


def given(setup: Setup) -> Iterator[Tensor]:
    """The inputs and the weights."""
    for name, array in setup.inputs.items():
        yield Tensor(f"input/{name}", np.asarray(array), INPUTS.get(name, LABELS), "given")
    for name, array in setup.weights.items():
        yield Tensor(f"weight/{name}", np.asarray(array, setup.dtype), "parameter", "given")


def collected(setup: Setup) -> dict[str, NDArray[Any]]:
    """Every computed tensor by name."""
    return {tensor.name: tensor.value.copy() for tensor in computed(setup)}


def computed(setup: Setup) -> Iterator[Tensor]:
    """Everything that follows from them, in the order of execution.

    A tensor of `training` is good until the next one is asked for: its buffer is trained further.
    """
    for prefix, run in passes(setup).items():
        yield from recorded(setup, record(setup, run), prefix)
    yield from trained(setup)


def passes(setup: Setup) -> dict[str, Run | None]:
    """Each forward and backward: the prefix of its names, and its dropout."""
    if setup.dropout is None or not setup.has_loss:
        return {"": None}
    return {"": None, "dropout/": setup.dropout}


def trained(setup: Setup) -> Iterator[Tensor]:
    """Parameters and moments on the way through the training, as flat buffers."""
    for rule, step, *buffers in training_states(setup):
        for name, buffer in zip(("parameters", "m", "v"), buffers, strict=True):
            yield Tensor(
                f"training/{rule}/step_{step}/{name}",
                setup.xp.to_host(buffer),
                f"{TRAINED[name]} after step {step} of {rule}, flat in the order of `layout`",
                "see `training`",
            )


TRAINED = {"parameters": "all parameters", "m": "first moments", "v": "second moments"}


def recorded(setup: Setup, recording: Recording, prefix: str) -> Iterator[Tensor]:
    """The tensors of one forward and backward."""
    dropped = bool(prefix)
    present = [
        (row, call)
        for row in rows(setup.kind.__name__, setup.config)
        if not (row.instead and not dropped) and not (row.call == LOSS and not setup.has_loss)
        for call in [recording.calls.at(row.call)]
        if not row.instead or call.keeps
    ]
    calls = [call for _, call in present]
    found = list(zip(worded([row for row, _ in present]), calls, strict=True))
    names = _other_names(setup, {row.name for row, _ in found})
    for row, call in found:
        if row.keep and call.keeps:
            mask = _padded(setup, recording, row, keep_mask(row, call))
            meaning = f"which elements of {row.instead} are kept"
            yield Tensor(f"{prefix}keep/{row.name}", mask, meaning, "see `dropout`", axes=row.axes)
        value = _padded(setup, recording, row, row.value(setup.xp, call))
        aliases = (*row.aliases, *names.get(row.name, ()))
        yield Tensor(
            f"{prefix}activation/{row.name}", value, row.meaning, row.formula, aliases, row.axes
        )
    if recording.output.loss is not None:
        loss = np.asarray(setup.xp.to_host(recording.output.loss))
        yield Tensor(f"{prefix}activation/loss", loss, "the loss", LOSS_IS, ("loss",))
    if recording.gradients is not None:
        yield from _floored(_backward(setup, recording, found, prefix, names))


LOSS = "cross_entropy"
LOSS_IS = "mean over the labels that are not -100 (see the model's class)"


def _other_names(setup: Setup, present: set[str]) -> dict[str, list[str]]:
    """The names of dropouts that are off, under the tensor that they let through."""
    names: dict[str, list[str]] = {}
    for row in rows(setup.kind.__name__, setup.config):
        if row.instead and row.name not in present:
            names.setdefault(row.instead, []).extend([row.name, *row.aliases])
    return names


def _backward(
    setup: Setup,
    recording: Recording,
    found: list[tuple[Row, Call]],
    prefix: str,
    names: dict[str, list[str]],
) -> Iterator[Tensor]:
    """Gradients in the order in which a backward finds them; a module's parameters after it."""
    assert recording.gradients is not None
    left = dict(recording.gradients)
    decoder = next((row for row, _ in found if DECODER in row.aliases), None)
    for row, call in reversed(found):
        gradient = row.gradient and row.gradient(setup.xp, call)
        scale = 0.0
        if gradient is not None:
            axes = row.gradient_axes or row.axes
            value = _padded(setup, recording, row._replace(axes=axes), gradient)
            scale = float(np.linalg.norm(value)) * recording.batch.num_tokens**0.5
            meaning = f"gradient of the loss with respect to {row.name}"
            meaning += ON_ALL_ROWS if axes == "columns" else ""
            aliases = (*row.aliases, *names.get(row.name, ()))
            yield Tensor(
                f"{prefix}gradient/{row.name}", value, meaning, row.backward, aliases, axes
            )
        for module in (row.name, *row.aliases):
            for name in (f"{module}.weight", f"{module}.bias"):
                if name in left:
                    formula = of_parameter(name, row, setup.config, decoder)
                    yield _parameter_gradient(setup, prefix, name, left.pop(name), formula, scale)
    for name, gradient in left.items():
        yield _parameter_gradient(setup, prefix, name, gradient, "", 0.0)


DECODER = "cls.predictions.decoder"  # its weight is the word table
ON_ALL_ROWS = ", looked up once for all rows: the sum over them (of each token it is the sum's)"
TINY = 1e-6


def _floored(gradients: Iterator[Tensor]) -> Iterator[Tensor]:
    """A gradient that is next to nothing beside those before it is measured against them.

    (A layer norm of two features has none, for one: each is 1 or −1 whatever comes in. Nor has a
    query in a sequence of one token.)
    """
    largest = 0.0
    for tensor in gradients:
        norm = float(np.linalg.norm(tensor.value))
        largest = max(largest, norm)
        tiny = norm < TINY * largest and not tensor.scale
        yield tensor._replace(scale=largest) if tiny else tensor


def _parameter_gradient(
    setup: Setup, prefix: str, name: str, gradient: Any, formula: str, scale: float
) -> Tensor:
    """The gradient of one parameter.

    Where softmax sees no shift, a bias's is zero but for rounding; `scale`, the size of what was
    summed, is then what errors are measured against.
    """
    value = setup.xp.to_host(gradient)
    zero = name.endswith(".bias") and float(np.linalg.norm(value)) < 1e-5 * scale
    meaning = "gradient of the loss with respect to this parameter"
    if zero:
        meaning += ": zero in exact arithmetic, since softmax does not see a shift"
    full_name, scale = f"{prefix}gradient/{name}", scale if zero else 0.0
    return Tensor(full_name, value, meaning, formula, scale=scale)


def _padded(setup: Setup, recording: Recording, row: Row, value: Any) -> NDArray[Any]:
    """Packed tokens, or pairs of them, in the padded convention."""
    batch, S = recording.batch, recording.length
    if row.axes in ("tokens", "columns"):
        padded = unpack(setup.xp, value, batch, S)
        return np.asarray(
            setup.xp.to_host(padded if row.axes == "tokens" else setup.xp.sum(padded, axis=0))
        )
    if row.axes != "pairs":
        return np.asarray(setup.xp.to_host(value))
    host = [setup.xp.to_host(sequence) for sequence in value]
    dtype = setup.dtype if host[0].dtype.kind == "f" else host[0].dtype
    padded = np.zeros((len(host), len(host[0]), S, S), dtype)
    for b, sequence in enumerate(host):
        columns = batch.position_ids[batch.offsets[b] : batch.offsets[b + 1]]
        padded[b][:, columns[:, None], columns] = sequence
    return padded


def layout_of(setup: Setup) -> Layout:
    """Where each parameter lies in the flat buffers of `training`."""
    return Layout(setup.kind.shapes(setup.config))
