"""What all models share: the padded API, shards, threads, and directories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minibert import BertConfig, BertForSequenceClassification, BertModel
from minibert.backend.numpy_backend import NumpyBackend
from minibert.errors import InputError
from minibert.models import Run
from minibert.packing import pack, pack_sequences

Maker = Callable[..., Any]
Inputs = dict[str, Any]


def relative(got: Any, want: Any) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


# ---- The padded convention ----


def test_outputs_have_padded_shapes_and_zero_at_padding(make_model: Maker, inputs: Inputs) -> None:
    model = make_model(kind=BertModel)
    out = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert out.last_hidden_state.shape == (5, 9, 12)
    assert out.pooler_output.shape == (5, 12)
    assert [h.shape for h in out.hidden_states] == [(5, 9, 12)] * 3
    assert [a.shape for a in out.attentions] == [(5, 3, 9, 9)] * 2
    np.testing.assert_array_equal(out.hidden_states[-1], out.last_hidden_state)
    padding = inputs["attention_mask"] == 0
    for state in out.hidden_states:
        assert not state[padding].any()
        assert state[~padding].all()
    real = inputs["attention_mask"][:, None, :, None] * np.ones((5, 3, 9, 1))
    for attention in out.attentions:
        np.testing.assert_allclose(attention.sum(axis=-1, keepdims=True), real, rtol=1e-14)
        assert not np.swapaxes(attention, 1, 3)[padding].any()


def test_what_was_not_asked_for_is_none(make_model: Maker, inputs: Inputs) -> None:
    out = make_model()(**inputs)
    assert out.logits.shape == (5, 3)
    assert [n for n, v in vars(out).items() if v is not None] == ["logits"]


def test_padding_is_invisible(make_model: Maker, inputs: Inputs) -> None:
    """Each sequence alone, without padding, and wider padding with other ids below the mask."""
    model = make_model()
    want = model(**inputs).logits
    ids, types = inputs["input_ids"], inputs["token_type_ids"]
    for b, n in enumerate(inputs["attention_mask"].sum(axis=1)):
        alone = model(ids[b : b + 1, :n], None, types[b : b + 1, :n])
        np.testing.assert_allclose(alone.logits[0], want[b], atol=1e-13)
    wider = {name: np.pad(array, ((0, 0), (0, 4))) for name, array in inputs.items()}
    wider["input_ids"][wider["attention_mask"] == 0] = 36
    np.testing.assert_array_equal(model(**wider).logits, want)


def test_ids_below_the_mask_are_not_looked_at(make_model: Maker, inputs: Inputs) -> None:
    model = make_model()
    ids = np.where(inputs["attention_mask"] == 0, -1, inputs["input_ids"])
    changed = model(**inputs | {"input_ids": ids})
    np.testing.assert_array_equal(changed.logits, model(**inputs).logits)


def test_masks_and_types_may_be_left_out(make_model: Maker, inputs: Inputs) -> None:
    model, ids = make_model(), inputs["input_ids"]
    want = model(ids, np.ones_like(ids), np.zeros_like(ids)).logits
    np.testing.assert_array_equal(model(ids.tolist()).logits, want)
    np.testing.assert_array_equal(model(ids.astype(np.int32), ids >= 0).logits, want)


def test_packed_sequences_give_what_padded_ones_do(make_model: Maker, inputs: Inputs) -> None:
    model, real = make_model(), inputs["attention_mask"] == 1
    rows = [inputs["input_ids"][b][real[b]] for b in range(5)]
    types = [inputs["token_type_ids"][b][real[b]] for b in range(5)]
    packed = model.forward(pack_sequences(rows, types))
    np.testing.assert_array_equal(packed.logits, model(**inputs).logits)


def test_a_position_is_a_column(make_model: Maker) -> None:
    """With padding on the left, and with a hole: as in transformers, positions are columns."""
    model = make_model(kind=BertModel)
    ids, mask = np.array([[0, 0, 5, 6, 7]]), np.array([[0, 0, 1, 0, 1]])
    out = model(ids, mask, output_hidden_states=True)
    table = {
        kind: model.parameters[f"bert.embeddings.{kind}_embeddings.weight"]
        for kind in ("word", "position", "token_type")
    }
    e = table["word"][[5, 7]] + table["position"][[2, 4]] + table["token_type"][[0, 0]]
    xhat = (e - e.mean(axis=1, keepdims=True)) / e.std(axis=1, keepdims=True)
    gamma, beta = (model.parameters[f"bert.embeddings.LayerNorm.{k}"] for k in ("weight", "bias"))
    np.testing.assert_allclose(out.hidden_states[0][0, [2, 4]], xhat * gamma + beta, atol=1e-10)
    assert not out.last_hidden_state[0, [0, 1, 3]].any()
    pooled = np.tanh(
        out.last_hidden_state[0, 2] @ model.parameters["bert.pooler.dense.weight"].T
        + model.parameters["bert.pooler.dense.bias"]
    )
    np.testing.assert_allclose(out.pooler_output[0], pooled, atol=1e-13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": [[5, 37]]}, "input_ids holds 37, but vocab_size = 37 allows 0 … 36"),
        ({"input_ids": [[-1, 5]]}, "input_ids holds -1"),
        ({"token_type_ids": [[0, 2]]}, "token_type_ids holds 2, but type_vocab_size = 2"),
        ({"input_ids": [[5], [6, 7]]}, "rows of different lengths; pad them first"),
        ({"attention_mask": [[0, 0]]}, "row 0 has no real token"),
        ({"attention_mask": [[1, 1, 1]]}, "attention_mask has shape"),
        ({"input_ids": [[5] * 17]}, "17 tokens is longer than the position table .* = 16"),
    ],
)
def test_bad_input_is_named(make_model: Maker, change: Inputs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_model()(**{"input_ids": [[5, 6]]} | change)


def test_the_longest_sequence_that_fits_is_accepted(make_model: Maker) -> None:
    assert make_model()([[5] * 16]).logits.shape == (1, 3)
    wide, mask = np.full((1, 40), 5), np.arange(40)[None] < 16
    assert make_model()(wide, mask).logits.shape == (1, 3)  # only padding is beyond the table


def test_training_needs_labels(make_model: Maker, inputs: Inputs) -> None:
    with pytest.raises(InputError, match="training needs labels"):
        make_model().loss_and_gradients(**inputs)


@pytest.mark.parametrize("dtype", ["float16", "double", "complex128"])
def test_an_unknown_dtype_is_named(tiny: BertConfig, dtype: str) -> None:
    with pytest.raises(InputError, match=f"{dtype}.*float32, float64"):
        BertForSequenceClassification(tiny, backend="numpy", dtype=dtype)


# ---- Shards and threads ----


@pytest.mark.parametrize("dropout", [None, Run(seed=7, step=3)])
def test_the_number_of_shards_does_not_show(
    dropout: Run | None, problem: tuple[str, Any], problem_model: Maker, inputs: Inputs
) -> None:
    """One dropout bit that differed would change loss and gradients in the second digit."""
    model, batch = problem_model(), pack(**inputs, labels=problem[1])

    def run(shards: int) -> tuple[float, Any, Any]:
        gradients = model.parameters.zeros_like()
        out = model.accumulate_gradients(batch, gradients, dropout, shards)
        return float(out.loss), out.logits, gradients.flat

    loss, logits, gradient = run(1)
    for shards in (2, 3, 5, 9):
        other = run(shards)
        assert abs(other[0] - loss) < 1e-14 * abs(loss)
        np.testing.assert_allclose(other[1], logits, rtol=0, atol=1e-14)
        assert relative(other[2], gradient) < 1e-13


def test_dropout_is_on_and_names_a_step(make_model: Maker, inputs: Inputs) -> None:
    def logits(dropout: Any) -> list[float]:
        labels = np.arange(5) % 3
        out, _ = make_model().loss_and_gradients(**inputs, labels=labels, dropout=dropout)
        return out.logits.tolist()

    assert logits((1, 2)) == logits((1, 2)) == logits(Run(1, 2))
    assert len({str(logits(d)) for d in (None, (1, 2), (1, 3), (2, 2))}) == 4
    assert logits(None) == make_model()(**inputs).logits.tolist()


def test_no_two_dropouts_share_a_mask(
    make_model: Maker, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embeddings, three in each of two layers, and the head: eight sites, each drawn twice."""
    drawn = Counter()
    decide = NumpyBackend.keep_decisions

    def record(
        xp: Any, seed: int, site: int, step: int, stream: int, first: int, *rest: int
    ) -> Any:
        drawn[site, stream, first] += 1
        return decide(xp, seed, site, step, stream, first, *rest)

    monkeypatch.setattr(NumpyBackend, "keep_decisions", record)
    make_model().loss_and_gradients(**inputs, labels=np.arange(5) % 3, dropout=(1, 1))
    assert {site for site, *_ in drawn} == set(range(8))
    assert {site for site, stream, _ in drawn if stream > 0} == {1, 4}  # attention probabilities
    assert set(drawn.values()) == {2}  # once forwards, once backwards


