"""Log-densities that only reverse mode can differentiate give the numbers of those that have both modes."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.ode import odeint
from jax.test_util import check_grads

import mlekit as mle
from mlekit.models.reverse_mode import ThroughReverse

X = np.random.default_rng(0).normal(1.0, 2.0, size=30)
START = {"mean": 0.0, "log_sd": 0.0}


@jax.custom_vjp
def square(x: Any) -> Any:
    return x**2


square.defvjp(lambda x: (square(x), x), lambda x, g: (2 * x * g,))


@jax.custom_vjp
def once(x: Any) -> Any:
    """A function whose derivative has none."""
    return x**2


def _outside(x: Any) -> Any:
    return jax.pure_callback(lambda x: 2 * np.asarray(x), x, x, vmap_method="expand_dims")


once.defvjp(lambda x: (once(x), x), lambda x, g: (_outside(x) * g,))


def density(p: Any, x: Any, power: Any = square) -> Any:
    return -0.5 * power((x - p["mean"]) / jnp.exp(p["log_sd"])) - p["log_sd"]


def plain(p: Any, x: Any) -> Any:
    return density(p, x, lambda z: z**2)


def check_same(one: mle.Fit, other: mle.Fit) -> None:
    assert one.converged.all()
    assert other.converged.all()
    for get in (
        lambda fit: fit.params,
        lambda fit: fit.log_likelihood,
        lambda fit: fit.covariance(),
        lambda fit: fit.covariance("sandwich"),
        lambda fit: fit.scores(),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), get(one), get(other))


@pytest.mark.parametrize("solver", [None, mle.BFGS(), mle.Scoring()])
def test_single(solver: Any) -> None:
    fit = mle.fit(density, START, X, solver=solver)
    check_same(fit, mle.fit(plain, START, X, solver=solver))
    ends = lambda one: mle.fit(one, START, X).intervals(method="profile")["mean"]  # noqa: E731
    np.testing.assert_allclose(ends(density), ends(plain), rtol=1e-6)


@pytest.mark.slow
def test_batch_and_joint() -> None:
    sets = X.reshape(3, 10)
    check_same(mle.fit_batch(density, START, sets), mle.fit_batch(plain, START, sets))
    joint = [mle.joint(jax.vmap(one, in_axes=(None, 0))) for one in (density, plain)]
    check_same(*(mle.fit(one, START, X) for one in joint))


def test_regression() -> None:
    data = {"x": X, "y": 1 + 0.3 * X**2 + np.random.default_rng(1).normal(size=30)}
    fits = []
    for power in (square, lambda x: x**2):
        model = mle.regression(
            lambda p, o, power=power: (p["a"] + p["b"] * power(o["x"] + p["c"]), p["scale"]), mle.families.normal
        )
        start = {"a": 0.9, "b": 0.3, "c": 0.1, "scale": 1.0}
        fits.append(mle.fit(model, start, data, constraints={"scale": mle.positive}))
    check_same(*fits)


def decay(p: Any, obs: Any) -> Any:
    there = odeint(lambda y, t, rate: -rate * y, 5.0, jnp.stack([jnp.zeros(()), obs["t"]]), p["rate"])[1]
    return -0.5 * ((obs["y"] - there) / p["sd"]) ** 2 - jnp.log(p["sd"])


def test_differential_equation() -> None:
    t = np.linspace(0.1, 3.0, 12)
    data = {"t": t, "y": 5 * np.exp(-0.7 * t) + 0.1 * np.random.default_rng(2).normal(size=12)}
    start, rules = {"rate": 1.0, "sd": 1.0}, {"rate": mle.positive, "sd": mle.positive}
    exact = lambda p, o: -0.5 * ((o["y"] - 5 * jnp.exp(-p["rate"] * o["t"])) / p["sd"]) ** 2 - jnp.log(p["sd"])  # noqa: E731
    fit, wanted = (mle.fit(one, start, data, constraints=rules) for one in (decay, exact))
    assert fit.converged
    np.testing.assert_allclose(fit.params["rate"], wanted.params["rate"], rtol=1e-5)
    np.testing.assert_allclose(fit.standard_errors()["rate"], wanted.standard_errors()["rate"], rtol=1e-4)


def test_derivatives_through_the_fit() -> None:
    of = lambda one: jax.grad(lambda x: mle.argmax(one, START, x)["log_sd"])(jnp.asarray(X))  # noqa: E731
    np.testing.assert_allclose(of(density), of(plain), rtol=1e-8)
    jitted = jax.jit(lambda x: mle.argmax(density, START, x)["mean"])(jnp.asarray(X))
    np.testing.assert_allclose(jitted, X.mean())


def test_derivatives_of_every_order() -> None:
    wrapped = jax.jit(ThroughReverse(lambda x, y: jnp.sum(square(x) * jnp.sin(y))))
    check_grads(wrapped, (jnp.arange(1.0, 3.0), jnp.arange(2.0, 4.0)), order=2, modes=["fwd", "rev"])
    third = jax.jit(jax.jacfwd(jax.jacfwd(jax.jacfwd(lambda y: wrapped(jnp.ones(1), y)))))(jnp.array([0.3]))
    np.testing.assert_allclose(third.ravel(), -np.cos(0.3), rtol=1e-12)


def test_nothing_is_wrapped_that_need_not_be() -> None:
    fit = mle.fit(plain, START, X)
    assert fit.model.log_density is plain
    assert isinstance(mle.fit(density, START, X).model.log_density, eqx.Module)


def test_what_fails_while_it_runs_is_no_matter_of_modes() -> None:
    def fails(x: Any) -> Any:
        raise RuntimeError("a jvp that fails")

    def at_run_time(p: Any, x: Any) -> Any:
        jax.debug.callback(fails, x)
        return plain(p, x)

    fit = mle.fit(at_run_time, START, X)
    jax.effects_barrier()
    assert str(fit.status) == "raised"
    assert "RuntimeError: a jvp that fails." in fit.message
    assert fit.model.log_density is at_run_time


def test_a_loop_of_unknown_length() -> None:
    def decays(p: Any, x: Any) -> Any:
        return -jax.lax.while_loop(lambda it: it[0] < 3, lambda it: (it[0] + 1, it[1] * p), (0, x))[1]

    with pytest.raises(TypeError, match=r"log_density cannot be differentiated in reverse: .*lax\.scan"):
        mle.fit(decays, 0.5, X)


def test_what_can_be_differentiated_but_once() -> None:
    with pytest.raises(
        TypeError, match=r"cannot be differentiated twice: .*diffrax\.DirectAdjoint\(\).*custom_jvp"
    ):
        mle.fit(lambda p, x: density(p, x, once), START, X)
