"""The loops in numba that mlekit is measured against find what SciPy finds without derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize

from benchmarks.peers import poisson_log_likelihood
from benchmarks.workloads import decays, negative_binomial, spots

pytestmark = pytest.mark.slow  # numba takes long to compile

FEW = 3


def by_scipy(log_likelihood: Callable[..., np.ndarray], starts: np.ndarray, *sets: np.ndarray) -> np.ndarray:
    """The maxima of `log_likelihood(*sets, estimates)`, positive parameters moved by their logarithms."""
    options = {"xatol": 1e-9, "fatol": 1e-11, "maxiter": 10_000, "maxfev": 10_000}
    found = []
    for i, start in enumerate(starts):
        positive, one = start > 0, [array[i : i + 1] for array in sets]

        def natural(z: np.ndarray, positive: np.ndarray = positive) -> np.ndarray:
            return np.where(positive, np.exp(np.where(positive, z, 0)), z)

        def loss(z: np.ndarray, one: list[np.ndarray] = one) -> float:
            return -float(log_likelihood(*one, natural(z)[None])[0])

        z = np.where(positive, np.log(np.where(positive, start, 1)), start)
        for _ in range(3):
            z = scipy.optimize.minimize(loss, z, method="Nelder-Mead", options=options).x
        found.append(natural(z))
    return np.array(found)


@pytest.mark.parametrize(("dtype", "close"), [(np.float64, 1e-6), (np.float32, 1e-4)])
def test_spots(dtype, close):
    from benchmarks.numba_loops.spots import levenberg_marquardt

    counts, starts = spots.simulate(FEW)
    estimates, steps = levenberg_marquardt(dtype)(counts.astype(dtype), starts.astype(dtype))
    expected = by_scipy(lambda y, p: poisson_log_likelihood(y, spots.rates(p)), starts, counts)
    np.testing.assert_allclose(estimates, expected, rtol=close)
    assert estimates.dtype == dtype
    assert np.all(steps < 20)


def test_negative_binomial():
    from benchmarks.numba_loops.negative_binomial import newton

    x, y, _ = negative_binomial.simulate(FEW)
    starts = np.tile([1.0, 0.0, 0.0, 0.5], (FEW, 1))
    estimates, steps = newton(x, y, starts)
    expected = by_scipy(negative_binomial.log_likelihood, starts, x, y)
    np.testing.assert_allclose(estimates, expected, rtol=1e-6, atol=1e-7)
    assert np.all(steps < 20)


def test_decays():
    from benchmarks.numba_loops.decays import levenberg_marquardt

    t, y, starts = decays.simulate(FEW)
    estimates, steps = levenberg_marquardt(t, y, starts)
    np.testing.assert_allclose(estimates, by_scipy(decays.log_likelihood, starts, t, y), rtol=1e-5)
    assert np.all(steps < 30)
