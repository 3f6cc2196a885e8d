"""Censored data: maxima that R and SAS printed, taken from SciPy's tests of the same.

Data and numbers are those of `scipy/stats/tests/test_continuous_fit_censored.py`, which names R's `fitdistrplus`
or a document of SAS for each; every digit printed there is compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import jax.scipy.stats as jst
import numpy as np
import pytest
import scipy.optimize
import scipy.stats as st
from jax.scipy.special import gammaln, logsumexp

import mlekit as mle
from tests.helpers.intervals import INF, of_interval, printed
from tests.helpers.marks import mostly_slow


def of_family(family: Any, arguments: Callable[..., Any] = lambda *params: params) -> mle.Model:
    """A noise family of mlekit; `arguments` makes its parameters."""
    return mle.censored(mle.regression(lambda params, obs: arguments(*params), family), lower="low", upper="high")


def of_functions(pdf: Callable[..., Any], cdf: Callable[..., Any], sign: int = 1) -> mle.Model:
    """Logarithms of the density and of the distribution function, given `y` and the parameters."""
    by_name = lambda fn: lambda params, obs: fn(sign * obs["y"], *params)  # noqa: E731
    tail: Any = {"log_cdf" if sign > 0 else "log_survival": by_name(cdf)}
    return mle.censored(mle.Model(by_name(pdf), **tail), lower="low", upper="high")


def mirrored(pdf: Callable[..., Any], cdf: Callable[..., Any]) -> mle.Model:
    """The distribution of the negative."""
    return of_functions(pdf, cdf, -1)


def mixed(pdf: Callable[..., Any], cdf: Callable[..., Any], parts: Callable[..., Any]) -> mle.Model:
    """A mixture; `parts` makes the logarithms of its weights, and the parameters of its components."""

    def of(log_p: Callable[..., Any]) -> Callable[..., Any]:
        def total(y: Any, *params: Any) -> Any:
            log_weights, *arguments = parts(*params)
            return logsumexp(log_weights + log_p(y, *arguments))

        return total

    return of_functions(of(pdf), of(cdf))


def beta(params: Any, obs: Any) -> Any:
    """Intervals by Gauss and Legendre: JAX's incomplete beta function has no derivative by `a` and `b`."""
    nodes, weights = np.polynomial.legendre.leggauss(30)
    half = 0.5 * (obs["high"] - obs["low"])
    return jnp.log(half * jnp.sum(weights * jnp.exp(jst.beta.logpdf(obs["low"] + half * (nodes + 1), *params))))


def gamma_pdf(y: Any, shape: Any, scale: Any) -> Any:
    return jst.gamma.logpdf(y, shape, scale=scale)


def gamma_cdf(y: Any, shape: Any, scale: Any) -> Any:
    """A series: JAX's incomplete gamma functions have no second derivative by the shape."""
    z = y / scale
    factors = jnp.cumsum(jnp.log(z) - jnp.log(jnp.add.outer(jnp.arange(1.0, 60.0), shape)), axis=0)
    return shape * jnp.log(z) - z - gammaln(shape + 1) + jnp.log1p(jnp.sum(jnp.exp(factors), axis=0))


def noncentral_chi2(df: Any, noncentrality: Any) -> tuple[Any, Any, Any]:
    """Chi-square distributions, with Poisson weights."""
    j = jnp.arange(40.0)
    return j * jnp.log(noncentrality / 2) - noncentrality / 2 - gammaln(j + 1), df / 2 + j, 2.0


def noncentral_t(df: Any, noncentrality: Any) -> tuple[Any, Any, Any]:
    """Normal distributions over the logarithm of a chi-square, by the trapezoidal rule."""
    log_v = jnp.arange(-150.0, 7.0, 0.1)
    log_weights = 0.5 * df * (log_v - jnp.log(2.0)) - 0.5 * jnp.exp(log_v) - gammaln(df / 2) + jnp.log(0.1)
    scale = jnp.sqrt(df) * jnp.exp(-0.5 * log_v)
    return log_weights, noncentrality * scale, scale


