"""Of the last layer only the rows that the head reads are computed: exactly the same comes out.

`every_token` has all of them computed, which is what the others are held to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minibert import BertForSentenceEmbedding, BertModel
from minibert.backend.numpy_backend import NumpyBackend
from minibert.checkpoint.sentence_transformers import SentenceSettings
from minibert.models import encoder
from minibert.models.shards import ModelOutput, Run
from minibert.packing import PackedBatch
from minibert.parallel import Workers
from minibert.verify.model_cases import KINDS, LENGTHS, random_model, small_config

MIXED, ONE_LENGTH, SINGLE = LENGTHS, (5, 5, 5, 5, 5, 5), (1, 1, 1, 1)
POOLED = (
    "single-label classification",
    "regression",
    "multi-label classification",
    "multiple choice",
    "next sentence",
    "[CLS] embedding",
)
MASKED = ("masked LM", "pre-training")
EACH = pytest.mark.parametrize("kind", POOLED)
Made = tuple[Any, PackedBatch]


def make(kind: str, lengths: tuple[int, ...] = MIXED, **options: Any) -> Made:
    """A model and a batch for it; its configuration changes as `config` in `options` says."""
    changes = options.pop("config", {})
    if kind == "[CLS] embedding":
        model_class: Any = BertForSentenceEmbedding
    else:
        model_class, own = KINDS[kind]
        changes = own | changes
    model, batch = random_model(model_class, small_config(**changes), lengths)
    if options:
        arrays = {name: a.astype(options.get("dtype", "float64"))
                  for name, a in model.parameters.items()}  # fmt: skip
        model = model_class(model.config, backend="numpy", arrays=arrays, **options)
    model.settings = SentenceSettings("cls", normalize=True)
    return model, batch


def train(
    model: Any, batch: PackedBatch, run: Run | None, shards: int = 1
) -> tuple[ModelOutput, Any]:
    gradients = model.parameters.zeros_like()
    return model.accumulate_gradients(batch, gradients, run, shards), gradients


def rows_of(output: ModelOutput) -> Any:
    return output.sentence_embedding if output.logits is None else output.logits


def far(got: Any, want: Any) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows that each layer's forward gave, in order."""
    counts: list[int] = []
    forward = encoder.encoder_layer_forward

    def counting(*args: Any) -> Any:
        y, cache = forward(*args)
        counts.append(len(y))
        return y, cache

    monkeypatch.setattr(encoder, "encoder_layer_forward", counting)
    return counts


