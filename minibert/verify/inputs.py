"""What the command line says of a trace: which model, which inputs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from minibert import models
from minibert.errors import InputError
from minibert.models import BertPreTrainedModel
from minibert.verify.compare import read_arrays
from minibert.verify.trace.setup import Setup
from minibert.verify.trace.standard import encoded, of_checkpoint
from minibert.verify.trace.writing import Weights

NEEDED = ("input_ids",)


def add_arguments(parser: argparse.ArgumentParser, heads: Iterable[str]) -> None:
    """The flags that `setup_from` reads."""
    parser.add_argument("--model", metavar="DIR", help="a model directory or hub name")
    parser.add_argument(
        "--head", choices=tuple(heads), default="BertForSequenceClassification", metavar="CLASS",
        help=f"{', '.join(heads)} (default BertForSequenceClassification)",
    )  # fmt: skip
    parser.add_argument(
        "--text", action="append", metavar="TEXT",
        help="a row of the batch; repeat for more (a choice, or the half of a pair, where the "
        "head wants these); labels are made up",
    )  # fmt: skip
    parser.add_argument(
        "--inputs", metavar="FILE", help=".safetensors or .npz with input_ids, attention_mask, …"
    )
    parser.add_argument(
        "--num_labels", type=int, metavar="N", help="of a new head, where the checkpoint has none"
    )
    parser.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64",
        help="in which it is computed (default float64)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, metavar="N", help="tensors of more elements are thinned"
    )
    parser.add_argument(
        "--store_weights", action="store_true",
        help="copy the weights into the trace, rather than name their file",
    )  # fmt: skip
    parser.add_argument("--no_dropout", action="store_true", help="leave the dropout pass out")
    parser.add_argument("--no_training", action="store_true", help="leave the training steps out")


def refuse_beside(standard: str, args: argparse.Namespace, heads: Iterable[str]) -> None:
    """InputError where one of these flags is given beside the name of a standard trace."""
    parser = argparse.ArgumentParser()
    add_arguments(parser, heads)
    defaults = vars(parser.parse_args([]))
    given = [name for name, default in defaults.items() if getattr(args, name) != default]
    if given:
        raise InputError(
            f"--{given[0]} beside {standard}, which is a trace of its own model, inputs and "
            f"options: leave out one of the two"
        )


def setup_from(args: argparse.Namespace) -> tuple[Setup, Weights | None]:
    """The setup of these flags, and where its weights are."""
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit: got {args.limit}, wanted a whole number of at least 1")
    if args.model is None:
        raise InputError("say what to trace: nano, minilm, base, or --model DIRECTORY")
    if (args.inputs is None) == (args.text is None):
        raise InputError("give the batch as --text (once a row), or as --inputs FILE")
    changes: dict[str, Any] = {} if args.num_labels is None else {"num_labels": args.num_labels}
    if args.num_labels == 0:  # which a configuration takes for its default
        raise InputError("num_labels: got 0, wanted a whole number of at least 1")
    kind = getattr(models, args.head)
    if args.inputs:
        inputs = read_inputs(Path(args.inputs), kind)
    else:
        inputs = encoded(args.model, args.text, kind, **changes)
    if kind.__name__ == "BertModel":
        inputs.pop("labels", None)
    setup, elsewhere = of_checkpoint(args.model, inputs, kind, **changes)
    return setup.replace(
        dtype=args.dtype,
        dropout=None if args.no_dropout else setup.dropout,
        recipe=None if args.no_training else setup.recipe,
    ), None if args.store_weights else elsewhere


def read_inputs(path: Path, kind: type[BertPreTrainedModel]) -> dict[str, Any]:
    """The arguments of a model class from a file; a mask of ones where it has none."""
    arrays, _ = read_arrays(path)
    if "input_ids" not in arrays:
        raise InputError(f"{path}: wanted input_ids (B, S), got {', '.join(arrays) or 'nothing'}")
    known = [p.name for p in signature(kind.pack).parameters.values() if p.kind != p.VAR_KEYWORD]
    known = known[1:]  # without self
    for name in (name for name in arrays if name not in known):
        nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InputError(
            f"{path}: {kind.__name__} takes no {name!r}: the nearest name is {nearest!r}"
        )
    ids = arrays["input_ids"]
    if kind is models.BertForSentenceEmbedding and "labels" in arrays and ids.shape[1:-1] != (2,):
        raise InputError(
            f"{path}: input_ids have shape {ids.shape}, want (B, 2, S): {kind.__name__} learns "
            "from pairs of texts, and labels are their wanted cosines; for the vectors alone "
            "leave labels out"
        )
    arrays.setdefault("attention_mask", np.ones_like(ids))
    return arrays
