"""Numbers that Stata and R printed, as statsmodels stores them beside its tests: `statsmodels/**/tests/results`.

Estimates, standard errors and covariances of every kind stored, and log-likelihoods, to the last digit printed.
Two things are in the way of that, and both are shown, not assumed:

- Stata keeps a variable in single precision unless told otherwise; where its numbers were made so, `single` rounds
  the same columns, and then the digits agree.
- Their search may have stopped before ours: then `search` says how far from the maximum, in standard errors, and
  `stopped_early` proves it. One Newton step from their estimates leads to ours.

Standard errors with Stata's factors: `small_sample="clusters"` is that of its commands for maximum likelihood;
those of `regress` and `ivreg2` leave sigma out of the number of parameters, so they are written out here.
"""

from __future__ import annotations

import decimal
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.special
import statsmodels
import statsmodels.api as sm
from jax.flatten_util import ravel_pytree
from jax.scipy.special import gammaln
from jax.scipy.stats import norm
from statsmodels.discrete.tests.results import (
    results_count_robust_cluster,
    results_discrete,
    results_glm_logit_constrained,
    results_predict,
    results_truncated,
    results_truncated_st,
)
from statsmodels.genmod.tests.results import results_glm, results_glm_poisson_weights
from statsmodels.miscmodels.tests.results import results_ordinal_model
from statsmodels.othermod.tests.results import results_betareg
from statsmodels.regression.tests.results import (
    macro_gr_corc_stata,
    results_grunfeld_ols_robust_cluster,
    results_macro_ols_robust,
)
from statsmodels.tools.numdiff import approx_hess_cs

import mlekit as mle

from .marks import mostly_slow

FOLDER = Path(statsmodels.__file__).parent
ROUNDING = 1e-13  # relative: what is left of a float64 after sums over all observations
EXACT = 1e-12  # the same for estimates, in standard errors: sums that cancel


# --- comparing ----------------------------------------------------------------------------------------------


@np.vectorize
def half_unit(number: float) -> float:
    """Half a unit of the last decimal place that a number was printed with."""
    if number == 0:
        return 0.0
    place = decimal.Decimal(repr(float(number))).normalize().as_tuple().exponent
    return 0.5001 * 10.0 ** min(int(place), 0)


def agree(found: Any, published: Any, slack: Any = 0.0, what: str = "") -> None:
    """Every digit printed agrees; `slack`, in units of the numbers, is what the published ones are known to lack.

    Args:
        found: what mlekit found.
        published: the same in print.
        slack: as above.
        what: what messages call it.
    """
    found, published = np.asarray(found), np.asarray(published, float)
    assert found.shape == published.shape, what
    gap = np.abs(found - published)
    allowed = half_unit(published) + slack + ROUNDING * np.abs(published)
    assert np.all(gap <= allowed), (
        f"{what}: {found} != {published}, off by {np.max(gap / allowed):.3g} of the allowed"
    )


def agree_covariance(found: Any, published: Any, search: float = 0.0) -> None:
    """As `agree`, with the slack in units of the standard errors that belong to rows and columns."""
    errors = np.sqrt(np.diagonal(published))
    agree(found, published, search * np.outer(errors, errors), "covariance")


def flat(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(tree)[0])


def check(
    fit: mle.Fit,
    published: Any,
    kind: str = "observed",
    *,
    search: float = EXACT,
    curvature: float | None = None,
    factor: float = 1.0,
    **options: Any,
) -> None:
    """A fit against a table of Stata: estimates, errors, covariance and log-likelihood, as far as they are stored.

    Args:
        fit: the fit; Stata's table may hold its first parameters only.
        published: Stata's table, an object of statsmodels.
        kind: of the covariance.
        search: how far from the maximum Stata stopped, in standard errors.
        curvature: how far off Stata's errors are, relatively, if not as far as that.
        factor: what Stata multiplies the covariance with.
        options: further arguments of `Fit.covariance`.
    """
    assert fit.converged, fit.message
    covariance = np.asarray(fit.covariance(kind, **options)) * factor
    table = np.asarray(published["params_table"])
    k = min(len(fit.parameter_names), len(table))
    estimates, errors = table[:k, 0], np.nan_to_num(table[:k, 1])  # no number for the error of a fixed parameter
    curvature = search if curvature is None else curvature
    agree(flat(fit.params)[:k], estimates, search * errors, "estimates")
    agree(np.sqrt(np.diagonal(covariance))[:k], errors, curvature * errors, "standard errors")
    if "cov" in published:
        agree_covariance(covariance[:k, :k], published["cov"], 2 * curvature)
    value = float(fit.log_likelihood)
    if search > EXACT:
        theirs = np.append(estimates, flat(fit.params)[k:])
        value = stopped_early(fit, theirs, search, np.asarray(fit.covariance()))
    if "ll" in published:
        agree(value, published["ll"], what="log-likelihood")