def gumbel_pdf(y: Any, at: Any, scale: Any) -> Any:
    z = (at - y) / scale
    return z - jnp.exp(z) - jnp.log(scale)


def gumbel_cdf(y: Any, at: Any, scale: Any) -> Any:
    return -jnp.exp((at - y) / scale)


CHI2 = of_functions(lambda y, df: gamma_pdf(y, df / 2, 2.0), lambda y, df: gamma_cdf(y, df / 2, 2.0))
CAUCHY = of_functions(jst.cauchy.logpdf, lambda y, at, scale: jnp.log(jst.cauchy.cdf(y, at, scale)))
FRECHET = of_functions(  # the exponential of a Gumbel
    lambda y, shape, scale: gumbel_pdf(jnp.log(y), jnp.log(scale), 1 / shape) - jnp.log(y),
    lambda y, shape, scale: gumbel_cdf(jnp.log(y), jnp.log(scale), 1 / shape),
)
INVERSE_GAUSSIAN = of_family(mle.families.inverse_gaussian, lambda mean, dispersion: (mean, 1 / dispersion))
WEIBULL = mle.families.weibull
PLACED_WEIBULL = of_functions(
    lambda y, scale, shape, at: WEIBULL.log_density(y - at, scale, shape),
    lambda y, scale, shape, at: WEIBULL.log_cdf(y - at, scale, shape),
)

Numbers = Sequence[float] | np.ndarray


def known(
    exact: Numbers = (), left: Numbers = (), right: Numbers = (), inside: Sequence[tuple[float, float]] = ()
) -> dict[str, np.ndarray]:
    """Columns of bounds: of exact observations, of those below a bound (left), above one (right), between two."""
    pairs = [*zip(exact, exact), *((-INF, x) for x in left), *((x, INF) for x in right), *inside]
    low, high = np.array(pairs, float).T
    return {"low": low, "high": high}


SHARES = known(inside=[(0.10, 0.20), (0.50, 0.55), (0.75, 0.90), (0.80, 0.95)])
MIXED = known(exact=[1, 10], left=[1], right=[30], inside=[(4, 8)])
LIVES = [1, 2.5, 3, 6, 7.5, 10, 12, 12, 14.5, 15]
TIMES = [0.4813096, 0.5571880, 0.5132463, 0.3801414, 0.5904386]
TIMES += [0.4822340, 0.3478597, 0.7191797, 1.5810902, 0.4442299]
LATE_TIMES = known(exact=TIMES, left=[0.15], right=[3])
LOGISTIC = [13.5401, 37.4235, 11.906, 13.998, 0.4023, 10.9044, 21.0629, 9.6985, 12.9016, 39.164, 34.6396, 20.3665]
LOGISTIC += [16.5889, 18.0952, 45.3818, 35.3306, 8.4949, 3.4041, 7.2828, 37.1265, 6.5969, 17.6868, 17.4977]
LOGISTIC += [16.3391, 36.0541]
LAPLACE = [-41.564, 15.7384, 10.0452, -2.0684, -19.5399, 9.0005, 27.1227, 4.3113, -3.7372, 25.3111, 14.7987]
LAPLACE += [34.0887, 42.8496, 18.5862, 32.8921, 9.0448, -27.4591, 19.5083, -9.7199]
MILES = [22.5, 37.5, 46.0, 48.5, 51.5, 53.0, 54.5, 57.5, 66.5, 68.0, 69.5, 76.5, 77.0, 78.5, 80.0, 81.5, 82.0]
MILES += [83.0, 84.0, 91.5, 93.5, 102.5, 107.0, 108.5, 112.5, 113.5, 116.0, 117.0, 118.5, 119.0, 120.0, 122.5]
MILES += [123.0, 127.5, 131.0, 132.5, 134.0]
DIED = [3, 5, 8, 15, 22, 23, 29, 32, 35, 40, 26, 28, 21]
SURVIVED = [6, 10, 11, 20, 27, 33, 24]
ENGINES = """
    450 0    460 1   1150 0   1150 0   1560 1   1600 0   1660 1   1850 1   1850 1   1850 1   1850 1   1850 1
   2030 1   2030 1   2030 1   2070 0   2070 0   2080 0   2200 1   3000 1   3000 1   3000 1   3000 1   3100 0
   3200 1   3450 0   3750 1   3750 1   4150 1   4150 1   4150 1   4150 1   4300 1   4300 1   4300 1   4300 1
   4600 0   4850 1   4850 1   4850 1   4850 1   5000 1   5000 1   5000 1   6100 1   6100 0   6100 1   6100 1
   6300 1   6450 1   6450 1   6700 1   7450 1   7800 1   7800 1   8100 1   8100 1   8200 1   8500 1   8500 1
   8500 1   8750 1   8750 0   8750 1   9400 1   9900 1  10100 1  10100 1  10100 1  11500 1
"""  # hours of fans, and whether they still ran
HOURS, RUNNING = np.array(ENGINES.split(), float).reshape(-1, 2).T
DAYS = [143, 164, 188, 188, 190, 192, 206, 209, 213, 216, 220, 227, 230, 234, 246, 265, 304]

