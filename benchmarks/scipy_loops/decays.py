"""One biexponential decay: times, values, and a start (amplitude, rate, amplitude, rate, noise)."""

from __future__ import annotations

import numpy as np
import scipy.optimize


def curve(z: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The decay and its derivatives, shape `(4, rows)`; amplitudes and rates by their logarithms."""
    a, rate_a, b, rate_b = np.exp(z)
    first, second = a * np.exp(-rate_a * t), b * np.exp(-rate_b * t)
    return first + second, np.stack([first, -rate_a * t * first, second, -rate_b * t * second])


def least_squares(t: np.ndarray, y: np.ndarray, start: np.ndarray) -> np.ndarray:
    """SciPy's `least_squares`, MINPACK's Levenberg-Marquardt with the analytic Jacobian."""
    settings = {"method": "lm", "xtol": 1e-9, "ftol": 1e-12, "gtol": 1e-12, "max_nfev": 500}
    found = scipy.optimize.least_squares(
        lambda z: curve(z, t)[0] - y, np.log(start[:4]), jac=lambda z: curve(z, t)[1].T, **settings
    )
    return np.append(np.exp(found.x), np.sqrt(np.mean(found.fun**2)))


def lmfit(t: np.ndarray, y: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The `minimize` of lmfit by leastsq with the analytic Jacobian, without its estimate of errors."""
    import lmfit as library

    names = ("a", "rate_a", "b", "rate_b")
    parameters = library.Parameters()
    for name, value in zip(names, np.log(start[:4])):
        parameters.add(name, value=value)

    def vector(p: library.Parameters) -> np.ndarray:
        return np.array([p[name].value for name in names])

    found = library.minimize(
        lambda p: curve(vector(p), t)[0] - y,
        parameters,
        method="leastsq",
        calc_covar=False,
        Dfun=lambda p: curve(vector(p), t)[1],
        col_deriv=1,
        xtol=1e-9,
        ftol=1e-12,
        max_nfev=500,
    )
    return np.append(np.exp(vector(found.params)), np.sqrt(np.mean(found.residual**2)))
