"""Where a training step's time goes: by operation and by layer, forward and backward.

    python benchmarks/profile.py [--batch 32x128 | mixed] [--threads 2] [--picture FILE.png]

BERT-base with random weights, or another with --layers, --hidden_size, --heads. The time of a layer
function is its own, without that of the functions it calls, in CPU time of the thread that runs it:
what another process takes does not count, and the threads add up. `linear` is a product with its
weights and its bias, and the gradients of both; attention's two products count as attention's. With
--gradient_checkpointing what is computed again in the backward stands under "forward". Prints
Markdown; the picture wants the extra `[plot]`. A backend that is asked for a function's twin
answers here with the same function, timed: not a line of the layers knows.
"""

from __future__ import annotations

import argparse
import copy
import functools
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _common import describe, markdown, new_file, positive, require
from _cpu_sides import MAX_NORM, WEIGHT_DECAY, make_batches

from minibert import BertConfig, BertForSequenceClassification
from minibert.backend import Backend
from minibert.errors import InputError
from minibert.io.command_line import Parser, run
from minibert.models import Run
from minibert.optim import Optimizer, clip_scale, global_norm
from minibert.packing import pack
from minibert.verify.coverage import plain_functions

Key = tuple[str, str, str]  # layer, operation, "forward" or "backward"
COLOURS = [f"C{i}" for i in (0, 1, 2, 3, 4, 5, 6, 8, 9)]  # matplotlib's; C7, a grey, is for others


class Call:
    """One that is being timed."""

    def __init__(self, layer: str, operation: str, way: str) -> None:
        self.layer, self.operation, self.way, self.inner = layer, operation, way, 0.0


class Profile:
    """CPU seconds of each operation of each layer."""

    def __init__(self, layers: Sequence[object]) -> None:
        """`layers`: the weights of each."""
        self.seconds: defaultdict[Key, float] = defaultdict(float)
        # A layer's forward is known by its weights, its backward by the cache of the forward.
        self._layers = {id(weights): f"layer {i}" for i, weights in enumerate(layers)}
        self._plain = plain_functions()
        self._open = threading.local()  # the calls that this thread is in
        self._lock = threading.Lock()

    def observing(self, xp: Backend) -> Backend:
        """The backend, its layer functions and dropout decisions timed."""
        observed = copy.copy(xp)

        def twin(name: str, x: Any) -> Callable[..., Any]:
            function = xp.twin(name, x) or self._plain[name]
            return functools.partial(self._timed, function, *name.rsplit("_", 1))

        decide = functools.partial(self._timed, xp.keep_decisions, "dropout decisions", "")
        vars(observed).update(twin=twin, keep_decisions=decide)
        return observed

    def _timed(
        self, function: Callable[..., Any], operation: str, way: str, *args: Any, **kwargs: Any
    ) -> Any:
        calls = vars(self._open).setdefault("calls", [])
        if calls:
            call = Call(calls[-1].layer, operation, way or calls[-1].way)
        else:
            call = Call(self._layer(operation, args), operation, way)
        calls.append(call)
        start = time.thread_time()
        result = function(*args, **kwargs)
        whole = time.thread_time() - start
        calls.pop()
        if calls:
            calls[-1].inner += whole
        elif way == "forward":
            self._layers[id(result[1])] = call.layer
        with self._lock:
            self.seconds[call.layer, operation, call.way] += whole - call.inner
        return result

    def _layer(self, operation: str, args: tuple[Any, ...]) -> str:
        """Where in the network this outermost call is."""
        if operation == "encoder_layer":
            return self._layers[id(args[2])]
        return "embeddings" if operation == "embeddings" else "head"


def main() -> None:
    args = parse_arguments()
    config = BertConfig(
        num_hidden_layers=args.layers, hidden_size=args.hidden_size,
        num_attention_heads=args.heads,
        intermediate_size=4 * args.hidden_size, num_labels=2,
    )  # fmt: skip
    model = BertForSequenceClassification(config, backend="numpy", threads=args.threads)
    model.gradient_checkpointing = args.gradient_checkpointing
    seconds = {key: value / args.steps for key, value in profile(model, args).items()}
    total = sum(seconds.values())
    print(table("operation", by(1, seconds), total), end="\n\n")
    print(table("where", by(0, seconds), total), end="\n\n")
    settings = {"layers": args.layers, "hidden size": args.hidden_size, "batch": args.batch}
    settings |= {"threads": args.threads}
    if args.gradient_checkpointing:
        settings["gradient checkpointing"] = "(forward: with what is computed again)"
    print(describe(settings, ("minibert", "numpy")))
    if args.picture is not None:
        draw(seconds, args.picture)


