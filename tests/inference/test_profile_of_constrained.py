"""Profile intervals of shares, ordered numbers, matrices and tied parameters."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import optimize

import mlekit as mle
from tests.inference.profiles import DROP, KIND, N, U, V, W, X, crossing

HITS = (np.arange(N) < 9).astype(float)


def blocks(params: Any, obs: Any) -> Any:
    """Five models that share nothing, so that the profile of each is that of the others held anywhere."""
    cov, corr, scale = params["cov"], params["corr"], params["scale"]
    determinant = cov[0, 0] * cov[1, 1] - cov[0, 1] ** 2
    v, w = obs["v"], obs["w"] / scale
    square = (cov[1, 1] * v[0] ** 2 - 2 * cov[0, 1] * v[0] * v[1] + cov[0, 0] * v[1] ** 2) / determinant
    rest = 1 - corr[0, 1] ** 2
    return (
        jnp.log(params["share"][obs["kind"]])
        + jnp.sum(norm.logpdf(obs["u"], params["cuts"]))
        - 0.5 * (jnp.log(determinant) + square)
        - 0.5 * (jnp.log(rest) + (w[0] ** 2 - 2 * corr[0, 1] * w[0] * w[1] + w[1] ** 2) / rest)
        - jnp.sum(jnp.log(scale))
        + obs["hit"] * jnp.log(params["chance"])
        + (1 - obs["hit"]) * jnp.log1p(-params["chance"])
    )


@pytest.fixture(scope="module")
def constrained() -> Any:
    init = {
        "share": np.full(3, 1 / 3),
        "cuts": np.array([0.0, 1.0]),
        "cov": np.eye(2),
        "corr": np.eye(2),
        "scale": np.ones(2),
        "chance": 0.5,
    }
    rules = {
        "share": mle.simplex,
        "cuts": mle.ordered,
        "cov": mle.positive_definite,
        "corr": mle.correlation,
        "scale": mle.positive,
        "chance": mle.interval(0.05, 0.95),
    }
    data = {"kind": KIND, "u": U, "v": V, "w": W, "hit": HITS}
    fit = mle.fit(blocks, init, data, constraints=rules)
    assert str(fit.status) == "converged"
    return {key: np.stack(pair, -1) for key, pair in fit.intervals(method="profile").items()}


@pytest.mark.slow
def test_shares_and_chances(constrained: Any) -> None:
    """The profile of one share is the likelihood of that kind against all others."""
    for found, count in zip([*constrained["share"], constrained["chance"]], [7, 21, 12, 9]):
        binomial = lambda p: count * np.log(p) + (N - count) * np.log1p(-p)  # noqa: B023, E731
        best = count / N
        np.testing.assert_allclose(
            found, [crossing(binomial, best, 1e-9), crossing(binomial, best, 1 - 1e-9)], rtol=1e-9
        )


@pytest.mark.slow
def test_ordered_numbers(constrained: Any) -> None:
    """The order does not bind here, so each is a mean of its own with a known error."""
    half = np.sqrt(2 * DROP / N)
    np.testing.assert_allclose(constrained["cuts"], U.mean(0)[:, None] + [-half, half], rtol=1e-9, atol=1e-12)


def variance_interval(x: np.ndarray) -> np.ndarray:
    variance = np.mean(x**2)
    profile = lambda v: -0.5 * N * (np.log(v) + variance / v)  # noqa: E731
    return np.array([crossing(profile, variance, 0.1 * variance), crossing(profile, variance, 10 * variance)])


@pytest.mark.slow
def test_entries_of_a_covariance(constrained: Any) -> None:
    """The profile of a variance is the likelihood of its column alone; that of the covariance, SciPy's."""
    for i in range(2):
        np.testing.assert_allclose(constrained["cov"][i, i], variance_interval(V[:, i]), rtol=1e-9)
    moments = V.T @ V / N

    def profile(c: float) -> float:
        def loss(logs: np.ndarray) -> float:
            cov = np.array([[np.exp(logs[0]), c], [c, np.exp(logs[1])]])
            sign, logdet = np.linalg.slogdet(cov)
            return 0.5 * N * (logdet + np.trace(np.linalg.solve(cov, moments))) if sign > 0 else np.inf

        start = np.log(np.diag(moments) + abs(c - moments[0, 1]))
        options = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 2000}
        return -optimize.minimize(loss, start, method="Nelder-Mead", options=options).fun

    for found in constrained["cov"][0, 1]:
        # The height that SciPy finds is good to 1e-10 nats.
        np.testing.assert_allclose(profile(moments[0, 1]) - profile(found), DROP, atol=1e-8)
    np.testing.assert_array_equal(constrained["cov"][0, 1], constrained["cov"][1, 0])


def test_entries_of_a_correlation(constrained: Any) -> None:
    r"""With the scales maximised over, $\ell_p(\rho) = n (\tfrac12 \log(1 - \rho^2) - \log(1 - \rho r))$."""
    r = float((W[:, 0] @ W[:, 1]) / np.sqrt((W[:, 0] @ W[:, 0]) * (W[:, 1] @ W[:, 1])))
    profile = lambda rho: N * (0.5 * np.log1p(-(rho**2)) - np.log1p(-rho * r))  # noqa: E731
    expected = [crossing(profile, r, -1 + 1e-12), crossing(profile, r, 1 - 1e-12)]
    np.testing.assert_allclose(constrained["corr"][0, 1], expected, rtol=1e-9)
    np.testing.assert_array_equal(constrained["corr"][[0, 1], [0, 1]], 1.0)


def test_fixed_and_tied() -> None:
    """A fixed parameter ends where it is; tied ones share their ends."""
    density = lambda p, x: norm.logpdf(x, p["a"] + p["b"], p["sd"])  # noqa: E731
    rules = {"b": mle.tied(to="a"), "sd": mle.fixed}
    fit = mle.fit(density, {"a": 0.0, "b": 0.0, "sd": 2.0}, X[0], constraints=rules)
    found = fit.intervals(method="profile")
    half = 2.0 * np.sqrt(2 * DROP / 15)
    np.testing.assert_allclose(found["a"], (X[0].mean() + np.array([-half, half])) / 2, rtol=1e-9)
    np.testing.assert_array_equal(found["a"], found["b"])
    np.testing.assert_array_equal(found["sd"], 2.0)
    with pytest.raises(ValueError, match="sd is fixed"):
        mle.profile(fit, "sd")
    curve = mle.profile(fit, "b", jnp.array(found["a"]))
    np.testing.assert_allclose(curve.drop, DROP, rtol=1e-9)
    np.testing.assert_array_equal(curve.params["a"], curve.params["b"])
    with pytest.raises(ValueError, match="tied"):
        mle.profile(fit, ("a", "b"))
