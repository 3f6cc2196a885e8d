"""Models of choices: numbers that Stata and R printed, to the last digit."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import statsmodels.api as sm
from jax.scipy.stats import norm
from statsmodels.discrete.tests.results import (
    results_discrete,
    results_glm_logit_constrained,
)
from statsmodels.miscmodels.tests.results import results_ordinal_model

import mlekit as mle
from tests.reference.published import agree, agree_covariance, check, columns, flat, single, stopped_early


@functools.cache
def spector() -> tuple[np.ndarray, np.ndarray]:
    frame = sm.datasets.spector.load_pandas().data
    return columns(frame, "GPA TUCE PSI"), frame["GRADE"].to_numpy(float)


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
