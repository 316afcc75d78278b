"""Setups and traces for tests: random models of every head, in Hugging Face's padded convention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from minibert import BertConfig
from minibert.models import BertForQuestionAnswering, Run
from minibert.packing import unpack
from minibert.verify.model_cases import KINDS, LENGTHS, random_model, small_config
from minibert.verify.trace.format import Trace
from minibert.verify.trace.setup import Recipe, Setup
from minibert.verify.trace.writing import write_trace

NANO = Path(__file__).parent / "fixtures" / "nano"
FULL = (9, 9, 9, 9)  # transformers' loss of a span takes padding in; minibert's does not


def random_setup(
    kind: type,
    config: BertConfig,
    lengths: tuple[int, ...] = LENGTHS,
    seed: int = 0,
    attention: float = 1.0,
) -> Setup:
    """A random model of this kind with a random batch of these lengths; see `random_model`."""
    model, batch = random_model(kind, config, lengths, seed, attention)

    def padded(packed: Any) -> Any:
        rows = unpack(np, packed, batch)
        return rows.reshape(-1, batch.group, batch.length) if batch.group > 1 else rows

    inputs = {
        "input_ids": padded(batch.input_ids),
        "attention_mask": padded(np.ones(batch.num_tokens, np.int64)),
        "token_type_ids": padded(batch.token_type_ids),
    }
    if batch.token_labels is not None:
        inputs["labels"] = np.full((batch.num_sequences, batch.length), -100)
        inputs["labels"][batch.sequence_ids, batch.position_ids] = batch.token_labels
        if batch.labels is not None:
            inputs["next_sentence_label"] = batch.labels
    elif kind is BertForQuestionAnswering:
        inputs |= {"start_positions": batch.labels[:, 0], "end_positions": batch.labels[:, 1]}
    elif batch.labels is not None:
        inputs["labels"] = batch.labels
    weights = {name: array.copy() for name, array in model.parameters.items()}
    return Setup(kind, config, weights, inputs)


def setup_of_head(name: str, lengths: tuple[int, ...] = LENGTHS) -> Setup:
    """The setup of one of `KINDS`, with dropout and two steps of two rules."""
    kind, changes = KINDS[name]
    setup = random_setup(kind, small_config(**changes), lengths)
    recipe = Recipe(rules=("adamw_torch", "adam"), steps=(1, 2))
    return setup.replace(dropout=Run(1, 2), recipe=recipe)


def trace_of(setup: Setup, path: Path, **options: Any) -> Trace:
    """The setup written to `path` and read again."""
    write_trace(path, setup, **options)
    return Trace.open(path)
