"""Bessel functions by their logarithms: digits from mpmath, and values from SciPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax import Array, export

from mlekit.core.special import log_i0e, log_iv

# Argument, log e^-|x| I_0(x) and its first four derivatives: mpmath 1.4, 50 digits or more, rounded.
SCALED = [
    (
        0.125,
        -0.12109755808783784,
        -0.93762175327247571,
        0.4970829805150058,
        -0.046470383163728313,
        -0.36532557473664624,
    ),
    (
        3,
        -1.4146923781865791,
        -0.19001470604349547,
        0.073928725588693442,
        -0.054406903589972542,
        0.051772000213759937,
    ),
    (
        19.875,
        -2.4072133123684231,
        -0.025491000476483152,
        0.0013003105005790519,
        -0.00013273919405309025,
        2.033879401791607e-5,
    ),
    (
        20.125,
        -2.4135457701825168,
        -0.025170018653773736,
        0.0012677506314365877,
        -0.00012778171931704768,
        1.9331667130861058e-5,
    ),
    (
        100,
        -3.2202673100574163,
        -0.0050126269948312344,
        5.0253830221470357e-5,
        -1.0076540327149255e-6,
        3.0307743275425209e-8,
    ),
    (
        1e4,
        -5.524096218567699,
        -5.0001250125019535e-5,
        5.0002500375078145e-9,
        -1.0000750150039075e-12,
        3.000300075023446e-16,
    ),
    (
        1e8,
        -10.129278903930855,
        -5.0000000125000001e-9,
        5.0000000250000004e-17,
        -1.0000000075000002e-24,
        3.0000000300000008e-32,
    ),
]
# Order, argument, log I, its derivatives by x, by x twice, by the order, by that twice, by both: likewise.
UNSCALED = [
    (
        0,
        0.01,
        2.4999843751736089e-5,
        0.0049999375010416488,
        0.4999812505208208,
        -4.7211267012558855,
        -1.6448840681763201,
        99.995000156246007,
    ),
    (
        0.5,
        2,
        0.71600242968946804,
        0.7873147207275481,
        0.048978170161928901,
        -0.37011016439355194,
        -0.57230898157956745,
        0.24633115591047388,
    ),
    (
        2,
        5,
        2.8625216847021057,
        0.99016208164341834,
        -0.018453364253111114,
        -0.43188291695084697,
        -0.19807317323273756,
        0.089405334958936289,
    ),
    (
        1.5,
        40,
        37.211303931754069,
        0.98814102564102564,
        0.00028003780407626561,
        -0.037972494032939788,
        -0.025302347414688623,
        0.00096121382451990154,
    ),
    (
        10,
        0.5,
        -28.961675710436746,
        20.022716521104782,
        -39.954609926731952,
        -3.7385631227887037,
        -0.095072547299640878,
        1.9979367335310152,
    ),
    (
        30,
        300,
        294.72833731982066,
        1.0033360924961923,
        -2.776814718167568e-5,
        -0.099999684662561873,
        -0.003322200866264529,
        0.0003327740804476659,
    ),
    (
        200,
        20,
        -402.21806683272349,
        10.049629306779758,
        -0.49753066902557749,
        -3.0006962965858905,
        -0.0049630720256978331,
        0.049754292451218829,
    ),
    (
        3,
        1e6,
        999992.17330181281,
        0.999999500004375,
        4.9999124998687501e-13,
        -3.000001499997125e-6,
        -1.0000004999960417e-6,
        3.000002999991375e-12,
    ),
]


def derivatives(fn: Callable[..., Any], orders: int) -> Callable[..., Array]:
    """The function and its derivatives by its argument, stacked."""
    found = [fn]
    for _ in range(orders):
        found.append(jax.grad(found[-1]))
    return jax.jit(lambda x: jnp.stack([one(x) for one in found]))


@jax.jit
def of_order(order: Array, x: Array) -> Array:
    """`log_iv` and its derivatives by x, by x twice, by the order, by that twice, and by both."""
    gradient = jax.grad(log_iv, (1, 0))
    by_x, by_order = gradient(order, x)
    (xx, xv), (_, vv) = jax.jacfwd(gradient, (1, 0))(order, x)
    return jnp.stack([log_iv(order, x), by_x, xx, by_order, vv, xv])


def test_digits_of_the_scaled_function() -> None:
    of = derivatives(log_i0e, 4)
    for x, *expected in SCALED:
        found = of(float(x))
        np.testing.assert_allclose(found[:4], expected[:4], rtol=2e-12, atol=0)
        np.testing.assert_allclose(found[4], expected[4], rtol=1e-10, atol=0)
        signs = jnp.array([1.0, -1.0, 1.0, -1.0, 1.0])
        np.testing.assert_array_equal(signs * of(-float(x)), found)


def test_digits_of_every_order() -> None:
    for order, x, *expected in UNSCALED:
        found = of_order(jnp.asarray(float(order)), jnp.asarray(float(x)))
        # Near zero a logarithm is the difference of larger ones.
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(found[1:3], expected[1:3], rtol=1e-10, atol=0)
        np.testing.assert_allclose(found[3:], expected[3:], rtol=1e-13, atol=0)


# Order, argument, derivatives of log I by x, by x twice, by the order, by that twice, by both: likewise.
CONCENTRATED = [
    (0.5, 1e7, 0.99999995, 5e-15, -5.000000250000025e-08, -1.0000000500000041e-07, 5.000000500000075e-15),
    (
        3.5,
        10000000.0,
        0.99999995000006,
        4.9999879999982e-15,
        -3.5000001749999475e-07,
        -1.0000000499999442e-07,
        3.500000349999843e-14,
    ),
    (0.5, 1e12, 0.9999999999995, 5e-25, -5.0000000000025e-13, -1.0000000000005e-12, 5.000000000005e-25),
    (
        3.5,
        1000000000000.0,
        0.9999999999995,
        4.99999999988e-25,
        -3.50000000000175e-12,
        -1.0000000000005e-12,
        3.5000000000035e-24,
    ),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_order_keeps_its_digits_far_out(dtype: Any) -> None:
    for order, x, *expected in CONCENTRATED:
        found = of_order(dtype(order), dtype(x))[1:]
        np.testing.assert_allclose(found, expected, rtol=3e-7 if dtype == np.float32 else 1e-15)


def test_both_formulas_agree_where_they_meet() -> None:
    for order, seam in ((0.0, 100.0), (2.0, 100.0), (9.0, 324.0)):
        below, above = (of_order(order, seam + side) for side in (-1e-9, 1e-9))
        np.testing.assert_allclose(below, above, rtol=1e-10, atol=1e-15)


def test_the_scaled_logarithm_near_zero() -> None:
    x = jnp.array([1e-12, 1e-8, 1e-4])
    np.testing.assert_allclose(log_i0e(x) + x, [2.5e-25, 2.5e-17, 2.5e-9], rtol=1e-3, atol=1e-19)


def test_values_of_scipy() -> None:
    order, x = np.meshgrid([0.0, 0.3, 1.0, 2.5, 7.0, 40.0], np.geomspace(0.01, 600, 40))
    np.testing.assert_allclose(log_iv(order, x) - x, np.log(scipy.special.ive(order, x)), rtol=2e-13, atol=2e-13)
    grid = np.linspace(-600, 600, 301)
    np.testing.assert_allclose(log_i0e(grid), np.log(scipy.special.i0e(grid)), rtol=1e-13, atol=1e-15)


def test_edges_types_and_programs() -> None:
    np.testing.assert_array_equal(log_i0e(np.array([0.0, np.nan])), [0.0, np.nan])
    np.testing.assert_array_equal(
        log_iv(np.array([0.0, 2.0, 1.0]), np.array([0.0, 0.0, -1.0])), [0.0, -np.inf, np.nan]
    )
    assert log_i0e(3).dtype == log_iv(1, 3).dtype == jnp.float64
    assert log_i0e(np.float32(3)).dtype == log_iv(np.float32(1), np.arange(1, 3)).dtype == jnp.float32
    np.testing.assert_array_equal(jax.grad(log_iv, (0, 1))(2.0, 0.0), [-np.inf, np.inf])
    assert jax.grad(log_iv, 1)(0.0, 0.0) == 0
    of = derivatives(log_i0e, 2)
    for x, atol in ((0.5, 1e-6), (15.0, 1e-6), (25.0, 0.0), (1e6, 0.0)):
        np.testing.assert_allclose(of(jnp.float32(x)), of(x), rtol=2e-6, atol=atol)
    argument = jax.ShapeDtypeStruct(export.symbolic_shape("n"), jnp.float32)
    program = export.export(jax.jit(lambda x: log_i0e(x) + log_iv(1.5, x)), platforms=("cpu", "cuda", "tpu"))(
        argument
    )
    expected = np.log(scipy.special.i0e(2.0) * scipy.special.iv(1.5, 2.0))
    np.testing.assert_allclose(program.call(jnp.full(3, 2.0, jnp.float32)), expected, rtol=1e-5)


@pytest.mark.parametrize("fn", [log_i0e, lambda x: log_iv(1.0, x)], ids=["log_i0e", "log_iv"])
def test_complex_numbers_are_refused(fn: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="real numbers, got complex"):
        fn(1j)