def profile(model: BertForSequenceClassification, args: argparse.Namespace) -> dict[Key, float]:
    """The CPU seconds of `args.steps` training steps, after two that warm up."""
    batches = [
        pack(b.input_ids, b.attention_mask, labels=b.labels) for b in make_batches(args.batch)
    ]
    gradients, xp = model.parameters.zeros_like(), model.xp
    optimizer = Optimizer(
        xp, model.parameters.flat, model.parameters.layout.decayed,
        weight_decay=WEIGHT_DECAY, workers=model.workers,
    )  # fmt: skip
    for number in range(args.steps + 2):
        if number in (0, 2):
            found = Profile(model.weights.encoder.layers)
            model.xp = found.observing(xp)
        before = time.process_time()
        gradients.flat.fill(0)
        batch = batches[number % len(batches)]
        model.accumulate_gradients(batch, gradients, Run(0, number))
        passes = time.process_time()
        norm = global_norm(xp, gradients.flat, model.workers)
        clipped = time.process_time()
        optimizer.step(gradients.flat, 1e-5, clip_scale(norm, MAX_NORM))
        found.seconds["update", "clipping", ""] += clipped - passes
        found.seconds["update", "AdamW", ""] += time.process_time() - clipped
        found.seconds["rest", "rest", ""] += passes - before
    inside = sum(v for (where, *_), v in found.seconds.items() if where not in ("update", "rest"))
    found.seconds["rest", "rest", ""] -= inside  # gradients zeroed and added up, packing, …
    return found.seconds


def by(place: int, seconds: dict[Key, float]) -> dict[str, dict[str, float]]:
    """Added up by layer (0) or operation (1): name → way → seconds."""
    found: dict[str, dict[str, float]] = {}
    for key, value in seconds.items():
        ways = found.setdefault(key[place], defaultdict(float))
        ways[key[2]] += value
    return found


def table(title: str, found: dict[str, dict[str, float]], total: float) -> str:
    def order(name: str) -> tuple[Any, ...]:
        if title == "operation":
            return (-sum(found[name].values()),)
        kind, _, number = name.partition(" ")
        return (("embeddings", "layer", "head", "update", "rest").index(kind), int(number or 0))

    rows = []
    for name in sorted(found, key=order):
        ways, whole = found[name], sum(found[name].values())
        cells = [
            f"{1e3 * ways[way]:,.1f}" if way in ways else "–" for way in ("forward", "backward")
        ]
        rows.append([name, *cells, f"{1e3 * whole:,.1f}", f"{whole / total:.1%}"])
    rows.append(["all", "", "", f"{1e3 * total:,.1f}", "100 %"])
    return markdown([title, "forward ms", "backward ms", "CPU ms a step", "share"], rows)


def stacks(seconds: dict[Key, float]) -> dict[str, dict[str, float]]:
    """operation → layer → CPU ms: the largest operations, then all else as "others"."""
    found: dict[str, dict[str, float]] = {}
    sums = {name: sum(ways.values()) for name, ways in by(1, seconds).items()}
    shown = sorted(sums, key=sums.__getitem__, reverse=True)[: len(COLOURS)]
    for operation in (*shown, "others"):
        found[operation] = dict.fromkeys([layer for layer, *_ in seconds], 0.0)
    for (layer, operation, _), value in seconds.items():
        found[operation if operation in shown else "others"][layer] += 1e3 * value
    return found if len(sums) > len(shown) else {name: found[name] for name in shown}


def draw(seconds: dict[Key, float], path: Path) -> None:
    """A bar a layer, an operation a colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    foot: dict[str, float] = defaultdict(float)
    for (operation, heights), colour in zip(
        stacks(seconds).items(), [*COLOURS, "lightgrey"], strict=False
    ):
        axes.bar(
            list(heights), list(heights.values()), bottom=[foot[layer] for layer in heights],
            label=operation, color=colour,
        )  # fmt: skip
        for layer, height in heights.items():
            foot[layer] += height
    axes.set_ylabel("CPU ms a step")
    axes.tick_params(axis="x", rotation=60)
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=150)


def batch_form(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*|[1-9]\d*mixed|mixed|grouped", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no batch: 32x128, say, or mixed, or 8mixed")
    return text


def check_picture(path: Path) -> None:
    require(["matplotlib"], "plot")
    from matplotlib.figure import Figure

    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in known:
        raise InputError(f"--picture {path}: no kind of picture; known are .{', .'.join(known)}")


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "--batch", type=batch_form, default="32x128", help="BxS, or mixed (see _cpu_sides.py)"
    )
    parser.add_argument("--layers", type=positive, default=12)
    parser.add_argument("--hidden_size", type=positive, default=768)
    parser.add_argument("--heads", type=positive, help="(default: one of 64 features each)")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--steps", type=positive, default=4)
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--picture", type=new_file, metavar="FILE")
    args: argparse.Namespace = parser.parse_args()
    if args.heads is None:
        args.heads, rest = divmod(args.hidden_size, 64)
        if rest:
            parser.error(f"--hidden_size {args.hidden_size} is no multiple of 64: give --heads too")
    if args.picture is not None:
        check_picture(args.picture)
    return args


if __name__ == "__main__":
    run(main)
