"""The worked uses of differentiable fits give what other programs, textbooks and plain NumPy give."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from jax.flatten_util import ravel_pytree
from statsmodels.stats.outliers_influence import OLSInfluence

from tests.helpers.derivatives import difference, direction, inner

FOLDER = Path(__file__).parents[2] / "notebooks" / "differentiable_fits"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@functools.cache
def worked_use(name: str) -> Any:
    """The module of this name; scripts lie in no package."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_scripts_run(name: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    use = worked_use(name)
    monkeypatch.setattr(use, "STEPS", 3, raising=False)  # of those that train
    use.main()
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) >= 3
    assert "nan" not in printed


# Random intercepts.


def normal_marginals(hyper: Any, data: Any) -> np.ndarray:
    """The days of a subject are jointly normal, so no intercept has to be integrated out."""
    spread = np.exp(2 * hyper["log_sigma"]) * np.eye(10) + np.exp(2 * hyper["log_tau"])
    error = data["Reaction"] - (hyper["beta0"] + hyper["beta1"] * data["Days"])
    return scipy.stats.multivariate_normal(np.zeros(10), spread).logpdf(error)


def test_laplace_is_exact_for_normal_intercepts() -> None:
    use = worked_use("random_intercepts")
    data = use.sleep_study()
    start = use.start(data)
    np.testing.assert_allclose(use.marginal(start, data), normal_marginals(start, data), rtol=1e-12)
    move = direction(start)
    wanted = difference(lambda hyper: normal_marginals(hyper, data).sum(), (start,), (move,))
    np.testing.assert_allclose(inner(use.gradient(start, data), move), wanted, rtol=1e-9)


def test_random_intercepts_agree_with_statsmodels() -> None:
    use = worked_use("random_intercepts")
    data = use.sleep_study()
    fit = use.empirical_bayes(data)
    subjects = np.repeat(np.arange(18), 10)
    design = sm.add_constant(data["Days"].ravel())
    peer = sm.MixedLM(data["Reaction"].ravel(), design, subjects).fit(reml=False, method="bfgs", gtol=1e-9)
    ours, errors = fit.params, fit.standard_errors()
    np.testing.assert_allclose(fit.log_likelihood, peer.llf, rtol=1e-9)
    np.testing.assert_allclose([ours["beta0"], ours["beta1"]], peer.fe_params, rtol=1e-6)
    np.testing.assert_allclose([errors["beta0"], errors["beta1"]], peer.bse_fe, rtol=1e-6)
    np.testing.assert_allclose(np.exp(2 * ours["log_tau"]), peer.cov_re[0, 0], rtol=1e-6)
    np.testing.assert_allclose(np.exp(2 * ours["log_sigma"]), peer.scale, rtol=1e-6)
    # The variance within subjects is a chi-square with 18 * 9 degrees of freedom.
    np.testing.assert_allclose(errors["log_sigma"], 1 / np.sqrt(2 * 18 * 9), rtol=1e-9)
    predicted = [peer.random_effects[subject].item() for subject in range(18)]
    np.testing.assert_allclose(use.intercepts(ours, data).params, predicted, rtol=1e-6)
    steepest = max(abs(slope) for slope in use.gradient(ours, data).values())
    assert steepest < 1e-9


# Learned features.


@pytest.mark.slow
def test_learned_features_beat_pixels() -> None:
    use = worked_use("learned_features")
    fitting, judging, test = use.odd_digits()
    features, losses = use.trained(use.network(jax.random.key(0)), fitting, judging)
    assert losses[-1] < 0.01 * losses[0]
    assert use.accuracy(lambda pixels: pixels, fitting, test) < 0.91
    assert use.accuracy(features, fitting, test) > 0.95


@pytest.mark.slow
def test_gradient_of_features_is_that_of_the_loss() -> None:
    use = worked_use("learned_features")
    fitting, judging, _ = use.odd_digits()
    weights, rest = eqx.partition(use.network(jax.random.key(1)), eqx.is_array)

    @jax.jit
    @jax.value_and_grad
    def loss(weights: Any) -> Any:
        return use.loss(eqx.combine(weights, rest), fitting, judging)

    move = direction(weights)
    wanted = difference(lambda weights: loss(weights)[0], (weights,), (move,))
    np.testing.assert_allclose(inner(loss(weights)[1], move), wanted, rtol=1e-6)


