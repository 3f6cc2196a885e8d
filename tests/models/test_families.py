"""Noise families and regressions made of them: scipy's densities, exact information, statsmodels' estimates."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
import scipy.special
import scipy.stats as st

from mlekit.models import families
from tests.helpers.regressions import CASES, SIZES, Case

every_family = pytest.mark.parametrize("case", CASES.values(), ids=CASES)

ROWS = 4000
HOW_TO_ADD = Path(__file__).parents[2] / "docs" / "pages" / "how_to_add.md"


@functools.cache
def compiled(family: Any) -> Any:
    """Log-density, score, Hessian, and logarithms of both tails, of one array of responses."""

    def one(y: Any, p: Any) -> Any:
        def both(q: Any) -> Any:
            value, score = jax.value_and_grad(lambda q: family.log_density(y, *q))(q)
            return score, (value, score)

        hessian, (value, score) = jax.jacfwd(both, has_aux=True)(p)
        return value, score, hessian, family.log_cdf(y, *p), family.log_survival(y, *p)

    return jax.jit(jax.vmap(one, in_axes=(0, None)))


def evaluate(family: Any, y: Any, *p: float) -> Any:
    y = np.asarray(y, float)
    padded = np.concatenate([y, np.ones(ROWS - len(y))])  # one shape, compiled once
    return [np.asarray(out)[: len(y)] for out in compiled(family)(padded, np.array(p, float))]


@functools.cache
def compiled_rest(family: Any) -> Any:
    return jax.jit(lambda key, *p: (family.information(*p), family.sample(key, *p)))


def information(family: Any, *p: Any) -> np.ndarray:
    return np.asarray(compiled_rest(family)(jax.random.key(0), *p)[0])


def nodes(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Responses and weights: the weighted sum of a smooth function is its sum, or integral, over the support."""
    if case.whole:
        return np.arange(float(ROWS)), np.ones(ROWS)
    t, step = np.linspace(-130, 80, ROWS // 2, retstep=True)
    if case.family.support.high == 1:
        y = scipy.special.expit(t)
        return y[y < 1], (step * y * scipy.special.expit(-t))[y < 1]
    y = np.exp(t)
    if case.family.support.low == 0:
        return y, step * y
    middle = case.points[0][0]  # where the Laplace has its kink
    return np.concatenate([middle - y, middle + y]), step * np.concatenate([y, y])


@pytest.mark.standard_promotion
@every_family
def test_names_in_other_libraries(case: Case) -> None:
    """The docstring of a family says what SciPy and numpyro call its distribution."""
    doc = re.sub(r"\s+", " ", type(case.family).__doc__ or "")
    written = re.search(r"SciPy: `(.+?)`; numpyro: (?:`(.+?)`|none)\.", doc)
    assert written is not None, doc
    theirs, of_numpyro = written.groups()
    known: dict[str, Any] = {"trials": 9, "expit": scipy.special.expit, "exp": np.exp, "__builtins__": {}}
    for point in case.points:
        known |= dict(zip(case.family.parameters, point))
        for y in case.responses[:4]:
            wanted = float(case.family.log_density(y, *point))
            found = eval(theirs, {**vars(st), **known})
            value = found.logpmf(y) if case.whole else found.logpdf(y)
            np.testing.assert_allclose(value, wanted, rtol=1e-6, atol=1e-8)
            if of_numpyro is not None:
                found = eval(of_numpyro, {**vars(numpyro.distributions), **known})
                np.testing.assert_allclose(found.log_prob(y), wanted, rtol=1e-6, atol=1e-8)


@every_family
def test_log_density_and_both_tails_are_scipys(case):
    for point in case.points:
        density, _, _, log_cdf, log_survival = evaluate(case.family, case.responses, *point)
        reference = case.scipy(*point)
        of_scipy = (reference.logpmf if case.whole else reference.logpdf)(case.responses)
        np.testing.assert_allclose(density, of_scipy, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(np.exp(log_cdf), reference.cdf(case.responses), rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(np.exp(log_survival), reference.sf(case.responses), rtol=1e-9, atol=1e-13)
        # Far out their relative digits count, too.
        low, high = reference.ppf([0.3, 1e-3, 1e-10]), reference.isf([0.3, 1e-3, 1e-10])
        low, high = low[low > case.family.support.low], high[high < case.family.support.high]
        np.testing.assert_allclose(np.exp(evaluate(case.family, low, *point)[3]), reference.cdf(low), rtol=1e-12)
        np.testing.assert_allclose(np.exp(evaluate(case.family, high, *point)[4]), reference.sf(high), rtol=1e-12)


@every_family
def test_density_sums_to_one_and_information_is_expected_curvature_and_variance_of_score(case):
    y, weight = nodes(case)
    density, score, hessian, *_ = evaluate(case.family, y, *case.points[0])
    weight = weight * np.exp(density)
    some = weight > 1e-200
    weight, score, hessian = weight[some], score[some], hessian[some]
    exact = information(case.family, *case.points[0])
    assert exact.shape == (len(case.points[0]),) * 2
    np.testing.assert_allclose(np.sum(weight), 1, rtol=1e-11)
    np.testing.assert_allclose(weight @ score, 0, atol=1e-11)
    np.testing.assert_allclose(np.einsum("n,ni,nj", weight, score, score), exact, rtol=1e-9, atol=1e-11)
    if case.family is not families.laplace:  # its curvature is all in the kink
        np.testing.assert_allclose(-np.einsum("n,nij", weight, hessian), exact, rtol=1e-9, atol=1e-11)


@every_family
def test_samples_follow_the_distribution(case):
    point = case.points[0]
    keys = jax.random.split(jax.random.key(8), 20_000)
    draws = np.sort(jax.jit(jax.vmap(lambda key: case.family.sample(key, *point)))(keys))
    reference = case.scipy(*point)
    assert abs(draws.mean() - reference.mean()) < 4 * reference.std() / np.sqrt(len(draws))
    np.testing.assert_allclose(draws.var(), reference.var(), rtol=0.1)
    at = np.unique(draws)
    gap = np.searchsorted(draws, at, side="right") / len(draws) - reference.cdf(at)
    assert np.max(np.abs(gap)) < 1.63 / np.sqrt(len(draws))  # Kolmogorov and Smirnov, at 1 percent


def test_the_family_that_the_page_on_adding_one_shows():
    (code,) = re.findall(r"```python\n(class .*?)```", HOW_TO_ADD.read_text(), re.DOTALL)
    scope: dict[str, Any] = {"Family": families.Family, "POSITIVE": families.gamma.support, "jax": jax, "jnp": jnp}
    exec(code, scope)
    case = Case(scope["Rayleigh"](), lambda scale: st.rayleigh(scale=scale), ((2.0,),), SIZES)
    density, _, _, log_cdf, _ = evaluate(case.family, SIZES, 2.0)
    np.testing.assert_allclose(density, st.rayleigh(scale=2.0).logpdf(SIZES), rtol=1e-12)
    np.testing.assert_allclose(np.exp(log_cdf), st.rayleigh(scale=2.0).cdf(SIZES), rtol=1e-9)
    test_density_sums_to_one_and_information_is_expected_curvature_and_variance_of_score(case)
    test_samples_follow_the_distribution(case)


@every_family
def test_outside_support_and_domains(case):
    point = case.points[0]
    density, *_ = evaluate(case.family, case.outside, *point)
    np.testing.assert_array_equal(density, -np.inf)
    y = case.responses[1]
    assert np.isnan(evaluate(case.family, [np.nan], *point)[0])
    for i, value in enumerate(case.invalid):
        bad = [value if i == k else number for k, number in enumerate(point)]
        density, _, _, log_cdf, _ = evaluate(case.family, [y], *bad)
        assert np.isnan(density)
        assert np.isnan(log_cdf)
        assert all(np.all(np.isnan(out)) for out in compiled_rest(case.family)(jax.random.key(0), *bad))
    below, above = evaluate(case.family, [-1e9, min(1e9, case.family.support.high)], *point)[3]
    assert below < -15
    assert abs(above) < 1e-8


@every_family
def test_float32_stays_float32(case):
    y, *p = (jnp.float32(number) for number in (case.responses[1], *case.points[0]))
    key = jax.random.key(0)
    outs = jax.eval_shape(
        lambda y, *p: (
            case.family.log_density(y, *p),
            case.family.log_density(jnp.asarray(1), *p),
            case.family.log_cdf(y, *p),
            case.family.information(*p),
            case.family.sample(key, *p),
        ),
        *(y, *p),
    )
    assert {out.dtype for out in outs} == {jnp.dtype("float32")}
    exact = evaluate(case.family, [float(y)], *map(float, p))[0]
    np.testing.assert_allclose(jax.jit(case.family.log_density)(y, *p), exact, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("dispersion", [0.0, 1e-300, 1e-14])
def test_negative_binomial_tends_to_the_poisson(dispersion):
    y = np.array([0, 1, 5, 40, 10_000.0])
    for mean in (0.3, 4.0, 9_900.0):
        density, score, _, log_cdf, _ = evaluate(families.negative_binomial, y, mean, dispersion)
        poisson = evaluate(families.poisson, y, mean)
        np.testing.assert_allclose(density, poisson[0], rtol=1e-6)
        np.testing.assert_allclose(log_cdf, poisson[3], rtol=1e-6)
        np.testing.assert_allclose(score[:, 0], poisson[1][:, 0], rtol=1e-6, atol=1e-12)
        # What mixing adds: half the variance, less its Poisson part, in units of the mean squared.
        slope = ((y - mean) ** 2 - y) / 2
        np.testing.assert_allclose(score[:, 1], slope, rtol=1e-6, atol=1e-6 * mean)
        np.testing.assert_allclose(
            information(families.negative_binomial, mean, dispersion), np.diag([1 / mean, mean**2 / 2]), rtol=1e-6
        )


@pytest.mark.parametrize(
    ("mean", "dispersion", "exact"),
    [  # by a sum, or an integral, of sixty digits
        (0.001, 1e-06, 4.999994990005017e-07),
        (0.1, 10.0, 0.00017156050072095544),
        (1.0, 1e-09, 0.4999999985),
        (5.0, 0.01, 11.232607257015195),
        (5.0, 1.0, 0.3107447949432743),
        (30.0, 0.1, 28.036043211701124),
        (30.0, 100.0, 6.695911105333667e-06),
        (1000.0, 0.0001, 413186.82967909024),
        (1000.0, 1.0, 0.6380285145335187),
        (10000.0, 1e-06, 49014754.10265076),
        (10000.0, 100.0, 1.190552658562174e-05),
    ],
)
def test_information_about_the_dispersion(mean, dispersion, exact):
    family = families.negative_binomial
    np.testing.assert_allclose(information(family, mean, dispersion)[1, 1], exact, rtol=1e-10)
    single = information(family, jnp.float32(mean), jnp.float32(dispersion))
    np.testing.assert_allclose(single[1, 1], exact, rtol=2e-6)


@pytest.mark.parametrize("point", [(0.0,), (0.0, 0.5), (0.0, 0.0)])
def test_counts_without_a_rate_are_zero(point):
    family = families.poisson if len(point) == 1 else families.negative_binomial
    density, score, *_ = evaluate(family, [0, 3], *point)
    np.testing.assert_array_equal(density, [0, -np.inf])
    np.testing.assert_array_equal(score[0], [-1, 0][: len(point)])


def test_information_that_the_quadrature_cannot_give_is_nan():
    assert np.isnan(information(families.negative_binomial, 1e8, 1e4)[1, 1])


tail_and_slopes = jax.jit(jax.value_and_grad(families.inverse_gaussian.log_survival, (1, 2)))


# Response, mean, shape, and the logarithm of the survival function: mpmath 1.3, 60 digits, rounded.
@pytest.mark.parametrize(
    ("y", "mean", "shape", "value"),
    [
        (0.01, 1.0, 1.0, -4.122313403318782e-23),
        (0.99, 1.0, 1e4, -0.17273925488365396),
        (91.0, 1.0, 1e4, -445066.54218827543),
        (4755.0, 1.0, 5.0, -11896.231590153866),
        (5.8e8, 1.0, 1.0, -290000029.49359936),
    ],
)
def test_upper_tail_of_the_inverse_gaussian(y, mean, shape, value):
    """The difference of two nearly equal tails."""
    for dtype, digits in ((np.float64, 1e-13), (np.float32, 1e-5)):
        found, slopes = tail_and_slopes(*(jnp.asarray(number, dtype) for number in (y, mean, shape)))
        np.testing.assert_allclose(found, value, rtol=digits)
        assert np.isfinite(slopes).all()


def test_lower_tail_of_the_weibull_below_the_smallest_number():
    single = [jnp.float32(number) for number in (0.01, 1.0, 25.0)]
    value, slope = jax.value_and_grad(families.weibull.log_cdf, 2)(*single)
    np.testing.assert_allclose([value, slope], [25 * np.log(0.01), np.log(0.01)], rtol=1e-6)


def test_student_tends_to_the_normal():
    y = np.array([-6.0, 0.1, 2.0])
    density, score, _, log_cdf, _ = evaluate(families.student_t, y, 0.0, 1.0, 1e9)
    normal = evaluate(families.normal, y, 0.0, 1.0)
    np.testing.assert_allclose(density, normal[0], rtol=1e-7)
    np.testing.assert_allclose(log_cdf, normal[3], rtol=1e-7)
    np.testing.assert_allclose(score[:, 2] * 1e18, -(y**4 - 2 * y**2 - 1) / 4, rtol=1e-6)
    last = [information(families.student_t, 0.0, 1.0, nu)[2, 2] * nu**4 for nu in (19.9999999, 20.0000001, 1e6)]
    assert last[0] == pytest.approx(last[1], rel=1e-7)
    assert last[2] == pytest.approx(3.5, rel=1e-5)


def test_large_shapes_and_precisions_keep_their_digits():
    for family, spread in ((families.gamma, 0.3), (families.beta, np.sqrt(0.3 * 0.7))):  # standard error times 1e6
        point = (0.3, 1e12)
        assert information(family, *point)[1, 1] * 2e24 == pytest.approx(1, rel=1e-9)
        y = 0.3 + 1e-6 * spread * np.array([0.0, 0.5, 1.5])
        score = jax.jit(jax.vmap(jax.grad(family.log_density, 2), (0, None, None)))(y, *point)
        np.testing.assert_allclose(score * 2e12, [1, 0.75, -1.25], rtol=1e-5)
