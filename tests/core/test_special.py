"""Special functions against SciPy, against products written out, and against digits from mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax import Array, export

from mlekit.core.special import betaln, digamma, gammaln, gammaln_difference, log_ndtr, polygamma, trigamma

# Order (-1 is log Γ), argument, value: mpmath 1.3, 60 digits, rounded.
DIGITS = [
    (-1, 1e-300, 690.7755278982137),
    (-1, 0.999999999999, 5.772028958989666e-13),
    (-1, 1.000000001, -5.772157118381039e-10),
    (-1, 1.999999999, -4.227843697573328e-10),
    (-1, 2.000000000001, 4.2282192087238456e-13),
    (-1, 6.499999, 5.662560266945894),
    (-1, 6.500001, 5.662563852768555),
    (-1, 1e300, 6.897755278982137e302),
    (0, 1e-300, -9.999999999999999e299),
    (0, 0.3, -3.502524222200133),
    (0, 6.999999, 1.8727841815532773),
    (0, 7.000001, 1.8727844886436333),
    (0, 1e300, 690.7755278982137),
    (1, 1e-150, 1e300),
    (1, 0.3, 12.245364546107732),
    (1, 1e300, 1e-300),
    (2, 0.3, -75.27253658872604),
    (2, 8.0, -0.017699569195767775),
    (3, 1e-05, 5.999999999999999e20),
    (3, 9.0, 0.0032343960459451037),
    (3, 1e60, 2.0000000000000005e-180),
]
# x: the difference over half a step, of log Γ and of its first three derivatives, by mpmath as above.
HALF_STEPS = {
    1e-3: (-6.336774987884822, 998.6169883097939, -999996.7245112157, 1999999985.6658602),
    0.7: (-0.3462413365349824, 0.9309836571057464, -1.5666719512708318, 4.95695675975499),
    5.5: (0.8296777751633297, 0.09502451985004935, -0.018019431252512333, 0.006819215276187546),
    40.0: (1.8413148084219249, 0.012578118898390458, -0.00031640563993428684, 1.5917892506065693e-05),
    1e6: (6.907755153982137, 5.00000125e-07, -5.0000025e-13, 1.00000075e-18),
    1e15: (17.269388197455342, 5.000000000000001e-16, -5.000000000000002e-31, 1.0000000000000008e-45),
    1e100: (115.12925464970229, 5e-101, -5e-201, 1e-300),
}
# x: the logarithm of the normal distribution function and its first three derivatives, by mpmath as above.
NORMAL = {
    -1e5: (-5000000012.431864, 100000.00001, -0.9999999999, 1.9999999976e-15),
    -100.0: (-5005.524208694205, 100.00999800099926, -0.9999000599500517, 1.997602995862343e-06),
    -5.000001: (-15.065003580493178, 5.186504934429413, -0.9673035762086497, 0.010825759418521234),
    -4.999999: (-15.06499320748524, 5.186502999822282, -0.9673035545571207, 0.010825769594195183),
    -1.0: (-1.8410216450092636, 1.525135276160981, -0.8009023344296512, 0.11693119540604884),
    0.0: (-0.6931471805599453, 0.7978845608028654, -0.6366197723675814, 0.21801361414499015),
    3.0: (-0.0013508099647481938, 0.004437839042125664, -0.013333211541740806, 0.03568013687657047),
    10.0: (-7.619853024160525e-24, 7.694598626706419e-23, -7.694598626706419e-22, 7.617652640439355e-21),
}
ZERO = 1.4616321449683622  # of digamma
CHAIN: list[Callable[[Any], Array]] = [
    gammaln,
    digamma,
    trigamma,
    lambda x: polygamma(2, x),
    lambda x: polygamma(3, x),
]


def reference(order: int, x: Any) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return scipy.special.gammaln(x) if order < 0 else scipy.special.polygamma(order, x)


def derivative(f: Callable[..., Array], order: int) -> Callable[..., Array]:
    for _ in range(order):
        f = jax.grad(f)
    return f


@pytest.mark.parametrize(("order", "x", "value"), DIGITS)
def test_digits(order: int, x: float, value: float) -> None:
    np.testing.assert_allclose(CHAIN[order + 1](x), value, rtol=2e-15)


@pytest.mark.parametrize("order", range(-1, 4))
def test_grids(order: int) -> None:
    reach = 300 // (abs(order) + 1)
    x = np.concatenate([np.geomspace(10.0**-reach, 10.0**reach, 2001), np.linspace(0.01, 20, 4001)])
    np.testing.assert_allclose(CHAIN[order + 1](x), reference(order, x), rtol=1e-13, atol=1e-15)
    short = np.geomspace(1e-8, 1e8, 4001, dtype=np.float32)
    value = CHAIN[order + 1](short)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, reference(order, short), rtol=1e-6, atol=5e-7 if order == 0 else 0)


def test_zeros() -> None:
    for dtype in (np.float32, np.float64):
        assert gammaln(np.ones(1, dtype)) == 0
        assert gammaln(np.full(1, 2, dtype)) == 0
    assert abs(digamma(ZERO)) < 1e-15
    close = ZERO + np.linspace(-1e-3, 1e-3, 101)
    np.testing.assert_allclose(digamma(close), reference(0, close), rtol=0, atol=2e-15)
    # Around 1, log Γ is -γ t + π² t² / 12 and no digit is lost; in float32, neither.
    t = np.float32(2.0) ** -np.arange(12, 20, dtype=np.float32)
    expected = -np.euler_gamma * t + np.pi**2 / 12 * t**2 - 1.2020569 / 3 * t**3
    np.testing.assert_allclose(gammaln(1 + t), expected, rtol=3e-7)


def test_special_values() -> None:
    edges = np.array([0.0, np.inf, np.nan, -1.0, -1.5, -np.inf, 1e308])
    for order, at_zero, at_infinity in [
        (-1, np.inf, np.inf),
        (0, -np.inf, np.inf),
        (1, np.inf, 0),
        (2, -np.inf, 0),
    ]:
        value = CHAIN[order + 1](edges)
        np.testing.assert_array_equal(value[:6], [at_zero, at_infinity] + [np.nan] * 4)
        assert not np.isnan(value[6])
    np.testing.assert_array_equal(
        gammaln_difference(np.array([np.nan, 1.0, -0.5, 1.0]), np.array([0, np.nan, 3, -2])), np.nan
    )
    np.testing.assert_array_equal(gammaln_difference(np.array([0.0, 1e-300, 5.0, 1e300]), 0), 0)
    assert gammaln_difference(0.0, 2.0) == -np.inf


@pytest.mark.parametrize("order", range(1, 5))
def test_derivatives_are_each_other(order: int) -> None:
    x = np.geomspace(0.05, 500, 60)
    value = jax.jit(jax.vmap(derivative(gammaln, order)))(x)
    np.testing.assert_allclose(value, reference(order - 1, x), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(derivative(digamma, order)(2.5), reference(order, 2.5), rtol=1e-14)
    forward = gammaln
    for _ in range(order):
        forward = jax.jacfwd(forward)
    np.testing.assert_allclose(forward(3.5), reference(order - 1, 3.5), rtol=1e-14)


def test_whole_steps_are_products() -> None:
    places = [1e-3, 0.7, 3.0, 6.999, 7.001, 8.5, 40.0, 1e3, 1e6, 1e10, 1e15]
    x, steps = (grid.ravel() for grid in np.meshgrid(places, [0, 1, 3, 50, 1000]))
    for n in range(-1, 3):  # Γ(x + 3) / Γ(x) = x (x + 1) (x + 2)
        term = math.log if n < 0 else lambda f, n=n: (-1) ** n * math.factorial(n) / f ** (n + 1)
        for dtype, rtol in ((np.float64, 1e-14), (np.float32, 1e-6)):
            given = x.astype(dtype)
            value = jax.jit(jax.vmap(derivative(gammaln_difference, n + 1)))(given, steps)
            expected = [math.fsum(term(float(a) + k) for k in range(step)) for a, step in zip(given, steps)]
            assert value.dtype == dtype
            np.testing.assert_allclose(value, expected, rtol=rtol, atol=1e-30 if n == 2 else 0)


@pytest.mark.parametrize("x", HALF_STEPS)
def test_half_steps(x: float) -> None:
    value = [derivative(gammaln_difference, n)(x, 0.5) for n in range(4)]
    np.testing.assert_allclose(value, HALF_STEPS[x], rtol=3e-15)


def test_both_derivatives_of_a_difference() -> None:
    x, step = 2.5, 1.75
    psi = [reference(n, x + step) for n in range(4)]
    less = [reference(n, x) for n in range(4)]
    np.testing.assert_allclose(
        jax.grad(gammaln_difference, (0, 1))(x, step), [psi[0] - less[0], psi[0]], rtol=1e-14
    )
    hessian = jax.jacfwd(jax.grad(lambda p: gammaln_difference(p[0], p[1])))(jnp.array([x, step]))
    np.testing.assert_allclose(hessian, [[psi[1] - less[1], psi[1]], [psi[1], psi[1]]], rtol=1e-14)
    mixed = jax.grad(jax.grad(jax.grad(gammaln_difference), 1), 1)(x, step)
    np.testing.assert_allclose(mixed, psi[2], rtol=1e-14)
    # A tiny step keeps its digits, a huge one is the function itself.
    np.testing.assert_allclose(gammaln_difference(x, 1e-30), 1e-30 * less[0], rtol=1e-14)
    np.testing.assert_allclose(gammaln_difference(0.5, 1e200), scipy.special.gammaln(1e200), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_logarithm_of_the_normal_distribution_function(dtype: Any) -> None:
    eps = np.finfo(dtype).eps
    points = NORMAL if dtype == np.float64 else {x: value for x, value in NORMAL.items() if round(x) == x}
    x, exact = np.array(list(points), dtype), np.array(list(points.values())).T
    for order, digits in enumerate([60, 30, 600]):
        value = jax.jit(jax.vmap(derivative(log_ndtr, order)))(x)
        assert value.dtype == dtype
        np.testing.assert_allclose(value, exact[order], rtol=digits * eps)
    third = jax.jit(jax.vmap(derivative(log_ndtr, 3)))(x)
    assert np.all(np.abs(np.asarray(third) - exact[3]) < 100 * eps * (1 + np.abs(x)) ** 5 * np.abs(exact[3]))


def test_tails_of_the_normal_distribution() -> None:
    x = np.append(-np.geomspace(1e-3, 1e150, 2001), np.linspace(-8, 38, 4001))
    np.testing.assert_allclose(log_ndtr(x), scipy.special.log_ndtr(x), rtol=1e-12, atol=1e-300)
    with np.errstate(over="ignore"):
        slope = math.sqrt(2 / math.pi) / scipy.special.erfcx(-x / math.sqrt(2))
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(log_ndtr)))(x), slope, rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(log_ndtr(np.array([-np.inf, np.inf, np.nan])), [-np.inf, 0, np.nan])
    assert jax.grad(log_ndtr)(np.inf) == 0


def test_betaln() -> None:
    a, b = np.meshgrid(np.geomspace(1e-3, 1e3, 41), np.geomspace(1e-3, 1e3, 41) * 1.1)
    np.testing.assert_allclose(betaln(a, b), scipy.special.betaln(a, b), rtol=1e-11, atol=5e-12)
    # Where SciPy has fewer digits, mpmath's.
    a, b = np.array([0.4, 3e4, 1e-12, 123.0, 1e15]), np.array([700.0, 0.3, 1e6, 456.0, 2.0])
    digits = [
        -1.8235828795948814,
        -1.9968843033674344,
        27.631021115914155,
        -300.8057701483534,
        -2 * math.log(1e15),
    ]
    np.testing.assert_allclose(betaln(a, b), digits, rtol=2e-15)
    same = jax.hessian(lambda p: betaln(p[0], p[1]))(jnp.array([2.0, 2.0]))
    both, one = reference(1, 4), reference(1, 2)
    np.testing.assert_allclose(same, [[one - both, -both], [-both, one - both]], rtol=1e-14)


def test_negative_binomial_hessian() -> None:
    y, mean, size = jnp.array([0, 1, 4, 30]), 3.2, 2.6

    def log_density(params: Array, y: Array) -> Array:
        r, m = params
        logits = r * (jnp.log(r) - jnp.log(r + m)) + y.astype(r.dtype) * (jnp.log(m) - jnp.log(r + m))
        return gammaln_difference(r, y) - gammaln(y + 1) + logits

    at = jnp.array([size, mean])
    value = jax.vmap(log_density, (None, 0))(at, y)
    np.testing.assert_allclose(value, scipy.stats.nbinom.logpmf(y, size, size / (size + mean)), rtol=1e-12)
    hessian = jax.jit(jax.vmap(jax.jacfwd(jax.grad(log_density)), (None, 0)))(at, y)
    limit = jax.vmap(lambda y: gammaln_difference(1e8, y) - y.astype(float) * jnp.log(1e8))(y)
    total, counts = size + mean, np.asarray(y)
    rr = reference(1, size + counts) - reference(1, size) + 1 / size - 2 / total + (size + counts) / total**2
    np.testing.assert_allclose(hessian[:, 0, 0], rr, rtol=1e-12)
    np.testing.assert_allclose(hessian[:, 0, 1], (counts - mean) / total**2, rtol=1e-12, atol=1e-15)
    # Towards the Poisson: log x (x + 1) ... (x + y - 1) less y log x is y (y - 1) / 2x + O(1 / x²).
    np.testing.assert_allclose(limit, counts * (counts - 1) / 2e8, atol=1e-12)


def test_types_shapes_and_programs() -> None:
    assert gammaln(5).dtype == gammaln(np.arange(1, 4)).dtype == jnp.float64
    assert gammaln_difference(np.float32(2), np.arange(3)).dtype == betaln(np.float32(2), 3).dtype == jnp.float32
    assert gammaln_difference(np.ones((4, 1)), np.arange(3)).shape == (4, 3)
    with jax.enable_x64(False):
        assert gammaln(5).dtype == trigamma(5).dtype == gammaln_difference(5, 1).dtype == jnp.float32
    mapped = jax.vmap(jax.vmap(gammaln_difference, (None, 0)), (0, None))(jnp.arange(1, 3.0), jnp.arange(3))
    np.testing.assert_allclose(mapped, np.log([[1, 1, 2], [1, 2, 6]]), atol=1e-15)
    argument = jax.ShapeDtypeStruct(export.symbolic_shape("n"), jnp.float32)
    gradient = jax.jit(jax.vmap(derivative(lambda x: gammaln_difference(x, 0.5) + gammaln(x), 2)))
    program = export.export(gradient, platforms=("cpu", "cuda", "tpu"))(argument)
    np.testing.assert_allclose(program.call(jnp.ones(3, jnp.float32)), reference(1, 1.5), rtol=1e-6)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more, got -1"):
        polygamma(-1, 2.0)
    with pytest.raises(TypeError, match="integer"):
        polygamma(1.5, 2.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="real numbers, got complex"):
        gammaln(1j)
