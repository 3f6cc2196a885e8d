"""Regressions: numbers that Stata, R and SAS printed, to the last digit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from jax.scipy.stats import norm
from statsmodels.genmod.tests.results import results_glm, results_glm_poisson_weights
from statsmodels.othermod.tests.results import results_betareg
from statsmodels.regression.tests.results import (
    macro_gr_corc_stata,
    results_grunfeld_ols_robust_cluster,
    results_macro_ols_robust,
)

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

BETA = mle.regression(
    lambda params, obs: (jax.nn.sigmoid(obs["x"] @ params["mean"]), jnp.exp(obs["z"] @ params["precision"])),
    mle.families.beta,
)


@pytest.mark.slow
def test_beta_regression():
    """R's betareg: errors of the expected information, and of the observed one, which R's `optim` differentiates.

    Its steps of 0.001 are so wide that the errors of R are off by up to 6e-4; the same steps give the same errors.
    """
    frame = pd.read_csv(FOLDER / "othermod/tests/results/methylation-test.csv")
    mark = frame["CpG"]
    x = np.column_stack([np.ones(36), frame["gender"] == "M", mark == "CpG_1", mark == "CpG_2"]).astype(float)
    z = np.column_stack([np.ones(36), frame["age"]]).astype(float)
    data = {"x": x, "z": z, "y": frame["methylation"].to_numpy(float)}
    fit = mle.fit(BETA, {"mean": np.zeros(4), "precision": np.zeros(2)}, data)
    published = results_betareg.results_meth
    assert fit.converged
    for mean, precision, search in (
        (published.table_mean, published.table_precision, 5e-9),
        (published.table_mean_oim, published.table_precision_oim, 5e-7),
    ):
        estimates, errors = np.concatenate([mean, precision])[:, :2].T
        agree(flat(fit.params), estimates, search * errors, "estimates")
        stopped_early(fit, estimates, search)
        if search == 5e-9:
            agree(flat(fit.standard_errors("expected")), errors, search * errors, "expected")
    agree_covariance(fit.covariance("expected"), published.vcov, 5e-9)
    assert 5e-4 < np.max(np.abs(flat(fit.standard_errors()) / errors - 1)) < 1e-3
    wide = np.linalg.inv(by_differences(fit, estimates, np.full(6, 1e-3)))
    agree(np.sqrt(np.diagonal(wide)), errors, 1e-9 * errors, "observed")
    agree(fit.log_likelihood, published.loglik)
    agree([fit.aic, fit.bic], [published.aic, published.bic])


def positive(link: Callable[[Any], Any], family: Any) -> mle.Model:
    return mle.regression(lambda params, obs: (link(obs["x"] @ params["coef"]), params["shape"]), family)


def scotland() -> Any:
    table, published = sm.datasets.scotland.load_pandas(), results_glm.Scotvote()
    published.exog, published.endog = sm.add_constant(table.exog, prepend=False), table.endog
    return published


# Model, published, how far R stopped, first guess of the constant.
POSITIVE: dict[str, tuple[mle.Model, Callable[[], Any], float, float]] = {
    "gamma, inverse": (positive(lambda eta: 1 / eta, mle.families.gamma), scotland, 1e-6, 0.02),
    "gamma, log": (positive(jnp.exp, mle.families.gamma), results_glm.CancerLog, 2e-4, 3.0),
    "inverse Gaussian, inverse square": (
        positive(jax.lax.rsqrt, mle.families.inverse_gaussian), results_glm.InvGauss, 3e-6, 1.0,
    ),
    "inverse Gaussian, log": (
        positive(jnp.exp, mle.families.inverse_gaussian), results_glm.InvGaussLog, 1e-3, 2.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", mostly_slow(POSITIVE, "gamma, inverse", "inverse Gaussian, log"))
def test_generalised_linear_models(name):
    """R's glm: errors of the expected information, times a dispersion by Pearson's residuals.

    Log-likelihoods of the gamma are Stata's, at shape 1; R's AIC of the inverse Gaussian is at the maximum.
    """
    model, source, search, constant = POSITIVE[name]
    published = source()
    x, y = np.asarray(published.exog, float), np.asarray(published.endog, float)
    init = {"coef": np.append(np.zeros(x.shape[1] - 1), constant), "shape": 1.0}
    gamma = name.startswith("gamma")
    constraints = {"coef": None, "shape": mle.fixed if gamma else mle.positive}
    fit = mle.fit(model, init, {"x": x, "y": y}, constraints=constraints)
    assert fit.converged
    errors = np.asarray(published.bse)
    ours = fit.standard_errors("expected")["coef"] * np.sqrt(published.scale * fit.params["shape"])
    agree(fit.params["coef"], published.params, search * errors)
    agree(ours, errors, 0.5 * search * errors)
    stopped_early(fit, np.append(published.params, fit.params["shape"]), search)
    if gamma:
        stored = {"x": single(x), "y": single(y)}
        agree(mle.fit(model, init, stored, constraints=constraints).log_likelihood, published.llf)
    else:
        agree(fit.aic, published.aic_R, search**2)


def test_weights_of_every_kind():
    """Executions in 17 states: Stata's glm, family(poisson), with frequency, analytic and probability weights.

    Analytic weights sum to the number of rows, and as for probability weights every row is its own cluster.
    """
    table = sm.datasets.cpunish.load_pandas()
    x = table.exog.to_numpy(float).copy()
    x[:, 3] = np.log(x[:, 3])
    x, y = single(np.column_stack([x, np.ones(17)])), table.endog.to_numpy(float)
    data = {"x": x, "y": y, "offset": np.zeros(17)}
    # As in statsmodels/genmod/tests/test_glm_weights.py.
    counts = np.array([1.0, 1, 1, 2, 2, 2, 3, 3, 3, 1, 1, 1, 2, 2, 2, 3, 3])
    clusters, rows = np.arange(1, 18) // 2, np.arange(17)
    init = {"coef": np.append(np.zeros(6), 1.0)}
    search = 2e-8
    for name, weights in (
        ("none", np.ones(17)), ("fweight", counts), ("aweight", counts / counts.mean()), ("pweight", counts),
    ):  # fmt: skip
        fit = mle.fit(poisson, init, data, weights=weights)
        sandwich = functools.partial(check, fit, kind="sandwich", search=search, small_sample="clusters")
        plain, robust, clustered = (
            getattr(results_glm_poisson_weights, f"results_poisson_{name}_{kind}")
            for kind in ("nonrobust", "hc1", "clu1")
        )
        if name == "pweight":
            sandwich(plain, clusters=rows)  # Stata makes them robust without being asked
        else:
            check(fit, plain, search=search)
        sandwich(robust, clusters=None if name in ("none", "fweight") else rows)
        sandwich(clustered, clusters=clusters)


def normal(params, obs):
    return norm.logpdf(obs["y"], obs["x"] @ params["coef"], params["sigma"] / obs["root_weight"])


def least_squares(data: Any) -> dict[str, Any]:
    """A start made of the data."""
    return {"coef": jnp.linalg.lstsq(data["x"], data["y"])[0], "sigma": jnp.std(data["y"])}


SIGMA = {"coef": None, "sigma": mle.positive}


@functools.cache
def grunfeld() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Investment of ten firms in twenty years, as Stata stored it; firms and years."""
    frame = sm.datasets.grunfeld.load_pandas().data[:200]  # Stata's file lacks the last firm
    x, y = single(columns(frame, "value capital")), single(frame["invest"])
    return x, y, frame["firm"].to_numpy(), frame["year"].to_numpy()


