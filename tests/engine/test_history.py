"""The path of a search, and its progress on the screen: they show the search that there would be without them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from jax.scipy.stats import gamma

import mlekit as mle
from tests.helpers.marks import mostly_slow

X = np.random.default_rng(1).gamma(2.0, 3.0, size=80)
START = {"shape": 1.0, "scale": 1.0}
RULES = dict.fromkeys(START, mle.positive)


def log_density(params: Any, x: Any) -> Any:
    return gamma.logpdf(x, params["shape"], scale=params["scale"])


SOLVERS = {"newton": None, "lbfgs": mle.LBFGS(), "adam": optax.adam(0.05)}


@functools.cache
def fitted(solver: str, history: bool) -> mle.Fit:
    return mle.fit(log_density, START, X, constraints=RULES, solver=SOLVERS[solver], history=history)


@pytest.mark.parametrize("solver", mostly_slow(SOLVERS, "newton"))
def test_path_leads_from_start_to_maximum(solver: str) -> None:
    fit, plain = fitted(solver, True), fitted(solver, False)
    assert (fit.status, fit.steps) == (plain.status, plain.steps)
    np.testing.assert_allclose(
        fit._solution.free, plain._solution.free, rtol=1e-12, err_msg="the search is the same"
    )
    path = fit.history
    assert path is not None
    assert plain.history is None
    assert np.all(np.diff(path.steps) > 0)
    assert path.steps[-1] == fit.steps
    assert path.log_likelihood[-1] == fit.log_likelihood
    assert path.decrement[-1] == fit.certificate.decrement
    if solver != "adam":  # whose first look comes after 25 steps
        np.testing.assert_allclose([path.params[name][0] for name in START], 1.0, rtol=1e-15)
        assert len(path) == fit.steps
    peer = [scipy.stats.gamma.logpdf(X, *shape, 0, *scale).sum() for shape, scale in zip(*_columns(path))]
    np.testing.assert_allclose(path.log_likelihood, peer, rtol=1e-10)


def _columns(path: mle.History) -> list[np.ndarray]:
    return [np.asarray(path.params[name])[:, None] for name in START]


def test_steps_of_two_solvers_are_counted_through() -> None:
    """Newton's proof goes on from where the other solver stood."""
    path = fitted("lbfgs", True).history
    assert path is not None
    np.testing.assert_array_equal(path.steps, np.arange(1, len(path) + 1))
    assert np.all(np.diff(path.log_likelihood) >= 0)


@pytest.mark.slow
def test_regression_that_is_searched_twice() -> None:
    """The path is that of the search that was kept."""
    model = mle.regression(lambda level, obs: jnp.exp(level), mle.families.poisson)
    fit, plain = (mle.fit(model, 1.0, {"y": np.zeros(4)}, history=how) for how in (True, False))
    assert fit.status == plain.status == mle.Status.unbounded
    assert fit.history is not None
    assert len(fit.history) == fit.steps == plain.steps
    assert fit.history.log_likelihood[-1] == fit.log_likelihood


def test_large_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    """Steps on a sample are no points of the path, for their log-likelihood is another one."""
    x = np.random.default_rng(2).gamma(2.0, 3.0, size=400_000)
    fit = mle.fit(log_density, START, x, constraints=RULES, history=True, progress=True)
    path = fit.history
    assert path is not None
    assert 3 < len(path) <= fit.steps < 8
    shape, scale = _columns(path)
    wanted = [scipy.stats.gamma.logpdf(x, a, 0, b).sum() for a, b in zip(shape, scale)]
    np.testing.assert_allclose(path.log_likelihood, wanted, rtol=1e-9)
    shown = capsys.readouterr().err.split("\r")[-1]
    assert f"Newton: {fit.steps} steps" in shown
    assert f"log-likelihood {float(fit.log_likelihood):.8g}, decrement" in shown


def test_every_parameter_fixed() -> None:
    fit = mle.fit(log_density, START, X, constraints=dict.fromkeys(START, mle.fixed), history=True, progress=True)
    assert fit.history is not None
    np.testing.assert_allclose(fit.history.log_likelihood, [scipy.stats.gamma.logpdf(X, 1.0).sum()])


@pytest.mark.slow
def test_many_starts_keep_the_path_of_the_first() -> None:
    fit = mle.fit(log_density, START, X, constraints=RULES, starts=3, key=jax.random.key(0), history=True)
    wanted = fitted("newton", True).history
    assert fit.history is not None
    assert wanted is not None
    np.testing.assert_array_equal(fit.history.log_likelihood, wanted.log_likelihood)


def test_start_without_likelihood_has_no_path() -> None:
    fit = mle.fit(lambda p, x: jnp.log(p - x), 0.0, jnp.ones(3), history=True)
    assert fit.status == "nonfinite_start"
    assert fit.history is not None
    assert len(fit.history) == 0


def test_under_transformations(capsys: pytest.CaptureFixture[str]) -> None:
    def scale(x: Any, **options: Any) -> Any:
        return mle.fit(log_density, START, x, constraints=RULES, **options).params["scale"]

    with pytest.raises(ValueError, match=r"history=True .* does not run under jit"):
        jax.jit(lambda x: scale(x, history=True))(X)
    np.testing.assert_allclose(jax.jit(lambda x: scale(x, progress=True))(X), scale(X), rtol=1e-9)
    assert capsys.readouterr().err == "", "no bar inside jit"
    slope = jax.grad(lambda x: scale(x, progress=True, history=True))(jnp.asarray(X))
    np.testing.assert_allclose(slope, jax.grad(scale)(jnp.asarray(X)), rtol=1e-12)
