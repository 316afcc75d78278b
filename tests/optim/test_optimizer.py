"""Optimizers: by hand in plain floats, against torch, and the same bytes on any threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from minibert.errors import CheckpointError, InputError
from minibert.optim import RULES, Optimizer, clip_scale, clipping, global_norm, optimizer
from minibert.optim.blocks import BLOCK
from minibert.parallel import Workers

B1, B2, EPS, WD, LR = 0.9, 0.999, 1e-6, 0.1, 0.01
GRADIENTS = (0.3, -0.7, 0.2)

# ---- By hand: each rule on one number, spelled out as its source does ----


def adamw_torch_by_hand(p: float, wd: float) -> float:
    m = v = 0.0
    for t, g in enumerate(GRADIENTS, start=1):
        p = p - LR * wd * p
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
        p = p - LR * (m / (1 - B1**t)) / (math.sqrt(v / (1 - B2**t)) + EPS)
    return p


def adamw_hf_by_hand(p: float, wd: float) -> float:
    m = v = 0.0
    for t, g in enumerate(GRADIENTS, start=1):
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
        p = p - LR * math.sqrt(1 - B2**t) / (1 - B1**t) * m / (math.sqrt(v) + EPS)
        p = p - LR * wd * p
    return p


def adam_google_by_hand(p: float, wd: float) -> float:
    m = v = 0.0
    for g in GRADIENTS:
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
        p = p - LR * (m / (math.sqrt(v) + EPS) + wd * p)
    return p


def adam_by_hand(p: float, wd: float) -> float:
    m = v = 0.0
    for t, gradient in enumerate(GRADIENTS, start=1):
        g = gradient + wd * p
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
        p = p - LR * (m / (1 - B1**t)) / (math.sqrt(v / (1 - B2**t)) + EPS)
    return p


def sgd_by_hand(p: float, wd: float) -> float:
    m = 0.0
    for g in GRADIENTS:
        m = 0.9 * m + g + wd * p
        p = p - LR * m
    return p


def lamb_by_hand(p: float, wd: float) -> float:
    """A tensor of one number; without decay its ratio is 1."""
    decays, m, v = wd > 0, 0.0, 0.0
    for t, g in enumerate(GRADIENTS, start=1):
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
        r = (m / (1 - B1**t)) / (math.sqrt(v / (1 - B2**t)) + EPS) + wd * p
        p = p - LR * (abs(p) / abs(r) if decays else 1.0) * r
    return p


BY_HAND = {
    "adamw_torch": adamw_torch_by_hand,
    "adamw_hf": adamw_hf_by_hand,
    "adam_google": adam_google_by_hand,
    "adam": adam_by_hand,
    "sgd": sgd_by_hand,
    "lamb": lamb_by_hand,
}


def test_every_rule_is_worked_by_hand() -> None:
    assert BY_HAND.keys() == RULES.keys()


@pytest.mark.parametrize(("rule", "by_hand"), BY_HAND.items())
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
def test_three_steps_by_hand(
    rule: str, by_hand: Callable[[float, float], float], dtype: str, tolerance: float
) -> None:
    """The first parameter decays, the second does not; gradients arrive four times too large."""
    p = np.array([1.5, 1.5], dtype)
    optimizer = Optimizer(np, p, 1, rule=rule, weight_decay=WD, beta1=B1, beta2=B2, eps=EPS)
    for g in GRADIENTS:
        optimizer.step(np.full(2, 4 * g, dtype), LR, scale=0.25)
    expected = [by_hand(1.5, WD), by_hand(1.5, 0.0)]
    np.testing.assert_allclose(p, expected, rtol=tolerance)
    assert p.dtype == dtype


def test_the_first_step_without_bias_correction_is_three_times_too_long() -> None:
    """0.1·g / (√(0.001·g²) + eps) = 3.07 for g = 1e-3, where a corrected step is 1."""
    steps = {}
    for rule in ("adam_google", "adamw_torch", "adamw_hf"):
        p = np.zeros(1)
        Optimizer(np, p, 0, rule=rule, eps=1e-6).step(np.full(1, 1e-3), lr=1.0)
        steps[rule] = -p[0]
    assert steps["adam_google"] == pytest.approx(1e-4 / (math.sqrt(1e-9) + 1e-6), rel=1e-12)
    assert steps["adam_google"] == pytest.approx(3.1, rel=0.02)
    assert steps["adamw_torch"] == pytest.approx(1e-3 / (1e-3 + 1e-6), rel=1e-12)
    assert steps["adamw_hf"] == pytest.approx(1.0, rel=0.04)


# ---- Blocks and threads change nothing ----


def trajectory(
    rule: str, size: int, decayed: int, threads: int, dtype: str = "float32", steps: int = 3
) -> tuple[NDArray[Any], dict[str, Any]]:
    rng = np.random.default_rng(size)
    p = rng.standard_normal(size).astype(dtype)
    optimizer = Optimizer(np, p, decayed, rule=rule, weight_decay=WD, workers=Workers(threads))
    for _ in range(steps):
        optimizer.step(rng.standard_normal(size).astype(dtype), LR, scale=0.7)
    return p, optimizer.state_dict()


@given(
    rule=st.sampled_from(list(RULES)),
    blocks=st.lists(st.integers(0, 40), min_size=2, max_size=2),
    block=st.integers(1, 17),
    threads=st.integers(2, 4),
)
def test_any_blocks_and_threads_give_the_bytes_of_one(
    rule: str, blocks: list[int], block: int, threads: int
) -> None:
    """Also sizes of zero, and a decayed part that ends inside a block."""
    decayed, rest = blocks
    whole, state = trajectory(rule, decayed + rest, decayed, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        for module in (clipping, optimizer):
            patch.setattr(module, "BLOCK", block)
        pieces, state_of_pieces = trajectory(rule, decayed + rest, decayed, threads)
    assert pieces.tobytes() == whole.tobytes()
    assert state_of_pieces["m"].tobytes() == state["m"].tobytes()
    assert state_of_pieces["v"].tobytes() == state["v"].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_real_blocks_give_the_same_bytes_on_any_threads(dtype: str) -> None:
    size, decayed = 3 * BLOCK + 12_345, 2 * BLOCK + 77
    one, _ = trajectory("adamw_torch", size, decayed, 1, dtype)
    three, _ = trajectory("adamw_torch", size, decayed, 3, dtype)
    assert one.tobytes() == three.tobytes()


def test_a_step_leaves_the_gradient_alone_and_allocates_no_arrays() -> None:
    import tracemalloc

    size = 4 * BLOCK
    p, g = np.ones(size, np.float32), np.full(size, 0.1, np.float32)
    optimizer = Optimizer(np, p, size, rule="adam", weight_decay=WD, workers=Workers(1))
    optimizer.step(g, LR)
    tracemalloc.start()
    optimizer.step(g, LR)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32_768  # the scratch of a block would be 16 times that
    assert (g == np.float32(0.1)).all()


@pytest.mark.parametrize("rule", [r for r in RULES if r != "lamb"])  # which scales what decays
def test_without_decay_the_decayed_part_is_like_the_rest(rule: str) -> None:
    p = np.ones(8)
    Optimizer(np, p, 4, rule=rule).step(np.full(8, 0.5), LR)
    assert (p == p[0]).all()


def test_numpy_scalars_do_not_widen_the_arithmetic() -> None:
    plain, scalars = np.ones(5, np.float32), np.ones(5, np.float32)
    g = np.linspace(-1, 1, 5, dtype=np.float32)
    Optimizer(np, plain, 5, weight_decay=WD).step(g, 0.01, 0.3)
    Optimizer(np, scalars, 5, weight_decay=WD).step(g, np.float64(0.01), np.float64(0.3))
    assert plain.tobytes() == scalars.tobytes()


@pytest.mark.parametrize("rule", RULES)
def test_the_momentum_of_an_unused_word_ends_as_zero(rule: str) -> None:
    """Not as a denormal number, which 0.9·x would round back to x for ever."""
    p = np.ones(3, np.float32)
    optimizer = Optimizer(np, p, 3, rule=rule)
    optimizer.step(np.full(3, 1e-3, np.float32), LR)
    for _ in range(1100):
        optimizer.step(np.zeros(3, np.float32), LR)
    assert (optimizer.m == 0).all()


# ---- State ----


@pytest.mark.parametrize("rule", RULES)
def test_a_run_that_resumes_from_its_state_gives_the_same_bytes(rule: str) -> None:
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((6, 10)).astype(np.float32)
    p = np.ones(10, np.float32)
    optimizer = Optimizer(np, p, 7, rule=rule, weight_decay=WD)
    for g in gradients[:3]:
        optimizer.step(g, LR)
    saved_p, saved = p.copy(), {k: np.copy(v) for k, v in optimizer.state_dict().items()}
    resumed = Optimizer(np, saved_p, 7, rule=rule, weight_decay=WD)
    resumed.load_state_dict(saved | {"step": int(saved["step"])})
    for g in gradients[3:]:
        optimizer.step(g, LR)
        resumed.step(g, LR)
    assert resumed.state_dict()["step"] == 6
    assert saved_p.tobytes() == p.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": np.zeros(3, np.float32)}, r"m is float32 \(3,\).*needs float32 \(4,\)"),
        ({"v": np.zeros(4, np.float64)}, r"v is float64 \(4,\).*needs float32 \(4,\)"),
        ({"v": np.zeros(0, np.float32)}, r"adamw_torch on this model needs"),
        ({"step": -1}, "integer ≥ 0, got -1"),
        ({"step": 2.0}, "integer ≥ 0, got 2.0"),
        ({"step": True}, "integer ≥ 0, got True"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(change: dict[str, Any], message: str) -> None:
    optimizer = Optimizer(np, np.zeros(4, np.float32), 4)
    good = {"step": 5, "m": np.ones(4, np.float32), "v": np.ones(4, np.float32)}
    with pytest.raises(CheckpointError, match=message):
        optimizer.load_state_dict(good | change)
    assert (optimizer.steps, optimizer.m.any(), optimizer.v.any()) == (0, False, False)


def test_a_state_with_something_missing_names_it() -> None:
    with pytest.raises(CheckpointError, match="lacks m, v"):
        Optimizer(np, np.zeros(4), 4).load_state_dict({"step": 1})


# ---- Bad input ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "adamax"}, "'adamax': choose one of adamw_torch, adamw_hf, adam_google"),
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1, got 1.0"),
        ({"beta2": -0.1}, "beta2"),
        ({"momentum": math.nan}, "momentum"),
        ({"eps": 0.0}, "eps must be positive"),
        ({"weight_decay": -0.01}, "weight_decay"),
    ],
)
def test_hyperparameters_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Optimizer(np, np.zeros(4), 4, **options)


@pytest.mark.parametrize(
    ("buffer", "decayed", "message"),
    [
        (np.zeros((2, 2)), 2, "1-D"),
        (np.zeros(4, np.int64), 2, "int64"),
        (np.zeros(8)[::2], 2, "contiguous"),
        (np.zeros(4), 5, "within 0…4, got 5"),
    ],
)
def test_buffers_that_cannot_be_optimized(buffer: NDArray[Any], decayed: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Optimizer(np, buffer, decayed)


def test_a_gradient_that_is_no_twin_or_a_rate_that_is_no_rate() -> None:
    optimizer = Optimizer(np, np.zeros(4), 4)
    with pytest.raises(InputError, match=r"float64 \(5,\)"):
        optimizer.step(np.zeros(5), LR)
    with pytest.raises(InputError, match="float32"):
        optimizer.step(np.zeros(4, np.float32), LR)
    with pytest.raises(InputError, match="got nan"):
        optimizer.step(np.zeros(4), math.nan)
    assert optimizer.steps == 0


# ---- The global norm and clipping ----


@given(size=st.integers(0, 60), block=st.integers(1, 17), threads=st.integers(1, 3))
def test_norms_of_any_size(size: int, block: int, threads: int) -> None:
    x = np.random.default_rng(size).standard_normal(size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clipping, "BLOCK", block)
        norm = global_norm(np, x, Workers(threads))
    assert norm == pytest.approx(math.sqrt(math.fsum(x**2)), rel=1e-14)


def test_the_norm_of_many_float32_is_exact_to_float32_on_any_threads() -> None:
    x = np.random.default_rng(1).standard_normal(5 * BLOCK + 99).astype(np.float32)
    norms = {global_norm(np, x, Workers(threads)) for threads in (1, 2, 3)}
    exact = math.sqrt(math.fsum(x.astype(np.float64) ** 2))
    assert len(norms) == 1
    assert norms.pop() == pytest.approx(exact, rel=2e-7)


def test_the_roundings_of_equal_numbers_do_not_pile_up_in_the_norm() -> None:
    x = np.full(2 * BLOCK + 1, 0.3, np.float32)
    assert global_norm(np, x, Workers(1)) == pytest.approx(float(x[0]) * x.size**0.5, rel=1e-6)


def test_a_norm_shows_what_is_not_a_number() -> None:
    assert global_norm(np, np.array([1.0, math.inf]), Workers(1)) == math.inf
    assert math.isnan(global_norm(np, np.array([1.0, math.nan]), Workers(1)))
    with pytest.warns(RuntimeWarning, match="overflow"):
        assert global_norm(np, np.array([1e30], np.float32), Workers(1)) == math.inf


def test_clip_scale() -> None:
    assert clip_scale(0.5, 1.0) == 1.0
    assert clip_scale(4.0, 1.0) == 1.0 / (4.0 + 1e-6)
    assert clip_scale(math.inf, 1.0) == 0.0
    assert math.isnan(clip_scale(math.nan, 1.0))
    array = np.asarray(clip_scale(np.array(4.0, np.float32), 1.0))
    assert array.tobytes() == np.float32(1.0 / (4.0 + 1e-6)).tobytes()
    with pytest.raises(InputError, match="must be positive, got 0"):
        clip_scale(1.0, 0)


# ---- Arrays on a device: whole buffers, and numbers that are never read back ----


class DeviceArray(np.ndarray):
    """Says that it lives on a device; like CuPy's, its 0-d arrays refuse to become floats here."""

    device = "cuda:0"  # type: ignore[assignment]  # NumPy types it as always "cpu"

    def __float__(self) -> float:
        raise AssertionError("a number was read back from the device")


