"""Zeros beside another density."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import scipy.stats as st

import mlekit as mle
from tests.helpers.marks import mostly_slow


@pytest.mark.parametrize("density", mostly_slow(["family", "function"], "family"))
def test_zeros_beside_a_density(density: str) -> None:
    """All zeros stem from the chance of them, in any unit, as zero has no probability in what is continuous."""
    y = np.append(np.zeros(40), np.random.default_rng(0).gamma(2.0, 3.0, 60))
    rules = {"chance": mle.unit_interval, "mean": mle.positive, "shape": mle.positive}
    shape, mean = st.gamma.fit(y[y > 0], floc=0)[0], y[y > 0].mean()
    for unit in (1.0, 1e3):
        model: Any = mle.regression(lambda p, obs: (p["mean"], p["shape"]), mle.families.gamma)
        if density == "function":  # minus infinity at zero, with derivatives that are not finite
            model = lambda p, obs: jax.scipy.stats.gamma.logpdf(obs["y"], p["shape"], scale=p["mean"] / p["shape"])  # noqa: E731
        inflated = mle.zero_inflated(model, whole=False)
        start = {"chance": 0.5, "mean": 5.0 * unit, "shape": 1.0}
        fit = mle.fit(inflated, start, {"y": unit * y}, constraints=rules)
        found = [fit.params["chance"], fit.params["mean"] / unit, fit.params["shape"]]
        np.testing.assert_allclose(found, [0.4, mean, shape], rtol=1e-5)


def test_counts_and_what_is_none() -> None:
    poisson = mle.regression(lambda p, obs: p["rate"], mle.families.poisson)
    with pytest.raises(ValueError, match="whole=False, and the responses of this model are whole numbers"):
        mle.zero_inflated(poisson, whole=False)
    plain = mle.zero_inflated(lambda p, obs: jax.scipy.stats.poisson.logpmf(obs["y"], p["rate"]))
    params = {"rate": 2.0, "chance": 0.3}
    with pytest.raises(ValueError, match="pass whole=True for counts"):
        plain(params, {"y": 0.0})
    wanted = mle.zero_inflated(poisson)(params, {"y": 0})
    np.testing.assert_allclose(plain(params, {"y": 0}), wanted, rtol=1e-14)
