"""Three traces that everybody can make: nano, minilm and base."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minibert.checkpoint import LoadReport, load_checkpoint
from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.hub import DEFAULT_MODEL
from minibert.models import BertForSequenceClassification, BertPreTrainedModel, Run
from minibert.parameters import Layout
from minibert.verify.trace.format import Trace, sha256
from minibert.verify.trace.labels import labelled
from minibert.verify.trace.ordered import OrderedBackend
from minibert.verify.trace.rule import WEIGHTS, pieces, rule_weights
from minibert.verify.trace.setup import Recipe, Setup
from minibert.verify.trace.writing import Weights, write_trace

SEED = 1
WIDTH = 2.0**-5  # of random weights in BERT-base's size: σ = 0.018
DROPOUT = Run(seed=2, step=3)
NANO = BertConfig(
    vocab_size=19,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=7,
    num_labels=3,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.2,
    classifier_dropout=0.3,
)
NANO_INPUTS = {
    "input_ids": np.array([[1, 7, 7, 0, 18, 2], [1, 5, 9, 2, 0, 0], [1, 16, 7, 4, 12, 2]]),
    "attention_mask": np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]),
    "token_type_ids": np.array([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]),
    "labels": np.array([2, 0, -100]),
}
"""A full row with a repeated token, a padded row, and one that the loss ignores, with the padding
token attended to."""

TEXTS = (
    "A quiet, beautifully acted film that never once raises its voice.",
    "Dreadful.",
    "It runs for two and a half hours, and I looked at my watch after ten minutes.",
    "Not bad at all!",
    "The first half is a comedy and the second is not, which is a pity: the jokes were good.",
    "Good, good, good.",
    "Who thought that 94 minutes could feel so cheap?",
    "One for the fans; everybody else may wait for the book.",
)


BASE_SIZE = BertConfig(num_labels=3)
STANDARD = ("nano", "minilm", "base")
LIMITS = {"nano": None, "minilm": 1 << 20, "base": 1 << 12}
"""Larger tensors are thinned."""


def write_standard(name: str, path: Path) -> int:
    """Write the standard trace `name` ("nano", "minilm", "base") to `path`.json, .safetensors.

    Returns the number of tensors.
    """
    setup, elsewhere = standard_setup(name)
    return write_trace(path, setup, limit=LIMITS[name], elsewhere=elsewhere)


def open_trace(path: str) -> Trace:
    """The trace at `path`; "nano", where there is no such file, is made on the spot."""
    if path == "nano" and not Path("nano.json").exists():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            write_standard("nano", Path(folder) / "nano")
            return Trace.open(Path(folder) / "nano")  # mapped: it outlives its file
    return Trace.open(path)


def standard_setup(name: str) -> tuple[Setup, Weights | None]:
    """The setup of a standard trace, and where its weights are."""
    if name == "nano":
        return nano(), None
    if name == "minilm":
        return of_checkpoint(DEFAULT_MODEL, encoded(DEFAULT_MODEL, TEXTS))
    setup = base()
    return setup, by_rule(setup)


def nano() -> Setup:
    """2 layers, 1,403 parameters; in ordered arithmetic, so that its bytes are fixed."""
    layout = Layout(BertForSequenceClassification.shapes(NANO))
    weights = rule_weights(layout, SEED, 2.0**-1)
    return Setup(
        BertForSequenceClassification, NANO, weights, NANO_INPUTS,
        dropout=DROPOUT, recipe=Recipe(), xp=OrderedBackend(),
    )  # fmt: skip


def base() -> Setup:
    """BERT-base's size, with weights and ids by the counter rule: nothing to fetch."""
    layout = Layout(BertForSequenceClassification.shapes(BASE_SIZE))
    mask = (np.arange(32) < np.array([32, 21, 5, 32])[:, None]).astype(np.int64)
    ids = pieces(SEED, len(layout.shapes), mask.size).reshape(mask.shape) % BASE_SIZE.vocab_size
    ids[0, 3] = ids[0, 4]  # a repeated token
    inputs = {
        "input_ids": ids.astype(np.int64) * mask,
        "attention_mask": mask,
        "token_type_ids": (np.arange(32) >= 16) * mask,
        "labels": np.array([2, 0, 1, -100]),
    }
    return Setup(
        BertForSequenceClassification, BASE_SIZE, rule_weights(layout, SEED, WIDTH), inputs
    )


def by_rule(setup: Setup) -> Weights:
    """What a trace says of weights that follow from the counter rule."""
    layout = Layout(setup.kind.shapes(setup.config))
    return {"rule": list(WEIGHTS), "seed": SEED, "width": WIDTH, "names": list(layout.shapes)}


def of_checkpoint(
    name: str, inputs: Mapping[str, Any], kind: type[BertPreTrainedModel] | None = None,
    **config_changes: Any,
) -> tuple[Setup, Weights]:  # fmt: skip
    """A setup from a model directory or hub name, and what its trace says of the weights' file.

    Parameters that the checkpoint lacks (a new head) follow from the counter rule.
    """
    from minibert.hub import resolve_model

    directory = resolve_model(name)
    config = BertConfig.from_pretrained(directory).replace(**config_changes)
    kind = kind or BertForSequenceClassification
    shapes = kind.shapes(config)
    loaded, report = load_checkpoint(directory, shapes, ignore_mismatched_sizes=True)
    _check_head(directory, config, kind, report)
    weights = rule_weights(Layout(shapes), SEED, 2.0**-3, only=report.missing) | loaded
    weights = {name: weights[name] for name in shapes}
    elsewhere: dict[str, Any] = {}
    file = directory / "model.safetensors"
    if file.is_file():
        elsewhere = {"file": file.name, "sha256": sha256(file), "names": report.loaded}
    setup = Setup(kind, config, weights, inputs, dropout=DROPOUT, recipe=Recipe())
    return setup, elsewhere


def _check_head(
    directory: Path, config: BertConfig, kind: type[BertPreTrainedModel], report: LoadReport
) -> None:
    """InputError for a checkpoint whose head has another shape."""
    for name, got, want in report.shape_mismatch:
        labels = got[0]
        fits = kind.shapes(config.replace(num_labels=labels))[name] == got
        hint = f"the file's head is one of --num_labels {labels}" if fits else (
            f"that is no head of a {kind.__name__}: choose another --head"
        )  # fmt: skip
        raise InputError(f"{directory}: {name} has shape {got}, want {want}: {hint}")


def encoded(
    name: str, texts: Sequence[str], kind: type[BertPreTrainedModel] | None = None,
    **config_changes: Any,
) -> dict[str, Any]:  # fmt: skip
    """Texts as inputs of a model class (default: a sequence classifier), see `labelled`."""
    from minibert.hub import resolve_model
    from minibert.tokenization import BertTokenizer

    directory = resolve_model(name)
    config = BertConfig.from_pretrained(directory).replace(**config_changes)
    tokenizer = BertTokenizer.from_pretrained(directory)
    rows = tokenizer(list(texts), padding=True, return_tensors="np")
    inputs = {key: np.asarray(value, np.int64) for key, value in rows.items()}
    return labelled((kind or BertForSequenceClassification).__name__, config, inputs)
