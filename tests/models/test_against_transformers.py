"""minibert beside transformers itself: names, live random models, and the real MiniLM."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from minibert import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertTokenizer,
)
from minibert.hub import DEFAULT_MODEL, resolve_model
from minibert.optim import Optimizer, clip_scale, global_norm
from minibert.packing import pack

pytestmark = pytest.mark.crosscheck

FIXTURES = Path(__file__).parent.parent / "fixtures"
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_fixture.py"
VALUES = {"float32": 1e-5, "float64": 1e-11}
GRADIENTS = {"float32": 5e-5, "float64": 1e-11}
SENTENCES = [
    "A quiet, beautifully acted film that never once raises its voice.",
    "Dreadful.",
    "It runs for two and a half hours, and I looked at my watch after ten minutes; by the second "
    "hour the plot, such as it is, had been explained three times by three different people, none "
    "of whom seemed to believe a word of it, and the music swelled as if something had happened.",
    "Not bad at all!",
    "",
    "The first half is a comedy and the second is not, which is a pity: the jokes were good.",
    "Who thought that 94 minutes of $200,000,000 could feel so cheap?",
]
LABELS = np.array([2, 0, 1, 2, -100, 1, 0])
ADAMW = {"weight_decay": 0.01, "eps": 1e-8}


@pytest.fixture(scope="module")
def torch() -> Any:
    found = pytest.importorskip("torch", reason="cross-checks need the [crosscheck] extra")
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    transformers.logging.set_verbosity_error()
    return found


@pytest.fixture(scope="module")
def minilm() -> Path:
    return resolve_model(DEFAULT_MODEL)


def load_theirs(directory: Path, dtype: str) -> Any:
    import torch
    import transformers

    model = transformers.BertForSequenceClassification.from_pretrained(
        directory, dtype=getattr(torch, dtype), attn_implementation="eager", local_files_only=True
    )
    return model.eval()


def run_theirs(model: Any, inputs: dict[str, Any], labels: Any) -> Any:
    import torch

    output = model(
        **{name: torch.tensor(array) for name, array in inputs.items()},
        labels=torch.tensor(labels),
        output_hidden_states=True,
        output_attentions=True,
    )
    model.zero_grad()
    output.loss.backward()
    return output


def gradients_of(model: Any) -> dict[str, Any]:
    return {name: p.grad.numpy() for name, p in model.named_parameters()}


def rounding(gradients: dict[str, Any], dtype: str) -> float:
    """What may be left of a gradient that is 0 in exact arithmetic, beside the others' size."""
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    return float(16 * np.finfo(dtype).eps * max(largest, 0.5))


def assert_gradients_agree(got: dict[str, Any], want: dict[str, Any], dtype: str) -> None:
    """Relative in L2; a key bias's gradient is 0 in exact arithmetic, so both are mere rounding."""
    assert got.keys() == want.keys()
    limit = rounding(want, dtype)
    for name, gradient in want.items():
        if name.endswith("key.bias"):
            assert max(np.abs(got[name]).max(), np.abs(gradient).max()) < limit, name
        else:
            error = np.linalg.norm(got[name] - gradient) / np.linalg.norm(gradient)
            assert error < GRADIENTS[dtype], f"{name}: {error:.1e}"


def compare(directory: Path, inputs: dict[str, Any], labels: Any, dtype: str) -> None:
    """Everything that both sides compute, from the same directory."""
    ours = BertForSequenceClassification.from_pretrained(directory, backend="numpy", dtype=dtype)
    theirs = load_theirs(directory, dtype)
    want = run_theirs(theirs, inputs, labels)
    got = ours(**inputs, labels=labels, output_hidden_states=True, output_attentions=True)
    plain = ours(**inputs, labels=labels, output_hidden_states=True)
    trained, gradients = ours.loss_and_gradients(**inputs, labels=labels)
    value = {"rtol": 0, "atol": VALUES[dtype]}
    for out in (got, plain, trained):
        np.testing.assert_allclose(out.logits, want.logits.detach().numpy(), **value)
        np.testing.assert_allclose(out.loss, want.loss.item(), **value)
    real = inputs["attention_mask"] == 1
    for i, state in enumerate(want.hidden_states):
        for out in (got, plain):
            reference = state.detach().numpy()[real]
            np.testing.assert_allclose(
                out.hidden_states[i][real], reference, **value, err_msg=f"hidden state {i}"
            )
    for i, attention in enumerate(want.attentions):
        reference = attention.detach().numpy() * real[:, None, :, None]
        np.testing.assert_allclose(got.attentions[i], reference, **value, err_msg=f"{i}")
    assert_gradients_agree(gradients, gradients_of(theirs), dtype)


# ---- Names and shapes ----


HEADS = {
    "BertForMaskedLM": BertForMaskedLM,
    "BertForMultipleChoice": BertForMultipleChoice,
    "BertForNextSentencePrediction": BertForNextSentencePrediction,
    "BertForPreTraining": BertForPreTraining,
    "BertForQuestionAnswering": BertForQuestionAnswering,
    "BertForTokenClassification": BertForTokenClassification,
}
TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")


