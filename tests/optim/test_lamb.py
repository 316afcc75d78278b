"""LAMB: each tensor's step has the length of the tensor, against plain code for each tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minibert.optim import Optimizer
from minibert.optim.blocks import BLOCK
from minibert.parallel import Workers

LR, WD, B1, B2, EPS = 0.01, 0.1, 0.9, 0.999, 1e-6
SIZES = [7, 3000, 1, 5, 64]  # the last two do not decay
STARTS = [0, 7, 3007, 3008, 3013]
DECAYED = 3008


def reference(tensors: list[Any], gradients: list[list[Any]], decays: list[bool]) -> list[Any]:
    """Algorithm 2 of the paper, tensor by tensor, in float64."""
    tensors = [tensor.astype(np.float64) for tensor in tensors]
    m, v = ([np.zeros_like(tensor) for tensor in tensors] for _ in range(2))
    for t, step in enumerate(gradients, start=1):
        for i, g in enumerate(step):
            m[i] = B1 * m[i] + (1 - B1) * g
            v[i] = B2 * v[i] + (1 - B2) * g**2
            r = (m[i] / (1 - B1**t)) / (np.sqrt(v[i] / (1 - B2**t)) + EPS)
            ratio = 1.0
            if decays[i]:
                r = r + WD * tensors[i]
                x_norm, r_norm = np.linalg.norm(tensors[i]), np.linalg.norm(r)
                ratio = x_norm / r_norm if x_norm > 0 and r_norm > 0 else 1.0
            tensors[i] = tensors[i] - LR * ratio * r
    return tensors


def cut(flat: Any) -> list[Any]:
    return np.split(flat, STARTS[1:])


def run(start: Any, gradients: Any, threads: int = 1, view: type = np.ndarray) -> Any:
    p = start.copy().view(view)
    optimizer = Optimizer(
        np, p, DECAYED, rule="lamb", weight_decay=WD, beta1=B1, beta2=B2, eps=EPS,
        tensors=STARTS, workers=Workers(threads),
    )  # fmt: skip
    for g in gradients:
        optimizer.step(2 * g.view(view), LR, scale=0.5)
    return np.asarray(p)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 2e-6)])
def test_five_steps_of_the_paper(dtype: str, tolerance: float) -> None:
    """A tensor of zeros, one without any gradient, and several sizes of weights among them."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal(sum(SIZES)) * np.repeat([3.0, 0.02, 0.0, 1.0, 0.0], SIZES)
    gradients = rng.standard_normal((5, sum(SIZES)))
    gradients[:, :7] = 0
    start, gradients = start.astype(dtype), gradients.astype(dtype)
    decays = [place < DECAYED for place in STARTS]
    want = reference(cut(start), [cut(g) for g in gradients.astype(np.float64)], decays)
    got = run(start, gradients)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, np.concatenate(want), rtol=tolerance, atol=tolerance / 100)


def test_the_length_of_the_gradient_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    start, gradients = rng.standard_normal(sum(SIZES)), rng.standard_normal((3, sum(SIZES)))
    longer, longest = (run(start, factor * gradients) for factor in (1e4, 1e7))
    np.testing.assert_allclose(longer, longest, rtol=1e-5)


def test_tensors_of_many_blocks_give_the_same_bytes_on_any_threads() -> None:
    rng = np.random.default_rng(2)
    size = 2 * BLOCK + 321
    results = []
    for threads in (1, 3):
        p = np.ones(size, np.float32)
        optimizer = Optimizer(
            np, p, size, rule="lamb", weight_decay=WD, tensors=[0, 100], workers=Workers(threads)
        )
        for seed in range(3):
            rng = np.random.default_rng(seed)
            optimizer.step(rng.standard_normal(size).astype(np.float32), LR)
        results.append(p.tobytes())
    assert results[0] == results[1]


class DeviceArray(np.ndarray):
    """Says that it lives on a device, and refuses to become a number here."""

    device = "cuda:0"  # type: ignore[assignment]

    def __float__(self) -> float:
        raise AssertionError("a number was read back from the device")

    __bool__ = __float__  # type: ignore[assignment]


def test_on_a_device_nothing_is_read_back() -> None:
    rng = np.random.default_rng(3)
    start, gradients = rng.standard_normal(sum(SIZES)), rng.standard_normal((3, sum(SIZES)))
    np.testing.assert_allclose(run(start, gradients, view=DeviceArray), run(start, gradients))
