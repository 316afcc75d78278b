"""What float32 loses, tensor by tensor: measured in several runs, each with rounding of its own.

One run may be lucky: of a number that stands alone, as a loss does, the error can be next to zero
where an equally right program's is a hundred times as large. So float32 is run as NumPy has it, and
then again and again `shaken`; what counts is the largest error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from minibert.models import Run
from minibert.parallel import Workers
from minibert.verify.budget import Places, error_of, parts_of, trained_places, worst_part
from minibert.verify.trace.fused import fused_attention
from minibert.verify.trace.record import record
from minibert.verify.trace.setup import LARGE, Setup
from minibert.verify.trace.shaken import shaken
from minibert.verify.trace.tensors import Tensor, layout_of, passes, recorded, trained

SHAKEN = 8
"""Runs beside the plain one."""

SHAKEN_LARGE = 3
"""Of a large model: its tensors are so large that luck evens out. Of its training one rule, plain,
is enough."""


class Measured(NamedTuple):
    """A tensor, and its relative errors in float32 against float64."""

    tensor: Tensor  # in the setup's dtype
    plain: float | None  # of NumPy; None: not measured
    largest: float  # of all runs


def measured(setup: Setup) -> Iterator[Measured]:
    """Every computed tensor of the setup, in the order of execution."""
    layout, blind = layout_of(setup), set[str]()
    large = layout.size >= LARGE
    runs = float32_runs(setup, SHAKEN_LARGE if large else SHAKEN)
    workers = Workers(None if large else 1)  # of a small model, Python itself takes the time
    for prefix, run in passes(setup).items():
        for each in _recorded(setup, runs, prefix, run, workers):
            if each.tensor.scale:
                blind.add(each.tensor.name.removeprefix("gradient/"))
            yield each
        del each  # a view of all the gradients
    yield from _trained(setup, runs[:1] if large else runs, trained_places(layout, blind), large)


def float32_runs(setup: Setup, count: int) -> list[Setup]:
    """The setup in float32: as it is, and shaken `count` times; every second time attention's
    backward is that of fused kernels.
    """
    single = setup.replace(dtype="float32")
    runs = [single]
    for seed in range(count):
        functions = dict(setup.functions) | fused_attention() if seed % 2 else setup.functions
        runs.append(single.replace(xp=shaken(setup.xp.plain, seed), functions=functions))
    return runs


def _recorded(
    setup: Setup, runs: Sequence[Setup], prefix: str, run: Run | None, workers: Workers
) -> Iterator[Measured]:
    """Of one forward and backward; a float32 run is forgotten when its errors are known."""
    double = setup.replace(dtype="float64")
    golden = record(double, run)

    def errors_of(single: Setup) -> dict[str, float]:
        got = recorded(single, record(single, run), prefix)
        return {
            want.name: error_of(tensor.value, want.value, want.scale)
            for want, tensor in zip(recorded(double, golden, prefix), got, strict=True)
        }

    errors = workers.map(errors_of, runs)
    kept = golden if setup.dtype == "float64" else record(setup, run)
    for tensor in recorded(setup, kept, prefix):
        lost = [of_run[tensor.name] for of_run in errors]
        yield Measured(tensor, lost[0], max(lost))


def _trained(
    setup: Setup, runs: Sequence[Setup], places: Places, first_alone: bool
) -> Iterator[Measured]:
    """Of the training, all runs side by side.

    first_alone: of a float64 training only the first rule is measured; what its buffers lose then
    stands for those of the others.
    """
    if setup.recipe is None:
        return
    rules = setup.recipe.rules
    rules = rules[:1] if first_alone and setup.dtype == "float64" else rules
    fewer = replace(setup.recipe, rules=rules)
    singles = [trained(run.replace(recipe=fewer)) for run in runs]
    lost: dict[str, float] = {}
    for double in trained(setup.replace(dtype="float64")):
        _, rule, state = double.name.split("/", 2)
        if rule not in rules:
            singles.clear()  # their buffers are as large as half of ours
            yield Measured(double, None, lost[state])
            continue
        tensors = [next(single) for single in singles]
        errors = [
            worst_part(parts_of(tensor.value, places), double.value, places)[0]
            for tensor in tensors
        ]
        lost[state] = max(errors)
        yield Measured(double if setup.dtype == "float64" else tensors[0], errors[0], lost[state])
