"""Fits of every kind that a report may be of."""

import functools

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

import mlekit as mle


def line(params, obs):
    mean = params["intercept"] + params["coef"] @ obs["x"]
    return norm.logpdf(obs["y"], mean, params["sigma_y"])


def logistic(params, obs):
    z = params["a"] + params["b"] * obs["x"]
    return obs["y"] * z - jnp.logaddexp(0.0, z)


def rate(params, obs):
    return jnp.log(params["rate"]) - params["rate"] * obs["wait"]


@functools.cache
def precise_fit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    data = {"x": x, "y": 2013.4 + x @ np.array([1.0, -2e-3]) + 0.05 * rng.normal(size=200)}
    init = {"intercept": 2000.0, "coef": np.zeros(2), "sigma_y": 1.0}
    return mle.fit(line, init, data, constraints={"sigma_y": mle.positive})


@functools.cache
def odd_fit():
    """One parameter fixed, one tied, and one whose name is HTML."""

    def pair(params, x):
        return norm.logpdf(x, params["<b>_a"], params["s"]) + norm.logpdf(x, params["b"], params["t"][0])

    rules = {"s": mle.positive, "t": [mle.tied(to="s")], "b": mle.fixed}
    return mle.fit(
        pair,
        {"<b>_a": 0.0, "b": 1.0, "s": 1.0, "t": [1.0]},
        np.random.default_rng(1).normal(size=30),
        constraints=rules,
    )


@functools.cache
def separated_fit():
    x = np.linspace(-1, 1, 20)
    return mle.fit(logistic, {"a": 0.0, "b": 0.0}, {"x": x, "y": (x > 0) * 1.0})


@functools.cache
def many_fits():
    x = np.tile(np.linspace(-1, 1, 20), (60, 1))
    y = (np.random.default_rng(2).uniform(size=x.shape) < 1 / (1 + np.exp(-3 * x))) * 1.0
    y[7] = y[20] = x[0] > 0  # no finite maximum
    return mle.fit_batch(logistic, {"a": 0.0, "b": 0.0}, {"x": x, "y": y})


def cells(summary_text):
    """The rows of the main table of a printed summary, by name."""
    body = summary_text.split("\n--", 1)[1].split("\n\n")[0]
    return {row.split()[0]: row.split()[1:] for row in body.splitlines()[1:]}