@functools.partial(jax.jit, static_argnums=0)
def climb(model: mle.Model, params: Any, data: Any, weights: Any) -> Any:
    """The log-likelihood and its gradient, by JAX alone."""

    def log_likelihood(params: Any) -> Any:
        each = model(params, data) if model.is_joint else jax.vmap(model, in_axes=(None, 0))(params, data)
        return jnp.sum(weights * each)

    return jax.value_and_grad(log_likelihood)(params)


def stopped_early(fit: mle.Fit, published: Any, search: float, covariance: Any = None) -> float:
    """The published estimates lie below the maximum that was found, by nothing but a Newton step of their own.

    Returns:
        The log-likelihood at the published estimates.
    """
    ours, errors = flat(fit.params), flat(fit.standard_errors())
    if covariance is None:
        covariance = np.linalg.inv(by_differences(fit, ours, 1e-4 * errors))
    top, slope = climbed(fit, ours)
    value, rise = climbed(fit, published)
    assert value <= top + ROUNDING * abs(top)
    assert slope @ covariance @ slope < rise @ covariance @ rise
    # What is left is of the second order; the digits printed do not matter, as the step makes up for them.
    gap = np.abs(np.asarray(published) + covariance @ rise - ours)
    assert np.all(gap <= 0.1 * search * errors), f"off by {np.nanmax(gap / errors):.3g} standard errors"
    return value


def climbed(fit: mle.Fit, vector: Any) -> tuple[float, np.ndarray]:
    """The log-likelihood and its gradient at other parameters; those that are fixed do not move."""
    _, unravel = ravel_pytree(fit.params)
    weights = 1.0 if fit.weights is None else fit.weights
    value, gradient = climb(fit.model, unravel(jnp.asarray(vector)), fit.data, weights)
    return float(value), np.where(fit.fixed, 0.0, flat(gradient))


def by_differences(fit: mle.Fit, at: Any, steps: Any) -> np.ndarray:
    """The information at some parameters, by central differences of the gradient, as R's `optim` makes it."""
    matrix = np.eye(len(steps))
    for i in np.flatnonzero(np.logical_not(fit.fixed)):
        step = steps[i] * np.eye(len(steps))[i]
        matrix[i] = (climbed(fit, at - step)[1] - climbed(fit, at + step)[1]) / (2 * steps[i])
    return (matrix + matrix.T) / 2


# --- data ---------------------------------------------------------------------------------------------------


def columns(frame: Any, names: str) -> np.ndarray:
    """Columns of a table, and one of ones at the end, where Stata has it."""
    return np.column_stack([frame[names.split()], np.ones(len(frame))]).astype(float)


def single(values: Any) -> np.ndarray:
    """Numbers as Stata keeps them unless told otherwise: in single precision."""
    return np.asarray(values).astype(np.float32).astype(float)


@functools.cache
def spector() -> tuple[np.ndarray, np.ndarray]:
    frame = sm.datasets.spector.load_pandas().data
    return columns(frame, "GPA TUCE PSI"), frame["GRADE"].to_numpy(float)


@functools.cache
def visits() -> tuple[Any, np.ndarray]:
    """Visits of 3,629 persons to a doctor, as statsmodels selects them."""
    frame = pd.read_csv(FOLDER / "sandbox/regression/tests/racd10data_with_transformed.csv")
    frame = frame[~((frame["private"] == 1) & (frame["medicaid"] == 1)) & (frame["docvis"] <= 70)]
    return frame, frame["docvis"].to_numpy(float)


# --- counts -------------------------------------------------------------------------------------------------


def poisson(params, obs):
    eta = obs["x"] @ params["coef"] + obs["offset"]
    return obs["y"] * eta - jnp.exp(eta) - gammaln(obs["y"] + 1)


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
        fit = mle.fit(density, init, {**data, "offset": offset})
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

    At Stata's estimates the information is Stata's.
    """
    frame, y = visits()
    data = {"x": columns(frame, "private medicaid aget aget2 educyr actlim totchr"), "y": y}
    published = results_predict.results_zinb_docvis
    init = {"coef": np.append(np.zeros(7), 1.0), "inflate": np.array([0.0, -3.0]), "log_alpha": 0.0}
    fit = mle.fit(zero_inflated, init, data)
    check(fit, published, search=3e-3, curvature=0.06)
    estimates, errors = published["params_table"][:, :2].T
    narrow, wide = (by_differences(fit, estimates, step * errors) for step in (1e-3, 2e-3))
    there = np.linalg.inv((4 * narrow - wide) / 3)  # differences of the fourth order
    agree(np.sqrt(np.diagonal(there)), errors, 1e-6 * errors)


# --- truncated counts ---------------------------------------------------------------------------------------


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


# --- choices ------------------------------------------------------------------------------------------------


def logit(params, obs):
    eta = obs["x"] @ jnp.stack(jax.tree.leaves(params))
    return obs["y"] * eta - jax.nn.softplus(eta)


def probit(params, obs):
    return norm.logcdf((2 * obs["y"] - 1) * (obs["x"] @ jnp.stack(jax.tree.leaves(params))))


class Grades(NamedTuple):
    """In the order of Stata's tables."""

    gpa: Any = 0.0
    tuce: Any = 0.0
    psi: Any = 0.0
    constant: Any = 0.0


