"""Censored data: maxima that R and SAS printed, taken from SciPy's tests of the same.

Data and numbers are those of `scipy/stats/tests/test_continuous_fit_censored.py`, which names R's `fitdistrplus`
or a document of SAS for each; every digit printed there is compared. An observation is exact, or known to lie
below a bound (left), above one (right), or between two (inside); the log-density of each is written here once.
"""

from __future__ import annotations

import dataclasses
import decimal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from jax.scipy.special import gammaln, logsumexp, ndtr
from jax.scipy.stats import beta, cauchy, gamma, norm

import mlekit as mle

# --- distributions ------------------------------------------------------------------------------------------


def log1mexp(log_p: Any) -> Any:
    return jnp.log(-jnp.expm1(log_p))


@dataclasses.dataclass
class Distribution:
    """Logarithms of the density and of probabilities: below, above, and between bounds."""

    pdf: Callable[[Any], Any]
    cdf: Callable[[Any], Any]
    upper: Callable[[Any], Any] | None = None
    inside: Callable[[Any, Any], Any] | None = None

    def sf(self, x: Any) -> Any:
        return log1mexp(self.cdf(x)) if self.upper is None else self.upper(x)

    def between(self, low: Any, high: Any) -> Any:
        if self.inside is not None:
            return self.inside(low, high)
        top = self.cdf(high)
        return top + log1mexp(self.cdf(low) - top)


Maker = Callable[[Any], Distribution]  # given the parameters


def of_family(family: Any, arguments: Callable[[Any], tuple[Any, ...]] = lambda params: params) -> Maker:
    """A noise family of mlekit; `arguments` makes its parameters."""

    def make(params: Any) -> Distribution:
        args = arguments(params)
        return Distribution(lambda x: family.log_density(x, *args), lambda x: family.log_cdf(x, *args))

    return make


def mirrored(maker: Maker) -> Maker:
    """The distribution of the negative."""

    def make(params: Any) -> Distribution:
        of = maker(params)
        return Distribution(lambda x: of.pdf(-x), lambda x: of.sf(-x), lambda x: of.cdf(-x))

    return make


def of_cauchy(params: Any) -> Distribution:
    at, scale = params
    cdf = lambda x: jnp.log(cauchy.cdf(x, at, scale))  # noqa: E731
    return Distribution(lambda x: cauchy.logpdf(x, at, scale), cdf, lambda x: cdf(2 * at - x))


def of_beta(params: Any) -> Distribution:
    """Intervals by Gauss and Legendre: JAX's incomplete beta function has no derivative by `a` and `b`."""
    nodes, weights = np.polynomial.legendre.leggauss(30)

    def inside(low: Any, high: Any) -> Any:
        half = 0.5 * (high - low)
        return jnp.log(jnp.sum(half * weights * jnp.exp(beta.logpdf(low + half * (nodes + 1), *params))))

    return Distribution(lambda x: beta.logpdf(x, *params), jnp.log, None, inside)


def of_gamma(params: Any) -> Distribution:
    """JAX's incomplete gamma functions have no second derivative by the shape: a series, and a rule of Gauss."""
    shape, scale = params
    nodes, weights = np.polynomial.laguerre.laggauss(40)

    def cdf(x: Any) -> Any:
        z = x / scale
        factors = jnp.cumsum(jnp.log(z) - jnp.log(shape + jnp.arange(1.0, 60.0)))
        return shape * jnp.log(z) - z - gammaln(shape + 1) + jnp.log1p(jnp.sum(jnp.exp(factors)))

    def sf(x: Any) -> Any:
        z = x / scale
        tail = jnp.sum(weights * jnp.exp((shape - 1) * jnp.log1p(nodes / z)))
        return (shape - 1) * jnp.log(z) - z - gammaln(shape) + jnp.log(tail)

    return Distribution(lambda x: gamma.logpdf(x, shape, scale=scale), cdf, sf)


def of_noncentral_chi2(params: Any) -> Distribution:
    """A mixture of chi-square distributions, with Poisson weights."""
    df, noncentrality = params
    j = jnp.arange(40.0)
    log_weights = j * jnp.log(noncentrality / 2) - noncentrality / 2 - gammaln(j + 1)

    def mixed(name: str) -> Callable[[Any], Any]:
        part = jax.vmap(lambda shape, x: getattr(of_gamma((shape, 2.0)), name)(x), in_axes=(0, None))
        return lambda x: logsumexp(log_weights + part(df / 2 + j, x))

    return Distribution(mixed("pdf"), mixed("cdf"), mixed("sf"))