def test_least_squares_clustered():
    """Stata's regress and ivreg2: by firm, by firm and year, and with weights 1 / value."""
    x, y, firm, year = grunfeld()
    of, small = results_grunfeld_ols_robust_cluster, 10 / 9 * 199 / 197  # G / (G - 1) * (n - 1) / (n - 3)
    value = 1 / x[:, 0]
    for weights, plain, large in (
        (np.ones(200), of.results_cluster, of.results_cluster_large),
        (value / value.mean(), of.results_cluster_wls_small, of.results_cluster_wls_large),
    ):
        data = {"x": x, "y": y, "root_weight": np.sqrt(weights)}
        fit = mle.fit(normal, least_squares, data, constraints=SIGMA)
        constant = np.sum(np.log(weights)) / 2  # which Stata leaves out of the log-likelihood
        for published, factor in ((plain, small), (large, 1.0)):
            table = {**published, "ll": published.ll + constant}
            check(fit, table, "sandwich", clusters=firm, factor=factor)
        if not constant:
            both = functools.partial(check, fit, kind="sandwich", clusters=[firm, year])
            both(of.results_cluster_2groups_large)
            both(of.results_cluster_2groups_small, factor=small)  # G is that of firms, of which there are fewer
    hc1 = of.results_hc1_wls_small
    check(fit, {**hc1, "ll": hc1.ll + constant}, "sandwich", factor=200 / 197)


