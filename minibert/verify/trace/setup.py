"""What a trace is a trace of: a model, its weights, a batch, dropout, and ten steps of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minibert.backend import Backend
from minibert.backend.numpy_backend import NumpyBackend
from minibert.config import BertConfig
from minibert.models import BertForSentenceEmbedding, BertPreTrainedModel, Run
from minibert.optim.rules import RULES

Update = Callable[..., None]
ADAM_RULES = ("adamw_torch", "adamw_hf", "adam_google", "adam")
STEPS = (1, 2, 3, 10)
INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
LARGE = 1 << 20  # parameters: from here on arithmetic takes the time, and not Python itself


@dataclass(frozen=True)
class Recipe:
    """Full-batch training without dropout, the gradient clipped by its global norm."""

    lr: float = 1e-3
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    max_norm: float = 1.0
    steps: tuple[int, ...] = STEPS  # after which the state is written down
    rules: tuple[str, ...] = ADAM_RULES
    decay_all: bool = False  # biases and layer norms too: wrong
    zero_gradients: bool = True  # False: they pile up from step to step: wrong
    updates: Mapping[str, Update] = field(
        default_factory=lambda: {n: rule.update for n, rule in RULES.items() if rule.update}
    )


@dataclass(frozen=True)
class Setup:
    """One run. Everything in a trace is a function of this."""

    kind: type[BertPreTrainedModel]
    config: BertConfig
    weights: Mapping[str, Any]  # every parameter under its HF name, on the host
    inputs: Mapping[str, Any]  # input_ids, attention_mask, token_type_ids (B, S), labels
    dtype: str = "float64"
    dropout: Run | None = None  # for a second pass, with dropout
    recipe: Recipe | None = None  # None: no training
    xp: Backend = field(default_factory=lambda: NumpyBackend(reference=True))
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Layer functions that take the place of those in `layers/`, by name: for diagnosis."""

    def replace(self, **changes: Any) -> Setup:
        return replace(self, **changes)

    @property
    def has_loss(self) -> bool:
        """Whether the inputs hold what the model's loss needs."""
        pairs = np.ndim(self.inputs["input_ids"]) == 3
        return bool(self.inputs.keys() - INPUTS) or (
            pairs and self.kind is BertForSentenceEmbedding
        )

    @property
    def mask(self) -> Any:
        """The attention mask with a row for each sequence: (B·C, S) for an input (B, C, S)."""
        ids = np.asarray(self.inputs["input_ids"])
        mask = np.asarray(self.inputs.get("attention_mask", np.ones_like(ids)))
        return mask.reshape(-1, ids.shape[-1])