def of_noncentral_t(params: Any) -> Distribution:
    """A normal distribution mixed over the logarithm of a chi-square, by the trapezoidal rule."""
    df, noncentrality = params
    log_v = jnp.arange(-150.0, 7.0, 0.1)
    log_weights = 0.5 * df * (log_v - jnp.log(2.0)) - 0.5 * jnp.exp(log_v) - gammaln(df / 2) + jnp.log(0.1)
    root = jnp.exp(0.5 * log_v) / jnp.sqrt(df)

    def pdf(x: Any) -> Any:
        return logsumexp(log_weights + norm.logpdf(x * root - noncentrality) + jnp.log(root))

    def side(sign: float) -> Callable[[Any], Any]:
        return lambda x: jnp.log(jnp.sum(jnp.exp(log_weights) * ndtr(sign * (x * root - noncentrality))))

    return Distribution(pdf, side(1.0), side(-1.0))


def of_gumbel(params: Any) -> Distribution:
    at, scale = params
    z = lambda x: (x - at) / scale  # noqa: E731
    return Distribution(lambda x: -z(x) - jnp.exp(-z(x)) - jnp.log(scale), lambda x: -jnp.exp(-z(x)))


def of_frechet(params: Any) -> Distribution:
    """The exponential of a Gumbel."""
    shape, scale = params
    of = of_gumbel((jnp.log(scale), 1 / shape))
    return Distribution(lambda x: of.pdf(jnp.log(x)) - jnp.log(x), lambda x: of.cdf(jnp.log(x)))


def of_weibull(params: Any) -> Distribution:
    """With a location, which is 0 where it is not given."""
    shape, scale, *location = params
    of = of_family(mle.families.weibull)((scale, shape))
    start = location[0] if location else 0.0
    return Distribution(lambda x: of.pdf(x - start), lambda x: of.cdf(x - start))


# --- observations -------------------------------------------------------------------------------------------

KINDS = ("exact", "left", "right", "inside")


@dataclasses.dataclass
class Sample:
    exact: Sequence[float] | np.ndarray = ()
    left: Sequence[float] | np.ndarray = ()
    right: Sequence[float] | np.ndarray = ()
    inside: Sequence[tuple[float, float]] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in KINDS if len(getattr(self, kind)))

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """A column for each kind that is 1 for its rows, the value or bound `low`, and the upper bound `high`."""
        kinds = np.repeat(KINDS, [len(getattr(self, kind)) for kind in KINDS])
        low = np.concatenate([self.exact, self.left, self.right, [pair[0] for pair in self.inside]])
        # Rows that are not inside want some interval, too, whose weight is zero.
        high = np.where(kinds == "inside", 0.0, low + 1)
        high[kinds == "inside"] = [pair[1] for pair in self.inside]
        return {"low": low, "high": high, **{kind: (kinds == kind).astype(float) for kind in self.kinds}}

    @property
    def scipy(self) -> Any:
        inside = np.reshape(self.inside, (-1, 2))
        return scipy.stats.CensoredData(self.exact, left=self.left, right=self.right, interval=inside)


def censored(maker: Maker, kinds: tuple[str, ...]) -> Callable[[Any, Any], Any]:
    """The log-density of one observation of any of these kinds."""

    def log_density(params: Any, obs: Any) -> Any:
        at = maker(params)
        of = {
            "exact": lambda: at.pdf(obs["low"]),
            "left": lambda: at.cdf(obs["low"]),
            "right": lambda: at.sf(obs["low"]),
            "inside": lambda: at.between(obs["low"], obs["high"]),
        }
        return sum(obs[kind] * of[kind]() for kind in kinds)

    return log_density


# --- the cases ----------------------------------------------------------------------------------------------

SHARES = Sample(inside=[(0.10, 0.20), (0.50, 0.55), (0.75, 0.90), (0.80, 0.95)])
MIXED = Sample(exact=[1, 10], left=[1], right=[30], inside=[(4, 8)])
LIVES = [1, 2.5, 3, 6, 7.5, 10, 12, 12, 14.5, 15]
TIMES = [0.4813096, 0.5571880, 0.5132463, 0.3801414, 0.5904386]
TIMES += [0.4822340, 0.3478597, 0.7191797, 1.5810902, 0.4442299]
TIMES_SAMPLE = Sample(exact=TIMES, left=[0.15], right=[3])
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

    maker: Maker
    sample: Sample
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
place_scale = lambda place, scale: (place, scale)  # noqa: E731
INVERSE_GAUSSIAN = of_family(mle.families.inverse_gaussian, lambda params: (params[0], 1 / params[1]))
inverse_gaussian = lambda mean, dispersion: (mean * dispersion, 0, 1 / dispersion)  # noqa: E731
stats = scipy.stats

