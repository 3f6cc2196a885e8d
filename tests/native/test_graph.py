"""The rules of the graph: exact for every value; and sums over rows in their normal form, which cancel nothing."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlekit.native import derivatives
from mlekit.native.graph import Graph
from mlekit.native.nodes import DATA, PARAMETERS, Node
from mlekit.native.row_program import RowProgram
from mlekit.native.sums_kernel import SumsKernel

NUMBER = jax.ShapeDtypeStruct((), np.float64)


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture
def x(graph: Graph) -> Node:
    return graph.input("x", "float64", PARAMETERS)


def test_equal_nodes_are_one(graph: Graph, x: Node) -> None:
    y = graph.input("y", "float64", DATA)
    assert graph.add(x, y) is graph.add(y, x)
    assert graph.mul(graph.neg(x), graph.neg(y)) is graph.mul(x, y)
    assert graph.compare("gt", x, y) is graph.compare("lt", y, x)
    assert graph.add(x, y).depends == PARAMETERS | DATA


def test_what_may_be_infinite_is_not_simplified(graph: Graph, x: Node) -> None:
    zero, endless = graph.constant(0, "float64"), graph.constant(math.inf, "float64")
    assert graph.mul(zero, x).op == "mul"
    assert graph.sub(x, x).op == "sub"
    assert graph.div(x, x).op == "div"
    assert graph.compare("eq", x, x).op == "eq"
    assert graph.compare("eq", x, endless).op == "eq"
    assert math.isnan(graph.mul(zero, endless).value)


def test_nothing_moves_along_a_direction_of_no_change(graph: Graph, x: Node) -> None:
    still = graph.no_change("float64")
    assert graph.mul(still, graph.constant(math.inf, "float64")) is still
    assert graph.add(still, x) is x
    assert graph.sub(still, x) is graph.neg(x)
    assert graph.select(graph.compare("lt", x, still), still, x).args[1].value == 0


def test_constants_are_told_apart_by_their_bits(graph: Graph) -> None:
    assert graph.constant(0.0, "float64") is not graph.constant(-0.0, "float64")
    assert graph.constant(math.nan, "float64") is graph.constant(math.nan, "float64")
    assert graph.constant(1, "int32") is not graph.constant(1, "int64")
    assert graph.add(graph.constant(127, "int8"), graph.constant(1, "int8")).value == -128


def program(loss: Any) -> RowProgram:
    vector = jax.ShapeDtypeStruct((2,), np.float64)
    return RowProgram(derivatives.exact(loss, vector, None, NUMBER), 2, np.float64, None, NUMBER)


def test_a_gamma_likelihood_needs_no_rows_once_its_sums_are_known() -> None:
    def loss(z: Any, _: Any, x: Any) -> Any:
        shape, scale = jnp.exp(z[0]), jnp.exp(z[1])
        return jax.scipy.special.gammaln(shape) + shape * z[1] + x / scale - (shape - 1) * jnp.log(x)

    found = program(loss)
    assert (found.statistics()["sums"], found.statistics()["data_sums"]) == (0, 2)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    def loss(z: Any, _: Any, x: Any) -> Any:
        return 0.5 * jnp.square((x - z[0]) * jnp.exp(-z[1])) + z[1]

    rng = np.random.default_rng(0)
    x, z = 1e6 + 1e-3 * rng.normal(size=50), np.array([1e6, math.log(1e-3)])
    kernel = SumsKernel(program(loss), weighted=False)
    prepared = kernel.prepare([x], None, len(x))
    value, slope, matrix = kernel.evaluate(prepared, z, np.zeros((1, 1)), 50.0)
    total = lambda z: jnp.sum(jax.vmap(lambda x: loss(z, None, x))(x))  # noqa: E731
    assert matrix is not None
    np.testing.assert_allclose(value, total(z), rtol=1e-12)
    np.testing.assert_allclose(slope, jax.grad(total)(z), rtol=1e-9, atol=1e-9 * 50e3)
    np.testing.assert_allclose(matrix, jax.hessian(total)(z), rtol=1e-9, atol=1e-9 * 50e6)


def test_weights_of_zero_silence_any_row() -> None:
    def loss(z: Any, _: Any, x: Any) -> Any:
        return jnp.log1p(jnp.square((x - z[0]) * jnp.exp(-z[1]))) + z[1]

    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=29), rng.integers(0, 3, 29).astype(float)
    spoilt = np.where(weights == 0, rng.choice([np.nan, np.inf], 29), x)
    kernel, z = SumsKernel(program(loss), weighted=True), np.array([0.1, 0.2])
    found = [
        kernel.evaluate(kernel.prepare([data], weights, 29), z, np.zeros((1, 1)), weights.sum())
        for data in (x, spoilt)
    ]
    for clean, other in zip(*found):
        np.testing.assert_array_equal(clean, other)
    want = sum(w * loss(z, None, one) for w, one in zip(weights, x))
    np.testing.assert_allclose(found[0][0], want, rtol=1e-13)
    weights[weights == 0] = np.nan
    prepared = kernel.prepare([x], weights, 29)
    assert np.isnan(kernel.evaluate(prepared, z, np.zeros((1, 1)), 29.0)[0])
