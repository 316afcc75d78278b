"""A start from counts for a new model: tables are wide while it is trained, narrow when saved."""

from __future__ import annotations

import math

import numpy as np

from minibert.data.word_vectors import word_vectors
from minibert.models import BertPreTrainedModel
from minibert.models.initialization import sinusoids
from minibert.training.pretraining_sources import Sources

WORDS, POSITIONS, TYPES = (
    f"bert.embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type")
)
WIDER = 3.0
"""Deviation of the three tables ÷ initializer_range. All have the same: none drowns the others in
their sum, so that attention sees words, places and which segment is which."""

NARROW = 0.01
"""Deviation of the words, about, in a model that is saved. Tried on the movie reviews, validation
part: in one epoch 0.005 and 0.01 came before 0.02 and 0.04, in three 0.01 before 0.005 and 0.02."""


def start_from_counts(model: BertPreTrainedModel, sources: Sources, seed: int, quiet: bool) -> None:
    """Gives a new model the word vectors of its corpus, positions as waves, and keys as queries.

    At random, a small model spends thousands of steps until its attention finds the neighbours of a
    masked word; from here some hundreds. Pieces that do not occur, and the token types, stay as
    drawn, but as wide: beside narrow types next sentences are learnt later.
    """
    c, deviation = model.config, WIDER * model.config.initializer_range
    words = model.parameters[WORDS]
    found = word_vectors(
        sources.train, sources.train_documents, c.vocab_size, c.hidden_size, seed, quiet
    )
    table = found * np.float32(deviation * c.hidden_size**0.5)
    absent = ~found.any(axis=1)
    table[absent] = WIDER * model.xp.to_host(words)[absent]
    positions = sinusoids(c.max_position_embeddings, c.hidden_size, deviation)
    words[...] = model.xp.to_device(table, words.dtype)
    model.parameters[POSITIONS][...] = model.xp.to_device(positions, words.dtype)
    model.parameters[TYPES][...] *= WIDER
    attend_to_the_alike(model)


def attend_to_the_alike(model: BertPreTrainedModel) -> None:
    """Keys begin as queries: a score, xᵢᵀ WᵀW xⱼ, then says how alike two tokens are.

    So from the first step on, attention sees like words (in the other segment too, which is what
    next sentences are told by), near ones by the waves, and those of the same segment.
    """
    for layer in range(model.config.num_hidden_layers):
        name = f"bert.encoder.layer.{layer}.attention.self"
        model.parameters[f"{name}.key.weight"][...] = model.parameters[f"{name}.query.weight"]


def narrow_embeddings(model: BertPreTrainedModel) -> float:
    """Divides the three tables by the power of two that brings the words near `NARROW`.

    Returns that power. What the model computes stays, to the bit but for layer norm's eps: with
    x = word + position + type and s = 2ᵏ,

        LayerNorm(x/s) = LayerNorm(x),    (sγ ⊙ x̂ + sβ)(W/s)ᵀ = (γ ⊙ x̂ + β) Wᵀ,

    γ and β those of the masked-LM head's layer norm, W the word table it is tied to. What changes
    is how soon words learn afterwards: an Adam step has the size of the learning rate, so that in
    tables s times as wide it turns a vector s times less.
    """
    words = model.parameters[WORDS]
    deviation = float(np.std(model.xp.to_host(words)))
    s = 2.0 ** max(0, round(math.log2(deviation / NARROW)))
    for table in (WORDS, POSITIONS, TYPES):
        model.parameters[table][...] /= s
    for parameter in ("weight", "bias"):
        model.parameters[f"cls.predictions.transform.LayerNorm.{parameter}"][...] *= s
    return s