POSITIVE = (mle.positive, mle.positive)
PLACED = (None, mle.positive)


@dataclasses.dataclass
class Case:
    """A fit, what was published of it, and how SciPy names the same."""

    model: Any
    data: dict[str, np.ndarray]
    init: tuple[float, ...]
    constraints: Any
    published: str  # the numbers as they were printed, so that their digits are known
    scipy: Any
    arguments: Callable[..., tuple[Any, ...]]  # of SciPy's distribution, made of ours
    fixed: Mapping[str, float]  # of SciPy's fit
    errors: str = ""
    start: tuple[float, ...] = ()  # of SciPy's fit: shapes
    # How far from the maximum the published search stopped, in standard errors. R's, by Nelder and Mead, ends
    # where the log-likelihood no longer changes in float64.
    search: float = 2e-6
    errors_off: float = 3e-6  # relative: R's errors are differences with steps of 0.001


WHOLE = {"floc": 0, "fscale": 1}
shapes = lambda *params: (*params, 0, 1)  # noqa: E731
shape_scale = lambda shape, scale: (shape, 0, scale)  # noqa: E731
scale_shape = lambda scale, shape: (shape, 0, scale)  # noqa: E731
place_scale = lambda place, scale: (place, scale)  # noqa: E731
inverse_gaussian = lambda mean, dispersion: (mean * dispersion, 0, 1 / dispersion)  # noqa: E731

