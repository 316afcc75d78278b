"""Learning-rate schedules, by hand and against transformers."""

from __future__ import annotations

import pytest

from minibert.errors import InputError
from minibert.optim import SCHEDULES, schedule


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("constant_with_warmup", [0, 0.5, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]),
        # (1 + cos(k·π/6)) / 2, whose cosines are ±1, ±√3/2, ±1/2, 0
        ("cosine", [0, 0.5, 1, 0.9330127018922193, 0.75, 0.5, 0.25, 0.0669872981077807, 0]),
        ("google", [0, 0.5, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]),
    ],
)
def test_eight_steps_two_of_them_warmup(name: str, expected: list[float]) -> None:
    multiplier = schedule(name, num_training_steps=8, num_warmup_steps=2)
    assert [multiplier(step) for step in range(9)] == pytest.approx(expected, abs=1e-15)


def test_the_google_rate_drops_where_the_warmup_ends() -> None:
    google = schedule("google", num_training_steps=100, num_warmup_steps=10)
    linear = schedule("linear", num_training_steps=100, num_warmup_steps=10)
    assert google(9) == linear(9) == 0.9
    assert (google(10), linear(10)) == (0.9, 1.0)
    assert linear(55) == google(50) == 0.5


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_steps_and_steps_beyond_the_end_stay_within_0_and_1(name: str) -> None:
    for total, warmup in ((0, 0), (3, 0), (3, 3), (3, 5)):
        multiplier = schedule(name, num_training_steps=total, num_warmup_steps=warmup)
        assert all(0.0 <= multiplier(step) <= 1.0 for step in range(8))


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"'polynomial': .*constant, .*linear, cosine, google"):
        schedule("polynomial", num_training_steps=1)


def test_negative_steps_are_refused() -> None:
    with pytest.raises(InputError, match="num_warmup_steps=-1"):
        schedule("linear", num_training_steps=1, num_warmup_steps=-1)


@pytest.mark.crosscheck
@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "google"])
@pytest.mark.parametrize(("total", "warmup"), [(20, 0), (20, 3), (20, 20), (3, 5)])
def test_transformers_sets_the_same_rates(name: str, total: int, warmup: int) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is transformers.get_scheduler")
    transformers = pytest.importorskip("transformers", reason="the oracle is get_scheduler")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    theirs = transformers.get_scheduler(name, optimizer, warmup, total)
    ours = schedule(name, num_training_steps=total, num_warmup_steps=warmup)
    for step in range(total + 3):
        assert 0.5 * ours(step) == theirs.get_last_lr()[0]
        optimizer.step()
        theirs.step()
