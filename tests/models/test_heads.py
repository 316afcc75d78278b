"""Every head: its labels, ignored ones, shards, and what of it is written to a directory."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minibert import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSentenceEmbedding,
    BertForTokenClassification,
)
from minibert.checkpoint.sentence_transformers import SentenceSettings
from minibert.errors import InputError
from minibert.layers.encoder_layer import EncoderLayerCache
from minibert.models import base, encoder
from minibert.models.encoder import LayerInputs
from minibert.models.shards import GradientSum
from minibert.packing import pack, split
from minibert.verify.model_cases import DROPOUT, KINDS, LENGTHS, random_model, small_config

EACH = pytest.mark.parametrize("kind", KINDS)
IDS = np.array([[2, 5, 6, 3], [2, 7, 3, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])


def make(kind: str) -> Any:
    model_class, changes = KINDS[kind]
    return random_model(model_class, small_config(**changes), LENGTHS)


def small(model_class: Any, **changes: Any) -> Any:
    return random_model(model_class, small_config(**changes), (4, 3))[0]


@EACH
@pytest.mark.parametrize("shards", [2, 3])
def test_the_cut_changes_nothing_but_rounding(kind: str, shards: int) -> None:
    model, batch = make(kind)
    results = []
    for parts in (1, shards):
        gradients = model.parameters.zeros_like()
        output = model.accumulate_gradients(batch, gradients, DROPOUT, parts)
        results.append((output.loss, gradients.flat))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-13)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=0, atol=1e-14)


@EACH
def test_no_two_pieces_of_the_gradients_share_an_array(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards add different pieces at the same time: one array in two of them would lose sums."""
    model, batch = make(kind)
    pieces: list[tuple[Any, ...]] = []
    add = GradientSum.add

    def noted(self: GradientSum, targets: tuple[Any, ...], gradients: tuple[Any, ...]) -> None:
        pieces.append(targets)
        add(self, targets, gradients)

    monkeypatch.setattr(GradientSum, "add", noted)
    model.accumulate_gradients(batch, model.parameters.zeros_like(), DROPOUT, 1)
    assert len(pieces) > model.config.num_hidden_layers  # layers, embeddings, most often a head
    for one, other in itertools.combinations(pieces, 2):
        for a, b in itertools.product(one, other):
            assert not np.shares_memory(a, b)


def step_peak(model: Any, batch: Any, shards: int) -> tuple[bytes, int]:
    """The gradients' bytes, and how far the memory rose; on a thread, whose buffers are new."""

    def step() -> tuple[bytes, int]:
        gradients = model.parameters.zeros_like()
        tracemalloc.start()
        try:
            model.accumulate_gradients(batch, gradients, DROPOUT, shards)
            return gradients.flat.tobytes(), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(step).result()


@EACH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("layers", "p"), [(2, 0.1), (6, 0.3)])
def test_gradient_checkpointing_gives_the_same_bytes_in_less_memory(
    kind: str, dtype: str, layers: int, p: float
) -> None:
    """With 6 layers in less than two thirds of it."""
    model_class, changes = KINDS[kind]
    sizes = {"num_hidden_layers": layers, "max_position_embeddings": 70}
    dropout = {"hidden_dropout_prob": p, "attention_probs_dropout_prob": p}
    config = small_config(**changes, **sizes, **dropout)
    model, batch = random_model(model_class, config, (65, 64, 1, 66, 70, 60))
    arrays = dict(model.parameters)
    model = type(model)(model.config, backend="numpy", dtype=dtype, arrays=arrays, threads=1)
    want, without = step_peak(model, batch, 2)
    model.gradient_checkpointing = True
    got, peak = step_peak(model, batch, 2)
    assert got == want
    assert peak < without * (1 if layers == 2 else 2 / 3)


@EACH
def test_gradient_checkpointing_keeps_the_inputs_of_layers_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = make(kind)
    kept: list[set[type]] = []
    forward = encoder.encoder_forward

    def noted(*args: Any, **options: Any) -> Any:
        x, cache = forward(*args, **options)
        kept.append(set(map(type, cache.layers)))
        return x, cache

    monkeypatch.setattr(base, "encoder_forward", noted)
    for model.gradient_checkpointing, types in (
        (False, {EncoderLayerCache}),
        (True, {LayerInputs}),
    ):
        kept.clear()
        model.accumulate_gradients(batch, model.parameters.zeros_like(), DROPOUT, 2)
        assert kept == [types] * 2
    output = model(IDS, MASK, output_attentions=True)  # evaluation is as ever
    assert len(output.attentions) == 2


