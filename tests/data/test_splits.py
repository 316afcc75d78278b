from __future__ import annotations

import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from minibert.data.splits import hold_out
from minibert.errors import InputError


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 2**63 - 1))
def test_each_example_is_in_one_part_and_parts_keep_their_order(count, share, seed):
    examples = toy.examples((f"text {i}", "a") for i in range(count))
    wanted = round(count * share)
    if wanted in (0, count):
        with pytest.raises(InputError, match=rf"has {count} examples: too few to hold out"):
            hold_out(examples, share, seed)
        return
    rest, held = hold_out(examples, share, seed)
    assert len(held) == wanted
    assert sorted(rest.lines + held.lines) == examples.lines
    for part in (rest, held):
        assert part.lines == sorted(part.lines)
        assert part.sentence1 == [f"text {line - 2}" for line in part.lines]


def test_the_seed_decides():
    examples = toy.examples(toy.reviews(40))
    assert hold_out(examples, 0.3, 1)[1].lines == hold_out(examples, 0.3, 1)[1].lines
    assert hold_out(examples, 0.3, 1)[1].lines != hold_out(examples, 0.3, 2)[1].lines
