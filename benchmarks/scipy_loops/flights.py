"""One Student-t regression: predictor and response, a start with the logarithms of scale and freedom last."""

from __future__ import annotations

import numpy as np
import scipy.optimize
from scipy.special import digamma, gammaln


def lbfgsb(x: np.ndarray, y: np.ndarray, start: np.ndarray, begin: int, count: int) -> np.ndarray:
    """SciPy's L-BFGS-B with the analytic gradient, on `count` rows from `begin`."""
    x, y, n = x[begin : begin + count], y[begin : begin + count], count

    def loss(z: np.ndarray) -> tuple[float, np.ndarray]:
        scale, nu = np.exp(z[2]), np.exp(z[3])
        r = (y - z[0] - z[1] * x) / scale
        q = r * r / nu
        logs = np.log1p(q).sum()
        value = n * (gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi) - z[2])
        value -= (nu + 1) / 2 * logs
        w = (nu + 1) / (1 + q)
        by_nu = n * (digamma((nu + 1) / 2) - digamma(nu / 2) - 1 / nu) / 2 - 0.5 * logs + 0.5 * (w * q).sum() / nu
        gradient = [(w * r).sum() / nu / scale, (w * r * x).sum() / nu / scale, (w * q).sum() - n, nu * by_nu]
        return -value / n, -np.array(gradient) / n

    options = {"ftol": 1e-15, "gtol": 1e-8, "maxiter": 1000}
    z = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    return np.append(z[:2], np.exp(z[2:]))
