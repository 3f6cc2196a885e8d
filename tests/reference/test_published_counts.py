"""Models of counts: numbers that Stata and R printed, to the last digit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.special
import statsmodels.api as sm
from jax.scipy.special import gammaln
from statsmodels.discrete.tests.results import (
    results_count_robust_cluster,
    results_discrete,
    results_predict,
    results_truncated,
    results_truncated_st,
)
from statsmodels.tools.numdiff import approx_hess_cs

import mlekit as mle
from tests.helpers.marks import mostly_slow
from tests.reference.published import (
    FOLDER,
    agree,
    agree_covariance,
    by_differences,
    check,
    columns,
    flat,
    poisson,
    single,
    stopped_early,
)


@functools.cache
def visits() -> tuple[Any, np.ndarray]:
    """Visits of 3,629 persons to a doctor, as statsmodels selects them."""
    frame = pd.read_csv(FOLDER / "sandbox/regression/tests/racd10data_with_transformed.csv")
    frame = frame[~((frame["private"] == 1) & (frame["medicaid"] == 1)) & (frame["docvis"] <= 70)]
    return frame, frame["docvis"].to_numpy(float)


def log_negative_binomial(y, eta, log_alpha):
    """NB2: variance `mean + alpha * mean**2`."""
    size, total = jnp.exp(-log_alpha), jnp.logaddexp(-log_alpha, eta)
    ways = gammaln(y + size) - gammaln(size) - gammaln(y + 1)
    return ways - size * (log_alpha + total) + y * (eta - total)


def negative_binomial(params, obs):
    eta = obs["x"] @ params["coef"] + obs["offset"]
    return log_negative_binomial(obs["y"], eta, params["log_alpha"])


SHIPS = {"poisson": (poisson, 2e-11, 2e-11), "negbin": (negative_binomial, 2e-7, 2e-9)}


@pytest.mark.parametrize("model", mostly_slow(SHIPS, "poisson"))
def test_counts_with_every_covariance(model):
    """Accidents of 34 kinds of ships (Stata: poisson, nbreg), robust and clustered, with and without exposure."""
    frame = pd.read_csv(FOLDER / "discrete/tests/results/ships.csv").dropna()
    data = {"x": columns(frame, "yr_con op_75_79"), "y": frame["accident"].to_numpy(float)}
    init = {"coef": np.zeros(3), **({"log_alpha": 0.0} if model == "negbin" else {})}
    density, *searches = SHIPS[model]
    for exposure, search in zip(("", "_exposure"), searches):
        offset = np.log(frame["service"].to_numpy(float)) if exposure else np.zeros(len(frame))
        fit = mle.fit(density, init, {**data, "offset": offset}, tolerance=1e-12)
        robust: dict[str, Any] = {"kind": "sandwich", "small_sample": "clusters"}
        for name, options in (("nonrobust", {}), ("hc1", robust), ("clu", {**robust, "clusters": frame["ship"]})):
            published = getattr(results_count_robust_cluster, f"results_{model}{exposure}_{name}", None)
            if published is not None:
                check(fit, published, search=search, **options)
        if model == "negbin" and exposure:
            alpha = fit.estimate(lambda params: jnp.exp(params["log_alpha"]))
            value, error = results_count_robust_cluster.results_negbin_exposure_nonrobust["params_table"][4, :2]
            agree(alpha.value, value, search * error)
            agree(alpha.standard_error, error, search * error)


def nb1(params, obs):
    """Variance `(1 + alpha) * mean`."""
    y, alpha = obs["y"], jnp.exp(params["log_alpha"])
    size = jnp.exp(obs["x"] @ params["coef"]) / alpha
    ways = gammaln(y + size) - gammaln(size) - gammaln(y + 1)
    return ways - size * jnp.log1p(alpha) - y * jnp.log1p(1 / alpha)


def generalized_poisson(params, obs):
    """GP2: variance `mean * (1 + alpha * mean)**2`."""
    y, eta, alpha = obs["y"], obs["x"] @ params["coef"], jnp.exp(params["log_alpha"])
    spread = 1 + alpha * jnp.exp(eta)
    rate = jnp.exp(eta) * (1 + alpha * y)
    return eta + (y - 1) * jnp.log(rate) - y * jnp.log(spread) - gammaln(y + 1) - rate / spread


NB2 = mle.regression(
    lambda params, obs: (jnp.exp(obs["x"] @ params["coef"]), jnp.exp(params["log_alpha"])),
    mle.families.negative_binomial,
)
RANDHIE: dict[str, tuple[Any, Any, Callable[[Any], np.ndarray], float]] = {
    "poisson": (poisson, results_discrete.RandHIE.poisson, single, 4e-9),
    "nb2": (NB2, results_discrete.RandHIE.negativebinomial_nb2_bfgs, np.asarray, 5e-7),
    "nb1": (nb1, results_discrete.RandHIE.negativebinomial_nb1_bfgs, np.asarray, 2e-7),
    "gp2": (generalized_poisson, results_discrete.RandHIE.generalizedpoisson_gp2, single, 3e-5),
}


@pytest.mark.parametrize("name", mostly_slow(RANDHIE, "poisson"))
def test_counts_of_20190_persons(name):
    """Visits to doctors in the RAND experiment: poisson, nbreg and gnpoisson of Stata, glm.nb of R."""
    density, published, stored, search = RANDHIE[name]
    frame = sm.datasets.randhie.load_pandas().data
    x = stored(columns(frame, "lncoins idp lpi fmde physlm disea hlthg hlthf hlthp"))
    data = {"x": x, "y": frame["mdvis"].to_numpy(float), "offset": np.zeros(len(x))}
    init: dict[str, Any] = {"coef": np.zeros(10)}
    if name != "poisson":
        init["log_alpha"] = -1.0
    fit = mle.fit(density, init, data)
    assert fit.converged
    # nb2: coefficients and their errors are those of R's glm.nb, which takes the expected information.
    errors = fit.standard_errors("expected" if name == "nb2" else "observed")
    coef, spread = np.array(published.params[:10]), np.array(published.bse[:10])
    agree(fit.params["coef"], coef, search * spread)
    if name != "nb1":  # whose errors, of R, are differences of differences; Stata's intervals are exact
        agree(errors["coef"], spread, search * spread)
    if hasattr(published, "conf_int"):
        lower, upper = fit.intervals()["coef"]
        ours = np.stack([lower, upper], axis=1)
        agree(ours, np.array(published.conf_int)[:10], search * spread[:, None])
    for number in ("aic", "bic"):
        agree(getattr(fit, number), getattr(published, number), 2 * 10 * search**2)
    estimates = coef
    if name != "poisson":
        agree(fit.params["log_alpha"], published.lnalpha, search * published.lnalpha_std_err)
        agree(fit.standard_errors()["log_alpha"], published.lnalpha_std_err)
        alpha = np.exp(fit.params["log_alpha"])
        agree(alpha, published.params[10], search * published.bse[10])
        if name != "nb1":
            agree(alpha * fit.standard_errors()["log_alpha"], published.bse[10])
        estimates = np.append(coef, np.log(published.params[10]))
    agree(stopped_early(fit, estimates, search), published.llf)


def zero_inflated(params, obs):
    count = log_negative_binomial(obs["y"], obs["x"] @ params["coef"], params["log_alpha"])
    never = params["inflate"][0] * obs["x"][2] + params["inflate"][1]
    return jnp.where(obs["y"] == 0, jnp.logaddexp(never, count), count) - jax.nn.softplus(never)


def test_zero_inflated_counts():
    """Stata's zinb stopped 5e-6 below the maximum, on a ridge where errors change by 5 % within 0.002 of them.

    At Stata's estimates the information is Stata's. From further off the search finds another maximum, 0.6 higher.
    """
    frame, y = visits()
    data = {"x": columns(frame, "private medicaid aget aget2 educyr actlim totchr"), "y": y}
    published = results_predict.results_zinb_docvis
    init = {"coef": np.append(np.zeros(7), 1.0), "inflate": np.array([-1.0, -5.0]), "log_alpha": 0.0}
    fit = mle.fit(zero_inflated, init, data)
    check(fit, published, search=3e-3, curvature=0.06)
    estimates, errors = published["params_table"][:, :2].T
    narrow, wide = (by_differences(fit, estimates, step * errors) for step in (1e-3, 2e-3))
    there = np.linalg.inv((4 * narrow - wide) / 3)  # differences of the fourth order
    agree(np.sqrt(np.diagonal(there)), errors, 1e-6 * errors)


def truncated_poisson(params, obs):
    """Given that the count exceeds `limit`, 0 or 1."""
    eta = obs["x"] @ params["coef"]
    rate = jnp.exp(eta)
    below = jnp.exp(-rate) * (1 + obs["limit"] * rate)
    return obs["y"] * eta - rate - gammaln(obs["y"] + 1) - jnp.log1p(-below)


def truncated_negative_binomial(params, obs):
    eta, size, log_alpha = obs["x"] @ params["coef"], jnp.exp(-params["log_alpha"]), params["log_alpha"]
    total = jnp.logaddexp(-log_alpha, eta)
    below = jnp.exp(-size * (log_alpha + total)) * (1 + obs["limit"] * size * jnp.exp(eta - total))
    return log_negative_binomial(obs["y"], eta, log_alpha) - jnp.log1p(-below)


@pytest.mark.parametrize("model", mostly_slow(["poisson", "negbin"], "poisson"))
def test_truncated_counts(model):
    """Stata's tpoisson and tnbreg, truncated at 0 and at 1; a weight of 0 leaves a person out.

    Stata's errors of tnbreg truncated at 1 are off by up to 0.07 %: there NumPy with complex steps decides.
    """
    frame, y = visits()
    x = columns(frame, "aget totchr")
    init = {"coef": np.array([0.0, 0.0, 1.0]), **({"log_alpha": 0.0} if model == "negbin" else {})}
    density = truncated_poisson if model == "poisson" else truncated_negative_binomial
    of = results_truncated_st
    for limit, published, search in (
        (0, of.results_trunc_poisson, 5e-9) if model == "poisson" else (0, of.results_trunc_negbin, 1e-5),
        (1, of.results_trunc_poisson1, 3e-7) if model == "poisson" else (1, of.results_trunc_negbin1, 2e-5),
    ):
        data = {"x": x, "y": y, "limit": np.full(len(y), float(limit))}
        fit = mle.fit(density, init, data, weights=(y > limit).astype(float))
        assert int(fit.n_obs) == published.N
        inexact = model == "negbin" and limit == 1
        check(fit, published, search=search, curvature=7e-4 if inexact else None)
        agree([fit.aic, fit.bic], published.icr[-2:], 2 * search**2)
        if inexact:
            log_likelihood = functools.partial(truncated_at_one, x[y > 1], y[y > 1])
            exact = np.sqrt(np.diagonal(np.linalg.inv(-approx_hess_cs(flat(fit.params), log_likelihood))))
            np.testing.assert_allclose(flat(fit.standard_errors()), exact, rtol=1e-7)


def truncated_at_one(x: np.ndarray, y: np.ndarray, vector: np.ndarray) -> Any:
    """The log-likelihood by NumPy and SciPy, which take complex numbers."""
    mean, size = np.exp(x @ vector[:3]), np.exp(-vector[3])

    def log_density(count: Any) -> Any:
        ways = scipy.special.loggamma(count + size) - scipy.special.loggamma(size)
        ways = ways - scipy.special.loggamma(count + 1.0)
        return ways + size * np.log(size / (size + mean)) + count * np.log(mean / (size + mean))

    return np.sum(log_density(y) - np.log(1 - np.exp(log_density(0.0)) - np.exp(log_density(1.0))))


def hurdle(params, obs):
    """Whether there is a visit, and given that, how many: two Poisson distributions."""
    rate, more = jnp.exp(obs["x"] @ params["zero"]), jnp.exp(obs["x"] @ params["count"])
    count = obs["y"] * jnp.log(more) - more - gammaln(obs["y"] + 1) - jnp.log(-jnp.expm1(-more))
    return jnp.where(obs["y"] > 0, jnp.log(-jnp.expm1(-rate)) + count, -rate)


def test_hurdle():
    """R's pscl, whose search by differences (BFGS) stops early."""
    frame, y = visits()
    published = results_truncated.hurdle_poisson
    x = np.roll(columns(frame, "aget totchr"), 1, axis=1)  # R has the ones first
    init = {"count": np.array([1.0, 0.0, 0.0]), "zero": np.zeros(3)}
    fit = mle.fit(hurdle, init, {"x": x, "y": y})
    assert fit.converged
    estimates, errors = np.concatenate([published.count, published.zero])[:, :2].T
    search = 4e-4
    agree(flat(fit.params), estimates, search * errors)
    agree(flat(fit.standard_errors()), errors, 5e-6 * errors)
    agree_covariance(fit.covariance(), published.vcov, 1e-5)
    agree([fit.aic, fit.bic], [published.aic, published.bic], 2 * search**2)
    agree(stopped_early(fit, estimates, search), published.loglik)
