"""One flat buffer: decayed parameters first, every named array a view of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from minibert.backend import RowGradient
from minibert.backend.numpy_backend import NumpyBackend
from minibert.parameters import Layout, Parameters, accumulate, is_decayed

SHAPES = {
    "word_embeddings.weight": (5, 2),
    "LayerNorm.weight": (2,),
    "LayerNorm.bias": (2,),
    "query.weight": (2, 2),
    "query.bias": (2,),
    "key.weight": (3, 2),
    "key.bias": (3,),
    "classifier.weight": (4, 2),
}
DECAYED = ["word_embeddings.weight", "query.weight", "key.weight", "classifier.weight"]


def arrays() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture
def parameters(xp: NumpyBackend) -> Parameters:
    return Parameters(xp, Layout(SHAPES), arrays())


@pytest.mark.parametrize(
    ("name", "decayed"),
    [
        ("bert.embeddings.word_embeddings.weight", True),
        ("bert.embeddings.LayerNorm.weight", False),
        ("bert.encoder.layer.11.attention.output.LayerNorm.weight", False),
        ("bert.encoder.layer.11.attention.self.query.weight", True),
        ("bert.encoder.layer.11.attention.self.query.bias", False),
        ("cls.predictions.bias", False),
        ("classifier.weight", True),
    ],
)
def test_biases_and_layer_norms_do_not_decay(name: str, decayed: bool) -> None:
    assert is_decayed(name) == decayed


def test_decayed_parameters_come_first_and_nothing_is_left_over() -> None:
    layout = Layout(SHAPES)
    assert list(layout.shapes)[:4] == DECAYED
    assert sorted(layout.shapes) == sorted(SHAPES)
    assert layout.decayed == sum(math.prod(SHAPES[name]) for name in DECAYED)
    place = 0
    for name, shape in layout.shapes.items():
        assert layout.starts[name] == place
        place += math.prod(shape)
    assert layout.size == place


def test_an_element_knows_its_parameter() -> None:
    layout = Layout(SHAPES)
    for name, start in layout.starts.items():
        assert layout.name_at(start) == name
        assert layout.name_at(start + math.prod(SHAPES[name]) - 1) == name


def test_arrays_stay_where_they_are_until_the_buffer_is_asked_for(xp: NumpyBackend) -> None:
    given = arrays()
    for array in given.values():
        array.setflags(write=False)  # as a mapped file
    parameters = Parameters(xp, Layout(SHAPES), given)
    assert not parameters.is_flat
    assert all(parameters[name] is given[name] for name in SHAPES)
    flat = parameters.flat
    assert parameters.is_flat
    assert parameters.flat is flat
    for name, array in given.items():
        np.testing.assert_array_equal(parameters[name], array)
        assert not np.shares_memory(parameters[name], array)


def test_named_arrays_are_views_of_the_buffer(parameters: Parameters) -> None:
    flat = parameters.flat
    for name, start in parameters.layout.starts.items():
        assert np.shares_memory(parameters[name], flat)
        parameters[name][...] = 7
        assert (flat[start : start + math.prod(SHAPES[name])] == 7).all()
    assert (flat == 7).all()


def test_it_is_a_mapping_of_all_names(parameters: Parameters) -> None:
    assert sorted(parameters) == sorted(SHAPES)
    assert len(parameters) == len(SHAPES)
    assert {name: array.shape for name, array in parameters.items()} == SHAPES
    with pytest.raises(KeyError, match=r"no\.such"):
        parameters["no.such"]


def test_a_twin_has_the_same_layout_and_its_own_memory(parameters: Parameters) -> None:
    twin = parameters.zeros_like()
    assert (twin.dtype, twin.flat.shape) == (parameters.dtype, parameters.flat.shape)
    assert not twin.flat.any()
    assert not np.shares_memory(twin.flat, parameters.flat)


def test_fused_is_a_copy_before_and_a_view_after(parameters: Parameters) -> None:
    names = ["query.weight", "key.weight"]
    before = parameters.fused(names)
    np.testing.assert_array_equal(before, np.concatenate([parameters[n] for n in names]))
    flat = parameters.flat
    after = parameters.fused(names)
    np.testing.assert_array_equal(after, before)
    assert np.shares_memory(after, flat)
    after += 1
    np.testing.assert_array_equal(parameters["key.weight"], before[2:] + 1)
    assert parameters.fused(["query.bias", "key.bias"]).shape == (5,)


@pytest.mark.parametrize("names", [["key.weight", "query.weight"], ["query.weight", "query.bias"]])
def test_only_neighbours_fuse(parameters: Parameters, names: list[str]) -> None:
    assert parameters.flat.size
    with pytest.raises(ValueError, match="not neighbours"):
        parameters.fused(names)


class Pair(NamedTuple):
    table: object
    bias: object


def test_gradients_add_up_and_a_row_gradient_touches_its_rows_only(xp: NumpyBackend) -> None:
    table, bias = np.full((4, 2), 10.0), np.array([1.0, 2.0])
    rows = RowGradient(np.array([3, 1]), np.array([[1.0, 2.0], [3.0, 4.0]]), (4, 2))
    for _ in range(2):
        accumulate(xp, Pair(table, bias), Pair(rows, np.array([0.5, 0.25])))
    np.testing.assert_array_equal(table, [[10, 10], [16, 18], [10, 10], [12, 14]])
    np.testing.assert_array_equal(bias, [2.0, 2.5])
    np.testing.assert_array_equal(rows.dense(xp), [[0, 0], [3, 4], [0, 0], [1, 2]])
