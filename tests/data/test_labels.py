from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minibert.data.columns import Columns
from minibert.data.labels import encode_labels, label_vocabulary, problem_type_of
from minibert.data.readers import Examples, Label
from minibert.errors import InputError

SINGLE = "single_label_classification"
MULTI = "multi_label_classification"


def labelled(*labels: Label) -> Examples:
    count = len(labels)
    lines = list(range(2, count + 2))
    columns = Columns("text", None, "label")
    return Examples(Path("t.tsv"), columns, ["x"] * count, None, list(labels), lines)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["0", "1"], SINGLE),
        (["1", "2", "5"], SINGLE),
        (["good", "1.5"], SINGLE),
        (["1.0", "0.0"], "regression"),
        (["1", "2.5", "-3e2"], "regression"),
        ([1.0, "2"], "regression"),
        (["1_0.5", "2"], SINGLE),
        ([["a"], []], MULTI),
    ],
)
def test_the_problem_type(labels: list[Label], expected: str) -> None:
    assert problem_type_of(labelled(*labels)) == expected


def test_names_are_sorted_and_whole_numbers_counted() -> None:
    assert label_vocabulary(labelled("b", "a", "b")) == {"a": 0, "b": 1}
    tens = [str(i) for i in range(12)]
    assert list(label_vocabulary(labelled(*reversed(tens)))) == tens
    assert label_vocabulary(labelled("-1", "3", "10")) == {"-1": 0, "3": 1, "10": 2}
    assert label_vocabulary(labelled(["b"], [], ["c", "a"])) == {"a": 0, "b": 1, "c": 2}
    assert label_vocabulary(labelled("0.5", "1.5")) == {}


def test_single_label() -> None:
    y = encode_labels(labelled("b", "a", "b"))
    assert y.dtype == np.int64
    assert y.tolist() == [1, 0, 1]
    assert encode_labels(labelled("x"), {"y": 0, "x": 7}, SINGLE).tolist() == [7]


def test_numbers_as_classes_when_asked() -> None:
    y = encode_labels(labelled(1.0, 0.0, 1.0), problem_type=SINGLE)
    assert y.tolist() == [1, 0, 1]
    assert encode_labels(labelled("1", 1.0), {"0": 0, "1": 1}, SINGLE).tolist() == [1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_regression(dtype) -> None:
    y = encode_labels(labelled("1", "2.5", -3.0), dtype=dtype)
    assert y.dtype == dtype
    assert y.tolist() == [1.0, 2.5, -3.0]
    assert encode_labels(labelled("1", "5"), problem_type="regression").tolist() == [1, 5]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multi_label(dtype) -> None:
    y = encode_labels(labelled(["b"], [], ["c", "a"]), dtype=dtype)
    assert y.dtype == dtype
    assert y.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1]]


VOCABULARY = {"a": 0, "b": 1}
BAD = [
    (["a", "neutral"], VOCABULARY, SINGLE, r"line 3: the label 'neutral' was not seen .* 'a', 'b'"),
    ([["a"], ["a", "z"]], VOCABULARY, MULTI, r"line 3: the label 'z' was not seen"),
    ([["1", "1"]], None, None, r"line 2: .* not 0 and 1"),
    (["a", ["a"]], VOCABULARY, SINGLE, r"line 3: .* wants one label"),
    (["a", ["a"]], None, None, r"line 2: .* wants a list of labels"),
    (["1.5", "x"], None, "regression", r"line 3: regression wants a number as label, got 'x'"),
    (["1.5", ["x"]], None, "regression", r"line 3: regression wants a number"),
    (["1.5", "inf"], None, None, r"line 3: regression wants a finite float32, got 'inf'"),
    ([1.5, float("-inf")], None, None, r"line 3: regression wants a finite"),
    (["1.5", "1e300"], None, None, r"line 3: regression wants a finite float32, got '1e300'"),
    (["a", "a"], None, None, r"2 different labels at least are wanted .* got \['a'\]"),
    ([[], []], None, None, r"1 different labels at least"),
    (["a", "b"], None, "single", r"problem_type must be one of regression"),
]


@pytest.mark.parametrize(("labels", "label2id", "problem_type", "message"), BAD)
def test_bad_labels_are_named(labels, label2id, problem_type, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_labels(labelled(*labels), label2id, problem_type)


def test_a_file_without_labels_says_which_columns_it_has() -> None:
    examples = Examples(Path("t.tsv"), Columns("sentence"), ["x"], None, None, [2])
    for function in (problem_type_of, label_vocabulary, encode_labels):
        with pytest.raises(InputError, match=r"no label column.*sentence"):
            function(examples)
