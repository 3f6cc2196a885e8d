"""Noise families and regressions made of them: scipy's densities, exact information, statsmodels' estimates."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
import scipy.special
import scipy.stats as st
import statsmodels.api as sm
from statsmodels.othermod.betareg import BetaModel

import mlekit as mle
from mlekit.models import families
from mlekit.models.regression import regression
from mlekit.models.regression_density import Regression
from tests.models import Counted


@dataclasses.dataclass(frozen=True)
class Case:
    """A family, what scipy calls it, and where the two are compared."""

    family: Any
    scipy: Callable[..., Any]
    points: tuple[tuple[float, ...], ...]  #: parameters; at the first all is tested, at the others densities
    responses: tuple[float, ...]
    outside: tuple[float, ...] = ()  #: responses outside the support
    invalid: tuple[float | None, ...] = ()  #: of each parameter a value outside its domain, if there is one

    @property
    def whole(self) -> bool:
        return self.family.support.whole


LINE = (-30.0, -3.0, -0.5, 0.3, 2.0, 40.0)
SIZES = (1e-6, 0.02, 0.7, 1.0, 1.1, 4.0, 60.0)
COUNTS = (0.0, 1.0, 2.0, 7.0, 8.0, 9.0, 30.0, 400.0)
NOT_COUNTS = (-1.0, 0.5, np.inf)
NOT_POSITIVE = (-1.0, 0.0, np.inf)
ENDLESS = (-np.inf, np.inf)

CASES = {
    "normal": Case(families.normal, st.norm, ((0.5, 2.0), (-3.0, 0.1)), LINE, ENDLESS, (np.inf, 0.0)),
    "log_normal": Case(
        families.log_normal,
        lambda m, s: st.lognorm(s, scale=np.exp(m)),
        ((0.3, 0.5), (-1.0, 3.0)),
        SIZES,
        NOT_POSITIVE,
        (np.nan, -1.0),
    ),
    "laplace": Case(families.laplace, st.laplace, ((0.5, 2.0), (-3.0, 0.4)), LINE, ENDLESS, (np.inf, 0.0)),
    "student_t": Case(
        families.student_t,
        lambda m, s, v: st.t(v, m, s),
        ((0.5, 2.0, 5.0), (0.0, 0.3, 0.4), (0.0, 1.0, 30.0)),
        LINE,
        ENDLESS,
        (np.inf, 0.0, 0.0),
    ),
    "logistic": Case(families.logistic, st.logistic, ((0.5, 2.0), (-3.0, 0.1)), LINE, ENDLESS, (np.inf, 0.0)),
    "poisson": Case(families.poisson, st.poisson, ((3.5,), (0.01,), (300.0,)), COUNTS, NOT_COUNTS, (-1.0,)),
    "bernoulli": Case(
        families.bernoulli,
        lambda eta: st.bernoulli(scipy.special.expit(eta)),
        ((0.4,), (-3.0,), (4.0,)),
        (0.0, 1.0),
        (-1.0, 0.5, 2.0),
        (np.inf,),
    ),
    "binomial": Case(
        families.binomial(9),
        lambda eta: st.binom(9, scipy.special.expit(eta)),
        ((0.4,), (-3.0,), (4.0,)),
        (0.0, 1.0, 4.0, 9.0),
        (-1.0, 0.5, 10.0),
        (np.inf,),
    ),
    "negative_binomial": Case(
        families.negative_binomial,
        lambda m, a: st.nbinom(1 / a, 1 / (1 + a * m)),
        ((3.5, 0.7), (20.0, 0.1), (0.2, 5.0), (3.5, 0.01)),
        COUNTS,
        NOT_COUNTS,
        (-1.0, -0.1),
    ),
    "exponential": Case(
        families.exponential, lambda m: st.expon(scale=m), ((2.0,), (0.1,)), SIZES, (-1.0, np.inf), (0.0,)
    ),
    "gamma": Case(
        families.gamma,
        lambda m, k: st.gamma(k, scale=m / k),
        ((2.0, 1.7), (0.5, 0.3), (1.0, 40.0)),
        SIZES,
        NOT_POSITIVE,
        (0.0, 0.0),
    ),
    "weibull": Case(
        families.weibull,
        lambda b, k: st.weibull_min(k, scale=b),
        ((2.0, 1.7), (0.5, 0.3)),
        SIZES,
        NOT_POSITIVE,
        (0.0, 0.0),
    ),
    "beta": Case(
        families.beta,
        lambda m, p: st.beta(m * p, (1 - m) * p),
        ((0.3, 6.0), (0.9, 0.5), (0.5, 50.0)),
        (1e-6, 0.1, 0.3, 0.5, 0.99),
        (0.0, 1.0, -1.0, 2.0),
        (1.0, 0.0),
    ),
    "inverse_gaussian": Case(
        families.inverse_gaussian,
        lambda m, b: st.invgauss(m / b, scale=b),
        ((2.0, 1.5), (0.5, 4.0)),
        SIZES,
        NOT_POSITIVE,
        (0.0, 0.0),
    ),
}
every_family = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


ROWS = 4000


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


# --- one family ---------------------------------------------------------------------------------------------


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


# --- limits -------------------------------------------------------------------------------------------------


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
        at = [jnp.asarray(number, dtype) for number in (y, mean, shape)]
        np.testing.assert_allclose(families.inverse_gaussian.log_survival(*at), value, rtol=digits)
        slopes = jax.grad(families.inverse_gaussian.log_survival, (1, 2))(*at)
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


# --- regressions --------------------------------------------------------------------------------------------


def linear(params, obs):
    return obs["x"] @ params["coef"]


def log_linear(*others):
    """A log-linear mean, and further parameters that all observations share."""
    return lambda params, obs: (jnp.exp(linear(params, obs)), *(params[name] for name in others))


def synthetic(n_obs: int = 300) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    x = np.column_stack([np.ones(n_obs), rng.normal(size=(n_obs, 2))])
    mean, share = np.exp(x @ [1.0, 0.4, -0.3]), scipy.special.expit(x @ [0.3, 0.8, -0.5])
    return {
        "x": x,
        "count": rng.poisson(mean * rng.gamma(2.0, 0.5, n_obs)),
        "size": mean * rng.gamma(3.0, 1 / 3, n_obs),
        "share": rng.beta(9 * share, 9 * (1 - share)),
    }


def of_statsmodels(name: str) -> dict[str, np.ndarray]:
    """A data set that comes with statsmodels, its columns in standard units."""
    data = getattr(sm.datasets, name).load_pandas()
    x = data.exog.to_numpy(float)[:1000]
    y = data.endog.to_numpy(float)[:1000]
    return {"x": np.column_stack([np.ones(len(x)), (x - x.mean(0)) / x.std(0)]), "y": y}


def parts_of(model: mle.Model) -> Regression:
    assert model.regression is not None
    return model.regression


def check(fit: Any, reference: Any, *others: str) -> None:
    """Whether estimates are those of statsmodels: the coefficients first, then further parameters."""
    assert bool(fit.converged), fit.message
    coef = np.asarray(reference.params)[: len(fit.params["coef"])]
    np.testing.assert_allclose(fit.params["coef"], coef, rtol=1e-8, atol=1e-8 * np.min(reference.bse))
    for name, value in zip(others, np.asarray(reference.params)[len(coef) :]):
        assert fit.params[name] == pytest.approx(value, rel=1e-8)


def test_normal_regression_is_least_squares():
    data = of_statsmodels("stackloss")
    model = regression(lambda p, obs: (linear(p, obs), p["scale"]), families.normal)
    fit = mle.fit(model, {"coef": np.zeros(4), "scale": 10.0}, data, constraints={"scale": mle.positive})
    reference = sm.OLS(data["y"], data["x"]).fit()
    check(fit, reference)
    assert fit.params["scale"] == pytest.approx(np.sqrt(reference.ssr / 21), rel=1e-8)
    assert fit.log_likelihood == pytest.approx(reference.llf, rel=1e-10)


def test_bernoulli_regression_is_logit():
    data = of_statsmodels("spector")
    fit = mle.fit(regression(linear, families.bernoulli), {"coef": np.zeros(4)}, data)
    check(fit, sm.Logit(data["y"], data["x"]).fit(method="newton", tol=1e-12, disp=False))


def test_binomial_regression_is_a_glm():
    data = of_statsmodels("star98")
    table = {"x": data["x"][:, :6], "successes": data["y"][:, 0], "n": data["y"].sum(1)}
    model = regression(linear, families.binomial(trials="n"), response="successes")
    fit = mle.fit(model, {"coef": np.zeros(6)}, table)
    reference = sm.GLM(data["y"], table["x"], family=sm.families.Binomial()).fit(tol=1e-14)
    check(fit, reference)
    assert fit.log_likelihood == pytest.approx(reference.llf, rel=1e-10)


def test_count_regressions_are_those_of_statsmodels():
    data = of_statsmodels("randhie")
    data["x"], k = data["x"][:, :4], 4
    fit = mle.fit(regression(lambda *a: log_linear()(*a)[0], families.poisson), {"coef": np.zeros(k)}, data)
    reference = sm.Poisson(data["y"], data["x"]).fit(method="newton", tol=1e-13, disp=False)
    check(fit, reference)
    start = {"coef": reference.params, "dispersion": 1.0}
    model = regression(log_linear("dispersion"), families.negative_binomial)
    fit = mle.fit(model, start, data, constraints={"dispersion": mle.positive})
    reference = sm.NegativeBinomial(data["y"], data["x"]).fit(
        start_params=[*reference.params, 1.0], method="newton", tol=1e-13, maxiter=200, disp=False
    )
    check(fit, reference, "dispersion")
    assert fit.log_likelihood == pytest.approx(reference.llf, rel=1e-10)


def test_gamma_regression_is_a_glm():
    data = synthetic()
    model = regression(log_linear("shape"), families.gamma, response="size")
    fit = mle.fit(model, {"coef": np.zeros(3), "shape": 1.0}, data, constraints={"shape": mle.positive})
    check(fit, sm.GLM(data["size"], data["x"], family=sm.families.Gamma(sm.families.links.Log())).fit(tol=1e-14))


def gradient(model: mle.Model, params: dict[str, Any], data: dict[str, Any]) -> np.ndarray:
    score = jax.jit(jax.grad(lambda p: mle.log_likelihood(model, p, data)))(params)
    return np.concatenate([np.ravel(leaf) for leaf in score.values()])


def test_score_vanishes_at_the_maxima_of_statsmodels():
    data = synthetic()
    noise = sm.families.InverseGaussian(sm.families.links.Log())
    glm = sm.GLM(data["size"], data["x"], family=noise).fit(tol=1e-14)
    shape = 1 / np.mean((data["size"] - glm.mu) ** 2 / (data["size"] * glm.mu**2))
    model = regression(log_linear("shape"), families.inverse_gaussian, response="size")
    found = gradient(model, {"coef": glm.params, "shape": shape}, data)
    assert np.max(np.abs(found) * [*glm.bse, shape]) < 1e-8

    def predict(params, obs):
        return jax.nn.sigmoid(linear(params, obs)), jnp.exp(params["log_precision"])

    theirs = BetaModel(data["share"], data["x"]).fit(method="newton", tol=1e-13, disp=False)
    model = regression(predict, families.beta, response="share")
    params = {"coef": theirs.params[:3], "log_precision": theirs.params[3]}
    assert np.max(np.abs(gradient(model, params, data)) * theirs.bse) < 1e-8
    assert mle.log_likelihood(model, params, data) == pytest.approx(theirs.llf, rel=1e-10)


def test_pieces_make_the_score_and_the_expected_information():
    data = synthetic()
    model = regression(log_linear("dispersion"), families.negative_binomial, response="count")
    parts = parts_of(model)
    assert mle.Model(lambda params, obs: 0.0).regression is None
    params = {"coef": jnp.array([1.0, 0.4, -0.3]), "dispersion": jnp.array(0.5)}
    obs = {name: jnp.asarray(column)[3] for name, column in data.items()}
    vector, tree = parts.predictions(params, obs), jax.jacobian(parts.predictions)(params, obs)
    jacobian = np.column_stack([tree["coef"], tree["dispersion"]])

    @jax.jit
    @jax.vmap
    def at(count):
        here = {**obs, "count": count}
        whole, score = jax.value_and_grad(model.log_density)(params, here)
        value, slope = jax.value_and_grad(parts.from_predictions)(vector, here)
        return whole, jnp.append(score["coef"], score["dispersion"]), value, slope

    whole, score, value, slope = map(np.asarray, at(jnp.arange(400)))
    np.testing.assert_allclose(value, whole, rtol=1e-13)
    np.testing.assert_allclose(slope @ jacobian, score, rtol=1e-12, atol=1e-12)
    exact = jacobian.T @ parts.information(vector, obs) @ jacobian
    np.testing.assert_allclose(np.einsum("n,ni,nj", np.exp(whole), score, score), exact, rtol=1e-9, atol=1e-12)


def test_other_args_vectors_and_single_numbers():
    def by_hand(params, obs):
        return st.norm.logpdf(obs[0], params[0] + 2 * obs[1], params[1])

    params, obs = jnp.array([0.3, 1.5]), (jnp.array(0.7), jnp.array(-1.0))
    model = regression(lambda p, o, args: jnp.stack([p[0] + args * o[1], p[1]]), families.normal, lambda o: o[0])
    assert model(params, obs, 2) == pytest.approx(by_hand(params, obs), rel=1e-14)
    assert parts_of(model).log_cdf(params, obs, 2) == pytest.approx(st.norm.logcdf(0.7, -1.7, 1.5), rel=1e-13)
    one = regression(lambda rate, o: rate, families.poisson, lambda o: o)
    np.testing.assert_allclose(one(3.0, 2), st.poisson.logpmf(2, 3.0), rtol=1e-14)


def test_predictions_promote_as_jax_does():
    parts = parts_of(regression(lambda p, obs: (p["a"], 1), families.normal))
    assert parts.predictions({"a": jnp.float32(2)}, {}).dtype == jnp.float32
    assert parts.predictions({"a": jnp.float64(2)}, {}).dtype == jnp.float64
    assert parts({"a": jnp.float32(2)}, {"y": jnp.asarray(1)}).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float32, np.float64])
def test_simulated_counts_keep_their_dtype(dtype):
    model = regression(lambda p, obs: p * obs["x"], families.poisson)
    obs = {"x": jnp.array(2.0), "y": jnp.asarray(4, dtype)}
    assert model.simulate is not None
    draw = model.simulate(jax.random.key(2), 3.0, obs)
    assert draw["y"].dtype == dtype
    assert draw["x"] is obs["x"]
    assert sorted(draw) == ["x", "y"]


def test_simulated_responses_of_other_shapes_of_obs():
    key = jax.random.key(2)
    model = regression(lambda p, obs: (p, 1.0), families.normal, lambda obs: obs[1])
    first, second = parts_of(model).simulate(key, 0.0, (jnp.array(1.0), jnp.array(5, jnp.int32)))
    assert first == 1.0
    assert second.dtype == jnp.float64  # a draw that is not whole is no integer
    certain = parts_of(regression(lambda p, obs: p, families.bernoulli))
    yes = certain.simulate(key, 50.0, {"y": jnp.array(False)})["y"]
    assert yes.dtype == bool
    assert yes
    odd = regression(lambda p, obs: (p, 1.0), families.normal, lambda obs: 2 * obs)
    with pytest.raises(ValueError, match="pick a leaf of obs"):
        parts_of(odd).simulate(key, 0.0, jnp.array(1.0))


def test_regression_is_traced_once_however_often_it_is_made():
    predict = Counted(lambda params, obs: jnp.exp(params["level"]))
    traces = []
    for start in (0.0, 1.0):
        mle.fit(regression(predict, families.poisson), {"level": start}, {"y": np.array([2, 0, 3, 1])})
        traces.append(predict.traces)
    assert traces[0] == traces[1]


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3, families.normal), "predict must be a function"),
        ((linear, "normal"), r"one of mle.families.normal, .*inverse_gaussian; it got 'normal'"),
        ((linear, families.Normal), "a class: call it first"),
        ((linear, families.binomial), "a class: call it first"),
        ((linear, families.normal, 3), "response must be the name of a column"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(TypeError, match=words):
        regression(*arguments)


@pytest.mark.parametrize(
    ("predict", "error", "words"),
    [
        (lambda p, obs: p, ValueError, r"mean and scale, 2 numbers, for mle.families.normal; it returned .*\(\)"),
        (lambda p, obs: (p, p, p), ValueError, "2 numbers, for mle.families.normal; it returned 3 numbers of"),
        (lambda p, obs: jnp.ones(3), ValueError, r"it returned shape \(3,\)"),
        (lambda p, obs: (p, jnp.ones(3)), ValueError, r"returned 2 numbers of shapes \(\), \(3,\)"),
        (lambda p, obs: {"mean": p}, TypeError, "mean and scale, 2 numbers"),
        (lambda p, obs: None, TypeError, "it returned None"),
    ],
)
def test_wrong_predictions_are_shown(predict, error, words):
    with pytest.raises(error, match=words):
        mle.fit(regression(predict, families.normal), 0.0, {"y": np.ones(5)})


def test_missing_columns_are_named():
    data = {"x": np.ones(5), "z": np.ones(5)}
    with pytest.raises(ValueError, match=r"response='y' is not a column of obs, which has \['x', 'z'\]"):
        mle.fit(regression(lambda p, obs: p, families.poisson), 1.0, data)
    with pytest.raises(ValueError, match="trials='n' is not a column"):
        mle.fit(regression(lambda p, obs: p, families.binomial("n"), "x"), 1.0, data)
    with pytest.raises(ValueError, match="obs is no dict of columns"):
        mle.fit(regression(lambda p, obs: p, families.poisson), 1.0, np.ones(5))
    with pytest.raises(ValueError, match=r"one number an observation; .* shape \(2,\)"):
        mle.fit(regression(lambda p, obs: p, families.poisson), 1.0, {"y": np.ones((5, 2))})


def test_families_say_what_they_take():
    with pytest.raises(TypeError, match="normal takes mean and scale, 2 numbers; it got 1"):
        families.normal.log_density(1.0, 2.0)
    with pytest.raises(TypeError, match=r"family.bind\(obs\)"):
        families.binomial(trials="n").log_density(1, 0.5)
    assert np.isnan(families.binomial(2.5).log_density(1, 0.5))
    assert len(families.NAMES) == len(CASES)
    for name in families.NAMES:
        assert hasattr(families, name.partition("(")[0])
