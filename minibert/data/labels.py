"""Raw labels → the arrays a loss takes, by the rules of transformers' run_glue.py.

The problem type follows from the labels unless the user says it: lists are multi-label; numbers of
which one at least is written with a point or an exponent are regression; all else is single-label.
Whole numbers are classes, in the order of their values; other names are sorted by code point.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minibert.data.readers import Examples, Label, is_number
from minibert.data.text_files import brief
from minibert.errors import InputError

ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]

_WHOLE = re.compile(r"[+-]?\d{1,4000}", re.ASCII)


def problem_type_of(examples: Examples) -> ProblemType:
    """The problem type that a training file's labels show. Raises InputError without labels."""
    labels = labels_of(examples)
    if any(isinstance(label, list) for label in labels):
        return "multi_label_classification"
    written = [str(label) for label in labels]
    if all(map(is_number, written)) and not all(map(_WHOLE.fullmatch, written)):
        return "regression"
    return "single_label_classification"


def label_vocabulary(examples: Examples, problem_type: ProblemType | None = None) -> dict[str, int]:
    """`label2id` of a training file: names in order to 0 … K-1; empty for regression.

    Raises InputError if there are fewer than two classes, or (multi-label) no label at all.
    """
    problem_type = _checked(problem_type) or problem_type_of(examples)
    if problem_type == "regression":
        return {}
    found: set[str] = set()
    for i, label in enumerate(labels_of(examples)):
        found.update(_names(examples, i, label, problem_type))
    least = 2 if problem_type == "single_label_classification" else 1
    if len(found) < least:
        raise InputError(
            f"{examples.path}: {least} different labels at least are wanted in column "
            f"{examples.columns.label!r}, got {sorted(found)}"
        )
    numeric = all(map(_WHOLE.fullmatch, found))
    ordered = sorted(found, key=lambda name: (int(name), name)) if numeric else sorted(found)
    return {name: i for i, name in enumerate(ordered)}


def encode_labels(
    examples: Examples,
    label2id: Mapping[str, int] | None = None,
    problem_type: ProblemType | None = None,
    *,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """The labels of n examples as an array; K is `len(label2id)`.

    - regression: (n,) of `dtype`, finite;
    - single_label_classification: (n,) int64 in 0 … K-1;
    - multi_label_classification: (n, K) of `dtype`, 1 where the label applies and 0 elsewhere.

    For a training file both may be None and are found in it; for any other, give the training
    file's. Raises InputError, naming file and line, for a label unseen in training, one of the
    wrong kind, and a number that is not finite.
    """
    problem_type = _checked(problem_type) or problem_type_of(examples)
    if problem_type == "regression":
        return _encode_numbers(examples, dtype)
    if label2id is None:
        label2id = label_vocabulary(examples, problem_type)
    ids = [
        [_id_of(examples, i, name, label2id) for name in _names(examples, i, label, problem_type)]
        for i, label in enumerate(labels_of(examples))
    ]
    if problem_type == "single_label_classification":
        return np.array(ids, np.int64).reshape(len(ids))
    applies = np.zeros((len(ids), len(label2id)), dtype)
    for row, those in zip(applies, ids, strict=True):
        row[those] = 1
    return applies


def _id_of(examples: Examples, i: int, name: str, label2id: Mapping[str, int]) -> int:
    if name not in label2id:
        known = ", ".join(map(repr, label2id))
        raise examples.error(
            i,
            f"the label {name!r} was not seen in training, whose labels are {known}; correct it, "
            "leave the example out, or train with it",
        )
    return label2id[name]


def _encode_numbers(examples: Examples, dtype: DTypeLike) -> NDArray[Any]:
    labels = labels_of(examples)
    numbers = np.zeros(len(labels), dtype=dtype)
    for i, label in enumerate(labels):
        if isinstance(label, list) or not is_number(str(label)):
            raise examples.error(i, f"regression wants a number as label, got {label!r}")
        with np.errstate(over="ignore"):  # 1e300 as a float32 is named below
            numbers[i] = float(label)
    if not np.isfinite(numbers).all():
        i = int(np.argmin(np.isfinite(numbers)))
        raise examples.error(i, f"regression wants a finite {numbers.dtype}, got {labels[i]!r}")
    return numbers


def _names(examples: Examples, i: int, label: Label, problem_type: ProblemType) -> list[str]:
    """The class names of one example; a number read from JSON goes by its written form."""
    if isinstance(label, list) != (problem_type == "multi_label_classification"):
        wanted = "one label" if isinstance(label, list) else "a list of labels"
        raise examples.error(i, f"{problem_type} wants {wanted} an example, got {label!r}")
    if not isinstance(label, list):
        return [f"{label:g}" if isinstance(label, float) and label.is_integer() else str(label)]
    if len(set(label)) != len(label):
        raise examples.error(
            i, f"a list holds the names of the labels that apply, each once, not 0 and 1: {label}"
        )
    return label


def labels_of(examples: Examples) -> list[Label]:
    """A file's raw labels. Raises InputError where there are none."""
    if examples.labels is None:
        label = examples.columns.label
        names = list(examples.names) or [name for name in examples.columns if name]
        what = f"the label column {label!r} is empty" if label else "there is no label column"
        raise InputError(
            f"{examples.path}: {what}; the columns are {brief(names)}, and one "
            f'named "label" is wanted, or --label_column must name it{_separator(examples)}'
        )
    return examples.labels


def _separator(examples: Examples) -> str:
    """A hint where a table has one column, and another separator on every line."""
    if examples.header is None or len(examples.names) > 1:
        return ""
    for separator in ("\t", ";", ","):
        if all(separator in text for text in examples.sentence1):
            return (
                f"; every line holds {separator!r}: columns are separated by tabs in .tsv, by "
                "commas in .csv"
            )
    return ""


def _checked(problem_type: ProblemType | None) -> ProblemType | None:
    if problem_type is not None and problem_type not in get_args(ProblemType):
        raise InputError(
            f"problem_type must be one of {', '.join(get_args(ProblemType))}, got {problem_type!r}"
        )
    return problem_type