@EACH
def test_training_and_evaluation_have_the_same_loss(kind: str) -> None:
    model, batch = make(kind)
    trained = model.accumulate_gradients(batch, model.parameters.zeros_like(), None)
    for every_token in (False, True):
        evaluated = model.forward(replace(batch, every_token=every_token))
        np.testing.assert_allclose(evaluated.loss, trained.loss, rtol=1e-13)


@EACH
def test_a_directory_brings_back_the_same_model(kind: str, tmp_path: Any) -> None:
    model, batch = make(kind)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, backend="numpy", dtype="float64")
    assert not again.load_report.missing
    assert not again.load_report.unexpected
    assert again.forward(batch).loss == model.forward(batch).loss


def test_only_masked_positions_meet_the_vocabulary() -> None:
    model = small(BertForMaskedLM)
    labels = np.array([[-100, 9, -100, 2], [-100, -100, 4, 7]])  # the 7 stands on padding
    output, _ = model.loss_and_gradients(IDS, MASK, labels=labels)
    everything = model(IDS, MASK, labels=labels)
    assert everything.logits.shape == (2, 4, 53)
    chosen = everything.logits[[0, 0, 1], [1, 3, 2]]
    np.testing.assert_allclose(output.logits, chosen, atol=1e-14)
    np.testing.assert_allclose(output.loss, everything.loss, rtol=1e-14)


def test_the_tied_table_receives_both_gradients() -> None:
    """Its gradient is that of the look-up plus that of the decoder, row 0 (padding) included."""
    model = small(BertForMaskedLM)
    labels = np.array([[-100, 9, -100, -100], [-100, -100, -100, -100]])
    _, gradients = model.loss_and_gradients(IDS, MASK, labels=labels)
    table = gradients["bert.embeddings.word_embeddings.weight"]
    assert np.abs(table).min(axis=1).min() > 0  # the decoder reaches every row, that of [PAD] too


def test_pre_training_adds_its_two_losses_and_does_with_one() -> None:
    model = small(BertForPreTraining)
    labels, relation = np.array([[-100, 9, -100, 2], [-100, -100, 4, -100]]), np.array([0, 1])
    both = model(IDS, MASK, labels=labels, next_sentence_label=relation)
    masked = model(IDS, MASK, labels=labels)
    related = model(IDS, MASK, next_sentence_label=relation)
    np.testing.assert_allclose(both.loss, masked.loss + related.loss, rtol=1e-14)
    assert both.prediction_logits.shape == (2, 4, 53)
    assert both.seq_relationship_logits.shape == (2, 2)
    _, gradients = model.loss_and_gradients(IDS, MASK, labels=labels)
    assert not gradients["cls.seq_relationship.weight"].any()
    assert not gradients["bert.pooler.dense.weight"].any()


def test_a_batch_in_which_nothing_was_masked_still_learns_the_relation() -> None:
    model = small(BertForPreTraining)
    nothing, relation = np.full((2, 4), -100), np.array([0, 1])
    output, gradients = model.loss_and_gradients(
        IDS, MASK, labels=nothing, next_sentence_label=relation
    )
    want = model(IDS, MASK, next_sentence_label=relation).loss
    np.testing.assert_allclose(output.loss, want, rtol=1e-14)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    for labels in ({"labels": nothing}, {"labels": nothing, "next_sentence_label": [-100, -100]}):
        with pytest.raises(InputError, match="every label is -100"):
            model(IDS, MASK, **labels)


def test_an_answer_outside_its_sequence_is_ignored() -> None:
    model = small(BertForQuestionAnswering)
    inside = model(IDS[:1], MASK[:1], start_positions=[1], end_positions=[2])
    # Column 3 of the second row is padding, 99 is nowhere: both are ignored.
    both = model(IDS, MASK, start_positions=[1, 3], end_positions=[2, 99])
    np.testing.assert_allclose(both.loss, inside.loss, rtol=1e-14)
    assert both.start_logits.shape == both.end_logits.shape == (2, 4)
    assert both.start_logits[1, 3] == 0  # padding