CASES = {
    "beta": Case(
        beta, SHARES, (1.0, 1.0), POSITIVE, "1.419941 1.027066", st.beta, shapes, WHOLE, "0.9914177 0.6866565",
    ),
    "cauchy, right": Case(
        CAUCHY, known(exact=[1, 10], right=[30]), (5.0, 5.0), PLACED, "7.100001 7.455866", st.cauchy, place_scale,
        {},
    ),
    "cauchy, mixed": Case(CAUCHY, MIXED, (5.0, 5.0), PLACED, "4.605150 5.900852", st.cauchy, place_scale, {}),
    "chi-square": Case(CHI2, MIXED, (5.0,), POSITIVE[:1], "5.060329", st.chi2, shapes, WHOLE),
    "exponential": Case(
        of_family(mle.families.exponential), known(exact=LIVES, right=[16, 16, 20, 20, 21, 22]), (10.0,),
        POSITIVE[:1], "19.85", st.expon, lambda mean: (0, mean), {"floc": 0}, "6.277119",
    ),
    "gamma": Case(
        of_functions(gamma_pdf, gamma_cdf), known(exact=[2.5, 2.9, 3.8, 9.1, 9.3, 12.0, 23.0], right=[25.0]),
        (1.0, 10.0), POSITIVE, "1.447623 8.360197", st.gamma, shape_scale, {"floc": 0}, "0.7053086 5.1016531",
    ),
    "gumbel": Case(
        of_functions(gumbel_pdf, gumbel_cdf), known(exact=[2, 3, 9], right=[10, 10], inside=[(0, 1)]), (4.0, 5.0),
        PLACED, "4.487853 4.843640", st.gumbel_r, place_scale, {},
    ),
    "gumbel, mirrored": Case(
        mirrored(gumbel_pdf, gumbel_cdf), known(exact=[-2, -3, -9], left=[-10, -10], inside=[(-1, 0)]),
        (4.0, 5.0), PLACED, "4.487853 4.843640", st.gumbel_l, lambda place, scale: (-place, scale), {},
    ),
    "inverse Gaussian, mean": Case(  # with a looser tolerance of R
        INVERSE_GAUSSIAN, LATE_TIMES, (1.0, 1.0), (mle.positive, mle.fixed), "0.853469 1", st.invgauss,
        inverse_gaussian, WHOLE, "0.247636 0", search=6e-6,
    ),
    "inverse Gaussian": Case(
        INVERSE_GAUSSIAN, LATE_TIMES, (1.0, 1.0), POSITIVE, "0.8699819 1.2261362", st.invgauss,
        inverse_gaussian, {"floc": 0},
    ),
    "frechet": Case(  # between 0 and 1 is below 1
        FRECHET, known(exact=[2, 3, 9], left=[1], right=[10, 10]), (1.0, 4.0), POSITIVE, "0.6379845 2.7902200",
        st.invweibull, shape_scale, {"floc": 0},
    ),
    "logistic": Case(
        of_family(mle.families.logistic), known(exact=LOGISTIC, left=[0.0] * 5), (15.0, 10.0), PLACED,
        "14.633459 9.232736", st.logistic, place_scale, {}, "2.931505 1.546879",
    ),
    "log-normal": Case(
        of_family(mle.families.log_normal), known(exact=MILES, right=[135.0] * 59), (5.0, 1.0), PLACED,
        "5.1169 0.7055", st.lognorm, lambda mean, sigma: (sigma, 0, np.exp(mean)), {"floc": 0}, search=0.0,
    ),
    "non-central t": Case(
        mixed(jst.norm.logpdf, jst.norm.logcdf, noncentral_t), known(exact=[1, 2, 3, 5, 8, 10], right=[25, 25]),
        (1.0, 2.0), (mle.positive, None), "0.5432336 2.8893565", st.nct, shapes, WHOLE,
    ),
    "non-central chi-square": Case(
        mixed(gamma_pdf, gamma_cdf, noncentral_chi2),
        known(exact=[2.7, 0.2, 6.5, 0.4, 0.1], right=[8, 8], inside=[(0.6, 1.0)]), (1.0, 2.0), POSITIVE,
        "1.052871 2.362934", st.ncx2, shapes, WHOLE,
    ),
    "normal": Case(
        of_family(mle.families.normal), SHARES, (0.5, 0.5), PLACED, "0.5919990 0.2868042", st.norm, place_scale,
        {}, "0.1444432 0.1029451", errors_off=6e-5,
    ),
    "weibull": Case(  # the source cut off 28.996
        of_family(WEIBULL), known(exact=DIED, right=SURVIVED), (20.0, 1.0), POSITIVE, "28.99 2.149",
        st.weibull_min, scale_shape, {"floc": 0}, search=1e-3,
    ),
    "weibull, mirrored": Case(
        mirrored(WEIBULL.log_density, WEIBULL.log_cdf),
        known(exact=np.negative(DIED), left=np.negative(SURVIVED)), (20.0, 1.0), POSITIVE, "28.99 2.149",
        st.weibull_max, scale_shape, {"floc": 0}, search=1e-3,
    ),
    "weibull, fans": Case(
        of_family(WEIBULL), known(exact=HOURS[RUNNING == 0] / 1000, right=HOURS[RUNNING == 1] / 1000), (20.0, 1.0),
        POSITIVE, "26.2968 1.0584", st.weibull_min, scale_shape, {"floc": 0}, search=0.0,
    ),
    "weibull, placed": Case(  # SAS stopped early; SciPy ends where this fit does
        PLACED_WEIBULL, known(exact=DAYS, right=[216, 244]), (100.0, 2.0, 100.0),
        (*POSITIVE, mle.less_than(143.0)), "108.37 2.7112 122.03", st.weibull_min,
        lambda scale, shape, place: (shape, place, scale), {"loc": 100, "scale": 100}, start=(1,), search=4e-4,
    ),
}  # fmt: skip
QUICK = ("beta", "non-central t", "normal", "weibull", "weibull, mirrored", "weibull, placed")


