"""The dropout rule, spelled out in whole numbers from the published algorithm.

`philox` is Philox4x64-10 as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011), section 3.3, and is held to the known answers of the authors' library, Random123
(tests/kat_vectors). `decisions` is the rule in `Backend.keep_decisions`.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from minibert.backend.base import dropout_threshold
from minibert.backend.numpy_backend import NumpyBackend
from minibert.parallel import Workers

WORD = (1 << 64) - 1
MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B


def philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> 64) ^ c1 ^ k0,
            product1 & WORD,
            (product0 >> 64) ^ c3 ^ k1,
            product0 & WORD,
        )
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def piece(seed: int, site: int, step: int, stream: int, d: int) -> int:
    words = philox((d // 16 + 1, stream, step, 0), (seed, site))
    return words[d % 16 // 4] >> (16 * (d % 4)) & 0xFFFF


def decisions(
    seed: int, site: int, step: int, stream: int, first: int, count: int, threshold: int
) -> list[bool]:
    places = range(first, first + count)
    return [piece(seed, site, step, stream, d) >= threshold for d in places]


# fmt: off
KNOWN_ANSWERS = [
    ((0,) * 4, (0,) * 2,
     (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    ((WORD,) * 4, (WORD,) * 2,
     (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)),
    ((0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
     (0x452821E638D01377, 0xBE5466CF34E90C6C),
     (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6)),
]
# fmt: on


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_our_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    assert philox(counter, key) == words


LARGE = st.integers(0, 2**63)


@given(
    LARGE, st.integers(0, 99), LARGE, LARGE,
    st.integers(0, 2**40), st.integers(0, 70), st.integers(0, 65535),
)  # fmt: skip
@example(0, 0, 0, 0, 0, 0, 6554)
@example(42, 3, 7, 0, 15, 2, 6554)  # across a block's end
@example(42, 3, 7, 0, 16, 16, 6554)
def test_the_backend_follows_the_rule(
    seed: int, site: int, step: int, stream: int, first: int, count: int, threshold: int
) -> None:
    place = (seed, site, step, stream, first, count, threshold)
    got = NumpyBackend().keep_decisions(*place)
    assert (got.shape, got.dtype) == ((count,), bool)
    assert got.tolist() == decisions(*place)


def test_a_piece_equal_to_the_threshold_keeps() -> None:
    for d in range(20):
        value = piece(1, 2, 3, 4, d)
        for threshold, kept in ((value, True), (value + 1, False)):
            assert NumpyBackend().keep_decisions(1, 2, 3, 4, d, 1, threshold).item() is kept


def keep(
    count: int, p: float, *, seed: int = 5, site: int = 2, step: int = 9, stream: int = 0
) -> NDArray[np.bool_]:
    threshold, _ = dropout_threshold(p)
    return NumpyBackend().keep_decisions(seed, site, step, stream, 0, count, threshold)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_the_share_kept_is_one_minus_p(p: float) -> None:
    n = 400_000
    assert abs(keep(n, p).mean() - (1 - p)) < 4 * (p * (1 - p) / n) ** 0.5


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.25, 1 / 3, 0.9, 0.999999])
def test_threshold_and_scale_keep_the_expectation(p: float) -> None:
    threshold, scale = dropout_threshold(p)
    assert abs(threshold / 65536 - p) <= 2**-16
    assert 0 <= threshold < 65536
    assert scale * (65536 - threshold) == pytest.approx(65536, rel=1e-15)


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_a_stream_is_the_same_however_it_is_cut(first: int, middle: int, last: int) -> None:
    xp, a, b = NumpyBackend(), first, first + middle
    whole = keep(b + last, 0.3)
    threshold, _ = dropout_threshold(0.3)
    parts = [(0, a), (a, middle), (b, last)]
    cut = [xp.keep_decisions(5, 2, 9, 0, start, n, threshold) for start, n in parts]
    np.testing.assert_array_equal(np.concatenate(cut), whole)


@pytest.mark.parametrize("other", [{"seed": 6}, {"site": 3}, {"step": 10}, {"stream": 1}])
def test_every_coordinate_gives_independent_decisions(other: dict[str, int]) -> None:
    """Two fair masks agree on half of the places, within 4 standard deviations."""
    n = 100_000
    agree = (keep(n, 0.5) == keep(n, 0.5, **other)).mean()
    assert abs(agree - 0.5) < 4 * 0.5 / n**0.5


def test_threads_do_not_disturb_each_other() -> None:
    alone = [keep(1000, 0.3, stream=s).tolist() for s in range(40)]
    together = Workers(4).map(lambda s: keep(1000, 0.3, stream=s).tolist(), range(40))
    assert together == alone