@pytest.mark.parametrize("threads", [2, 3, 5, 8])
def test_threads_change_nothing(threads: int, make_model: Maker, inputs: Inputs) -> None:
    labels = np.arange(5) % 3
    asked = {"output_hidden_states": True, "output_attentions": True}
    one, many = make_model(), make_model(threads=threads)
    want, got = one(**inputs, labels=labels, **asked), many(**inputs, labels=labels, **asked)
    np.testing.assert_allclose(got.loss, want.loss, rtol=1e-14)
    np.testing.assert_allclose(got.logits, want.logits, atol=1e-14)
    for name in ("hidden_states", "attentions"):
        for a, b in zip(getattr(got, name), getattr(want, name), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-14)
    _, want_gradients = one.loss_and_gradients(**inputs, labels=labels, dropout=(1, 1))
    _, gradients = many.loss_and_gradients(**inputs, labels=labels, dropout=(1, 1))
    assert gradients.keys() == want_gradients.keys() == one.parameters.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, want_gradients[name], atol=1e-14, err_msg=name)


def test_the_same_run_gives_the_same_bytes(make_model: Maker, inputs: Inputs) -> None:
    def run() -> bytes:
        model = make_model(threads=3, dtype="float32")
        _, gradients = model.loss_and_gradients(**inputs, labels=np.arange(5) % 3, dropout=(1, 1))
        return b"".join(gradient.tobytes() for gradient in gradients.values())

    assert run() == run()


