"""Student's t distribution function and quantile: digits from mpmath, identities, SciPy and the normal limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax import Array, export

from mlekit.core.special import log_ndtr, student_t_cdf, student_t_log_cdf, student_t_quantile


def digits(text: str) -> np.ndarray:
    return np.array(text.split(), np.float64).reshape(-1, 8)


# Degrees of freedom, x, the logarithm of the distribution function, and its derivatives by x, by the degrees of
# freedom, twice by x, by both, and twice by the degrees of freedom. By mpmath 1.3 with 110 digits or more: series
# of the incomplete beta function, and its central differences over 1e-14 of the arguments; rounded.
LOWER = digits(
    """
    0.05 -0.07 -0.7081448262131542 0.20895918371538513 -0.1458204254674018
        0.23609015795777238 2.1694285872171686 1.7604005732799617
    0.05 -3 -0.8567075085767778 0.016619440269554517 -2.7535130246517654
        0.00550846126027552 0.3314263465201238 10.679806442538665
    0.05 -1e+150 -18.071094102926853 5.0000000000000005e-152 -347.03979517489427
        5e-302 1e-150 10.738958492438956
    0.3 -0.7 -0.9866822299568946 0.32781013165128964 -0.5252029625294509
        0.27014459328635093 0.8338227217607121 1.3279079518030923
    1 -0.098 -0.757355253493451 0.6723792032112634 -0.012913379071851862
        -0.32156110501614815 0.14173357763999656 0.018911987374412888
    1 -10000000000.0 -24.170580815789858 1e-10 -22.83270374938051
        1e-20 1e-10 0.6775329665758868
    2.5 -0.98 -1.5794581153532765 0.9939235083622262 -0.07309797818646843
        -0.0026921610037910254 0.1414277227176014 0.04581496687396101
    7 -12 -12.658895060274443 0.5592728387132267 -1.122095578771224
        0.04277808072844221 0.07628547657391029 0.07374943781618797
    30 -0.0999 -0.7753465202462688 0.8546362953090818 -2.394225617331687e-05
        -0.6422084319828558 0.0002624425732287697 1.5880074036949424e-06
    30 -1000.0 -158.8430025917148 0.029999128151107387 -4.723575132312736
        2.9997384505535363e-05 0.000999940998733697 0.017202724378243616
    400 -6 -19.929730328182927 5.649339859458816 -0.0019063769207128115
        -0.7400140085465037 0.00116775229925314 9.010361810605815e-06
    100000.0 -35 -613.2478124644095 34.604617833952744 -3.697168930277224e-05
        -0.9631656491952463 4.187771169500436e-06 7.334645471940248e-10
    10000000000.0 -0.001 -0.6939453834669452 0.7985212895429323 -1.9963052201605548e-24
        -0.6368377285636848 1.9979013086805063e-21 3.9926104402711626e-34
    10000000000.0 -1.5 -2.7059444005876134 1.9386771661432756 -2.3627627961689603e-20
        -0.8504534056739101 4.7926770972378863e-20 4.7255255916856564e-30
    10000000000.0 -35 -616.9750636850754 35.02852067959722 -3.757684402715323e-15
        -0.9991872772316917 4.2909989394961463e-16 7.515368191925295e-25
    """
)
UPPER = digits(
    """
    0.05 0.7 -0.6089163454094967 0.056981757261457384 1.1280113224482742
        -0.08080542359980954 0.9433801894104575 -10.971918901238405
    2.5 0.0219 -0.6774259601534328 0.7120911699339436 0.0005845579534076958
        -0.5289023618960187 0.02628811857914782 -0.00042013239621633034
    2.5 3 -0.03696283376797267 0.02598397464467072 0.018812458344536626
        -0.02439966552694729 -0.005107189963419844 -0.016337195485191445
    7 10000000000.0 -1.320520676354677e-68 9.243644734482738e-78 2.854869632336513e-67
        -7.39491578758619e-87 -1.9852035358720124e-76 -6.173079546540527e-66
    100000.0 6 -9.899647282908963e-10 6.094483755863645e-09 3.382054601064807e-17
        -3.655410876220893e-08 -1.8624804580628714e-16 -6.774060981102823e-22
    """
)
# Likewise: degrees of freedom, probability, quantile and its derivatives, by Newton's method.
QUANTILES = digits(
    """
    0.05 0.4 -9.890410499368251 494.64997624228056 780.3324276097811
        -25962.651128277394 -48896.76120837848 -94863.02161609022
    0.3 0.001 -300718580.8790971 1002395269596.9904 20179904040.526512
        -4343712834920291.5 -70607664367078.34 -1490850717468.8691
    1 0.25 -1.0 6.283185307179586 0.415965594177219
        -39.47841760435743 -4.791174999930131 -1.0495746556926233
    4.5 0.499 -0.0026486818956195637 2.6486894660167994 3.195968518525566e-05
        -0.022711268430048486 -0.03196026509813563 -1.428634150667022e-05
    4.5 1e-100 -2.411253249559218e+22 5.358340554576039e+121 2.6997476404998468e+23
        -6.549082900037381e+221 -6.1185134356569045e+122 -3.14344728105986e+24
    30 0.05 -1.6972608865939578 10.469216060376612 0.0018019906114825725
        -175.38709712105427 -0.02703583456989012 -0.0001238894278517569
    10000.0 1e-10 -6.367941351482803 1540429878.1543071 6.606313278314117e-07
        -1.5051119951448164e+19 -471.3052592067723 -1.3224362606509124e-10
    """
)


def six(fn: Callable[..., Array]) -> Callable[[Any, Any], Array]:
    """A function of two numbers, its gradient and its second derivatives, at many points."""
    gradient = jax.grad(fn, (0, 1))

    def at(x: Array, df: Array) -> Array:
        (xx, xv), (_, vv) = jax.jacfwd(gradient, (0, 1))(x, df)
        return jnp.stack([fn(x, df), *gradient(x, df), xx, xv, vv])

    return jax.jit(jax.vmap(at))


log_cdf, cdf, quantile = six(student_t_log_cdf), six(student_t_cdf), six(student_t_quantile)


def columns(rows: np.ndarray, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rows[:, 1].astype(dtype), rows[:, 0].astype(dtype), rows[:, 2:]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_digits_of_the_logarithm(dtype: Any) -> None:
    single = dtype == np.float32
    rtol = [1e-6, 1e-6, 3e-4, 1e-4, 3e-5, 2e-3] if single else [2e-15, 5e-15, 1e-12, 2e-13, 1e-13, 5e-12]
    x, df, exact = columns(LOWER[(LOWER[:, 1] > -1e30) & (LOWER[:, 0] < 1e9)] if single else LOWER, dtype)
    found = log_cdf(x, df)
    assert found.dtype == dtype
    for k in range(6):
        np.testing.assert_allclose(found[:, k], exact[:, k], rtol=rtol[k])
    x, df, exact = columns(UPPER[UPPER[:, 1] < 100] if single else UPPER, dtype)
    found = log_cdf(x, df)
    np.testing.assert_allclose(found, exact, rtol=5e-4 if single else 5e-13, atol=1e-30 if single else 0)


def test_digits_of_the_function() -> None:
    for rows in (LOWER, UPPER):
        x, df, exact = columns(rows)
        p, found = np.exp(exact[:, :1]), cdf(x, df)
        np.testing.assert_allclose(found[:, :1], p, rtol=1e-12)
        np.testing.assert_allclose(found[:, 1:3], p * exact[:, 1:3], rtol=1e-12)
        product = exact[:, [1, 1, 2]] * exact[:, [1, 2, 2]]  # the sum with it may cancel
        scale = p * (np.abs(exact[:, 3:]) + np.abs(product))
        assert np.all(np.abs(found[:, 3:] - p * (exact[:, 3:] + product)) <= 5e-12 * scale)


def test_both_sides_are_one() -> None:
    x, df = np.meshgrid(np.geomspace(1e-8, 40, 60), [0.05, 0.7, 3.0, 80.0, 1e6])
    below, above = student_t_cdf(-x, df), student_t_cdf(x, df)
    np.testing.assert_allclose(below + above, 1, rtol=1e-15)
    np.testing.assert_allclose(jnp.exp(student_t_log_cdf(x, df)), above, rtol=1e-15)
    np.testing.assert_allclose(below, scipy.stats.t.cdf(-x, df), rtol=1e-12)
    # About zero and over the seam at the edge of the centre, the slope is the density.
    x = np.concatenate([np.linspace(-0.2, 0.2, 401), np.linspace(-9, 9, 101)])
    for nu in (0.05, 2.0, 1e7):
        slope = jax.jit(jax.vmap(jax.grad(student_t_cdf), (0, None)))(x, nu)
        np.testing.assert_allclose(slope, scipy.stats.t.pdf(x, nu), rtol=5e-13 if nu < 1e3 else 1e-9)


def test_cauchy_and_two_degrees_of_freedom() -> None:
    x = np.concatenate([-np.geomspace(1e-6, 1e100, 107), np.linspace(-5, 5, 41)])
    cauchy = np.where(x < 0, np.arctan2(1, -x), np.pi - np.arctan2(1, x)) / np.pi
    np.testing.assert_allclose(student_t_cdf(x, 1.0), cauchy, rtol=1e-13)
    with np.errstate(over="ignore"):
        root = np.sqrt(2 + x * x)
        two = np.where(x < 0, 1 / (root * (root - x)), 1 - 1 / (root * (root + np.abs(x))))
    np.testing.assert_allclose(student_t_cdf(x, 2.0), two, rtol=1e-13)


def test_the_normal_is_the_limit() -> None:
    x = np.array([-30.0, -3.0, -0.05, 0.0, 0.02, 1.0, 6.0])
    density = jnp.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    for df in (np.inf, 1e300, 1e10):
        near = 1e-15 if df > 1e11 else 1e-4
        np.testing.assert_allclose(student_t_log_cdf(x, df), log_ndtr(x), rtol=max(near, 1e-13))
        assert np.all(np.isfinite(log_cdf(x, np.full(7, df))))
    # F - Φ = -φ (x³ + x) / 4ν + O(1 / ν²)
    slope = jax.vmap(jax.grad(student_t_cdf, 1), (0, None))(x, 1e10)
    np.testing.assert_allclose(slope, density * (x**3 + x) / 4e20, rtol=1e-4)
    assert np.all(cdf(x, np.full(7, np.inf))[:, [2, 4, 5]] == 0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_digits_of_the_quantile(dtype: Any) -> None:
    single = dtype == np.float32
    few = (QUANTILES[:, 1] > 1e-12) & (QUANTILES[:, 1] < 0.49)
    p, df, exact = columns(QUANTILES[few] if single else QUANTILES, dtype)
    found = quantile(p, df)
    assert found.dtype == dtype
    np.testing.assert_allclose(found[:, 0], exact[:, 0], rtol=3e-5 if single else 2e-13)
    if not single:
        np.testing.assert_allclose(found[:, 1:], exact[:, 1:], rtol=2e-12)
        mirrored = exact[3] * np.array([-1, 1, -1, -1, 1, -1])
        np.testing.assert_allclose(quantile(1 - p[3:4], df[3:4])[0], mirrored, rtol=1e-10)


def test_the_quantile_is_the_inverse() -> None:
    p = np.concatenate([np.geomspace(1e-300, 0.4, 50), 0.5 - np.geomspace(1e-15, 0.1, 30), [0.6, 0.999]])
    p, df = np.meshgrid(p, [0.3, 1.0, 2.5, 30.0, 1e4, 1e10, np.inf])
    x = student_t_quantile(p, df)
    fits = np.isfinite(x)
    assert fits[1:].all()
    back = student_t_log_cdf(x, df)
    np.testing.assert_allclose(np.where(fits, back, 0), np.where(fits, np.log(p), 0), rtol=3e-15)
    points = np.concatenate([-np.geomspace(1e-12, 30, 40), np.geomspace(1e-3, 3, 20), [0.0]])
    points, df = np.meshgrid(points, [0.3, 1.0, 2.5, 30.0, 1e10])
    again = student_t_quantile(student_t_cdf(points, df), df)
    np.testing.assert_allclose(again, points, rtol=1e-12, atol=3e-15)


def test_edges_types_and_programs() -> None:
    x = np.array([-np.inf, np.inf, np.nan, 0.0])
    np.testing.assert_array_equal(student_t_cdf(x, 3), [0, 1, np.nan, 0.5])
    np.testing.assert_array_equal(student_t_log_cdf(x[:3], 3), [-np.inf, 0, np.nan])
    np.testing.assert_array_equal(
        student_t_quantile(np.array([0, 1, 0.5, 2, -1, np.nan]), 3), [-np.inf, np.inf, 0, np.nan, np.nan, np.nan]
    )
    np.testing.assert_array_equal(log_cdf(x[:2], np.full(2, 3.0))[:, 1:], 0)
    for fn in (student_t_cdf, student_t_log_cdf, student_t_quantile):
        assert np.isnan(fn(np.full(3, 0.3), np.array([0, -1, np.nan]))).all()
        assert fn(np.float32(0.3), np.arange(1, 4)).dtype == jnp.float32
        assert fn(np.full((4, 1), 0.3), np.arange(1, 4)).shape == (4, 3)
        single = [jax.grad(fn, 1)(0.3, df) for df in (1.0, 2.0)]
        np.testing.assert_allclose(
            jax.vmap(jax.grad(fn, 1), (None, 0))(0.3, jnp.array([1.0, 2])), single, rtol=1e-13
        )
        with pytest.raises(TypeError, match="real numbers, got complex"):
            fn(1j, 2)
    assert student_t_cdf(1, 2).dtype == jnp.float64
    with jax.enable_x64(False):
        assert student_t_cdf(1, 2).dtype == jnp.float32
    argument = jax.ShapeDtypeStruct(export.symbolic_shape("n"), jnp.float32)
    program = jax.jit(jax.vmap(jax.grad(lambda df: student_t_log_cdf(-1.0, df) + student_t_quantile(0.2, df))))
    exported = export.export(program, platforms=("cpu", "cuda", "tpu"))(argument)
    point = jnp.full(3, 4, jnp.float32)
    np.testing.assert_allclose(exported.call(point), program(point.astype(float)), rtol=1e-4)


def test_third_derivatives_and_directions() -> None:
    """By both orders of differentiation, forward and in reverse."""
    bend = jax.jit(jax.grad(jax.grad(student_t_log_cdf, 1), 1))
    third, mixed = jax.jit(jax.grad(bend, 1))(-2.0, 3.0), jax.jit(jax.grad(bend))(-2.0, 3.0)
    step = 1e-4
    np.testing.assert_allclose(third, (bend(-2.0, 3 + step) - bend(-2.0, 3 - step)) / (2 * step), rtol=1e-7)
    np.testing.assert_allclose(mixed, (bend(-2 + step, 3.0) - bend(-2 - step, 3.0)) / (2 * step), rtol=1e-7)
    for fn, at in ((student_t_log_cdf, -2.0), (student_t_cdf, 0.05), (student_t_quantile, 0.1)):

        def of(z: Array, fn: Callable[..., Array] = fn) -> Array:
            return fn(z[0], z[1])

        point = jnp.array([at, 3.0])
        forward = jax.jit(jax.jacfwd(jax.jacfwd(of)))(point)
        np.testing.assert_allclose(jax.jit(jax.hessian(of))(point), forward, rtol=1e-13)
        np.testing.assert_allclose(jax.jit(jax.jacrev(jax.jacrev(of)))(point), forward, rtol=1e-13)
