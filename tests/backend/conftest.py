"""Each kind of loss in turn, for the tests of devices."""

from __future__ import annotations

from typing import Any

import pytest

from minibert import BertConfig


@pytest.fixture
def problem_config(tiny: BertConfig, problem: tuple[str, Any]) -> BertConfig:
    labels = 1 if problem[0] == "regression" else 3
    return tiny.replace(problem_type=problem[0], num_labels=labels)


@pytest.fixture
def given(inputs: dict[str, Any], problem: tuple[str, Any]) -> dict[str, Any]:
    return inputs | {"labels": problem[1]}
