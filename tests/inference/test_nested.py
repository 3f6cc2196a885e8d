"""Likelihood ratio, Wald and score tests beside statsmodels, SciPy and closed forms."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import statsmodels.api as sm

import mlekit as mle
from tests.inference.hypotheses import COUNTS, COUNTS_START, FAMILIES, FIRST, N, check


def test_likelihood_ratio(full: mle.Fit, null: mle.Fit) -> None:
    design = sm.add_constant(FIRST["x"])
    wanted = sm.Poisson(FIRST["y"], design).fit(disp=0, tol=1e-12)
    test = mle.likelihood_ratio_test(null, full)
    check(test, wanted.llr, 1)
    assert repr(test) == (
        f"Likelihood-ratio test: the hypothesis that the restriction holds is rejected at 5 %: "
        f"chi-square(1) = {wanted.llr:.2f}, p = {wanted.llr_pvalue:.4f}"
    )


@pytest.mark.parametrize("df", [1, 2])
def test_likelihood_ratio_at_a_boundary(df: int, full: mle.Fit, null: mle.Fit) -> None:
    """Half of the distribution has one degree of freedom less; with none left it is a point at zero."""
    if df == 2:
        null = mle.fit(COUNTS, COUNTS_START, FIRST, constraints=mle.fixed)
    test = mle.likelihood_ratio_test(null, full, boundary=True)
    statistic = 2 * float(full.log_likelihood - null.log_likelihood)
    less = scipy.stats.chi2.sf(statistic, 1) if df == 2 else 0.0
    np.testing.assert_allclose(test.p_value, 0.5 * (less + scipy.stats.chi2.sf(statistic, df)), rtol=1e-8)
    assert repr(test).endswith(f"(half chi-square({df - 1}) and half chi-square({df}))")


@pytest.mark.slow
def test_likelihood_ratio_where_the_maximum_is_at_the_boundary() -> None:
    """Half of all data sets without overdispersion look underdispersed: nothing is gained, so p is one."""
    model = mle.regression(lambda p, obs: (p["mean"], p["alpha"]), FAMILIES.negative_binomial)
    y = np.stack([np.tile([2.0, 3.0, 4.0, 3.0], 10), np.tile([0.0, 9.0, 1.0, 2.0], 10)])
    start = {"mean": 3.0, "alpha": 0.5}
    wide = mle.fit_batch(model, start, {"y": y}, constraints=mle.positive)
    assert wide.status.names() == ["unbounded", "converged"]
    rules = {"mean": mle.positive, "alpha": mle.fixed}
    poisson = mle.fit_batch(model, {"mean": 3.0, "alpha": 0.0}, {"y": y}, constraints=rules)
    test = mle.likelihood_ratio_test(poisson, wide, boundary=True)
    assert test.p_value[1] < 1e-4
    assert test.p_value[0] == 1


def test_a_full_model_that_missed_its_maximum_has_no_verdict(full: mle.Fit, null: mle.Fit) -> None:
    worse = mle.fit(COUNTS, {"const": 5.0, "slope": 0.0}, FIRST, max_steps=1)
    test = mle.likelihood_ratio_test(null, worse)
    assert np.isnan(test.statistic)
    assert np.isnan(test.p_value)
    assert repr(test) == (
        "Likelihood-ratio test: no verdict; the fit of the full model did not converge: max_steps"
    )


@pytest.mark.parametrize(
    ("kind", "options", "theirs"),
    [
        ("observed", {}, {}),
        ("sandwich", {}, {"cov_type": "HC0"}),
        ("sandwich", {"clusters": "firm"}, {"cov_type": "cluster"}),
    ],
    ids=["observed", "sandwich", "clusters"],
)
def test_wald(kind: str, options: dict[str, Any], theirs: dict[str, Any], full: mle.Fit) -> None:
    if "clusters" in options:
        theirs = {**theirs, "cov_kwds": {"groups": FIRST["firm"].astype(int), "use_correction": False}}
    fitted = sm.Poisson(FIRST["y"], sm.add_constant(FIRST["x"])).fit(disp=0, tol=1e-12, **theirs)
    one = fitted.wald_test("x1 = 0", use_f=False, scalar=True)
    check(mle.wald_test(full, "slope", kind, **options), one.statistic, 1)
    if "clusters" not in options:  # whose middle, of two clusters, has rank one
        both = fitted.wald_test("const = 1, x1 = 0.1", use_f=False, scalar=True)
        restriction = lambda p: {"a": p["const"] - 1, "b": jnp.stack([p["slope"] - 0.1])}  # noqa: E731
        check(mle.wald_test(full, restriction, kind), both.statistic, 2)


def test_wald_of_a_smooth_function(full: mle.Fit) -> None:
    test = mle.wald_test(full, lambda p: jnp.exp(p["const"]) * p["slope"] - 1)
    const, slope = (float(full.params[name]) for name in ("const", "slope"))
    gradient = np.exp(const) * np.array([slope, 1])
    wanted = (np.exp(const) * slope - 1) ** 2 / (gradient @ np.asarray(full.covariance()) @ gradient)
    check(test, wanted, 1)
    twice = mle.wald_test(full, lambda p: (p["slope"], 2 * p["slope"]))
    assert np.isnan(twice.p_value)
    assert np.isnan(mle.wald_test(full, lambda p: p["slope"] * 0).p_value)
    assert "the hypothesis that slope = const = 0 is rejected" in repr(mle.wald_test(full, ["slope", "const"]))


@pytest.mark.parametrize("kind", ["observed", "expected", "opg"])
def test_score(kind: str, null: mle.Fit) -> None:
    """The link is canonical, so that observed and expected information are the same."""
    test = mle.score_test(null, kind=kind)
    if kind == "opg":
        scores = (FIRST["y"] - FIRST["y"].mean())[:, None] * sm.add_constant(FIRST["x"])
        total = scores.sum(axis=0)
        return check(test, total @ np.linalg.solve(scores.T @ scores, total), 1)
    model = sm.GLM(FIRST["y"], np.ones((N, 1)), family=sm.families.Poisson())
    wanted = model.score_test(model.fit(tol=1e-12).params, exog_extra=FIRST["x"], observed=kind == "observed")
    return check(test, float(np.squeeze(wanted[0])), 1)


def test_score_of_tied_parameters() -> None:
    """Rates that are one: Pearson's chi-square."""
    y = np.array([3.0, 5, 2, 8, 9, 4, 7, 12, 10])
    cell = np.repeat(np.arange(3), 3)
    model = mle.regression(lambda p, obs: jnp.stack([p["a"], p["b"], p["c"]])[obs["cell"]], FAMILIES.poisson)
    tied = {"a": mle.positive, "b": mle.tied(to="a"), "c": mle.tied(to="a")}
    fit = mle.fit(model, {"a": 5.0, "b": 5.0, "c": 5.0}, {"y": y, "cell": cell}, constraints=tied)
    wanted = scipy.stats.chisquare(np.bincount(cell, y)).statistic
    check(mle.score_test(fit, kind="expected"), wanted, 2)
    check(mle.score_test(fit, mle.positive, kind="expected"), wanted, 2)  # whatever the scale


def test_score_at_the_edge() -> None:
    """Overdispersion, by the score where there is none (Dean 1992); inside `positive` it would lie at infinity."""
    model = mle.regression(lambda p, obs: (p["mean"], p["alpha"]), FAMILIES.negative_binomial)
    y = FIRST["y"]
    fit = mle.fit(model, {"mean": 1.0, "alpha": 0.0}, {"y": y}, constraints={"alpha": mle.fixed})
    mean = y.mean()
    score = 0.5 * np.sum((y - mean) ** 2 - y)
    check(mle.score_test(fit, kind="expected"), score**2 / (0.5 * N * mean**2), 1)
    with pytest.raises(ValueError, match="lies on the edge of its constraint"):
        mle.score_test(fit, {"alpha": mle.positive})
