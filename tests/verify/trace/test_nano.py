"""The committed nano trace: small, the same bytes wherever it is made, and true."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traces import NANO

from minibert.backend.base import dropout_threshold
from minibert.backend.numpy_backend import NumpyBackend
from minibert.models import BertForSequenceClassification
from minibert.packing import pack
from minibert.verify.derivatives import complex_step
from minibert.verify.gradcheck import ZERO, check_model
from minibert.verify.trace.format import Trace
from minibert.verify.trace.rule import PIECE, pieces
from minibert.verify.trace.standard import DROPOUT, SEED, nano, write_standard
from minibert.verify.trace.tensors import collected
from minibert.verify.trace.writing import setup_of

FILES = [NANO.with_suffix(suffix) for suffix in (".safetensors", ".json")]
SCRIPT = Path(__file__).parents[3] / "scripts" / "crosscheck.py"


@pytest.fixture(scope="module")
def trace() -> Trace:
    return Trace.open(NANO)


def test_it_takes_less_than_a_megabyte() -> None:
    assert sum(file.stat().st_size for file in FILES) < 1_000_000


def test_it_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    write_standard("nano", tmp_path / "nano")
    for file in FILES:
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "machine",
    [
        {"NPY_DISABLE_CPU_FEATURES": "X86_V4"},
        {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4"},
        {"OPENBLAS_CORETYPE": "Prescott"},
        {"OMP_NUM_THREADS": "2"},
    ],
    ids=str,
)
def test_on_other_machines_too(machine: dict[str, str], tmp_path: Path) -> None:
    """As far as one machine can pass for another: other vector units, BLAS kernels, threads."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        SCRIPT,
        "trace",
        "nano",
        "--output",
        tmp_path / "nano",
    ]
    subprocess.run(command, env=os.environ | machine, check=True, capture_output=True)
    for file in FILES:
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_plain_numpy_computes_the_same_to_rounding(trace: Trace) -> None:
    """The ordered arithmetic changes the last bits only."""
    for name, array in collected(setup_of(trace)).items():
        np.testing.assert_allclose(array, trace.read(name), rtol=1e-9, atol=1e-14, err_msg=name)


def test_gradients_agree_with_the_complex_step(trace: Trace) -> None:
    """Each along one direction that sees all of it.

    (That the padding token's row, which is attended to, receives nothing is a rule and no
    derivative: the model that is judged has no padding token.)
    """
    setup = setup_of(trace)
    model = BertForSequenceClassification(
        setup.config.replace(pad_token_id=None),
        backend="numpy",
        dtype="float64",
        threads=1,
        arrays=dict(setup.weights),
    )
    checks = check_model(model, pack(**setup.inputs), None)
    assert [str(check) for check in checks if not check.passed] == []
    _, gradients = model.loss_and_gradients(**setup.inputs)
    gradients["bert.embeddings.word_embeddings.weight"][setup.config.pad_token_id] = 0
    for name, gradient in gradients.items():
        golden = trace.read(f"gradient/{name}")
        size = max(float(np.linalg.norm(golden)), trace.entries[f"gradient/{name}"].scale)
        assert np.linalg.norm(gradient - golden) <= ZERO * size, name


def test_an_activation_gradient_agrees_with_the_complex_step(trace: Trace) -> None:
    """Moving every pooled value by t·g changes the loss at the rate ⟨g, g⟩."""
    W, b = (trace.read(f"weight/classifier.{kind}") for kind in ("weight", "bias"))
    pooled, gradient = (trace.read(f"{what}/bert.pooler") for what in ("activation", "gradient"))
    labels = trace.read("input/labels")

    def loss(t: Any) -> Any:
        logits = (pooled + t * gradient) @ W.T + b
        valid = labels >= 0
        log_total = np.log(np.exp(logits).sum(axis=1))
        return (log_total - logits[np.arange(3), labels * valid])[valid].mean()

    assert complex_step(loss) == pytest.approx(float((gradient**2).sum()), rel=1e-13)


def test_it_holds_what_its_readers_need(trace: Trace) -> None:
    ids, mask = trace.read("input/input_ids"), trace.read("input/attention_mask")
    assert mask.all(axis=1).any(), "a full row"
    assert not mask.all(), "a padded row"
    assert any(len(set(row[m == 1])) < m.sum() for row, m in zip(ids, mask, strict=True))
    assert (trace.read("input/labels") == -100).any()
    orders = [entry.order for entry in trace.entries.values()]
    assert orders == list(range(len(orders)))
    given = ("input/", "weight/", "dropout/keep/")
    computed = [entry for name, entry in trace.entries.items() if not name.startswith(given)]
    assert all(entry.meaning and entry.formula and entry.budget_float32 for entry in computed)