def test_the_number_of_threads_does_not_change_a_bit(make_model: Maker, inputs: Inputs) -> None:
    """Gradients of four shards, added up by one to four threads."""

    def run(threads: int) -> bytes:
        model = make_model(threads=threads, dtype="float32")
        gradients = model.parameters.zeros_like()
        batch = pack(**inputs, labels=np.arange(5) % 3)
        model.accumulate_gradients(batch, gradients, Run(1, 1), shards=4)
        return bytes(gradients.flat.tobytes())

    assert len({run(threads) for threads in (1, 2, 3, 4)}) == 1


def test_gradients_add_to_what_a_buffer_holds(make_model: Maker, inputs: Inputs) -> None:
    model, batch = make_model(), pack(**inputs, labels=np.arange(5) % 3)
    once, twice = (model.parameters.zeros_like() for _ in range(2))
    model.accumulate_gradients(batch, once, None)
    for _ in range(2):
        model.accumulate_gradients(batch, twice, None)
    np.testing.assert_array_equal(twice.flat, 2 * once.flat)


def test_float32_with_and_without_twins_is_float64_to_rounding(
    make_model: Maker, inputs: Inputs
) -> None:
    labels = np.arange(5) % 3
    _, exact = make_model().loss_and_gradients(**inputs, labels=labels, dropout=(1, 1))
    for xp in (NumpyBackend(), NumpyBackend(reference=True)):
        model = make_model(backend=xp, dtype="float32")
        out, gradients = model.loss_and_gradients(**inputs, labels=labels, dropout=(1, 1))
        assert out.logits.dtype == out.loss.dtype == np.float32
        for name, gradient in gradients.items():
            assert gradient.dtype == np.float32
            if not name.endswith("key.bias"):
                assert relative(gradient, exact[name]) < 1e-5, name