def test_driscoll_kraay():
    """One observation is a year of ten firms; years are a series. Stata's xtscc, and ivreg2 with dkraay(5)."""
    x, y, _, year = grunfeld()

    def firms(params, obs):
        return jnp.sum(norm.logpdf(obs["y"], obs["x"] @ params["coef"], params["sigma"]))

    order = np.argsort(year, kind="stable")
    data = {"x": x[order].reshape(20, 10, 3), "y": y[order].reshape(20, 10)}
    init = {"coef": np.linalg.lstsq(x, y)[0], "sigma": 100.0}
    fit = mle.fit(firms, init, data, constraints=SIGMA)
    of = results_grunfeld_ols_robust_cluster
    check(fit, of.results_nw_groupsum4, "hac", lags=4)
    check(fit, of.results_nw_groupsum4_ivreg_large, "hac", lags=4)
    check(fit, of.results_nw_groupsum4_ivreg_small, "hac", lags=4, factor=20 / 19 * 199 / 197)


@functools.cache
def growth() -> dict[str, np.ndarray]:
    """Annual rates in percent of real investment, real GDP, and the real interest rate the quarter before."""
    frame = sm.datasets.macrodata.load_pandas().data
    investment, product = (400 * np.diff(np.log(frame[name])) for name in ("realinv", "realgdp"))
    x = np.column_stack([product, frame["realint"][:-1], np.ones(202)])
    return {"x": x, "y": investment, "root_weight": np.ones(202)}


def test_least_squares_over_time():
    """Stata's regress, vce(robust), newey, and ivreg2, with and without factors for small samples."""
    fit = mle.fit(normal, least_squares, growth(), constraints=SIGMA)
    of, small = results_macro_ols_robust, 202 / 199  # n / (n - 3)
    check(fit, of.results_hc0, "sandwich", factor=small)
    check(fit, of.results_ivhc0_small, "sandwich", factor=small)
    check(fit, of.results_ivhc0_large, "sandwich")
    check(fit, of.results_newey4, "hac", lags=4, factor=small)
    check(fit, of.results_ivhac4_small, "hac", lags=4, factor=small)
    check(fit, of.results_ivhac4_large, "hac", lags=4)


def test_autocorrelated_errors():
    """Stata's prais, corc: least squares given the correlation, the first quarter left out."""

    def series(params, data):
        error = data["y"] - data["x"] @ params["coef"]
        later = norm.logpdf(error[1:], params["rho"] * error[:-1], params["sigma"])
        return jnp.concatenate([jnp.zeros(1), later])

    published = macro_gr_corc_stata.results
    data = growth()
    init = {"coef": np.linalg.lstsq(data["x"], data["y"])[0], "rho": published.rho, "sigma": 10.0}
    rules = {"coef": None, "rho": mle.fixed, "sigma": mle.positive}
    fit = mle.fit(mle.joint(series), init, data, constraints=rules)
    # The covariance stored is none of this table: its diagonal is not the square of the errors.
    table = {key: published[key] for key in ("params_table", "ll")}
    check(fit, table, factor=201 / 198)
