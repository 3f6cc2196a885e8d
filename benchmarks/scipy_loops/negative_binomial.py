"""One negative-binomial regression: covariates of shape `(rows, 2)`, counts, a start with the dispersion last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.optimize
from scipy.special import digamma, gammaln


def loss_of(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The negative mean log-likelihood and its gradient, the dispersion by its logarithm."""
    n = len(y)
    design = np.column_stack([np.ones(n), x])
    constant = gammaln(y + 1).sum()

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        alpha = np.exp(z[3])
        size = 1 / alpha
        mean = np.exp(design @ z[:3])
        log = np.log1p(alpha * mean)
        value = (gammaln(y + size) - (y + size) * log).sum() - n * gammaln(size) - constant
        value += y @ (design @ z[:3]) + y.sum() * z[3]
        share = 1 / (1 + alpha * mean)
        by_mean = design.T @ ((y - mean) * share)
        by_size = (digamma(y + size) + (mean - y) * alpha * share - log).sum() - n * digamma(size)
        return -value / n, np.append(-by_mean, by_size * size) / n

    return loss


def lbfgsb(x: np.ndarray, y: np.ndarray, start: np.ndarray) -> np.ndarray:
    """SciPy's L-BFGS-B with the analytic gradient."""
    z = np.append(start[:3], np.log(start[3]))
    options = {"ftol": 1e-14, "gtol": 1e-7, "maxiter": 500}
    z = scipy.optimize.minimize(loss_of(x, y), z, jac=True, method="L-BFGS-B", options=options).x
    return np.append(z[:3], np.exp(z[3]))


def minos(x: np.ndarray, y: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Both ends of the profile interval of each parameter by iminuit, from the maximum."""
    from iminuit import Minuit

    if not np.all(np.isfinite(estimate)):
        return np.full(8, np.nan)
    loss, n = loss_of(x, y), len(y)
    search = Minuit(
        lambda z: n * loss(z)[0], np.append(estimate[:3], np.log(estimate[3])), grad=lambda z: n * loss(z)[1]
    )
    search.errordef = Minuit.LIKELIHOOD
    search.migrad()
    search.minos(cl=0.95)
    ends = np.array(
        [[search.values[i] + end for end in (e.lower, e.upper)] for i, e in enumerate(search.merrors.values())]
    )
    ends[3] = np.exp(ends[3])
    return ends.ravel()


def statsmodels(x: np.ndarray, y: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`NegativeBinomial` of statsmodels; its own Newton's method is slower and fails more often."""
    import warnings

    from statsmodels.discrete.discrete_model import NegativeBinomial

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = NegativeBinomial(y, np.column_stack([np.ones(len(y)), x]))
        try:
            found = model.fit(start_params=start, method="bfgs", disp=0, maxiter=200, skip_hessian=True)
        except (np.linalg.LinAlgError, ValueError):
            return np.full(4, np.nan)
    return np.asarray(found.params)
