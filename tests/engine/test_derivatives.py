"""Derivatives of what a fit finds, with respect to all that it depends on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import mlekit as mle
from tests.helpers.derivatives import assert_derivatives, difference, slope

RNG = np.random.default_rng(20)
X = RNG.normal(size=(6, 40))
Y = 1.0 + 0.5 * X + RNG.normal(size=(6, 40))
WEIGHTS = RNG.uniform(0.5, 1.5, size=(6, 40))
LENGTHS = np.array([40, 31, 12, 40, 25, 17])
LINE = {"level": 0.0, "slope": 0.3, "sd": 1.0}
RULES = {"sd": mle.positive}


def line(params: Any, obs: Any, shift: Any = 0.0) -> Any:
    mean = params["level"] + params["slope"] * obs["x"] + shift * obs["x"] ** 2
    return norm.logpdf(obs["y"], mean, params["sd"])


def both(fit: Any) -> Any:
    """All that a search finds and that has a derivative."""
    params = [jnp.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(fit.params, eqx.is_array))]
    return jnp.concatenate([*params, jnp.ravel(fit.log_likelihood)])


# One data set: whatever it may depend on.


def weighted_line(y: Any, weights: Any, shift: Any) -> Any:
    return both(mle.fit(line, LINE, {"x": X[0], "y": y}, args=shift, weights=weights, constraints=RULES))


def closed_over(y: Any, shift: Any) -> Any:
    return both(mle.fit(lambda p, obs: line(p, obs, shift), LINE, {"x": X[0], "y": y}, constraints=RULES))


def fixed_and_tied(y: Any, sd: Any) -> Any:
    """The value of a fixed parameter comes in through `init`, and a tied one has its twin's."""
    init = {**LINE, "sd": sd}
    rules = {"slope": mle.tied(to="level"), "sd": mle.fixed}
    return both(mle.fit(line, init, {"x": X[0], "y": y}, constraints=rules))


def everything_fixed(y: Any, sd: Any) -> Any:
    return both(mle.fit(line, {**LINE, "sd": sd}, {"x": X[0], "y": y}, constraints=mle.fixed))


def ar1(mean: Any) -> Any:
    def contributions(params: Any, data: Any) -> Any:
        centred = data - mean
        previous = jnp.concatenate([jnp.zeros(1), centred[:-1]])
        return norm.logpdf(centred, params["phi"] * previous, jnp.exp(params["log_sd"]))

    return contributions


def series(y: Any, mean: Any) -> Any:
    return both(mle.fit(mle.joint(ar1(mean)), {"phi": 0.0, "log_sd": 0.0}, y))


def mixture(y: Any, bound: Any) -> Any:
    """A simplex, an ordered vector and an interval whose end is itself differentiated."""

    def density(params: Any, obs: Any) -> Any:
        parts = jnp.log(params["share"]) + norm.logpdf(obs, params["place"], params["sd"])
        return jax.nn.logsumexp(parts)

    init = {"share": jnp.array([0.5, 0.5]), "place": jnp.array([-1.0, 1.0]), "sd": 0.5}
    rules = {"share": mle.simplex, "place": mle.ordered, "sd": mle.interval(0.0, bound)}
    return both(mle.fit(density, init, 1.5 * y + jnp.where(jnp.arange(40) % 3 == 0, 4.0, -4.0), constraints=rules))


def matrix(y: Any, scale: Any) -> Any:
    def density(cov: Any, obs: Any) -> Any:
        return -0.5 * (obs @ jnp.linalg.solve(cov, obs) + jnp.linalg.slogdet(cov)[1])

    pairs = jnp.stack([y, scale * X[0]], axis=1)
    return both(mle.fit(density, jnp.eye(2), pairs, constraints=mle.positive_definite))


class Curve(eqx.Module):
    height: Any
    rate: Any
    shape: Callable[..., Any]

    def __call__(self, x: Any) -> Any:
        return self.height * self.shape(self.rate * x)


def module(y: Any, sd: Any) -> Any:
    density = lambda curve, obs, sd: norm.logpdf(obs["y"], curve(obs["x"]), sd)  # noqa: E731
    return both(mle.fit(density, Curve(1.0, 0.5, jnp.tanh), {"x": X[0], "y": y}, args=sd))


def gamma_regression(y: Any, power: Any) -> Any:
    predict = lambda p, obs, power: (jnp.exp(p["level"] + p["slope"] * obs["x"] * power), p["shape"])  # noqa: E731
    data = {"x": X[0], "y": jnp.exp(0.3 * y)}
    init = {"level": 0.0, "slope": 0.0, "shape": 1.0}
    return both(
        mle.fit(
            mle.regression(predict, mle.families.gamma),
            init,
            data,
            args=power,
            constraints={"shape": mle.positive},
        )
    )


def first_order(y: Any, shift: Any) -> Any:
    """A solver that never sees a Hessian."""
    fit = mle.fit(line, LINE, {"x": X[0], "y": y}, args=shift, constraints=RULES, solver=mle.LBFGS())
    return both(fit)


def many_starts(y: Any, shift: Any) -> Any:
    key = jax.random.key(3)
    return both(mle.fit(line, LINE, {"x": X[0], "y": y}, args=shift, constraints=RULES, starts=3, key=key))


