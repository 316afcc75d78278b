"""Heads that were trained for other labels than those of the task: found, and drawn anew."""

from __future__ import annotations

from pathlib import Path

from minibert.checkpoint.directory import open_weights
from minibert.config import BertConfig
from minibert.errors import CheckpointError
from minibert.io.progress import say
from minibert.models import BertPreTrainedModel
from minibert.models.initialization import initialize
from minibert.tasks.base import Task
from minibert.tasks.label_sets import are_default, listed

CLASSIFIER = "classifier."


def has_other_labels(task: Task, directory: Path, ignore_mismatched_sizes: bool = False) -> bool:
    """Whether a directory holds a classifier of other labels than the task's.

    Labels without names, LABEL_0, …, become as many of the task's, with a note. Raises
    CheckpointError for others, unless `ignore_mismatched_sizes`.
    """
    ours = getattr(task, "label2id", None)  # {}: regression, one number
    theirs = BertConfig.from_pretrained(directory).label2id
    if ours is None or ours.keys() == theirs.keys():
        return False
    if not any(name.startswith(CLASSIFIER) for name in open_weights(directory)):
        return False
    if len(theirs) == (len(ours) or 1) and (are_default(theirs) or not ours):
        if ours:
            say(f"labels: the model's {listed(theirs)} are taken for {listed(ours)}")
        return False
    if not ignore_mismatched_sizes:
        raise CheckpointError(
            f"{directory}: the model has the labels {listed(theirs)}; the file has {listed(ours)}; "
            "--ignore_mismatched_sizes gives a new head"
        )
    return True


def draw_classifier(model: BertPreTrainedModel, seed: int) -> None:
    """The classifier's loaded parameters drawn anew, as for a file without one."""
    report = model.load_report
    assert report is not None  # the model was loaded
    _ = model.parameters.flat  # writable
    for name in [name for name in report.loaded if name.startswith(CLASSIFIER)]:
        target = model.parameters[name]
        values = initialize(name, target.shape, model.config, seed)
        target[...] = model.xp.to_device(values, str(target.dtype))
        report.loaded.remove(name)
        report.replaced.append(name)