def test_it_says_that_the_padding_tokens_row_gets_nothing(trace: Trace) -> None:
    """Nano has a token 0 that is attended to, and its row of the word table has no gradient."""
    name = "gradient/bert.embeddings.word_embeddings.weight"
    rows, ids, mask = trace.read(name), trace.read("input/input_ids"), trace.mask
    assert ((ids == 0) & (mask == 1)).any()
    np.testing.assert_array_equal(rows[0], 0)
    at_tokens = trace.read("gradient/bert.embeddings.sum")[(ids == 7) & (mask == 1)]
    np.testing.assert_allclose(rows[7], at_tokens.sum(axis=0), rtol=1e-12)
    assert "row 0 (pad_token_id) gets none of it" in trace.entries[name].formula


# ---- The rule in the JSON, word for word ----


@pytest.fixture(scope="module")
def rule(trace: Trace) -> dict[str, Any]:
    program: dict[str, Any] = {}
    assert "\n".join(trace.about["random"]) + "\n" == PIECE
    exec("\n".join(trace.about["random"]), program)
    return program


def test_the_rule_has_ten_lines_of_code_or_so() -> None:
    assert len(PIECE.splitlines()) <= 11


def test_the_rule_gives_every_mask(trace: Trace, rule: dict[str, Any]) -> None:
    about, mask = trace.about["dropout"], trace.mask.astype(bool)
    lengths, N = mask.sum(axis=1), trace.about["config"]["num_attention_heads"]
    for name, module in about["modules"].items():
        golden = trace.read(f"dropout/keep/{name}")

        def keep(stream: int, d: int, site: int = module["site"], p: float = module["p"]) -> bool:
            return bool(rule["keep"](about["seed"], site, about["step"], stream, d, p))

        if name.endswith("self.dropout"):
            before = 0
            for b, n in enumerate(lengths.tolist()):
                decided = [keep(1 + before, d) for d in range(N * n * n)]
                got = golden[b][:, mask[b]][:, :, mask[b]]
                np.testing.assert_array_equal(got, np.reshape(decided, (N, n, n)), name)
                before += n
        else:
            rows = golden if name == "dropout" else golden[mask]
            decided = [keep(0, d) for d in range(rows.size)]
            np.testing.assert_array_equal(rows.reshape(-1), decided, name)


def test_the_rule_takes_the_integers_of_numpy(rule: dict[str, Any]) -> None:
    """Of 64 bits, in which its products have no room."""
    want = [rule["piece"](SEED, 3, 2, 1, 1, d) for d in range(40)]
    whole = [np.int64(number) for number in (SEED, 3, 2, 1, 1)]
    with np.errstate(all="raise"):
        assert [rule["piece"](*whole, d) for d in np.arange(40)] == want


def test_every_activation_has_a_gradient(trace: Trace) -> None:
    """But for the statistics of a norm, and the loss itself."""
    without = ("LayerNorm.mean", "LayerNorm.rstd", "activation/loss")
    for name in trace.names():
        if "activation/" in name and not name.endswith(without):
            assert name.replace("activation/", "gradient/") in trace.entries, name


def test_what_is_kept_is_scaled(trace: Trace) -> None:
    name, p = "bert.embeddings", trace.about["config"]["hidden_dropout_prob"]
    dropped = trace.read(f"dropout/activation/{name}.dropout")
    keep = trace.read(f"dropout/keep/{name}.dropout")
    whole = trace.read(f"dropout/activation/{name}.LayerNorm")
    np.testing.assert_allclose(dropped, whole * keep * dropout_threshold(p)[1], rtol=1e-15)
    assert trace.about["dropout"]["seed"] == DROPOUT.seed


def test_the_rule_gives_the_weights(trace: Trace, rule: dict[str, Any]) -> None:
    place = 3
    name, _, shape = trace.about["layout"][place]
    count = int(np.prod(shape))
    numbers = [rule["piece"](SEED, place, 0, 0, 1, d) for d in range(count)]
    np.testing.assert_array_equal(numbers, pieces(SEED, place, count))
    weights = (np.array(numbers) - 32768) / 32768 * 0.5
    np.testing.assert_array_equal(trace.read(f"weight/{name}"), weights.reshape(shape))


def test_the_flat_buffers_follow_the_layout(trace: Trace) -> None:
    """After one step of Adam from zero moments, m is (1 − beta1)·scale·gradient."""
    m, about = trace.read("training/adamw_torch/step_1/m"), trace.about["training"]
    gradients = {n: trace.read(f"gradient/{n}") for n, _, _ in trace.about["layout"]}
    norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
    scale = min(1.0, about["max_norm"] / (norm + 1e-6))
    for name, start, shape in trace.about["layout"]:
        got = m[start : start + int(np.prod(shape))].reshape(shape)
        np.testing.assert_allclose(got, 0.1 * scale * gradients[name], rtol=1e-12, atol=1e-18)


def test_a_setup_read_back_is_the_setup(trace: Trace) -> None:
    again, right = setup_of(trace).replace(xp=NumpyBackend()), nano()
    assert (again.kind, again.config, again.dropout) == (right.kind, right.config, right.dropout)
    assert replace(again.recipe, updates={}) == replace(right.recipe, updates={})
    for name, weight in right.weights.items():
        np.testing.assert_array_equal(again.weights[name], weight)
