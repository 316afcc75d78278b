"""Metrics by hand, and against scipy on random data."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minibert.tasks.metrics import (
    accuracy,
    classification_metrics,
    f1,
    macro,
    matthews,
    multi_label_metrics,
    pearson,
    precision,
    recall,
    regression_metrics,
    spearman,
)

# Of 8 rows: 3 true positives, 1 false positive, 2 false negatives, 2 true negatives.
PREDICTED = np.array([1, 1, 1, 1, 0, 0, 0, 0])
LABELS = np.array([1, 1, 1, 0, 1, 1, 0, 0])


def logits_of(classes, num_labels):
    return np.eye(num_labels)[classes] * 3.0 - 1.0


def test_two_classes_by_hand():
    assert accuracy(PREDICTED, LABELS) == 5 / 8
    assert f1(PREDICTED == 1, LABELS == 1) == 2 * 3 / (2 * 3 + 1 + 2)
    # (TP·TN − FP·FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN))
    assert matthews(PREDICTED, LABELS, 2) == pytest.approx((3 * 2 - 1 * 2) / (4 * 5 * 3 * 4) ** 0.5)
    assert classification_metrics(logits_of(PREDICTED, 2), LABELS) == {
        "accuracy": 5 / 8,
        "f1": 2 / 3,
        "precision": 3 / 4,
        "recall": 3 / 5,
        "matthews_correlation": matthews(PREDICTED, LABELS, 2),
    }


def test_three_classes_by_hand():
    predicted, labels = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    # class 0: 1 hit of 2 and 2; class 1: 1 hit of 1 and 2; class 2: 2 hits of 3 and 2
    want = (2 / 4 + 2 / 3 + 4 / 5) / 3
    scores = classification_metrics(logits_of(predicted, 3), labels)
    assert scores["f1"] == pytest.approx(want)
    assert scores["accuracy"] == 4 / 6
    assert scores["precision"] == pytest.approx((1 / 2 + 1 / 1 + 2 / 3) / 3)
    assert scores["recall"] == pytest.approx((1 / 2 + 1 / 2 + 2 / 2) / 3)
    # Gorodkin: (c·n − Σ tp) / √(n² − Σ p²) √(n² − Σ t²), with c = 4, n = 6, t = 2 2 2, p = 2 1 3
    assert scores["matthews_correlation"] == pytest.approx(
        (4 * 6 - (2 * 2 + 2 * 1 + 2 * 3)) / ((36 - 14) * (36 - 12)) ** 0.5
    )


def test_a_class_that_occurs_nowhere_takes_no_part_in_the_macro_average():
    predicted, labels = np.array([0, 0, 2]), np.array([0, 2, 2])
    assert macro(f1, predicted, labels, 5) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_what_has_no_answer_is_0():
    ones = np.ones(4, np.int64)
    for score in (f1, precision, recall):
        assert score(ones == 0, ones == 0) == 0
    assert matthews(ones, ones, 2) == 0
    assert pearson(np.ones(3), np.arange(3.0)) == 0
    assert spearman(np.arange(3.0), np.ones(3)) == 0


def test_multi_label_by_hand():
    labels = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    logits = np.array([[2.0, -1.0], [-0.5, 3.0], [-1.0, 0.0]])  # 0 is no
    scores = multi_label_metrics(logits, labels)
    # label 0: 1 hit of 1 and 2; label 1: 1 hit of 1 and 2; only the first row is wholly right
    assert scores == pytest.approx(
        {
            "f1": 2 * 2 / (2 + 4), "precision": 2 / 2, "recall": 2 / 4,
            "f1_macro": 2 / 3, "precision_macro": 1.0, "recall_macro": 1 / 2, "accuracy": 1 / 3,
        }
    )  # fmt: skip


def test_regression_by_hand():
    logits, labels = np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 3.0, 2.0])
    scores = regression_metrics(logits, labels)
    assert scores["mse"] == pytest.approx((0 + 1 + 4) / 3)
    assert scores["spearman"] == pytest.approx(1 - 6 * (0 + 1 + 1) / (3 * 8))


small = st.integers(2, 12).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, n, elements=st.integers(-5, 5).map(float))] * 2)
)


@given(small)
def test_correlations_against_scipy(pair):
    x, y = pair
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.stats.ConstantInputWarning)
        want = scipy.stats.pearsonr(x, y).statistic, scipy.stats.spearmanr(x, y).statistic
    got = pearson(x, y), spearman(x, y)
    np.testing.assert_allclose(got, np.nan_to_num(want), atol=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_matthews_of_two_classes_is_their_pearson_correlation(rows):
    predicted, labels = np.array(rows, np.int64).T
    want = pearson(predicted.astype(float), labels.astype(float))
    assert matthews(predicted, labels, 2) == pytest.approx(want, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_a_perfect_prediction_scores_1_and_names_do_not_matter(rows):
    predicted, labels = np.array(rows).T
    assert macro(f1, labels, labels, 4) == accuracy(labels, labels) == 1
    swapped = np.array([2, 0, 3, 1])
    for score in (partial(macro, f1), partial(macro, precision), partial(macro, recall), matthews):
        renamed = score(swapped[predicted], swapped[labels], 4)
        assert renamed == pytest.approx(score(predicted, labels, 4))