# Many data sets.


def ragged_batch(y: Any, weights: Any, shift: Any) -> Any:
    data = {"x": X, "y": y}
    return both(mle.fit_batch(line, LINE, data, args=shift, weights=weights, lengths=LENGTHS, constraints=RULES))


def closed_over_batch(y: Any, shift: Any) -> Any:
    density = lambda p, obs: line(p, obs, shift)  # noqa: E731
    return both(mle.fit_batch(density, LINE, {"x": X, "y": y}, constraints=RULES))


def groups(shift: Any, sd: Any) -> Any:
    keys = np.repeat(np.arange(6), 40)[(np.arange(40) < LENGTHS[:, None]).ravel()]
    rows = (np.arange(40) < LENGTHS[:, None]).ravel()
    table = mle.group_by({"key": keys, "x": X.ravel()[rows], "y": Y.ravel()[rows]}, by="key")
    density = lambda p, obs, shift: line({**p, "sd": sd}, obs, shift)  # noqa: E731
    return both(mle.fit_batch(density, {"level": 0.0, "slope": 0.0}, table, args=shift))


def joint_batch(y: Any, mean: Any) -> Any:
    return both(mle.fit_batch(mle.joint(ar1(mean)), {"phi": 0.0, "log_sd": 0.0}, y, lengths=LENGTHS))


def mapped(y: Any, shift: Any) -> Any:
    """`vmap` of a fit, which is no batch of its own."""
    one = lambda x, y: both(mle.fit(line, LINE, {"x": x, "y": y}, args=shift, constraints=RULES))  # noqa: E731
    return jax.vmap(one)(jnp.asarray(X), y)


POINTS = {
    weighted_line: (Y[0], WEIGHTS[0], 0.1),
    closed_over: (Y[0], 0.1),
    fixed_and_tied: (Y[0], 0.8),
    everything_fixed: (Y[0], 0.8),
    series: (Y[0], 0.4),
    mixture: (Y[0], 6.0),
    matrix: (Y[0], 1.3),
    module: (Y[0], 0.7),
    gamma_regression: (Y[0], 0.9),
    first_order: (Y[0], 0.1),
    many_starts: (Y[0], 0.1),
    ragged_batch: (Y, WEIGHTS, 0.1),
    closed_over_batch: (Y, 0.1),
    groups: (0.1, 0.8),
    joint_batch: (Y, 0.4),
    mapped: (Y, 0.1),
}
SLOW = (
    weighted_line,
    many_starts,
    joint_batch,
    ragged_batch,
    series,
    closed_over,
    closed_over_batch,
    matrix,
    mapped,
    mixture,
    gamma_regression,
    first_order,
)
NESTED = (weighted_line, fixed_and_tied, series, ragged_batch, groups)


def named(fns: Any, slow: Any) -> list[Any]:
    marks = lambda fn: (pytest.mark.slow,) if fn in slow else ()  # noqa: E731
    return [pytest.param(fn, id=fn.__name__, marks=marks(fn)) for fn in fns]


@pytest.mark.parametrize("fn", named(POINTS, SLOW))
def test_derivatives_are_those_of_refits(fn: Callable[..., Any]) -> None:
    assert_derivatives(fn, *POINTS[fn])


@pytest.mark.parametrize("fn", named(NESTED, NESTED[1:]))
def test_second_derivatives_are_those_of_refits(fn: Callable[..., Any]) -> None:
    assert_derivatives(slope(fn, *POINTS[fn]), *POINTS[fn])


@pytest.mark.parametrize("fn", named(NESTED, NESTED))
def test_modes_may_be_nested(fn: Callable[..., Any]) -> None:
    """The Hessian with respect to the last argument in four ways, and a third derivative."""
    *rest, last = map(jnp.asarray, POINTS[fn])
    value = lambda t: jnp.sum(jnp.sin(fn(*rest, t)))  # noqa: E731
    ways = ((jax.jacfwd, jax.jacfwd), (jax.jacfwd, jax.jacrev), (jax.jacrev, jax.jacfwd), (jax.grad, jax.grad))
    hessians = jax.jit(lambda t: [outer(inner(value))(t) for outer, inner in ways])(last)
    np.testing.assert_allclose(hessians, hessians[0], rtol=1e-8)
    second, third = (jax.jit(fn) for fn in (jax.grad(jax.grad(value)), jax.grad(jax.grad(jax.grad(value)))))
    np.testing.assert_allclose(third(last), difference(second, (last,), (1.0,)), rtol=1e-6)


@pytest.mark.slow
def test_without_jit_the_derivatives_are_the_same() -> None:
    for fn in (weighted_line, closed_over_batch):
        point = tuple(map(jnp.asarray, POINTS[fn]))
        value = lambda *p: jnp.sum(fn(*p) ** 2)  # noqa: B023, E731
        for plain, jitted in zip(jax.grad(value, (0, 1))(*point), jax.jit(jax.grad(value, (0, 1)))(*point)):
            np.testing.assert_allclose(plain, jitted, rtol=1e-10, atol=1e-12)