def test_an_update_of_the_buffer_reaches_the_next_forward(
    make_model: Maker, inputs: Inputs
) -> None:
    model = make_model()
    before = model(**inputs).logits
    model.parameters.flat[...] *= 1.1
    after = model(**inputs).logits
    assert np.abs(after - before).max() > 1e-3
    fresh = make_model()
    fresh.parameters.flat[...] = model.parameters.flat
    np.testing.assert_array_equal(fresh(**inputs).logits, after)


# ---- Directories ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [BertModel, BertForSequenceClassification])
def test_saved_and_loaded_is_bitwise_the_same(
    kind: type, dtype: str, make_model: Maker, inputs: Inputs, tmp_path: Path
) -> None:
    model = make_model(kind=kind, dtype=dtype)
    model.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path, backend="numpy", dtype=dtype, threads=1)
    assert again.parameters.keys() == model.parameters.keys()
    for name, array in model.parameters.items():
        assert again.parameters[name].dtype == dtype
        assert again.parameters[name].tobytes() == array.tobytes(), name
    for name, array in vars(model(**inputs)).items():
        np.testing.assert_array_equal(getattr(again(**inputs), name), array)
    assert again.config.architectures == (kind.__name__,)
    assert again.load_report.missing == again.load_report.unexpected == []


def test_weights_stay_in_their_file_until_training(
    make_model: Maker, inputs: Inputs, tmp_path: Path
) -> None:
    make_model(dtype="float32").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    before = file.read_bytes()
    model = BertForSequenceClassification.from_pretrained(tmp_path, backend="numpy", threads=2)
    mapped = model(**inputs).logits
    assert not model.parameters.is_flat
    assert not any(array.flags.writeable for array in model.parameters.values())
    model.loss_and_gradients(**inputs, labels=np.arange(5) % 3)
    assert model.parameters.is_flat
    np.testing.assert_array_equal(model(**inputs).logits, mapped)
    model.parameters.flat[...] = 0
    assert file.read_bytes() == before


def test_a_new_head_is_drawn_and_reported(
    tiny: BertConfig, make_model: Maker, tmp_path: Path
) -> None:
    make_model(kind=BertModel).save_pretrained(tmp_path)
    one, other = (
        BertForSequenceClassification.from_pretrained(
            tmp_path, backend="numpy", num_labels=4, seed=seed, hidden_dropout_prob=0.3
        )
        for seed in (1, 2)
    )
    assert one.load_report is not None
    assert one.load_report.missing == ["classifier.weight", "classifier.bias"]
    assert one.config.hidden_dropout_prob == 0.3
    assert one.parameters["classifier.weight"].shape == (4, 12)
    for name in one.parameters:
        same = one.parameters[name].tolist() == other.parameters[name].tolist()
        assert same == (name != "classifier.weight")


def test_a_head_of_another_size_needs_a_word(make_model: Maker, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    load = BertForSequenceClassification.from_pretrained
    with pytest.raises(InputError, match="or train a new head in its place"):
        load(tmp_path, backend="numpy", num_labels=7)
    model = load(tmp_path, backend="numpy", num_labels=7, ignore_mismatched_sizes=True)
    assert [name for name, _, _ in model.load_report.shape_mismatch] == [
        "classifier.weight",
        "classifier.bias",
    ]


def test_weights_at_odd_addresses_are_moved_to_where_blas_can_read_them(make_model: Maker) -> None:
    model = make_model(dtype="float32")
    raw = {
        name: np.frombuffer(b"-" + a.tobytes(), np.uint8)[1:]
        for name, a in model.parameters.items()
    }
    odd = {
        name: raw[name].view(np.float32).reshape(a.shape) for name, a in model.parameters.items()
    }
    assert not any(array.flags.aligned for array in odd.values())
    again = type(model)(model.config, backend="numpy", arrays=odd)
    for name, array in again.parameters.items():
        assert array.flags.aligned
        np.testing.assert_array_equal(array, model.parameters[name])
