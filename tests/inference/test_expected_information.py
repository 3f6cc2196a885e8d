"""The expected information: in closed form, by families and by simulation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import mlekit as mle
from tests.helpers.marks import mostly_slow
from tests.helpers.models import RULES, START, line, line_data
from tests.helpers.seasons import FAMILIES, blocks, counts_fit, of_line, weighted_and_repeated_fits


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return counts_fit()


def negative_binomial_information(mean: np.ndarray, alpha: float) -> np.ndarray:
    """Of alpha: the variance of its score, summed over counts, with the score from a difference quotient."""
    y, h = np.arange(4000)[:, None], 1e-5
    log_density = lambda a: scipy.stats.nbinom.logpmf(y, 1 / a, 1 / (1 + a * mean))  # noqa: E731
    score = (log_density(alpha + h) - log_density(alpha - h)) / (2 * h)
    return np.sum(np.where(np.isfinite(score), score, 0) ** 2 * np.exp(log_density(alpha)), axis=0)


def information_of(name: str, fit: mle.Fit, design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """About constant, slope and the second parameter of the family, in natural units."""
    coef = np.array([fit.params["const"], fit.params["slope"]])
    second = float(fit.params["alpha"]) if name != "poisson" else 0.0
    line, mean = design @ coef, np.exp(design @ coef)
    square = lambda each: (design * (weights * each)[:, None]).T @ design  # noqa: E731
    total = weights.sum()
    if name == "normal":
        return blocks(square(np.full(len(line), 1 / second**2)), 2 * total / second**2)
    if name == "poisson":  # with the identity as link
        return square(1 / line)
    if name == "gamma":
        return blocks(
            square(np.full(len(line), second)), total * (scipy.special.polygamma(1, second) - 1 / second)
        )
    return blocks(square(mean / (1 + second * mean)), float(weights @ negative_binomial_information(mean, second)))


PREDICTORS = {
    "normal": lambda p, o: (p["const"] + p["slope"] * o["x"], p["alpha"]),
    "poisson": lambda p, o: p["const"] + p["slope"] * o["x"],
    "gamma": lambda p, o: (jnp.exp(p["const"] + p["slope"] * o["x"]), p["alpha"]),
    "negative_binomial": lambda p, o: (jnp.exp(p["const"] + p["slope"] * o["x"]), p["alpha"]),
}


@pytest.mark.parametrize("name", mostly_slow(PREDICTORS, "normal", "poisson", "negative_binomial"))
def test_expected_information_in_closed_form(name: str) -> None:
    """With frequency weights, one of which is zero."""
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 1, 40)
    y = {
        "normal": 1 + x + rng.normal(size=40),
        "gamma": np.exp(1 + x) * rng.gamma(3.0, 1 / 3, 40),
    }.get(name, rng.poisson(np.exp(1 + x) * rng.gamma(2.0, 0.5, 40)))
    weights = rng.integers(0, 4, 40).astype(float)
    start = {"const": 3.0, "slope": 0.0} | ({} if name == "poisson" else {"alpha": 1.0})
    rules = None if name == "poisson" else {"alpha": mle.positive}
    model = mle.regression(PREDICTORS[name], getattr(FAMILIES, name))
    fit = mle.fit(model, start, {"x": x, "y": y}, constraints=rules, weights=weights)
    assert fit.converged
    information = information_of(name, fit, np.column_stack([np.ones(40), x]), weights)
    names = ("const", "slope", "alpha")[: len(information)]
    # The reference for a negative binomial is a difference quotient.
    digits = 1e-7 if name == "negative_binomial" else 1e-9
    order = [names.index(one) for one in fit.parameter_names]
    wanted = np.linalg.inv(information)[np.ix_(order, order)]
    np.testing.assert_allclose(fit.covariance("expected"), wanted, rtol=digits, atol=1e-14)


COPIES, DRAWS = 100, 100


@pytest.mark.slow
def test_simulation_agrees_with_the_exact_information() -> None:
    """A hundred copies of one data set have keys of their own: the errors are spread as they say."""

    def simulate(key: Any, params: Any, obs: Any) -> Any:
        mean = params["intercept"] + params["slope"] * obs["x"]
        return {"x": obs["x"], "y": mean + params["sigma"] * jax.random.normal(key)}

    data = line_data(20)
    copies = {name: np.broadcast_to(column, (COPIES, 20)) for name, column in data.items()}
    fits = mle.fit_batch(mle.Model(line, simulate=simulate), START, copies, constraints=RULES)
    found = mle.expected_information(fits, jax.random.key(0), n_simulations=DRAWS)
    # Of a normal line the expected information at the maximum is the observed one.
    for name, exact in (("information", fits.information()), ("covariance", of_line(data, "observed"))):
        value, error = np.asarray(getattr(found, name)), np.asarray(getattr(found, f"{name}_error"))
        score = (value - np.asarray(exact)) / error
        assert np.all(np.abs(score) < 6), np.abs(score).max()
        # A hundred draws of a standard deviation of one give 1 ± 0.07; the inverse is not quite linear.
        spread = np.sqrt(np.mean(score**2, axis=0))
        assert np.all(np.abs(spread - 1) < 0.3), spread
        assert np.all(np.abs(score.mean(axis=0)) < 0.5)  # five standard deviations of a mean of a hundred
    one = jax.tree.map(lambda leaf: leaf[7], found)
    share = np.max(0.5 * np.diag(one.covariance_error) / np.diag(one.covariance))
    assert repr(one) == (
        "ExpectedInformation: 3 x 3, from 100 simulated data sets; "
        f"standard errors are known to within {100 * share:.2g} % (one Monte Carlo standard error)"
    )
    # One of a batch keeps its key.
    again = fits[7].covariance("expected", key=jax.random.key(0), n_simulations=DRAWS)
    np.testing.assert_allclose(again, found.covariance[7], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("scalar", [False, True], ids=["contributions", "scalar"])
def test_simulation_of_a_joint_model(scalar: bool) -> None:
    """A mean of a series with known correlation: the information is 1' V^-1 1."""

    def density(params: Any, data: Any) -> Any:
        off = data["x"] - params
        each = -0.5 * (off - 0.5 * jnp.concatenate([jnp.zeros(1), off[:-1]])) ** 2
        return jnp.sum(each) if scalar else each

    def simulate(key: Any, params: Any, data: Any) -> Any:
        noise = jax.random.normal(key, data["x"].shape)
        step = lambda last, new: (0.5 * last + new,) * 2  # noqa: E731
        return {"x": params + jax.lax.scan(step, 0.0, noise)[1]}

    model = mle.Model(mle.joint(density), simulate=simulate)
    fit = mle.fit(model, 0.0, {"x": np.linspace(-1, 3, 20)})
    found = mle.expected_information(fit, jax.random.key(1), n_simulations=2000)
    error = float(found.information_error[0, 0])
    # A squared normal has twice the square of its mean as variance.
    np.testing.assert_allclose(error, 5.75 * np.sqrt(2 / 2000), rtol=0.15)
    assert abs(float(found.information[0, 0]) - (1 + 19 / 4)) < 4 * error


@pytest.fixture(scope="module")
def weighted_and_repeated() -> tuple[mle.Fit, mle.Fit]:
    return weighted_and_repeated_fits()


def test_simulation_ignores_rows_without_weight(weighted_and_repeated: tuple[mle.Fit, mle.Fit]) -> None:
    weighted, _ = weighted_and_repeated
    found = mle.expected_information(weighted, jax.random.key(3), n_simulations=400)
    exact = np.asarray(weighted.information("expected"))
    assert np.all(np.abs(np.asarray(found.information) - exact) < 4.5 * np.asarray(found.information_error))