# Two steps.


def two_stages(data: Any, instruments: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two-stage least squares in NumPy: estimates, their robust covariance, and that of Lee (2018)."""
    controls = [np.ones(428), data["exper"], data["expersq"]]
    x = np.column_stack([data["educ"], *controls])
    z = np.column_stack([*controls, *(data[name] for name in instruments)])
    projected = z @ np.linalg.lstsq(z, x)[0]
    bread = np.linalg.inv(projected.T @ projected)
    estimates = bread @ projected.T @ data["lwage"]
    error = data["lwage"] - x @ estimates
    textbook = projected * error[:, None]
    disagreement = z @ np.linalg.lstsq(z, error)[0]
    lee = textbook + (x - projected) * disagreement[:, None]
    return estimates, bread @ textbook.T @ textbook @ bread, bread @ lee.T @ lee @ bread


SLOPES = ("slopes.educ", "intercept", "slopes.exper", "slopes.expersq")


def in_two_steps(instruments: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of the worked use: estimates, their covariance, and naive errors."""
    use = worked_use("two_steps")
    data = use.working_women()
    first = use.education(data, instruments)
    second = use.wage(data, first.params)
    at = [second.parameter_names.index(name) for name in SLOPES]
    estimates, _ = ravel_pytree(second.params)
    naive = np.sqrt(np.diag(second.covariance("sandwich")))
    covariance = np.asarray(use.covariance(data, first))
    return np.asarray(estimates)[at], covariance[np.ix_(at, at)], naive[at]


@pytest.mark.slow
def test_two_steps_with_one_instrument_have_textbook_errors() -> None:
    estimates, covariance, _ = in_two_steps(("fatheduc",))
    wanted, textbook, _ = two_stages(worked_use("two_steps").working_women(), ("fatheduc",))
    np.testing.assert_allclose(estimates, wanted, rtol=1e-8)
    np.testing.assert_allclose(covariance, textbook, rtol=1e-8)


@pytest.mark.slow
def test_two_steps_with_two_instruments_allow_for_their_disagreement() -> None:
    estimates, covariance, naive = in_two_steps(("motheduc", "fatheduc"))
    wanted, textbook, lee = two_stages(worked_use("two_steps").working_women(), ("motheduc", "fatheduc"))
    np.testing.assert_allclose(estimates, wanted, rtol=1e-8)
    published = [0.0614, 0.0481, 0.0442, -0.0009]  # Wooldridge, example 15.5
    np.testing.assert_allclose(estimates, published, atol=5e-5)
    np.testing.assert_allclose(covariance, lee, rtol=1e-8)
    # These instruments agree, so the textbook's errors are hardly different; the naive ones are.
    errors = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(errors, np.sqrt(np.diag(textbook)), rtol=3e-3)
    assert np.all(naive > 1.04 * errors)


# Attribution.


@pytest.mark.slow
def test_attribution_agrees_with_refits() -> None:
    use = worked_use("attribution")
    names, data = use.occupations()
    (first, second), exact = use.predicted(data), use.refitted(data)

    peer = sm.OLS(data["prestige"], sm.add_constant(np.column_stack([data["income"], data["education"]]))).fit()
    np.testing.assert_allclose(exact, OLSInfluence(peer).params_not_obsi[:, 1] - peer.params[1], atol=1e-10)

    fit = use.mle.fit(use.log_density, use.START, data, constraints=use.RULES)
    np.testing.assert_allclose(-first, fit.influence()[:, fit.parameter_names.index("income")], atol=1e-11)
    ranked = [[names[i] for i in np.argsort(-np.abs(change))[:3]] for change in (exact, first, second)]
    assert ranked == 3 * [["minister", "conductor", "RR.engineer"]]
    error = [np.abs(change - exact) for change in (first, second)]
    assert error[1].max() < 0.2 * error[0].max()