def by_scipy(at: Any, data: dict[str, np.ndarray]) -> float:
    """The log-likelihood by SciPy's own functions."""
    return sum(of_interval(at, low, high) for low, high in zip(data["low"], data["high"]))


def minimise(function: Any, start: Any, args: Any = (), disp: Any = 0) -> Any:
    return scipy.optimize.fmin(function, start, args=args, disp=0, xtol=1e-12, ftol=1e-12)


@pytest.mark.parametrize("name", mostly_slow(CASES, *QUICK))
def test_published(name: str) -> None:
    case = CASES[name]
    fit = mle.fit(case.model, case.init, case.data, constraints=case.constraints)
    assert fit.converged, fit.message
    found, errors = np.array(fit.params), np.array(fit.standard_errors())
    number, unit = printed(case.published)
    assert np.all(np.abs(found - number) <= unit + case.search * errors), (found, number)
    if case.errors:
        number, unit = printed(case.errors)
        assert np.all(np.abs(errors - number) <= unit + case.errors_off * errors), (errors, number)
    here = by_scipy(case.scipy(*case.arguments(*found)), case.data)
    np.testing.assert_allclose(fit.log_likelihood, here, rtol=1e-11)
    with np.errstate(all="ignore"):  # SciPy's search tries impossible parameters, too
        data = st.CensoredData.interval_censored(**case.data)
        theirs = case.scipy.fit(data, *case.start, **case.fixed, optimizer=minimise)
    assert here >= by_scipy(case.scipy(*theirs), case.data) - 1e-14 * abs(here)
    np.testing.assert_allclose(case.arguments(*found), theirs, rtol=1e-6)


def test_laplace() -> None:
    """The likelihood has a kink at every value, and no gradient proves a maximum there: all are tried as location.

    R's result is one of them, and the likelihood falls on both sides of it.
    """
    sample = known(exact=LAPLACE, left=[-50.0] * 2, right=[50.0] * 4)
    places = np.array([*LAPLACE, 14.7987 - 1e-4, 14.7987 + 1e-4])
    data = {name: np.tile(column, (len(places), 1)) for name, column in sample.items()}
    init, rules = (places, np.full(len(places), 10.0)), (mle.fixed, mle.positive)
    model = of_family(mle.families.laplace)
    fits = mle.fit_batch(model, init, data, init_axis=0, constraints=rules)
    assert np.all(fits.converged)
    best = int(np.argmax(fits.log_likelihood))
    location, scale = (float(leaf[best]) for leaf in fits.params)
    (place, spread), unit = printed("14.79870 30.93601")
    assert location == place
    error = float(fits.standard_errors()[1][best])
    assert abs(scale - spread) <= unit[1] + 5e-6 * error  # R's search ends early at a kink
    np.testing.assert_allclose(error, 7.0972125, rtol=3e-6)
    here = by_scipy(st.laplace(location, scale), sample)
    np.testing.assert_allclose(fits.log_likelihood[best], here, rtol=1e-12)
    theirs = st.laplace.fit(st.CensoredData.interval_censored(**sample), loc=10, scale=10, optimizer=minimise)
    assert here >= by_scipy(st.laplace(*theirs), sample) - 1e-14 * abs(here)