@pytest.fixture(params=[MIXED, ONE_LENGTH, SINGLE], ids=["mixed", "one length", "single tokens"])
def lengths(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return request.param


@EACH
@pytest.mark.parametrize("p", [0.0, 0.1, 0.3])
def test_loss_logits_and_every_gradient_are_those_of_the_whole(
    kind: str, p: float, lengths: tuple[int, ...]
) -> None:
    config = {"hidden_dropout_prob": p, "attention_probs_dropout_prob": p}
    model, batch = make(kind, lengths, config=config)
    whole, want = train(model, replace(batch, every_token=True), Run(3, 4))
    some, got = train(model, batch, Run(3, 4))
    assert far(some.loss, whole.loss) <= 1e-13
    assert far(rows_of(some), rows_of(whole)) <= 1e-13
    size = np.linalg.norm(want.flat)
    for name, gradient in want.items():
        error = np.linalg.norm(got[name] - gradient)
        assert error <= 1e-13 * max(np.linalg.norm(gradient), 1e-3 * size), name


@EACH
@pytest.mark.parametrize("p", [0.0, 0.1, 0.3])
def test_in_float32_it_is_as_near_to_the_truth_as_the_whole(
    kind: str, p: float, lengths: tuple[int, ...]
) -> None:
    """The truth is float64's; gradients that nearly cancel are far from it both ways."""
    config = {"hidden_dropout_prob": p, "attention_probs_dropout_prob": p}
    exact, batch = make(kind, lengths, config=config)
    model, _ = make(kind, lengths, config=config, dtype="float32")
    everything = replace(batch, every_token=True)
    true, whole, some = (
        train(*each, Run(3, 4))
        for each in ((exact, everything), (model, everything), (model, batch))
    )
    assert far(rows_of(some[0]), rows_of(true[0])) <= 1e-6
    error, of_whole = (far(gradients.flat, true[1].flat) for _, gradients in (some, whole))
    assert error <= 2 * max(of_whole, 1e-7)


@EACH
def test_the_last_layer_gives_one_row_for_each_sequence(kind: str, computed: list[int]) -> None:
    model, batch = make(kind, threads=1)
    T, B = batch.num_tokens, batch.num_sequences
    model.forward(batch)
    train(model, batch, None)
    ids = np.arange(1, 7).reshape((2, 3) if batch.group == 1 else (1, 2, 3))
    model(ids)
    assert computed == [T, B, T, B, 6, 2]


def test_all_rows_are_there_for_who_asks_for_them(computed: list[int]) -> None:
    model, batch = make("regression", threads=1)
    T = batch.num_tokens
    states = model.forward(batch, output_hidden_states=True).hidden_states
    assert states[-1].shape == (6, 9, 24)
    model.forward(replace(batch, every_token=True))
    train(model, replace(batch, every_token=True), None)
    bare, _ = random_model(BertModel, small_config(), LENGTHS)
    bare.workers = Workers(1)
    assert bare.forward(replace(batch, labels=None)).last_hidden_state.shape == (6, 9, 24)
    for pooling in ("mean", "max"):
        embedding, _ = make("[CLS] embedding", threads=1)
        embedding.settings = SentenceSettings(pooling)
        embedding.forward(replace(batch, labels=None))
    for kind in ("token classification", "question answering"):
        other, labelled = make(kind, threads=1)
        other.forward(labelled)
    assert set(computed) == {T}
    for kind in MASKED:
        other, labelled = make(kind, threads=1)
        for asked in (
            replace(labelled, labels=None, token_labels=None),
            replace(labelled, every_token=True),
        ):
            computed.clear()
            other.forward(asked)
            assert sum(computed) == 2 * T  # in whatever shards


@pytest.mark.parametrize("kind", MASKED)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("reference", [True, False], ids=["plain", "twins"])
def test_a_masked_language_model_reads_first_and_labelled_tokens(
    kind: str, p: float, shards: int, reference: bool, computed: list[int]
) -> None:
    config = {"hidden_dropout_prob": p, "attention_probs_dropout_prob": p}
    given, batch = make(kind, config=config)
    arrays = dict(given.parameters.items())
    model = type(given)(
        given.config,
        backend=NumpyBackend(reference=reference),
        dtype="float64",
        arrays=arrays,
        threads=1,
    )
    labelled = batch.token_labels != -100
    read = np.union1d(np.flatnonzero(labelled), batch.first_rows)
    assert 0 < labelled.sum() < len(read) < batch.num_tokens
    whole, want = train(model, replace(batch, every_token=True), Run(3, 4))
    computed.clear()
    some, got = train(model, batch, Run(3, 4), shards)
    assert sum(computed[1::2]) == len(read)
    assert far(some.loss, whole.loss) <= 1e-13
    assert far(got.flat, want.flat) <= 1e-13


@EACH
def test_attentions_are_complete(kind: str) -> None:
    model, batch = make(kind)
    some = model.forward(batch, output_attentions=True)
    whole = model.forward(replace(batch, every_token=True), output_attentions=True)
    np.testing.assert_array_equal(some.attentions, whole.attentions)
    assert far(rows_of(some), rows_of(whole)) <= 1e-13


@EACH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_bytes_depend_on_the_shards_alone(kind: str, dtype: str, shards: int) -> None:
    """Not on the threads, nor on whether the layers are computed again in the backward."""
    results = []
    for threads, checkpointing in ((1, False), (2, False), (3, True)):
        model, batch = make(kind, dtype=dtype, threads=threads)
        model.gradient_checkpointing = checkpointing
        output, gradients = train(model, batch, Run(3, 4), shards)
        results.append((rows_of(output).tobytes(), gradients.flat.tobytes()))
    assert results[0] == results[1] == results[2]


@EACH
@pytest.mark.parametrize("shards", [2, 3])
def test_shards_add_up_to_the_whole(kind: str, shards: int) -> None:
    model, batch = make(kind)
    whole, want = train(model, replace(batch, every_token=True), Run(3, 4))
    some, got = train(model, batch, Run(3, 4), shards)
    assert far(some.loss, whole.loss) <= 1e-13
    assert far(got.flat, want.flat) <= 1e-13


@EACH
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("length", [1, 20, 100])
def test_few_tokens_that_threads_share(kind: str, threads: int, length: int) -> None:
    config = {"max_position_embeddings": 128}
    model, batch = make(kind, (length, length), config=config, dtype="float32", threads=threads)
    exact, _ = make(kind, (length, length), config=config)
    got = rows_of(model.forward(batch))
    assert far(got, rows_of(exact.forward(replace(batch, every_token=True)))) <= 1e-5


@pytest.mark.parametrize("side", ["left", "right", "both", "inside"])
def test_padding_may_stand_anywhere(side: str) -> None:
    """The head reads the first real token, whichever column it stands in."""
    model, _ = make("single-label classification")
    ids, S = np.arange(1, 25).reshape(3, 8), 8
    columns: dict[str, Callable[[int], Any]] = {
        "left": lambda b: np.arange(S) > b,
        "right": lambda b: np.arange(S) < S - b,
        "both": lambda b: (np.arange(S) > b) & (np.arange(S) < S - b),
        "inside": lambda b: np.arange(S) % (b + 2) == 0,
    }
    mask = np.array([columns[side](b) for b in range(3)])
    batch = model.pack(ids, mask)
    whole = model.forward(replace(batch, every_token=True)).logits
    np.testing.assert_allclose(model(ids, mask).logits, whole, rtol=1e-12)


def test_the_head_sees_the_tokens_whose_rows_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make("regression", threads=1)
    seen: list[PackedBatch] = []
    head = type(model)._head_forward

    def noted(self: Any, xp: Any, w: Any, x: Any, shard: PackedBatch, *rest: Any) -> Any:
        seen.append(shard)
        assert len(x) == shard.num_tokens
        return head(self, xp, w, x, shard, *rest)

    monkeypatch.setattr(type(model), "_head_forward", noted)
    train(model, batch, Run(1, 1), shards=2)
    ids = np.concatenate([shard.input_ids for shard in seen])
    np.testing.assert_array_equal(ids, batch.input_ids[batch.first_rows])
    assert len(seen) == 2
