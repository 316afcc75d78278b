from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minibert.checkpoint.sentence_transformers import (
    SentenceSettings,
    read_sentence_settings,
    write_sentence_settings,
)
from minibert.errors import CheckpointError, InputError

KIND = "sentence_transformers.models."


def write(directory: Path, steps: list[Any], pooling: Any = None, **config: Any) -> Path:
    modules = [{"idx": i, "path": path, "type": KIND + name} for i, (name, path) in steps]
    (directory / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (directory / "1_Pooling").mkdir()
        (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if config:
        (directory / "sentence_bert_config.json").write_text(json.dumps(config))
    return directory


STEPS = list(enumerate([("Transformer", ""), ("Pooling", "1_Pooling")]))


@pytest.mark.parametrize(
    "settings",
    [
        SentenceSettings(),
        SentenceSettings("cls", False, 256),
        SentenceSettings("max", True, 64, do_lower_case=True),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, settings: SentenceSettings) -> None:
    write_sentence_settings(tmp_path, settings, 384)
    assert read_sentence_settings(tmp_path) == settings


def test_a_plain_model_directory_has_no_recipe(tmp_path: Path) -> None:
    assert read_sentence_settings(tmp_path) is None


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True, "include_prompt": True}, "max"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ["cls"]}, "cls"),
    ],
)
def test_both_forms_of_pooling(tmp_path: Path, pooling: Any, expected: str) -> None:
    found = read_sentence_settings(write(tmp_path, STEPS, pooling))
    assert found == SentenceSettings(expected, normalize=False)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"pooling_mode_lasttoken": True}, "got the pooling lasttoken"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "got the pooling mean_sqrt_len_tokens"),
        ({"pooling_mode": ["mean", "max"]}, r"got the pooling mean \+ max, wanted one of"),
        ({}, "got the pooling none"),
    ],
)
def test_other_poolings_are_refused(tmp_path: Path, pooling: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_sentence_settings(write(tmp_path, STEPS, pooling))


def test_other_steps_are_refused(tmp_path: Path) -> None:
    dense = [*STEPS, (2, ("Dense", "2_Dense"))]
    with pytest.raises(CheckpointError, match="got the steps Transformer, Pooling, Dense"):
        read_sentence_settings(write(tmp_path, dense))
    elsewhere = [(0, ("Transformer", "0_BERT")), STEPS[1]]
    with pytest.raises(CheckpointError, match=r"lies in .0_BERT., wanted beside modules"):
        read_sentence_settings(write(tmp_path, elsewhere))
    (tmp_path / "modules.json").write_text('{"a": 1}')
    with pytest.raises(CheckpointError, match="wanted a list of"):
        read_sentence_settings(tmp_path)


def test_bad_values_are_refused(tmp_path: Path) -> None:
    write(tmp_path, STEPS, {"pooling_mode": "mean"}, max_seq_length="128")
    with pytest.raises(CheckpointError, match="max_seq_length: got '128'"):
        read_sentence_settings(tmp_path)
    with pytest.raises(InputError, match="pooling 'sum': choose one of cls, mean, max"):
        SentenceSettings("sum")
