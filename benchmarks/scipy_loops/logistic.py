"""One logistic regression with standard errors; all rows together, and which of them belong to it."""

from __future__ import annotations

import warnings

import numpy as np

#: On the gradient of the mean log-likelihood: the decrement is then some 1e-9 nats.
GRADIENT = 1e-6


def scikit_learn(x: np.ndarray, y: np.ndarray, offset: int, length: int) -> np.ndarray:
    """`LogisticRegression` by Newton's method and Cholesky, without checks; errors from the information."""
    import sklearn
    from sklearn.linear_model import LogisticRegression

    rows = slice(offset, offset + length)
    x, y, k = x[rows], y[rows], x.shape[1]
    with (
        sklearn.config_context(assume_finite=True, skip_parameter_validation=True),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=GRADIENT)
        try:
            coef = model.fit(x, y).coef_[0]
            mean = 1 / (1 + np.exp(-x @ coef))
            covariance = np.linalg.inv(x.T @ (x * (mean * (1 - mean))[:, None]))
        except (ValueError, np.linalg.LinAlgError):  # one class only; separated
            return np.full(2 * k, np.nan)
    return np.append(coef, np.sqrt(np.diag(covariance)))


def statsmodels(x: np.ndarray, y: np.ndarray, offset: int, length: int) -> np.ndarray:
    """`Logit` of statsmodels by Newton's method."""
    from statsmodels.discrete.discrete_model import Logit

    rows = slice(offset, offset + length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = Logit(y[rows], x[rows]).fit(method="newton", disp=0)
            return np.append(found.params, found.bse)
        except (ValueError, np.linalg.LinAlgError):
            return np.full(2 * x.shape[1], np.nan)
