"""One encoder layer against a straight line of NumPy, with its three dropouts at three sites."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from minibert.backend.numpy_backend import NumpyBackend
from minibert.layers.dropout import DropoutKey
from minibert.layers.encoder_layer import (
    SITES,
    EncoderLayerSettings,
    EncoderLayerWeights,
    encoder_layer_backward,
    encoder_layer_forward,
)

N, D, F, LENGTHS = 3, 2, 10, (4, 1, 3)
H, T = N * D, sum(LENGTHS)
OFFSETS = (0, *np.cumsum(LENGTHS).tolist())
KEY = DropoutKey(seed=5, step=8, site=4, first_row=20)
SETTINGS = EncoderLayerSettings(N, "gelu", 1e-12, attention_dropout=0.25, hidden_dropout=0.5)


def weights(rng: np.random.Generator) -> EncoderLayerWeights:
    shapes = [(3 * H, H), 3 * H, (H, H), H, H, H, (F, H), F, (H, F), H, H, H]
    return EncoderLayerWeights(*(rng.normal(size=shape) for shape in shapes))


def straight_line(
    xp: NumpyBackend, x: NDArray[np.float64], w: EncoderLayerWeights, key: DropoutKey | None
) -> NDArray[np.float64]:
    def drop(z: NDArray[np.float64], site: int, p: float, stream: int = 0) -> NDArray[np.float64]:
        if key is None:
            return z
        first = key.first_row * H if stream == 0 else 0
        place = (key.seed, key.site + site, key.step, stream, first, z.size, int(65536 * p))
        return z * xp.keep_decisions(*place).reshape(z.shape) / (1 - p)

    def norm(z: NDArray[np.float64], gamma: NDArray, beta: NDArray) -> NDArray[np.float64]:
        return gamma * (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True) + beta

    context = np.empty((T, H))
    qkv = (x @ w.W_qkv.T + w.b_qkv).reshape(T, 3, N, D)
    for start, stop in itertools.pairwise(OFFSETS):
        q, k, v = qkv[start:stop].transpose(1, 2, 0, 3)  # each (N, n, D)
        probs = special.softmax(np.einsum("hid,hjd->hij", q, k) / D**0.5, axis=-1)
        probs = drop(probs, 0, 0.25, stream=KEY.first_row + start + 1)
        context[start:stop] = np.einsum("hij,hjd->ihd", probs, v).reshape(-1, H)
    h = norm(drop(context @ w.W_o.T + w.b_o, 1, 0.5) + x, w.gamma_attention, w.beta_attention)
    a = h @ w.W_in.T + w.b_in
    f = (a * stats.norm.cdf(a)) @ w.W_out.T + w.b_out
    return norm(drop(f, 2, 0.5) + h, w.gamma_output, w.beta_output)


@pytest.mark.parametrize("key", [None, KEY])
def test_it_is_the_straight_line(
    key: DropoutKey | None, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    x, w = rng.normal(size=(T, H)), weights(rng)
    y, _ = encoder_layer_forward(xp, x, w, OFFSETS, SETTINGS, key)
    np.testing.assert_allclose(y, straight_line(xp, x, w, key), atol=1e-9)
    assert SITES == 3


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("rows", [(0, 4, 5), (6,), (1, 2, 3, 7), tuple(range(T))])
def test_some_rows_are_those_of_the_whole(
    rows: tuple[int, ...], key: DropoutKey | None, xp: NumpyBackend, rng: np.random.Generator
) -> None:
    """Forwards, and backwards as if the gradient of the others were zero."""
    x, w = rng.normal(size=(T, H)), weights(rng)
    y, cache = encoder_layer_forward(xp, x, w, OFFSETS, SETTINGS, key, rows)
    whole, whole_cache = encoder_layer_forward(xp, x, w, OFFSETS, SETTINGS, key)
    np.testing.assert_allclose(y, whole[list(rows)], rtol=1e-13, atol=1e-14)
    dy, dwhole = rng.normal(size=y.shape), np.zeros((T, H))
    dwhole[list(rows)] = dy
    dx, dw = encoder_layer_backward(xp, dy, cache)
    dx_whole, dw_whole = encoder_layer_backward(xp, dwhole, whole_cache)
    for got, want in zip((dx, *dw), (dx_whole, *dw_whole), strict=True):
        assert np.linalg.norm(got - want) <= 1e-13 * np.linalg.norm(want)


def test_every_weight_receives_a_gradient_of_its_shape(
    xp: NumpyBackend, rng: np.random.Generator
) -> None:
    x, w = rng.normal(size=(T, H)), weights(rng)
    y, cache = encoder_layer_forward(xp, x, w, OFFSETS, SETTINGS, KEY)
    dx, dw = encoder_layer_backward(xp, rng.normal(size=y.shape), cache)
    assert dx.shape == x.shape
    for name, weight, gradient in zip(w._fields, w, dw, strict=True):
        assert gradient.shape == weight.shape, name
        assert gradient.any(), name