@pytest.mark.parametrize("kind", ["BertModel", "BertForSequenceClassification", *HEADS])
def test_names_and_shapes_are_those_of_transformers(kind: str, torch: Any) -> None:
    import transformers

    sizes = {"num_hidden_layers": 11, "vocab_size": 33, "hidden_size": 12, "intermediate_size": 20}
    sizes |= {"num_attention_heads": 3, "max_position_embeddings": 9}
    with torch.device("meta"):
        labels = 2 if kind == "BertForQuestionAnswering" else 5
        model = getattr(transformers, kind)(transformers.BertConfig(**sizes, num_labels=labels))
    prefix = "bert." if kind == "BertModel" else ""
    want = {prefix + name: tuple(array.shape) for name, array in model.state_dict().items()}
    for copy in TIED:
        want.pop(copy, None)
    ours = {"BertModel": BertModel, "BertForSequenceClassification": BertForSequenceClassification}
    assert (ours | HEADS)[kind].shapes(BertConfig(**sizes, num_labels=labels)) == want


# ---- The stored fixture ----


def test_the_stored_fixture_is_what_its_script_makes(torch: Any, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_fixture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    threads = torch.get_num_threads()
    script.main(tmp_path)
    torch.set_num_threads(threads)
    tolerance = {"inputs": 0, "float64": 1e-11, "float32": 1e-5}
    for part, atol in tolerance.items():
        name = f"transformers_{part}.safetensors"
        stored, made = load_file(FIXTURES / name), load_file(tmp_path / name)
        assert stored.keys() == made.keys()
        for key, array in stored.items():
            np.testing.assert_allclose(made[key], array, rtol=atol, atol=atol, err_msg=key)


# ---- Live random models: each head, each activation, padding anywhere ----


def random_inputs() -> dict[str, Any]:
    """Padding on the right and in holes; a single token."""
    rng = np.random.default_rng(4)
    mask = np.ones((5, 9), np.int64)
    mask[1, 5:], mask[2, 8:], mask[3, [1, 2, 6]], mask[4, 1:] = 0, 0, 0, 0
    ids, types = rng.integers(0, 37, mask.shape), rng.integers(0, 2, mask.shape)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_random_models(
    activation: str, dtype: str, problem: tuple[str, Any], tiny: BertConfig,
    make_model: Callable[..., Any], torch: Any, tmp_path: Path,
) -> None:  # fmt: skip
    name, labels = problem
    config = tiny.replace(
        hidden_act=activation, problem_type=name, num_labels=1 if name == "regression" else 3
    )
    make_model(config, dtype=dtype).save_pretrained(tmp_path)
    labels = labels.astype(dtype) if labels.dtype.kind == "f" else labels
    compare(tmp_path, random_inputs(), labels, dtype)


def head_labels(kind: str, inputs: dict[str, Any], rng: Any) -> dict[str, Any]:
    """Labels for `random_inputs` as this class takes them, some ignored; none at padding."""
    B, S = inputs["input_ids"].shape
    real = inputs["attention_mask"] == 1
    classes = 3 if kind == "BertForTokenClassification" else 37
    tokens = np.where(real & (rng.random((B, S)) < 0.6), rng.integers(0, classes, (B, S)), -100)
    relation = rng.integers(0, 2, B)
    return {
        "BertForMaskedLM": {"labels": tokens},
        "BertForTokenClassification": {"labels": tokens},
        "BertForPreTraining": {"labels": tokens, "next_sentence_label": relation},
        "BertForNextSentencePrediction": {"labels": relation},
        "BertForMultipleChoice": {"labels": np.array([1, 0, 1, 1, 0])},
        "BertForQuestionAnswering": {
            "start_positions": np.array([0, 4, 99, 5, 0]),
            "end_positions": np.array([8, 2, 7, 3, 0]),
        },
    }[kind]  # fmt: skip


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
@pytest.mark.parametrize("kind", HEADS)
def test_every_head(
    kind: str, activation: str, dtype: str, tiny: BertConfig, make_model: Callable[..., Any],
    torch: Any, tmp_path: Path,
) -> None:  # fmt: skip
    """Outputs, loss and every gradient of all heads, from one directory."""
    import transformers

    labels_of_head = 2 if kind == "BertForQuestionAnswering" else 3
    config = tiny.replace(hidden_act=activation, num_labels=labels_of_head)
    make_model(config, HEADS[kind], dtype=dtype).save_pretrained(tmp_path)
    rng, inputs = np.random.default_rng(6), random_inputs()
    if kind == "BertForQuestionAnswering":  # transformers' softmax runs over padding too
        inputs["attention_mask"][...] = 1
    labels = head_labels(kind, inputs, rng)
    if kind == "BertForMultipleChoice":
        inputs = {name: np.stack([a, a[::-1]], axis=1) for name, a in inputs.items()}
    ours = HEADS[kind].from_pretrained(tmp_path, backend="numpy", dtype=dtype)
    assert not ours.load_report.missing
    theirs = getattr(transformers, kind).from_pretrained(
        tmp_path, dtype=getattr(torch, dtype), attn_implementation="eager", local_files_only=True
    )
    tensors = {name: torch.tensor(array) for name, array in (inputs | labels).items()}
    want = theirs.eval()(**tensors)
    want.loss.backward()
    got = ours(**inputs, **labels)
    trained, gradients = ours.loss_and_gradients(**inputs, **labels)
    value = {"rtol": 0, "atol": VALUES[dtype]}
    for out in (got, trained):
        np.testing.assert_allclose(out.loss, want.loss.item(), **value)
    real = inputs["attention_mask"] == 1
    for name, array in want.items():
        if name == "loss":
            continue
        per_token = name in ours.token_outputs
        mine, reference = getattr(got, name), array.detach().numpy()
        np.testing.assert_allclose(
            mine[real] if per_token else mine, reference[real] if per_token else reference,
            **value, err_msg=name,
        )  # fmt: skip
    wanted = {name: g for name, g in gradients_of(theirs).items() if name not in TIED}
    shifts = {"BertForMultipleChoice": "classifier.bias", "BertForQuestionAnswering": "qa_outputs"}
    limit = rounding(wanted, dtype)
    for name in list(wanted):  # what a softmax does not see has no gradient: an absolute bound
        last = kind == "BertForQuestionAnswering" and name.endswith("1.output.LayerNorm.bias")
        if last or name == shifts.get(kind) or name == shifts.get(kind, "-") + ".bias":
            assert max(np.abs(gradients.pop(name)).max(), np.abs(wanted.pop(name)).max()) < limit
    assert_gradients_agree(gradients, wanted, dtype)


def test_padding_on_the_left(make_model: Callable[..., Any], torch: Any, tmp_path: Path) -> None:
    """The hidden states agree. (The pooler then differs: transformers' takes column 0, a pad.)"""
    model, inputs = make_model(), random_inputs()
    for name, array in inputs.items():
        inputs[name] = array[:, ::-1].copy()
    model.save_pretrained(tmp_path)
    want = run_theirs(load_theirs(tmp_path, "float64"), inputs, np.zeros(5, int))
    got = model(**inputs, output_hidden_states=True)
    real = inputs["attention_mask"] == 1
    for ours, theirs in zip(got.hidden_states, want.hidden_states, strict=True):
        np.testing.assert_allclose(ours[real], theirs.detach().numpy()[real], rtol=0, atol=1e-11)


# ---- The real MiniLM ----


def mixed_lengths(directory: Path) -> dict[str, Any]:
    """Sentences of 2 to 69 tokens, the longer half as the second segment."""
    encoded = BertTokenizer.from_pretrained(directory)(SENTENCES, padding=True)
    inputs = {name: np.asarray(encoded[name]) for name in ("input_ids", "attention_mask")}
    types = (np.arange(inputs["input_ids"].shape[1]) >= 8) * inputs["attention_mask"]
    return inputs | {"token_type_ids": types}


@pytest.fixture(scope="module")
def minilm_classifier(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM with a head of 3 classes, saved by minibert in float64: both sides read this."""
    directory = tmp_path_factory.mktemp("minilm")
    model = BertForSequenceClassification.from_pretrained(
        minilm, backend="numpy", num_labels=3, dtype="float64", seed=8
    )
    assert model.parameters.flat.size > 22_000_000
    model.parameters["classifier.weight"][...] *= 5  # 0.1: a head that has an opinion
    model.save_pretrained(directory, tokenizer=BertTokenizer.from_pretrained(minilm))
    return directory


@pytest.mark.parametrize("dtype", VALUES)
def test_minilm(dtype: str, minilm_classifier: Path, torch: Any) -> None:
    compare(minilm_classifier, mixed_lengths(minilm_classifier), LABELS, dtype)


def test_minilm_for_ten_steps_of_adamw(minilm_classifier: Path, torch: Any) -> None:
    inputs = mixed_lengths(minilm_classifier)
    theirs = load_theirs(minilm_classifier, "float64")
    ours = BertForSequenceClassification.from_pretrained(
        minilm_classifier, backend="numpy", dtype="float64"
    )
    named = list(theirs.named_parameters())
    plain = [p for name, p in named if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in named if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    their_optimizer = torch.optim.AdamW(groups, lr=1e-3, **ADAMW)
    parameters, batch = ours.parameters, pack(**inputs, labels=LABELS)
    flat = parameters.flat
    optimizer = Optimizer(ours.xp, flat, parameters.layout.decayed, **ADAMW, workers=ours.workers)
    for _ in range(10):
        loss = run_theirs(theirs, inputs, LABELS).loss.item()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        their_optimizer.step()
        gradients = parameters.zeros_like()
        output = ours.accumulate_gradients(batch, gradients, None)
        norm = global_norm(ours.xp, gradients.flat, ours.workers)
        optimizer.step(gradients.flat, 1e-3, clip_scale(norm, 1.0))
        np.testing.assert_allclose(output.loss, loss, rtol=0, atol=1e-10)
    for name, parameter in named:
        want = parameter.detach().numpy()
        np.testing.assert_allclose(parameters[name], want, rtol=0, atol=1e-10, err_msg=name)