def test_choices_are_scored_one_by_one() -> None:
    model = small(BertForMultipleChoice)
    ids = np.stack([IDS, IDS[::-1], IDS])  # (3, 2, 4)
    mask = np.stack([MASK, MASK[::-1], MASK])
    logits = model(ids, mask).logits
    assert logits.shape == (3, 2)
    np.testing.assert_allclose(logits[1], logits[0][::-1], rtol=1e-14)
    loss = model(ids, mask, labels=[1, 0, -100]).loss
    want = np.log(np.exp(logits[0]).sum()) - logits[0][1]
    np.testing.assert_allclose(loss, want, rtol=1e-14)


def test_embeddings_are_pooled_tokens_of_length_1() -> None:
    model = small(BertForSentenceEmbedding)
    states = model(IDS, MASK, output_hidden_states=True).hidden_states[-1]
    real = [states[0], states[1][:3]]
    wants = {
        "mean": [rows.mean(axis=0) for rows in real],
        "max": [rows.max(axis=0) for rows in real],
        "cls": [rows[0] for rows in real],
    }
    for pooling, want in wants.items():
        model.settings = SentenceSettings(pooling, normalize=False)
        np.testing.assert_allclose(model(IDS, MASK).sentence_embedding, want, atol=1e-14)
        model.settings = SentenceSettings(pooling, normalize=True)
        lengths = np.linalg.norm(model(IDS, MASK).sentence_embedding, axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-14)


def test_pairs_learn_from_each_other() -> None:
    model = small(BertForSentenceEmbedding)
    ids = np.stack([IDS, IDS[::-1], IDS + 1])
    mask = np.stack([MASK, MASK[::-1], MASK])
    output = model(ids, mask)
    u, v = output.sentence_embedding[0::2], output.sentence_embedding[1::2]
    scores = 20 * u @ v.T
    want = np.mean(np.log(np.exp(scores).sum(axis=1)) - np.diag(scores))
    np.testing.assert_allclose(output.loss, want, rtol=1e-13)
    labels = np.array([0.5, -0.25, 1])
    want = np.mean((np.sum(u * v, axis=1) - labels) ** 2)
    np.testing.assert_allclose(model(ids, mask, labels=labels).loss, want, rtol=1e-13)


@pytest.mark.parametrize(
    ("model_class", "given", "message"),
    [
        (BertForTokenClassification, {"labels": [[0, 1, 2, 4]] * 2}, "label 4 is out of range"),
        (BertForTokenClassification, {"labels": [[0, 1], [2, 3]]}, "labels has shape (2, 2)"),
        (BertForTokenClassification, {"labels": [[-100] * 4] * 2}, "every label is -100"),
        (BertForMaskedLM, {"labels": [[0, 53, 2, 4]] * 2}, "label 53 is out of range"),
        (BertForMaskedLM, {"labels": [[0.5] * 4] * 2}, "labels must hold integers"),
        (BertForPreTraining, {"next_sentence_label": [0, 2]}, "next_sentence_label: label 2"),
        (BertForQuestionAnswering, {"start_positions": [0, 0]}, "wanted together"),
        (BertForQuestionAnswering, {"labels": [0, 1]}, "want (2, 2) integers"),
        (
            BertForQuestionAnswering,
            {"start_positions": [9, 9], "end_positions": [1, 1]},
            "no start or no end position lies in its sequence",
        ),
    ],
)
def test_bad_labels_are_named(model_class: Any, given: Any, message: str) -> None:
    model = small(model_class)
    for call in (model, model.loss_and_gradients):
        with pytest.raises(InputError, match=re.escape(message)):
            call(IDS, MASK, **given)


def test_wanted_cosines_lie_between_minus_1_and_1() -> None:
    model = small(BertForSentenceEmbedding)
    for labels, message in (([3.0], "between -1 and 1"), ([0.1, 0.2], "want (1,) numbers")):
        with pytest.raises(InputError, match=re.escape(message)):
            model(IDS[None], MASK[None], labels=labels)


def test_an_unknown_kind_of_labels_is_refused() -> None:
    with pytest.raises(TypeError, match="BertForMaskedLM takes no argument 'start_positions'"):
        small(BertForMaskedLM)(IDS, MASK, start_positions=[1, 2])


def test_groups_are_never_cut() -> None:
    ids = np.ones((3, 2, 4), int)
    parts = split(pack(ids, labels=[0, 1, 0]), 6)
    assert [part.num_sequences for part in parts] == [2, 2, 2]
    assert [part.labels.tolist() for part in parts] == [[0], [1], [0]]
    assert [part.first_sequence for part in parts] == [0, 2, 4]
