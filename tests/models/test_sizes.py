"""BERT's sizes by name."""

from __future__ import annotations

import pytest

from minibert import BertModel
from minibert.errors import InputError
from minibert.models.sizes import SIZES, sized_config
from minibert.parameters import Layout


@pytest.mark.parametrize(
    ("size", "millions"),  # github.com/google-research/bert: README, both lists of models
    [
        *[("tiny", 4.4), ("mini", 11.3), ("small", 29.1), ("medium", 41.7), ("base", 110.1)],
        ("large", 340.0),
    ],
)
def test_parameters_are_as_many_as_google_s(size: str, millions: float) -> None:
    """Counted with the pooler and the masked language model's transform, as published."""
    config = sized_config(size, 30522)
    count = Layout(BertModel.shapes(config)).size
    published = count / 1e6
    assert millions * 0.975 < published < millions * 1.01


def test_every_size_has_heads_of_64() -> None:
    for size in SIZES:
        assert sized_config(size, 100).head_size == 64


def test_changes_and_unknown_sizes() -> None:
    config = sized_config("mini", 100, hidden_dropout_prob=0.0)
    assert (config.num_hidden_layers, config.hidden_dropout_prob) == (4, 0.0)
    with pytest.raises(InputError, match="model_size 'huge': choose one of tiny, mini, small"):
        sized_config("huge", 100)
