"""The certificate: what it holds, on two layers and one head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minibert.backend.numpy_backend import NumpyBackend
from minibert.verify import certificate as module
from minibert.verify import layer_cases, model_cases
from minibert.verify.certificate import certificate, layer_errors, markdown

FEW = ("layer_norm", "lookup")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case for case in layer_cases.layer_cases() if case.layer in FEW]
    monkeypatch.setattr(layer_cases, "layer_cases", lambda: cases)
    kinds = {"regression": model_cases.KINDS["regression"]}
    monkeypatch.setattr(model_cases, "KINDS", kinds)
    monkeypatch.setattr(module, "why_unavailable", lambda: "not here")


def test_lines(small: Any) -> None:
    result = certificate()
    rows = result["rows"]
    assert [(r["what"], r["precision"], r["against"]) for r in rows] == [
        (what, precision, against)
        for precision, against in (("float64", "complex step"), ("float32", "numpy float64"))
        for what in (*FEW, "model: regression")
    ]
    assert all(row["passed"] and 0 < row["error"] <= row["bound"] for row in rows)
    assert result["versions"]["numpy"] == np.__version__
    table = markdown(result).splitlines()
    assert table[2].startswith("| layer_norm | numpy float64 | complex step | 3 | ")
    assert any(line.startswith("With python ") for line in table)
    assert result["left_out"] == ["cupy float64, float32, tf32, bf16, fp16: not here"]
    assert table[-1] == "- cupy float64, float32, tf32, bf16, fp16: not here"
    assert "**FAILED**" not in markdown(result)


def test_a_wrong_layer_fails_in_every_precision(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case, _) = layer_cases.layer_cases()

    def wrong(xp: Any, dy: Any, cache: Any) -> Any:
        dx, dgamma, dbeta = case.backward(xp, dy, cache)
        return 1.001 * dx, dgamma, dbeta

    monkeypatch.setattr(layer_cases, "layer_cases", lambda: [case._replace(backward=wrong)])
    result = certificate()
    assert [row["passed"] for row in result["rows"] if row["what"] == "layer_norm"] == [False, True]
    assert "**FAILED**" in markdown(result)


def test_float32_is_measured_not_assumed() -> None:
    case = next(c for c in layer_cases.layer_cases() if c.layer == "attention")
    errors = layer_errors(case, NumpyBackend(), "float32")
    assert errors.keys() == {"result", "dqkv"}
    assert all(1e-9 < error < 1e-6 for error in errors.values())


def test_every_layer_in_float32() -> None:
    for case in layer_cases.layer_cases():
        for tensor, error in layer_errors(case, NumpyBackend(), "float32").items():
            assert error < 1e-5, f"{case.layer} {tensor}: {error:.1e}"


@pytest.mark.parametrize("name", model_cases.KINDS)
def test_every_head_in_float32(name: str) -> None:
    for tensor, error in module.model_errors(name, NumpyBackend(), "float32").items():
        assert error < 1e-4, f"{tensor}: {error:.1e}"