CASES = {
    "beta": Case(
        of_beta, SHARES, (1.0, 1.0), POSITIVE, "1.419941 1.027066", stats.beta, shapes, WHOLE,
        "0.9914177 0.6866565",
    ),
    "cauchy, right": Case(
        of_cauchy, Sample(exact=[1, 10], right=[30]), (5.0, 5.0), PLACED, "7.100001 7.455866", stats.cauchy,
        place_scale, {},
    ),
    "cauchy, mixed": Case(
        of_cauchy, MIXED, (5.0, 5.0), PLACED, "4.605150 5.900852", stats.cauchy, place_scale, {},
    ),
    "chi-square": Case(
        lambda params: of_gamma((params[0] / 2, 2.0)), MIXED, (5.0,), POSITIVE[:1], "5.060329", stats.chi2, shapes,
        WHOLE,
    ),
    "exponential": Case(
        of_family(mle.families.exponential), Sample(exact=LIVES, right=[16, 16, 20, 20, 21, 22]), (10.0,),
        POSITIVE[:1], "19.85", stats.expon, lambda mean: (0, mean), {"floc": 0}, "6.277119",
    ),
    "gamma": Case(
        of_gamma, Sample(exact=[2.5, 2.9, 3.8, 9.1, 9.3, 12.0, 23.0], right=[25.0]), (1.0, 10.0), POSITIVE,
        "1.447623 8.360197", stats.gamma, shape_scale, {"floc": 0}, "0.7053086 5.1016531",
    ),
    "gumbel": Case(
        of_gumbel, Sample(exact=[2, 3, 9], right=[10, 10], inside=[(0, 1)]), (4.0, 5.0), PLACED,
        "4.487853 4.843640", stats.gumbel_r, place_scale, {},
    ),
    "gumbel, mirrored": Case(
        mirrored(of_gumbel), Sample(exact=[-2, -3, -9], left=[-10, -10], inside=[(-1, 0)]), (4.0, 5.0), PLACED,
        "4.487853 4.843640", stats.gumbel_l, lambda place, scale: (-place, scale), {},
    ),
    "inverse Gaussian, mean": Case(  # with a looser tolerance of R
        INVERSE_GAUSSIAN, TIMES_SAMPLE, (1.0, 1.0), (mle.positive, mle.fixed), "0.853469 1", stats.invgauss,
        inverse_gaussian, WHOLE, "0.247636 0", search=6e-6,
    ),
    "inverse Gaussian": Case(
        INVERSE_GAUSSIAN, TIMES_SAMPLE, (1.0, 1.0), POSITIVE, "0.8699819 1.2261362", stats.invgauss,
        inverse_gaussian, {"floc": 0},
    ),
    "frechet": Case(  # between 0 and 1 is below 1
        of_frechet, Sample(exact=[2, 3, 9], left=[1], right=[10, 10]), (1.0, 4.0), POSITIVE, "0.6379845 2.7902200",
        stats.invweibull, shape_scale, {"floc": 0},
    ),
    "logistic": Case(
        of_family(mle.families.logistic), Sample(exact=LOGISTIC, left=[0.0] * 5), (15.0, 10.0), PLACED,
        "14.633459 9.232736", stats.logistic, place_scale, {}, "2.931505 1.546879",
    ),
    "log-normal": Case(
        of_family(mle.families.log_normal), Sample(exact=MILES, right=[135.0] * 59), (5.0, 1.0), PLACED,
        "5.1169 0.7055", stats.lognorm, lambda mean, sigma: (sigma, 0, np.exp(mean)), {"floc": 0}, search=0.0,
    ),
    "non-central t": Case(
        of_noncentral_t, Sample(exact=[1, 2, 3, 5, 8, 10], right=[25, 25]), (1.0, 2.0), (mle.positive, None),
        "0.5432336 2.8893565", stats.nct, shapes, WHOLE,
    ),
    "non-central chi-square": Case(
        of_noncentral_chi2, Sample(exact=[2.7, 0.2, 6.5, 0.4, 0.1], right=[8, 8], inside=[(0.6, 1.0)]), (1.0, 2.0),
        POSITIVE, "1.052871 2.362934", stats.ncx2, shapes, WHOLE,
    ),
    "normal": Case(
        of_family(mle.families.normal), SHARES, (0.5, 0.5), PLACED, "0.5919990 0.2868042", stats.norm, place_scale,
        {}, "0.1444432 0.1029451", errors_off=6e-5,
    ),
    "weibull": Case(  # the source cut off 28.996
        of_weibull, Sample(exact=DIED, right=SURVIVED), (1.0, 20.0), POSITIVE, "2.149 28.99", stats.weibull_min,
        shape_scale, {"floc": 0}, search=1e-3,
    ),
    "weibull, mirrored": Case(
        mirrored(of_weibull), Sample(exact=np.negative(DIED), left=np.negative(SURVIVED)), (1.0, 20.0), POSITIVE,
        "2.149 28.99", stats.weibull_max, shape_scale, {"floc": 0}, search=1e-3,
    ),
    "weibull, fans": Case(
        of_weibull, Sample(exact=HOURS[RUNNING == 0] / 1000, right=HOURS[RUNNING == 1] / 1000), (1.0, 20.0),
        POSITIVE, "1.0584 26.2968", stats.weibull_min, shape_scale, {"floc": 0}, search=0.0,
    ),
    "weibull, placed": Case(  # SAS stopped early; SciPy ends where this fit does
        of_weibull, Sample(exact=DAYS, right=[216, 244]), (2.0, 100.0, 100.0), (*POSITIVE, mle.less_than(143.0)),
        "2.7112 108.37 122.03", stats.weibull_min, lambda shape, scale, place: (shape, place, scale),
        {"loc": 100, "scale": 100}, start=(1,), search=4e-4,
    ),
}  # fmt: skip


