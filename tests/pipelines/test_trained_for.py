"""What a model was trained for: no pipeline answers with a head that is random, or another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toy

from minibert import (
    BertForMultipleChoice,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    pipeline,
)
from minibert.errors import InputError
from minibert.models import BertPreTrainedModel

SHARED = {
    "multiple-choice": (BertForMultipleChoice, {"num_labels": 1}),
    "text-classification": (BertForSequenceClassification, {}),
    "token-classification": (BertForTokenClassification, {}),
}
"""The heads that have one name and one shape."""


def make(kind: type[BertPreTrainedModel], folder: Path, **changes: Any) -> Path:
    model = kind(toy.config(**changes), backend="numpy", threads=1)
    model.save_pretrained(folder, tokenizer=toy.tokenizer())
    return folder


def without(name: str, folder: Path) -> Path:
    """The directory whose config.json does not say `name`."""
    config = json.loads((folder / "config.json").read_text())
    del config[name]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("task", SHARED)
@pytest.mark.parametrize("trained", SHARED)
def test_a_head_of_another_task_is_refused(trained, task, tmp_path):
    kind, changes = SHARED[trained]
    directory = make(kind, tmp_path / "model", **changes)
    if trained == task:
        assert pipeline(task, directory).task == task
        return
    said = f"{directory} was trained for {trained} (config.json: {kind.__name__}), not for {task}: "
    with pytest.raises(InputError) as caught:
        pipeline(task, directory)
    assert str(caught.value).startswith(said + "fine-tune it first, python scripts/finetune.py")


def test_a_directory_that_says_nothing_is_taken_at_its_word(tmp_path):
    directory = without("architectures", make(BertForTokenClassification, tmp_path / "model"))
    assert pipeline("ner", directory)("a film") is not None
    # But this one has no pooler, which the other head reads.
    with pytest.raises(InputError, match=r"has no trained bert\.pooler\.dense: fine-tune it first"):
        pipeline("text-classification", directory)


def test_any_model_gives_features(tmp_path, capsys):
    directory = make(BertForTokenClassification, tmp_path / "model")
    for task in ("feature-extraction", "sentence-similarity"):
        assert pipeline(task, directory).task == task
    assert capsys.readouterr().err == ""


def test_a_loaded_model_that_was_never_trained_is_warned_of(tmp_path, capsys):
    """It may have been trained since it was loaded, which is no reason to warn."""
    bare = make(BertModel, tmp_path / "bare")
    other = make(BertForSequenceClassification, tmp_path / "other", num_labels=2)
    for directory, reason in ((bare, "has no trained classifier"), (other, "was trained for text")):
        model = BertForTokenClassification.from_pretrained(directory, backend="numpy", threads=1)
        pipeline("ner", model, tokenizer=toy.tokenizer())
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"warning: the model {reason}")
        assert line.endswith(": its answers are random")
        _ = model.parameters.flat  # as training does first of all
        pipeline("ner", model, tokenizer=toy.tokenizer())
        assert capsys.readouterr().err == ""
    pipeline("ner", BertForTokenClassification(toy.config()), tokenizer=toy.tokenizer())
    assert capsys.readouterr().err == ""
