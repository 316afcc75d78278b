"""What many tests share. No two sizes are equal, so that no axis passes for another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from minibert import BertConfig, BertForSequenceClassification
from minibert.backend.numpy_backend import NumpyBackend

settings.register_profile("minibert", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("minibert")

LENGTHS = (9, 1, 4, 4, 7)  # real tokens of each sequence: a single one, and two equal neighbours
PROBLEMS = {
    "single_label_classification": np.array([2, 0, -100, 1, 2]),
    "regression": np.array([[0.5], [-1.0], [2.0], [0.0], [3.5]]),
    "multi_label_classification": np.random.default_rng(3).integers(0, 2, (5, 3)).astype(float),
}


@pytest.fixture
def xp() -> NumpyBackend:
    return NumpyBackend()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def tiny() -> BertConfig:
    """L = 2, H = 12, N = 3, D = 4, F = 20, V = 37, K = 3; two different dropouts."""
    return BertConfig(
        vocab_size=37,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=16,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.2,
        num_labels=3,
    )


@pytest.fixture
def inputs() -> dict[str, Any]:
    """A padded batch for `tiny`: B = 5, S = 9, T = 25."""
    rng = np.random.default_rng(1)
    mask = (np.arange(9) < np.array(LENGTHS)[:, None]).astype(np.int64)
    ids = rng.integers(1, 37, mask.shape) * mask
    ids[0, 3] = 0  # the padding token, attended to: its row gets no gradient all the same
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, mask.shape) * mask,
    }


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """Each kind of head in turn: (problem_type, labels for `inputs`)."""
    return request.param, PROBLEMS[request.param]


@pytest.fixture
def make_model(tiny: BertConfig) -> Callable[..., BertForSequenceClassification]:
    """A maker of tiny float64 models in which no bias is 0 and no layer norm is the identity."""

    def make(
        config: BertConfig = tiny, kind: type = BertForSequenceClassification, **options: Any
    ) -> Any:
        rng = np.random.default_rng(2)
        arrays = {
            name: rng.normal(name.endswith("LayerNorm.weight"), 0.3, shape)
            for name, shape in kind.shapes(config).items()
        }
        options = {"backend": "numpy", "dtype": "float64", "threads": 1} | options
        return kind(config, arrays=arrays, **options)

    return make


@pytest.fixture
def problem_model(
    tiny: BertConfig, problem: tuple[str, Any], make_model: Callable[..., Any]
) -> Callable[..., BertForSequenceClassification]:
    """`make_model` with the head of `problem`."""
    labels = 1 if problem[0] == "regression" else 3
    config = tiny.replace(problem_type=problem[0], num_labels=labels)
    return lambda **options: make_model(config, **options)
