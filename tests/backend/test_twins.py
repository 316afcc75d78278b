"""Every backend's faster twins, found by themselves, each held to the plain function it replaces.

(CuPy's are run by the strict stand-in where there is no GPU.)

The oracle is the plain function on NumPy in float64. A twin computes in float32, where each
operation is wrong by at most u = 2⁻²⁴ of its result. Errors of sums over n ≤ 1024 terms grow like
√n·u = 32 u, a twin is two such sums deep, and its inputs are of order 1: a tensor may differ by
64 u = 4e-6 of its largest element. (Measured: up to 27 u in the sharpest attention, where exp
enlarges the error of large scores, and 6 u elsewhere. A wrong epsilon, axis, mask or factor shows
as 1e-3 or more.)
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import cuda_on_cpu
import fake_cupy
import numpy as np
import pytest
from device_checks import layer_shapes

import minibert.layers
from minibert.backend import Backend, Deferred, get_backend
from minibert.backend.numpy_backend import NumpyBackend
from minibert.backend.numpy_twins import FORWARD_ONLY_TWINS, TOGETHER_TWINS, together
from minibert.layers.activations import gelu_forward
from minibert.layers.dropout import DropoutKey
from minibert.layers.embeddings import EmbeddingsWeights
from minibert.layers.encoder_layer import EncoderLayerSettings, EncoderLayerWeights
from minibert.parallel import Workers

U = 2.0**-24
KEY = DropoutKey(seed=3, step=11, site=4, first_row=29)
Arguments = tuple[Any, ...]
Case = Callable[[np.random.Generator], Iterator[Arguments]]


# ---- A case gives the arguments of a forward function, after xp, in each interesting form ----


def norm_arguments(rng: np.random.Generator, T: int, H: int) -> Arguments:
    gamma, beta = rng.normal(1, 0.5, H), rng.normal(size=H)
    return rng.normal(0.5, 1.5, (T, H)), rng.normal(size=(T, H)), gamma, beta


def add_norm(rng: np.random.Generator) -> Iterator[Arguments]:
    """1 row; a block and a part of one; rows that are longer than a block is wide."""
    for T, H in ((1, 6), (151, 1000), (7, 48)):
        for p, key in ((0.1, None), (0.0, KEY), (0.1, KEY), (0.3, KEY)):
            yield *norm_arguments(rng, T, H), 1e-12, p, key
        yield *norm_arguments(rng, T, H), 1e-12, 0.1, KEY.of(some_rows(rng, T))


def some_rows(rng: np.random.Generator, count: int, shard: int = 3) -> tuple[int, ...]:
    """Of a shard that many times as large, in no order."""
    return tuple(rng.permutation(shard * count)[:count].tolist())


def layer_norm(rng: np.random.Generator) -> Iterator[Arguments]:
    for T, H in ((1, 6), (151, 1000), (7, 48)):
        x, _, gamma, beta = norm_arguments(rng, T, H)
        for eps in (1e-12, 0.5):
            yield x, gamma, beta, eps


def attention(rng: np.random.Generator) -> Iterator[Arguments]:
    """Mixed lengths with a single token and equal neighbours; one sequence; sharp attention.

    Rows of scores in several pieces, and beside them shorter ones in a square as large; scores far
    below zero, whose exponentials are 0 in float32.
    """
    mixed = (5, 1, 7, 7, 2, 1, 33)
    for lengths, N, D, scale in ((mixed, 3, 4, 1), ((70,), 2, 32, 1), ((9, 4), 1, 6, 4)):
        offsets = (0, *np.cumsum(lengths).tolist())
        qkv = rng.normal(size=(sum(lengths), 3 * N * D)) * scale
        for p, key in ((0.1, None), (0.0, KEY), (0.1, KEY), (0.3, KEY)):
            yield qkv, offsets, N, p, key
    qkv = rng.normal(size=(130, 3 * 12 * 2))
    for p in (0.1, 0.3):  # 12·100² decisions: more than a block
        yield qkv, (0, 100, 130), 12, p, KEY
    yield rng.normal(size=(475, 3 * 4)), (0, 150, 440, 475), 1, 0.1, KEY
    far = rng.integers(-8, 9, (33, 3, 2, 4)) / 8
    far[:, 0, :, 0], far[:, 1, :, 0] = 16, -16
    yield far.reshape(33, -1), (0, 20, 33), 2, 0.1, KEY


def encoder_layer(rng: np.random.Generator) -> Iterator[Arguments]:
    """Each activation; more rows than one chunk of sums; a shard that begins amid the batch.

    Then first tokens alone, every row but the first, and the last one.
    """
    T, H, F, N = 70, 12, 20, 3
    shapes, offsets = layer_shapes(H, F), (0, 33, 34, 41, 48, 70)
    for activation, (p, q), key, rows in (
        ("gelu", (0.2, 0.1), KEY, None), ("gelu_new", (0.0, 0.1), KEY, None),
        ("relu", (0.2, 0.0), KEY, None), ("gelu", (0.2, 0.1), None, None),
        ("gelu", (0.2, 0.1), KEY, offsets[:-1]), ("relu", (0.2, 0.0), KEY, offsets[:-1]),
        ("gelu", (0.2, 0.1), None, range(1, T)), ("gelu_new", (0.0, 0.3), KEY, (T - 1,)),
    ):  # fmt: skip
        w = EncoderLayerWeights(*(rng.normal(0, 0.5, shape) for shape in shapes))
        settings = EncoderLayerSettings(N, activation, 1e-12, p, q)
        yield rng.normal(size=(T, H)), w, offsets, settings, key, rows


def embeddings(rng: np.random.Generator) -> Iterator[Arguments]:
    for p, key in ((0.1, None), (0.0, KEY), (0.1, KEY)):
        for T in (1, 70):
            tables = (rng.normal(size=(rows, 12)) for rows in (37, 16, 2))
            w = EmbeddingsWeights(*tables, rng.normal(1, 0.5, 12), rng.normal(size=12))
            ids = (rng.integers(0, rows, T) for rows in (37, 16, 2))
            yield w, *ids, 0, 1e-12, p, key


def activation(rng: np.random.Generator) -> Iterator[Arguments]:
    """All of the interesting range, both tails, and shapes that do not divide a block."""
    for shape in ((1, 5), (151, 1000), (3, 200_001)):
        yield (rng.uniform(-8, 8, shape),)
    yield (np.array([[0.0, -0.0, 5.6, -5.6, 30.0, -30.0, 1e4, -1e4]]),)


def linear(rng: np.random.Generator) -> Iterator[Arguments]:
    """One row, as few as take the other product, and more."""
    for T in (1, 2, 20, 64, 65, 130):
        yield rng.normal(size=(T, 48)), rng.normal(size=(36, 48)), rng.normal(size=36)
    yield rng.normal(size=(1, 8)), rng.normal(size=(1, 8)), rng.normal(size=1)
    yield rng.normal(size=(130, 96)), rng.normal(size=(100, 96)), rng.normal(size=100)


def multi_head_attention(rng: np.random.Generator) -> Iterator[Arguments]:
    """One token, a few, and as many as make chunks with a rest that joins the last, or does not.

    Of each all rows, each sequence's first, and all but one.
    """
    for lengths in ((1,), (20,), (31, 2), (50,), (7, 1, 60), (64, 36)):
        H, T, offsets = 12, sum(lengths), (0, *np.cumsum(lengths).tolist())
        weights = [rng.normal(0, 0.5, shape) for shape in layer_shapes(H, 20)[:4]]
        for rows in (None, np.array(offsets[:-1]), np.arange(T > 1, T)):
            yield rng.normal(size=(T, H)), *weights, offsets, 3, 0.0, None, rows


def feed_forward(rng: np.random.Generator) -> Iterator[Arguments]:
    for T, activation in ((1, "gelu"), (20, "relu"), (50, "gelu_new"), (70, "gelu"), (97, "gelu")):
        weights = (rng.normal(0, 0.5, shape) for shape in layer_shapes(12, 50)[6:10])
        yield rng.normal(size=(T, 12)), *weights, activation


def dropout(rng: np.random.Generator) -> Iterator[Arguments]:
    for p, key in ((0.1, None), (0.0, KEY), (0.3, KEY)):
        yield rng.normal(size=(151, 1000)), p, key
    for shard in (3, 50):  # close together, and far apart
        yield rng.normal(size=(151, 1000)), 0.3, KEY.of(some_rows(rng, 151, shard))
    for rows in ((0, 5, 2), (5, 2, 0), (90, 0, 40), (3,)):
        yield rng.normal(size=(len(rows), 7)), 0.3, KEY.of(rows)


def select(rng: np.random.Generator) -> Iterator[Arguments]:
    yield rng.normal(size=(300, 1000)), rng.permutation(300)[:200]
    yield rng.normal(size=(3, 8)), np.array([], np.int64)


def cross_entropy(rng: np.random.Generator) -> Iterator[Arguments]:
    """A vocabulary over several blocks, ignored rows, large logits, all rows ignored, no rows."""
    for (R, K), scale in (((5, 2), 1), ((3, 1000), 1), ((70, 33), 30)):
        labels = rng.integers(0, K, R)
        labels[1] = -100
        yield rng.normal(size=(R, K)) * scale, labels, R - 1
    for R, K in ((7, 30_000), (150, 3), (1, 2)):
        logits, labels = rng.normal(size=(R, K)) * 5, rng.integers(0, K, R)
        yield logits, labels, R
        yield logits * 10, np.where(np.arange(R) % 2, labels, -100), max(R // 2, 1)
    yield rng.normal(size=(4, 3)), np.full(4, -100), 1
    yield rng.normal(size=(0, 3)), np.zeros(0, np.int64), 1
    # Far below zero, where e^logit is 0 in float32, and a loss must not be a difference of them.
    far = rng.integers(-8, 9, (9, 40)) / 8 - 10_000
    yield far, rng.integers(0, 40, 9), 9


CASES: dict[str, Case] = {
    "linear": linear,
    "dropout": dropout,
    "select": select,
    "cross_entropy": cross_entropy,
    "add_norm": add_norm,
    "layer_norm": layer_norm,
    "attention": attention,
    "embeddings": embeddings,
    "encoder_layer": encoder_layer,
    "feed_forward": feed_forward,
    "multi_head_attention": multi_head_attention,
    "gelu": activation,
}


# ---- Finding ----


def backends() -> list[Backend]:
    """NumPy, and CuPy or, where there is no GPU, its stand-in."""
    if get_backend("auto").name == "cupy":
        return [get_backend("numpy"), get_backend("cupy")]
    if cuda_on_cpu.COMPILER is None:
        return [get_backend("numpy")]
    return [get_backend("numpy"), fake_cupy.backend()]


def plain_functions() -> dict[str, Callable[..., Any]]:
    """The functions of `layers/` that the backend may replace, by name."""
    names = [m.name for m in pkgutil.iter_modules(minibert.layers.__path__)]
    modules = [importlib.import_module(f"minibert.layers.{name}") for name in names]
    functions = [f for module in modules for f in vars(module).values() if hasattr(f, "plain")]
    return {f.__name__: f.plain for f in functions}


BACKENDS, PLAIN = backends(), plain_functions()
PAIRS = [
    pytest.param(backend, name.removesuffix("_forward"), id=f"{backend.name}-{name}")
    for backend in BACKENDS
    for name in sorted(backend.twins)
    if name.endswith("_forward")
]
NAMES = sorted({name for b in BACKENDS for name in (*b.twins, *b.forward_only.twins)})
TOGETHER = sorted(
    name.removesuffix("_forward")
    for name, twin in TOGETHER_TWINS.items()
    if twin is not FORWARD_ONLY_TWINS.get(name)
)


# ---- Comparing ----


def convert(value: Any, array: Callable[[Any], Any]) -> Any:
    """`value` with `array` applied to its arrays, also inside (named) tuples."""
    if isinstance(value, tuple) and not isinstance(value, DropoutKey):
        parts = [convert(part, array) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return array(value) if hasattr(value, "dtype") else value


def cast(dtype: Any) -> Callable[[Any], Any]:
    """Floating-point arrays to `dtype`; integers stay."""
    return lambda a: a.astype(dtype if a.dtype.kind == "f" else a.dtype)


def leaves(xp: Backend, value: Any) -> list[Any]:
    if isinstance(value, Deferred):
        return leaves(xp, value.dense(xp))  # how it is kept till then is the backend's
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in leaves(xp, part)]
    return [value]


def assert_close(xp: Backend, got: Any, want: Any) -> None:
    host = NumpyBackend(reference=True)
    for result, exact in zip(leaves(xp, got), leaves(host, want), strict=True):
        assert str(result.dtype) == "float32"
        assert result.shape == exact.shape
        bound = 64 * U * np.abs(exact).max(initial=0)
        np.testing.assert_allclose(xp.to_host(result), exact, rtol=0, atol=max(bound, 1e-30))


def assert_unchanged(xp: Backend, arrays: Any, originals: Any) -> None:
    for array, original in zip(leaves(xp, arrays), leaves(xp, originals), strict=True):
        if hasattr(array, "dtype"):
            np.testing.assert_array_equal(xp.to_host(array), original)


@pytest.mark.parametrize(("xp", "stem"), PAIRS)
def test_a_twin_agrees_with_its_plain_function(xp: Backend, stem: str) -> None:
    rng, reference = np.random.default_rng(0), NumpyBackend(reference=True)
    forward, backward = xp.twins[f"{stem}_forward"], xp.twins[f"{stem}_backward"]
    for drawn in CASES[stem](rng):
        host = convert(drawn, cast(np.float32))
        given = convert(host, lambda a: xp.to_device(a.copy()))
        exact = convert(host, cast(np.float64))

        y, cache = forward(xp, *given)
        y_exact, cache_exact = PLAIN[f"{stem}_forward"](reference, *exact)
        assert_close(xp, y, y_exact)
        y_before = xp.to_host(y).copy()

        dy_host = np.asarray(rng.normal(size=y.shape), np.float32)
        dy = xp.to_device(dy_host.copy())
        gradients = backward(xp, dy, cache)
        dy_exact = dy_host.astype(np.float64)
        assert_close(xp, gradients, PLAIN[f"{stem}_backward"](reference, dy_exact, cache_exact))

        assert_unchanged(xp, given, host)
        assert_unchanged(xp, (y, dy), (y_before, dy_host))
        before = [xp.to_host(a).copy() for a in leaves(xp, gradients)]
        again = leaves(xp, backward(xp, dy, cache))  # the cache is left whole as well
        assert_unchanged(xp, tuple(again), tuple(before))


@pytest.mark.parametrize(("xp", "stem"), PAIRS)
def test_without_a_backward_to_come_the_result_is_the_same(xp: Backend, stem: str) -> None:
    sibling = xp.forward_only
    for drawn in CASES[stem](np.random.default_rng(0)):
        host = convert(drawn, cast(np.float32))
        if any(isinstance(argument, DropoutKey) for argument in host):
            continue  # evaluation has no dropout
        y, _ = xp.twins[f"{stem}_forward"](xp, *convert(host, xp.to_device))
        given = convert(host, lambda a: xp.to_device(a.copy()))
        only, _ = sibling.twins[f"{stem}_forward"](sibling, *given)
        np.testing.assert_array_equal(xp.to_host(only), xp.to_host(y))
        assert_unchanged(xp, given, host)


@pytest.mark.parametrize("small", [True, False], ids=["small products", "whole products"])
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("stem", TOGETHER)
def test_threads_that_share_a_layer_function_agree_with_the_plain_one(
    stem: str, threads: int, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "has_small_products", lambda: small)
    reference, xp = NumpyBackend(reference=True), NumpyBackend().together(1, np.float32)
    assert xp is not None
    for drawn in CASES[stem](np.random.default_rng(0)):
        if any(isinstance(argument, DropoutKey) for argument in drawn):
            continue
        host = convert(drawn, cast(np.float32))
        exact, _ = PLAIN[f"{stem}_forward"](reference, *convert(host, cast(np.float64)))
        for order in "CF":
            given = convert(host, lambda a, order=order: a.copy(order))
            twin = functools.partial(xp.twins[f"{stem}_forward"], xp, *given)
            assert_close(xp, Workers(threads).together(twin)[0], exact)
            assert_unchanged(xp, given, host)


def test_small_products_are_small_and_cover_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "has_small_products", lambda: True)
    for rows, K, tokens in (
        (384, 768, 20),
        (384, 3072, 32),
        (1536, 4096, 47),
        (5, 768, 32),
        (0, 8, 9),
    ):
        n = together._block(rows, K, tokens)
        assert 1 <= n <= max(rows, 1)
        assert n * K * tokens <= together.SMALL


@pytest.mark.parametrize("name", NAMES)
def test_every_twin_has_an_original_a_partner_and_a_case(name: str) -> None:
    assert name in PLAIN, f"{name} is a twin of no function in minibert/layers"
    stem = name.removesuffix("_forward").removesuffix("_backward")
    assert stem in CASES, f"give the twin {name} a case in {__name__}.CASES"
    want = list(inspect.signature(PLAIN[name]).parameters)
    for backend in BACKENDS:
        assert f"{stem}_forward" in backend.twins or name not in backend.twins
        assert f"{stem}_backward" in backend.twins or name not in backend.twins
        for twins in (backend.twins, backend.forward_only.twins):
            if name in twins:
                assert list(inspect.signature(twins[name]).parameters) == want


def test_only_float32_meets_twins_and_reference_none(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def twin(xp: Backend, x: Any) -> Any:
        called.append(x.dtype)
        return x, None

    monkeypatch.setattr(NumpyBackend, "twins", {"gelu_forward": twin})
    x = np.ones((2, 3), np.float32)
    gelu_forward(NumpyBackend(), x)
    assert called == [np.float32]
    gelu_forward(NumpyBackend(), x.astype(np.float64))
    gelu_forward(NumpyBackend(), x.astype(np.complex128))
    gelu_forward(NumpyBackend(reference=True), x)
    gelu_forward(NumpyBackend().plain, x)
    assert len(called) == 1