def printed(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, and half a unit of the last digit of each."""
    words = [decimal.Decimal(word) for word in text.split()]
    return np.array(words, float), np.array([0.5001 * 10.0 ** int(word.as_tuple().exponent) for word in words])


def by_scipy(case: Case, arguments: tuple[Any, ...]) -> float:
    """The log-likelihood by SciPy's own functions."""
    at, sample = case.scipy(*arguments), case.sample
    parts = [at.logpdf(sample.exact), at.logcdf(sample.left), at.logsf(sample.right)]
    parts += [np.log(at.cdf(high) - at.cdf(low)) for low, high in sample.inside]
    return float(sum(np.sum(part) for part in parts))


def minimise(function: Any, start: Any, args: Any = (), disp: Any = 0) -> Any:
    return scipy.optimize.fmin(function, start, args=args, disp=0, xtol=1e-12, ftol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_published(name):
    case = CASES[name]
    density = censored(case.maker, case.sample.kinds)
    fit = mle.fit(density, case.init, case.sample.columns, constraints=case.constraints)
    assert fit.converged, fit.message
    found, errors = np.array(fit.params), np.array(fit.standard_errors())
    number, unit = printed(case.published)
    assert np.all(np.abs(found - number) <= unit + case.search * errors), (found, number)
    if case.errors:
        number, unit = printed(case.errors)
        assert np.all(np.abs(errors - number) <= unit + case.errors_off * errors), (errors, number)
    here = by_scipy(case, case.arguments(*found))
    np.testing.assert_allclose(fit.log_likelihood, here, rtol=1e-11)
    with np.errstate(all="ignore"):  # SciPy's search tries impossible parameters, too
        theirs = case.scipy.fit(case.sample.scipy, *case.start, **case.fixed, optimizer=minimise)
    assert here >= by_scipy(case, theirs) - 1e-14 * abs(here)
    np.testing.assert_allclose(case.arguments(*found), theirs, rtol=1e-6)


def test_laplace():
    """The likelihood has a kink at every value, and no gradient proves a maximum there: all are tried as location.

    R's result is one of them, and the likelihood falls on both sides of it.
    """
    sample = Sample(exact=LAPLACE, left=[-50.0] * 2, right=[50.0] * 4)
    places = np.array([*sample.exact, 14.7987 - 1e-4, 14.7987 + 1e-4])
    density = censored(of_family(mle.families.laplace), sample.kinds)
    data = {name: np.tile(column, (len(places), 1)) for name, column in sample.columns.items()}
    init, rules = (places, np.full(len(places), 10.0)), (mle.fixed, mle.positive)
    fits = mle.fit_batch(density, init, data, init_axis=0, constraints=rules)
    assert np.all(fits.converged)
    best = int(np.argmax(fits.log_likelihood))
    location, scale = (float(leaf[best]) for leaf in fits.params)
    (place, spread), unit = printed("14.79870 30.93601")
    assert location == place
    error = float(fits.standard_errors()[1][best])
    assert abs(scale - spread) <= unit[1] + 5e-6 * error  # R's search ends early at a kink
    np.testing.assert_allclose(error, 7.0972125, rtol=3e-6)
    case = Case(of_cauchy, sample, (), None, "", stats.laplace, place_scale, {})
    here = by_scipy(case, (location, scale))
    np.testing.assert_allclose(fits.log_likelihood[best], here, rtol=1e-12)
    theirs = stats.laplace.fit(sample.scipy, loc=10, scale=10, optimizer=minimise)
    assert here >= by_scipy(case, theirs) - 1e-14 * abs(here)
