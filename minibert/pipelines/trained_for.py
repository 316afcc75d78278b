"""What a model was trained for: config.json's `architectures`, and the heads in its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minibert.checkpoint.directory import open_weights
from minibert.config import BertConfig
from minibert.errors import InputError
from minibert.models import BertPreTrainedModel

OF_ARCHITECTURE = {
    "BertForMaskedLM": "fill-mask",
    "BertForMultipleChoice": "multiple-choice",
    "BertForNextSentencePrediction": "next-sentence-prediction",
    "BertForPreTraining": "fill-mask",
    "BertForQuestionAnswering": "question-answering",
    "BertForSentenceEmbedding": "sentence-similarity",
    "BertForSequenceClassification": "text-classification",
    "BertForTokenClassification": "token-classification",
    "BertModel": "feature-extraction",
}
OF_HEAD = {  # by the beginning of its parameters' names; a "classifier" may be of several tasks
    "cls.predictions.": "fill-mask",
    "cls.seq_relationship.": "next-sentence-prediction",
    "qa_outputs.": "question-answering",
}
CLASSIFIERS = ("multiple-choice", "text-classification", "token-classification")
"""The tasks whose heads have one name and, with as many labels, one shape."""


def task_of(directory: Path) -> str:
    """The task that config.json's `architectures` names; where it has none, that of the head."""
    architectures = BertConfig.from_pretrained(directory).architectures
    names = () if architectures else open_weights(directory)
    for begins, task in OF_HEAD.items():
        if any(name.startswith(begins) for name in names):
            return task
    return task_of_architectures(f"{directory}: config.json", architectures)


def task_of_architectures(source: str, architectures: Sequence[str] | None) -> str:
    """The task of the first architecture that is known; `source` begins the error's line."""
    for name in architectures or ():
        if name in OF_ARCHITECTURE:
            return OF_ARCHITECTURE[name]
    how = "name the task (--task, in Python task=…)"
    if architectures:
        raise InputError(f"{source}: there is no task for {', '.join(architectures)}; {how}")
    raise InputError(f"{source} does not say what the model was trained for; {how}")


def check_architectures(config: BertConfig, task: str, name: object) -> None:
    """InputError for another task's model, whose head could pass for this one's."""
    if reason := _of_another_task(config, task):
        raise _untrained(reason, task, name)


def check_trained(model: BertPreTrainedModel, task: str, name: object) -> None:
    """InputError for a model whose answers would be random; `name`: as the user knows it."""
    if reason := untrained(model, task):
        raise _untrained(reason, task, name)


def untrained(model: BertPreTrainedModel, task: str) -> str:
    """Why a model, as it was loaded, knows nothing of a task; "" if it does."""
    report = model.load_report
    if report is None:
        return ""
    if report.missing:
        heads = [parameter for parameter in report.missing if not parameter.startswith("bert.")]
        return f"has no trained {(heads or report.missing)[0].rsplit('.', 1)[0]}"
    return _of_another_task(model.config, task)


def _of_another_task(config: BertConfig, task: str) -> str:
    architectures = config.architectures or ()
    known = [OF_ARCHITECTURE[name] for name in architectures if name in OF_ARCHITECTURE]
    others = [other for other in known if other in CLASSIFIERS]
    if task not in CLASSIFIERS or not others or task in others:
        return ""
    said = ", ".join(architectures)
    return f"was trained for {' and '.join(others)} (config.json: {said}), not for {task}"


def _untrained(reason: str, task: str, name: object) -> InputError:
    of_pretraining = task in ("fill-mask", "next-sentence-prediction")
    verb, script = (
        ("pretrain", "pretrain.py --corpus …") if of_pretraining
        else ("fine-tune", f"finetune.py --task {task}")
    )  # fmt: skip
    how = f"{verb} it first, python scripts/{script} --model_name_or_path {name}"
    return InputError(f"{name} {reason}: {how}")
