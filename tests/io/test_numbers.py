from __future__ import annotations

import math

import pytest

from minibert.io.numbers import counted, four_places


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.85125, "0.8512"),
        (30522.0, "30522.0000"),
        (-999999.5, "-999999.5000"),
        (1e6, "1e+06"),
        (math.exp(700.0), "1.014e+304"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_four_places_of_what_has_no_more_than_six_digits_before(value: float, text: str) -> None:
    assert four_places(value) == text


def test_one_is_no_plural() -> None:
    assert [counted(n, "byte") for n in (0, 1, 12000)] == ["0 bytes", "1 byte", "12,000 bytes"]