def check_grades(fit: mle.Fit, published: Any, search: float) -> None:
    """Against Stata's logit and probit of version 11."""
    errors, z = np.array(published.bse), np.array(published.z)
    assert fit.converged
    agree(flat(fit.params), published.params, search * errors)
    agree(flat(fit.standard_errors()), errors, search * errors)
    agree_covariance(fit.covariance(), published.cov_params, search)
    agree(flat(fit.params) / flat(fit.standard_errors()), z, search * (1 + np.abs(z)))
    agree(fit.log_likelihood, published.llf)
    agree([fit.aic, fit.bic], [published.aic, published.bic])
    stopped_early(fit, published.params, search, np.asarray(fit.covariance()))


def test_probit():
    x, y = spector()
    fit = mle.fit(probit, Grades(), {"x": single(x), "y": y})
    check_grades(fit, results_discrete.Spector.probit, 2e-9)


def test_logit():
    """Also glm of Stata, which stops early: robust, with a coefficient fixed, and with two tied to each other."""
    x, y = spector()
    check_grades(mle.fit(logit, Grades(), {"x": single(x), "y": y}), results_discrete.Spector.logit, 2e-12)
    data = {"x": x, "y": y}
    tied = Grades(None, None, mle.tied(to="gpa"), None)
    of = results_glm_logit_constrained
    for init, constraints, plain, robust in (
        (Grades(), None, of.results_noconstraint, of.results_noconstraint_robust),
        (Grades(gpa=2.8), Grades(mle.fixed, None, None, None), of.results_constraint1, None),
        (Grades(), tied, of.results_constraint2, of.results_constraint2_robust),
    ):
        fit = mle.fit(logit, init, data, constraints=constraints)
        check(fit, plain, search=5e-7)
        if robust is not None:
            check(fit, robust, "sandwich", search=5e-7, small_sample="clusters")
        agree([fit.aic, fit.bic], plain["infocrit"][-2:], 1e-12)
    check(fit, of.results_logit_constraint2, search=1e-10)


def multinomial_logit(params, obs):
    eta = jnp.concatenate([jnp.zeros(1), obs["x"] @ params])
    return eta[obs["y"]] - jax.nn.logsumexp(eta)


def test_multinomial_logit():
    """Seven parties and 36 coefficients, of Stata."""
    table = sm.datasets.anes96.load_pandas()
    x = single(columns(table.exog, "logpopul selfLR age educ income"))
    fit = mle.fit(multinomial_logit, np.zeros((6, 6)), {"x": x, "y": table.endog.to_numpy(int)})
    published = results_discrete.Anes.mnlogit_basezero
    assert fit.converged
    search = 1e-9
    agree(fit.params, published.params, search * published.bse)
    agree(fit.standard_errors(), published.bse, search * published.bse)
    agree(fit.params / fit.standard_errors(), published.z, search * (1 + np.abs(published.z)))
    stopped_early(fit, np.ravel(published.params), search)
    for found, number in ((fit.log_likelihood, "llf"), (fit.aic, "aic"), (fit.bic, "bic")):
        agree(found, getattr(published, number))


LINKS = ("logit", "probit", "cloglog")


def ordered(params, obs):
    """`link` is 1 for one of three distributions, so that all three are one program."""
    z = params["cuts"] - obs["x"] @ params["coef"]
    below = obs["link"] @ jnp.stack([jax.nn.sigmoid(z), norm.cdf(z), -jnp.expm1(-jnp.exp(z))])
    return jnp.log(jnp.diff(below, prepend=0.0, append=1.0)[obs["y"]])


def test_ordered_choice():
    """R's polr, whose search (BFGS) stops early."""
    frame = results_ordinal_model.df
    data = {"x": frame[["pared", "public", "gpa"]].to_numpy(float), "y": frame["apply"].cat.codes.to_numpy(int)}
    init = {"coef": np.zeros(3), "cuts": np.array([-1.0, 1.0])}
    for i, search in enumerate((1e-3, 1e-4, 5e-5)):
        link = np.tile(np.eye(3)[i], (len(frame), 1))
        fit = mle.fit(ordered, init, {**data, "link": link}, constraints={"coef": None, "cuts": mle.ordered})
        published = getattr(results_ordinal_model, f"res_ord_{LINKS[i]}")
        assert fit.converged
        errors = fit.standard_errors()
        agree(fit.params["coef"], published.coefficients_val, search * errors["coef"])
        agree(fit.params["cuts"], published.thresholds, search * errors["cuts"])
        agree(errors["coef"], published.coefficients_stdE, 5e-6 * errors["coef"])
        agree(fit.params["coef"] / errors["coef"], published.coefficients_tval, search)
        stopped_early(fit, np.concatenate([published.coefficients_val, published.thresholds]), search)


# --- shares, and positive numbers ---------------------------------------------------------------------------

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


# --- weights ------------------------------------------------------------------------------------------------


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


# --- least squares ------------------------------------------------------------------------------------------


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
