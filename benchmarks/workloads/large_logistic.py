"""One logistic regression of very many rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mlekit as mle

from ..harness import Way, Workload
from ..peers import available
from ..peers_single import mlekit_single

ROWS = {"quick": 10_000, "full": 500_000, "gpu": 5_000_000}
COLUMNS = 30
#: On the gradient of the mean log-likelihood: what scikit-learn and glum need to come within `ACCEPT`.
GRADIENT = 1e-6
#: Nats of a log-likelihood of 3e5; nobody needs more.
ACCEPT = 1e-3
#: Rows that the hand-written peer looks at together: they and what is computed of them fit into a core's cache.
BLOCK = 4_096


def log_density(params: Any, obs: Any) -> Any:
    """The log-density of one row."""
    logit = jnp.dot(obs["x"], params)
    return obs["y"] * logit - jax.nn.softplus(logit)


def simulate(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Regressors, the first a column of ones, and responses."""
    rng = np.random.default_rng(20)
    x = rng.standard_normal((n, COLUMNS))
    x[:, 0] = 1.0
    y = rng.random(n) < 1 / (1 + np.exp(-x @ (0.3 * rng.standard_normal(COLUMNS))))
    return x, y.astype(np.float64)


def workloads(size: str) -> list[Workload]:
    """The one workload; every way reads the same arrays in host memory."""
    x, y = simulate(ROWS[size])

    def log_likelihood(estimates: np.ndarray) -> np.ndarray:
        logit = x @ estimates[0]
        return np.array([y @ logit - np.logaddexp(0.0, logit).sum()])

    own = mlekit_single(lambda: mle.fit(log_density, jnp.zeros(COLUMNS), {"x": x, "y": y}), lambda fit: fit.params)
    peers, missing = available(
        {
            "scikit-learn newton-cholesky": lambda: sklearn_way(x, y, "newton-cholesky"),
            "scikit-learn lbfgs": lambda: sklearn_way(x, y, "lbfgs"),
            "glum": lambda: glum_way(x, y),
            "statsmodels Logit": lambda: statsmodels_way(x, y),
            "NumPy IRLS, by hand": lambda: Way("NumPy IRLS, by hand", lambda: irls(x, y)[None]),
        }
    )
    return [
        Workload(
            name="large logistic",
            title=f"one logistic regression, {len(x):,} x {COLUMNS}, float64; within {ACCEPT:g} nats",
            n_fits=1,
            ways=(own, *peers),
            log_likelihood=log_likelihood,
            accept=ACCEPT,
            reach={way.name: 1.0 for way in peers},
            missing=missing,
        )
    ]


def sklearn_way(x: np.ndarray, y: np.ndarray, solver: str) -> Way:
    """scikit-learn without a penalty."""
    from sklearn.linear_model import LogisticRegression

    def run() -> np.ndarray:
        model = LogisticRegression(C=np.inf, fit_intercept=False, solver=solver, tol=GRADIENT, max_iter=1_000)
        return model.fit(x, y).coef_

    return Way(f"scikit-learn {solver}", run)


def glum_way(x: np.ndarray, y: np.ndarray) -> Way:
    """glum, on columns side by side, as it likes them."""
    from glum import GeneralizedLinearRegressor

    columns = np.asfortranarray(x)

    def run() -> np.ndarray:
        model = GeneralizedLinearRegressor(
            alpha=0, family="binomial", fit_intercept=False, gradient_tol=GRADIENT, copy_X=False
        )
        return model.fit(columns, y).coef_[None]

    return Way("glum", run)


def statsmodels_way(x: np.ndarray, y: np.ndarray) -> Way:
    """The `Logit` of statsmodels by Newton's method, with errors."""
    from statsmodels.discrete.discrete_model import Logit

    return Way("statsmodels Logit", lambda: Logit(y, x).fit(method="newton", disp=False).params[None])


def irls(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Newton's method from zero in blocks of rows, with BLAS for all that is heavy."""
    coef = np.zeros(x.shape[1])
    while True:
        gradient, information = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
        for start in range(0, len(x), BLOCK):
            part = x[start : start + BLOCK]
            mean = 1 / (1 + np.exp(-(part @ coef)))
            gradient += (y[start : start + BLOCK] - mean) @ part
            root = part * np.sqrt(mean * (1 - mean))[:, None]
            information += root.T @ root
        step = np.linalg.solve(information, gradient)
        coef += step
        if gradient @ step < ACCEPT**2:
            return coef
