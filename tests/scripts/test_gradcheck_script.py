"""scripts/gradcheck.py: its table, its JSON and its exit status."""

from __future__ import annotations

import json

import pytest

from minibert.layers import layer_norm
from minibert.verify import layer_cases


def test_one_layer(script):
    ended = script("gradcheck", "--layer", "layer_norm")
    assert (ended.status, ended.err) == (0, "")
    head, *rows = ended.out.splitlines()
    assert head.split()[0] == "layer"
    assert [row.split()[:3] for row in rows[:3]] == [
        ["layer_norm", name, "complex-step"] for name in ("x", "gamma", "beta")
    ]
    assert all(row.endswith("ok") for row in rows[:3])
    assert "3 tensors checked, 0 failed" in ended.out


def test_all_methods_as_json(script):
    ended = script("gradcheck", "--layer", "layer_norm", "--method", "all", "--json")
    checks = json.loads(ended.out)
    assert len(checks) == 9
    assert {check["method"] for check in checks} >= {"complex-step", "ridders"}
    assert all(check["passed"] and check["error"] <= check["bound"] for check in checks)


def test_layers_and_models(script):
    """What a user runs first: everything, by the complex step."""
    ended = script("gradcheck")
    assert (ended.status, ended.err) == (0, "")
    layers = {case.layer for case in layer_cases.layer_cases()}
    assert layers <= {line.split()[0] for line in ended.out.splitlines() if line}
    assert "2 layers, multi-label classification" in ended.out
    assert ", 0 failed" in ended.out


def test_a_wrong_gradient_ends_with_status_1(script, monkeypatch):
    plain = layer_norm.layer_norm_backward

    def wrong(xp, dy, cache):
        dx, dgamma, dbeta = plain(xp, dy, cache)
        return dx, dgamma, 1.001 * dbeta

    cases = [case for case in layer_cases.layer_cases() if case.layer == "layer_norm"]
    monkeypatch.setattr(
        layer_cases, "layer_cases", lambda _: [case._replace(backward=wrong) for case in cases]
    )
    ended = script("gradcheck", "--layer", "layer_norm")
    assert ended.status == 1
    assert "3 tensors checked, 1 failed" in ended.out
    assert ended.err.startswith("FAILED layer_norm beta: relative error 1.0e-03 by complex-step")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "layernorm"], "unknown layer 'layernorm': choose one of "),
        (["--method", "magic"], "argument --method: invalid choice: 'magic'"),
    ],
)
def test_bad_input_is_one_line(arguments, message, script):
    ended = script("gradcheck", *arguments)
    assert (ended.status, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert line.startswith("gradcheck.py: error: ")
    assert message in line