@pytest.mark.parametrize("rule", RULES)
def test_a_clipped_step_on_a_device_reads_nothing_back(rule: str) -> None:
    rng = np.random.default_rng(5)
    host, gradient = rng.standard_normal(9), rng.standard_normal(9)
    device, g = host.copy().view(DeviceArray), gradient.copy().view(DeviceArray)
    ours, theirs = (Optimizer(np, p, 4, rule=rule, weight_decay=WD) for p in (host, device))
    norm = global_norm(np, g, Workers(2))
    ours.step(gradient, LR, clip_scale(math.sqrt((gradient**2).sum()), 1.0))
    theirs.step(g, LR, clip_scale(np.asarray(norm).view(DeviceArray), 1.0))
    np.testing.assert_allclose(np.asarray(device), host, rtol=1e-14)


# ---- Against torch ----


@pytest.mark.crosscheck
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("rule", ["adamw_torch", "adam", "sgd"])
def test_fifteen_clipped_steps_of_torch(rule: str, weight_decay: float) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is torch.optim")
    rng = np.random.default_rng(3)
    start, decayed = rng.standard_normal(50), 31
    groups: list[dict[str, Any]] = [
        {"params": [torch.tensor(start[:decayed], requires_grad=True)]},
        {"params": [torch.tensor(start[decayed:], requires_grad=True)], "weight_decay": 0.0},
    ]
    tensors = [group["params"][0] for group in groups]
    theirs = {
        "adamw_torch": lambda: torch.optim.AdamW(groups, lr=LR, weight_decay=weight_decay),
        "adam": lambda: torch.optim.Adam(groups, lr=LR, weight_decay=weight_decay),
        "sgd": lambda: torch.optim.SGD(groups, lr=LR, momentum=0.9, weight_decay=weight_decay),
    }[rule]()
    p, workers = start.copy(), Workers(2)
    ours = Optimizer(np, p, decayed, rule=rule, weight_decay=weight_decay, workers=workers)
    for step in range(15):
        g = rng.standard_normal(50) * 0.3 * step  # norms on both sides of 1
        tensors[0].grad, tensors[1].grad = torch.tensor(g[:decayed]), torch.tensor(g[decayed:])
        norm = torch.nn.utils.clip_grad_norm_(tensors, 1.0)
        theirs.step()
        ours_norm = global_norm(np, g, workers)
        assert ours_norm == pytest.approx(float(norm), rel=1e-14)
        ours.step(g, LR, clip_scale(ours_norm, 1.0))
        np.testing.assert_allclose(p, torch.cat(tensors).detach().numpy(), rtol=1e-12, atol=1e-14)
