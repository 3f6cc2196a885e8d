"""Fits inside JAX programs: closed forms, uncertainty, every way to compose, and where nothing is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.scipy.special import digamma, gammaln, polygamma
from jax.scipy.stats import norm

import mlekit as mle
from tests.engine.bent_lines import LINE, RNG, RULES, WEIGHTS, X, Y, line
from tests.helpers.derivatives import assert_derivatives, difference
from tests.helpers.models import Counted, logistic, logistic_data

LENGTHS = np.array([30, 21, 12, 30])


def single(y: Any, weights: Any, bend: Any) -> Any:
    return mle.fit(line, LINE, {"x": X[0], "y": y}, args=bend, weights=weights, constraints=RULES)


def batch(y: Any, weights: Any, bend: Any) -> Any:
    data = {"x": X, "y": y}
    return mle.fit_batch(line, LINE, data, args=bend, weights=weights, lengths=LENGTHS, constraints=RULES)


# Closed forms.
def test_weighted_least_squares() -> None:
    """Hat matrix, residuals and weights give every derivative of the coefficients and of the variance."""
    design = np.column_stack([np.ones(30), X[0]])
    w = WEIGHTS[0]
    inverse = np.linalg.inv(design.T @ (w[:, None] * design))
    coef = inverse @ design.T @ (w * Y[0])
    rest = Y[0] - design @ coef

    def estimates(y: Any, w: Any) -> Any:
        density = lambda p, obs: norm.logpdf(obs["y"], obs["x"] @ p["b"], jnp.sqrt(p["variance"]))  # noqa: E731
        init = {"b": jnp.zeros(2), "variance": 1.0}
        return mle.argmax(density, init, {"x": design, "y": y}, weights=w, constraints={"variance": mle.positive})

    by = jax.jit(jax.jacrev(estimates, (0, 1)))(jnp.asarray(Y[0]), jnp.asarray(w))
    (by_y, by_w), (variance_by_y, variance_by_w) = by["b"], by["variance"]
    np.testing.assert_allclose(by_y, inverse @ design.T * w, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(by_w, inverse @ design.T * rest, rtol=1e-9, atol=1e-12)
    variance = np.sum(w * rest**2) / np.sum(w)
    np.testing.assert_allclose(variance_by_y, 2 * w * rest / np.sum(w), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(variance_by_w, (rest**2 - variance) / np.sum(w), rtol=1e-8, atol=1e-12)


def test_logistic_regression() -> None:
    r"""$\partial \beta / \partial y = (X^T W X)^{-1} X^T$; that of the log-likelihood is the linear predictor."""
    data = logistic_data(60)
    x, y = jnp.asarray(data["x"]), jnp.asarray(data["y"])
    fit = lambda y: mle.fit(logistic, np.zeros(3), {"x": x, "y": y})  # noqa: E731
    coef = np.asarray(fit(y).params)
    chance = 1 / (1 + np.exp(-data["x"] @ coef))
    wanted = np.linalg.solve((data["x"].T * (chance * (1 - chance))) @ data["x"], data["x"].T)
    np.testing.assert_allclose(jax.jacrev(lambda y: fit(y).params)(y), wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        jax.grad(lambda y: fit(y).log_likelihood)(y), data["x"] @ coef, rtol=1e-9, atol=1e-12
    )


def test_gamma_distribution() -> None:
    r"""The shape solves $\log a - \psi(a) = \log \bar x - \overline{\log x}$, and moves as that says."""
    x = jnp.asarray(np.exp(0.4 * Y[0]))

    def density(params: Any, x: Any) -> Any:
        a, rate = params["shape"], params["rate"]
        return a * jnp.log(rate) - gammaln(a) + (a - 1) * jnp.log(x) - rate * x

    rules = {"shape": mle.positive, "rate": mle.positive}
    best = lambda x: mle.argmax(density, {"shape": 1.0, "rate": 1.0}, x, constraints=rules)  # noqa: E731
    shape = best(x)["shape"]
    np.testing.assert_allclose(
        jnp.log(shape) - digamma(shape), jnp.log(jnp.mean(x)) - jnp.mean(jnp.log(x)), rtol=1e-9
    )
    wanted = (1 / jnp.sum(x) - 1 / (x.size * x)) / (1 / shape - polygamma(1, shape))
    slopes = jax.grad(lambda x: best(x)["shape"])(x)
    np.testing.assert_allclose(slopes, wanted, rtol=1e-7, atol=1e-10)
    rate = shape / jnp.mean(x)
    by_rate = slopes / jnp.mean(x) - rate / (x.size * jnp.mean(x))
    np.testing.assert_allclose(jax.grad(lambda x: best(x)["rate"])(x), by_rate, rtol=1e-7, atol=1e-10)


# What is said of uncertainty.
SAID: dict[str, Callable[[Any], Any]] = {
    "standard_errors": lambda fit: fit.standard_errors(),
    "covariance": lambda fit: fit.covariance(),
    "opg": lambda fit: fit.covariance("opg"),
    "sandwich": lambda fit: fit.covariance(
        "sandwich", clusters=jnp.broadcast_to(jnp.arange(30) // 3, fit.weights.shape)
    ),
    "wald": lambda fit: fit.intervals(),
    "wald-transformed": lambda fit: fit.intervals(method="wald-transformed"),
    "profile": lambda fit: fit.intervals(method="profile"),
    "delta": lambda fit: fit.estimate(lambda p: p["slope"] / p["sd"]).standard_error,
    "prediction": lambda fit: fit.predict(lambda p, obs, _: p["slope"] * obs, X[0]).upper,
    "bic": lambda fit: fit.bic,
    "influence": lambda fit: fit.influence(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAID)
def test_derivatives_of_uncertainty(name: str) -> None:
    """Of a single fit and of a ragged batch, with respect to data, weights and args at once."""

    def said(y: Any, weights: Any, bend: Any) -> Any:
        fits = (single(y[0], weights[0], bend), batch(y, weights, bend))
        return jnp.concatenate([jnp.ravel(leaf) for fit in fits for leaf in jax.tree.leaves(SAID[name](fit))])

    assert_derivatives(said, Y, WEIGHTS, 0.1)


@pytest.mark.slow
def test_derivatives_of_errors() -> None:
    def errors(y: Any, weights: Any, bend: Any) -> Any:
        fits = batch(y, weights, bend)
        return jnp.concatenate(
            [
                jnp.ravel(leaf)
                for leaf in jax.tree.leaves((fits.standard_errors(), fits.intervals(method="wald-transformed")))
            ]
        )

    assert_derivatives(errors, Y, WEIGHTS, 0.1)


@pytest.mark.slow
def test_derivatives_of_profile_intervals() -> None:
    def ends(bend: Any) -> Any:
        return jnp.stack(jax.tree.leaves(single(Y[0], WEIGHTS[0], bend).intervals(method="profile")))

    assert_derivatives(ends, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["standard_errors", "profile"])
def test_second_derivatives_of_uncertainty(name: str) -> None:
    def value(bend: Any) -> Any:
        return jnp.sum(jnp.sin(jnp.stack(jax.tree.leaves(SAID[name](single(Y[0], WEIGHTS[0], bend))))))

    first = jax.jit(jax.grad(value))
    wanted = difference(first, (jnp.asarray(0.1),), (1.0,))
    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(value)))(0.1), wanted, rtol=1e-6)


@pytest.mark.slow
def test_covariances_of_expected_information() -> None:
    model = mle.regression(lambda p, obs: jnp.exp(p["a"] + p["b"] * obs["x"]), mle.families.poisson)

    def error(x: Any) -> Any:
        fit = mle.fit(model, {"a": 0.0, "b": 0.0}, {"x": x, "y": jnp.asarray(np.round(np.exp(0.3 * Y[0])))})
        return jnp.stack(jax.tree.leaves(fit.standard_errors("expected")))

    assert_derivatives(error, X[0])


# Composition.
def slope_of(y: Any, bend: Any) -> Any:
    return mle.fit(line, LINE, {"x": X[0], "y": y}, args=bend, constraints=RULES).params["slope"]


def test_gradients_map_and_maps_have_gradients() -> None:
    y, bend = jnp.asarray(Y), jnp.asarray(0.1)
    one_by_one = jnp.stack([jax.grad(slope_of)(row, bend) for row in y])
    mapped = jax.jit(jax.vmap(jax.grad(slope_of), in_axes=(0, None)))(y, bend)
    of_map = jax.jit(jax.grad(lambda y: jnp.sum(jax.vmap(slope_of, in_axes=(0, None))(y, bend))))(y)
    x = np.broadcast_to(X[0], X.shape)

    def of_all(y: Any) -> Any:
        return jnp.sum(mle.fit_batch(line, LINE, {"x": x, "y": y}, args=bend, constraints=RULES).params["slope"])

    of_batch = jax.grad(of_all)(y)
    for found in (mapped, of_map, of_batch):
        np.testing.assert_allclose(found, one_by_one, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_checkpoint_and_scan() -> None:
    """A filter over time: every step fits the data so far, and hands its estimate on."""
    y = jnp.asarray(Y)

    def filtered(y: Any, decay: Any) -> Any:
        def step(level: Any, row: Any) -> tuple[Any, Any]:
            density = lambda p, obs, prior: -0.5 * (obs - p) ** 2 - 0.5 * decay * (p - prior) ** 2  # noqa: E731
            level = mle.argmax(density, 0.0, row, args=level)
            return level, level

        return jax.lax.scan(step, jnp.zeros(()), y)[1]

    # The estimate of each step in closed form.
    def closed(y: Any, decay: Any) -> Any:
        levels = [jnp.zeros(())]
        for row in y:
            levels.append((jnp.mean(row) + decay * levels[-1]) / (1 + decay))
        return jnp.stack(levels[1:])

    for fn in (filtered, jax.checkpoint(filtered)):
        loss = lambda y, decay: jnp.sum(fn(y, decay) ** 2)  # noqa: B023, E731
        found = jax.jit(jax.grad(loss, (0, 1)))(y, 0.7)
        wanted = jax.grad(lambda y, decay: jnp.sum(closed(y, decay) ** 2), (0, 1))(y, 0.7)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-9)
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-9, atol=1e-12)
    forward = jax.jit(jax.jacfwd(lambda decay: filtered(y, decay)))(0.7)
    np.testing.assert_allclose(forward, jax.jacfwd(lambda decay: closed(y, decay))(0.7), rtol=1e-9)


def test_fit_inside_fit() -> None:
    """A profile likelihood written by hand has the maximum, and the curvature, of the whole likelihood."""
    data = {"x": jnp.asarray(X[0]), "y": jnp.asarray(Y[0])}

    def profile(params: Any, data: Any) -> Any:
        density = lambda rest, obs: norm.logpdf(  # noqa: E731
            obs["y"], rest["level"] + params["slope"] * obs["x"], jnp.exp(rest["log_sd"])
        )
        return mle.fit(density, {"level": 0.0, "log_sd": 0.0}, data).log_likelihood

    outer = mle.fit(mle.joint(profile), {"slope": 0.0}, data)
    whole = lambda p, obs: norm.logpdf(obs["y"], p["level"] + p["slope"] * obs["x"], jnp.exp(p["log_sd"]))  # noqa: E731
    inner = mle.fit(whole, {"level": 0.0, "slope": 0.0, "log_sd": 0.0}, data)
    assert outer.status == "converged"
    np.testing.assert_allclose(outer.params["slope"], inner.params["slope"], rtol=1e-8)
    np.testing.assert_allclose(outer.log_likelihood, inner.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(outer.standard_errors()["slope"], inner.standard_errors()["slope"], rtol=1e-8)


def test_a_fit_crosses_jit_and_is_differentiated_later() -> None:
    """What a jitted fit returns holds all that its derivatives need, even what the log-density closed over."""
    y = jnp.asarray(Y[0])

    def sum_of_errors(bend: Any, fit: Callable[..., Any]) -> Any:
        return sum(jax.tree.leaves(fit(bend).standard_errors()))

    def fit(bend: Any) -> Any:
        return mle.fit(lambda p, obs: line(p, obs, bend), LINE, {"x": X[0], "y": y}, constraints=RULES)

    plain, jitted = (jax.grad(sum_of_errors)(0.1, how) for how in (fit, jax.jit(fit)))
    np.testing.assert_allclose(jitted, plain, rtol=1e-9)


def test_gradients_trace_once() -> None:
    counted = Counted(lambda p, obs, args: line(p, obs, args))

    def loss(bend: Any) -> Any:
        return mle.fit(counted, LINE, {"x": X[0], "y": Y[0]}, args=bend, constraints=RULES).params["slope"]

    gradient = jax.grad(loss)
    gradient(jnp.asarray(0.1))
    before = counted.traces
    gradient(jnp.asarray(0.2))
    assert counted.traces <= before + 1  # to see what it closes over


def test_float32_gradients() -> None:
    with jax.enable_x64(False):
        data = {"x": X[0].astype(np.float32), "y": Y[0].astype(np.float32)}
        best = lambda bend: mle.fit(line, LINE, data, args=bend, constraints=RULES).params["slope"]  # noqa: E731
        found = jax.grad(best)(jnp.float32(0.1))
        assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, jax.grad(lambda b: slope_of(jnp.asarray(Y[0]), b))(0.1), rtol=1e-4)


# Everywhere.
@pytest.mark.parametrize("k", [pytest.param(3, marks=pytest.mark.slow), 12])  # written out, and by LAPACK
def test_exported_for_every_platform(k: int) -> None:
    """One artefact for CPU, CUDA and TPU, made without either, which runs here and gives the same numbers."""
    x = jnp.asarray(RNG.normal(size=(5, 40, k)))
    y = jnp.sum(x, axis=2) + jnp.asarray(RNG.normal(size=(5, 40)))
    density = lambda p, obs: norm.logpdf(obs["y"], obs["x"] @ p["b"], p["sd"])  # noqa: E731

    def fits(x: Any, y: Any) -> Any:
        init = {"b": jnp.zeros(k), "sd": 1.0}
        found = mle.fit_batch(density, init, {"x": x, "y": y}, constraints={"sd": mle.positive})
        return found.params, found.log_likelihood, found.status.codes, found.covariance("sandwich")

    def gradient(x: Any, y: Any) -> Any:
        return jax.grad(lambda y: jnp.sum(fits(x, y)[0]["b"] ** 2))(y)

    both = jax.jit(lambda x, y: (fits(x, y), gradient(x, y)))
    exported = export.export(both, platforms=("cpu", "cuda", "tpu"))(x, y)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    again = export.deserialize(exported.serialize()).call(x, y)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(both(x, y))):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_modules_keep_their_functions() -> None:
    """A log-density that is itself a module with arrays: they are leaves already, and are not looked for again."""

    class Density(eqx.Module):
        sd: Any

        def __call__(self, mean: Any, x: Any) -> Any:
            return norm.logpdf(x, mean, self.sd)

    def height(sd: Any) -> Any:
        return mle.fit(Density(sd), 0.0, jnp.asarray(Y[0])).log_likelihood

    centred = Y[0] - Y[0].mean()
    np.testing.assert_allclose(jax.grad(height)(1.3), np.sum(centred**2) / 1.3**3 - 30 / 1.3, rtol=1e-9)
