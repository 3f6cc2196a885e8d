"""Responses known to lie in an interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st
from jax.scipy.stats import norm

import mlekit as mle
from tests.helpers.intervals import INF, of_interval
from tests.helpers.marks import mostly_slow
from tests.helpers.models import Counted
from tests.models.compositions.parts import MODELS, PLACED, POINTS, assert_smooth, below, normal

#: Of what lies so far above that the distribution function says nothing.
FAR = {
    "normal": [(200.0, INF), (200.0, 201.0), (1e4, 2e4), (1e4, INF)],
    "weibull": [(1e3, INF), (1e3, 1001.0), (1e6, INF)],
}

INTERVALS = {
    "normal": [
        *[(2.5, 2.5), (-INF, 1.0), (1.0, INF), (0.0, 1.0), (-INF, INF), (-1e3, 1e3), (-1e3, INF), (0.3, 0.31)],
        *[(51.0, INF), (-INF, -51.0), (51.0, 52.0), (-52.0, -51.0), (51.0, 51.0), (60.0, INF), (-60.0, INF)],
    ],
    "weibull": [
        *[(0.5, 0.5), (0.0, 2.0), (-INF, 2.0), (0.0, INF), (-INF, INF), (1.0, INF), (1.0, 2.0), (50.0, INF)],
        *[(1e-9, 1e-3), (40.0, 41.0), (30.0, 30.0)],
    ],
}
SCIPY: dict[str, Callable[[Any], Any]] = {
    "normal": lambda params: st.norm(*params),
    "weibull": lambda params: st.weibull_min(params[1], scale=params[0]),
}


@pytest.mark.parametrize("which", mostly_slow(MODELS, "normal", "weibull", "weibull tails"))
def test_derivatives_of_censored(which: str) -> None:
    name = which.split()[0]
    intervals = INTERVALS[name] + ([] if "functions" in which else FAR[name])
    low, high = np.array(intervals).T
    model = mle.censored(MODELS[which], lower="low", upper="high")

    def wanted(params: Any) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.array([of_interval(SCIPY[name](params), *interval) for interval in intervals])

    assert_smooth(model, POINTS[name], {"low": low, "high": high}, wanted)


def rest_of(obs: Any) -> Any:
    return jnp.where(obs["failed"], obs["time"], jnp.inf)


@pytest.mark.slow
def test_batches_compiled_once() -> None:
    """Ragged data sets with weights, args, delayed entry and censoring; models made anew of the same parts."""
    predict = Counted(lambda params, obs, unit: (jnp.exp(params["level"]) * unit, params["shape"]))

    def model() -> mle.Model:
        lives = mle.regression(predict, mle.families.weibull, "time")
        return mle.censored(mle.truncated(lives, lower="entry"), upper=rest_of)

    assert model() == model()
    rng = np.random.default_rng(0)
    entry, life, limit = (scale * rng.weibull(1.5, (3, 30)) for scale in (0.3, 2.0, 3.0))
    data = {"entry": entry, "time": entry + np.minimum(life, limit), "failed": life < limit}
    lengths, weights = np.array([30, 20, 25]), rng.integers(0, 3, (3, 30)).astype(float)
    start, rules = {"level": 0.0, "shape": 1.0}, {"shape": mle.positive}
    batch = lambda: mle.fit_batch(  # noqa: E731
        model(), start, data, args=2.0, lengths=lengths, weights=weights, constraints=rules
    )
    fits, traces = batch(), predict.traces
    assert batch().log_likelihood.tolist() == fits.log_likelihood.tolist()
    assert predict.traces == traces > 0
    assert np.all(fits.converged)
    part = {name: column[1, :20] for name, column in data.items()}
    single = mle.fit(model(), start, part, args=2.0, weights=weights[1, :20], constraints=rules)
    np.testing.assert_allclose(fits.log_likelihood[1], single.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(fits.params["shape"][1], single.params["shape"], rtol=1e-8)


def test_derivative_of_a_fit() -> None:
    """The mean of exponential lives is their sum over the number of failures, so its slope is one over that."""
    lives = mle.regression(lambda mean, obs: mean, mle.families.exponential, "time")
    model, failed = mle.censored(lives, upper=rest_of), np.array([1, 1, 0, 1, 0])

    def mean(time: Any) -> Any:
        return mle.argmax(model, 1.0, {"time": time, "failed": failed}, constraints=mle.positive)

    value, slope = jax.jit(jax.value_and_grad(mean))(jnp.array([2.0, 3.0, 5.0, 0.5, 7.0]))
    np.testing.assert_allclose(value, 17.5 / 3, rtol=1e-8)
    np.testing.assert_allclose(slope, np.full(5, 1 / 3), rtol=1e-8)


def alone(params: Any, y: Any) -> Any:
    return norm.logpdf(y, params[0], params[1])


def second(obs: Any) -> Any:
    return obs[1]


WHERE: dict[str, tuple[mle.Model, Any, Any]] = {
    "by default": (mle.censored(normal, upper=INF), PLACED, {"y": 1.2}),
    "of a regression": (
        mle.censored(mle.regression(lambda params, obs: tuple(params), mle.families.normal, second), upper=INF),
        [0.3, 1.7],
        (0.0, 1.2),
    ),
    "of a mixture": (
        mle.censored(mle.mixture([normal]), upper=INF),
        {"weights": np.ones(1), "components": [PLACED]},
        {"y": 1.2},
    ),
    "obs itself": (mle.censored(alone, upper=INF, log_cdf=below), PLACED, 1.2),
    "by name": (
        mle.censored(
            lambda params, obs: alone(params, obs["t"]),
            upper=INF,
            response="t",
            log_cdf=lambda params, obs: below(params, obs["t"]),
        ),
        PLACED,
        {"t": 1.2},
    ),
    "by a function": (
        mle.censored(
            lambda params, obs: alone(params, obs[1]),
            upper=INF,
            response=second,
            log_cdf=lambda params, obs: below(params, obs[1]),
        ),
        PLACED,
        (0.0, 1.2),
    ),
    "nowhere": (mle.censored(normal, lower="a", upper="b"), PLACED, {"a": 1.2, "b": INF}),
}


@pytest.mark.parametrize("name", WHERE)
def test_where_the_response_lies(name: str) -> None:
    model, params, obs = WHERE[name]
    np.testing.assert_allclose(model(params, obs), st.norm.logsf(1.2, 0.3, 1.7), rtol=1e-13)


def test_a_start_far_below_what_was_cut_off() -> None:
    """Where the chance of all that was seen is zero to the computer, but its logarithm leads to the maximum."""
    y = np.array([90.0, 95.0, 97.0, 99.0, 100.0, 100.0, 100.0])
    model = mle.censored(normal, upper=lambda obs: jnp.where(obs["y"] < 100, obs["y"], jnp.inf))

    def fit(start: tuple[float, float], dtype: Any) -> Any:
        init = tuple(dtype(number) for number in start)
        found = mle.fit(model, init, {"y": y.astype(dtype)}, constraints=(None, mle.positive))
        assert found.converged
        return found.params

    near = fit((97.0, 5.0), np.float64)
    np.testing.assert_allclose(fit((0.0, 1.0), np.float64), near, rtol=1e-8)
    np.testing.assert_allclose(fit((0.0, 1.0), np.float32), near, rtol=1e-3)
