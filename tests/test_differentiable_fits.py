"""Fits inside JAX programs: closed forms, uncertainty, every way to compose, and where nothing is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from jax.scipy.special import digamma, gammaln, polygamma
from jax.scipy.stats import norm

import mlekit as mle
from mlekit.inference.covariance import errors

from .derivatives import assert_derivatives, difference
from .marks import mostly_slow
from .models import Counted, logistic, logistic_data

RNG = np.random.default_rng(30)
X = RNG.normal(size=(4, 30))
Y = 1.0 + 0.5 * X + RNG.normal(size=(4, 30))
WEIGHTS = RNG.uniform(0.5, 1.5, size=(4, 30))
LENGTHS = np.array([30, 21, 12, 30])
LINE = {"level": 0.0, "slope": 0.3, "sd": 1.0, "shift": 0.2}
RULES = {"sd": mle.positive, "shift": mle.fixed}


def line(params: Any, obs: Any, bend: Any) -> Any:
    mean = params["level"] + params["slope"] * obs["x"] + params["shift"] + bend * obs["x"] ** 2
    return norm.logpdf(obs["y"], mean, params["sd"])


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


# Where nothing is known.


def separated(x: Any) -> Any:
    return mle.fit(logistic, np.zeros(2), {"x": x, "y": (jnp.arange(20) > 9).astype(float)})


def flat(scale: Any) -> Any:
    density = lambda p, obs, scale: norm.logpdf(obs, scale * (p["a"] + p["b"]))  # noqa: E731
    return mle.fit(density, {"a": 0.0, "b": 0.0}, jnp.arange(5.0), args=scale)


def at_an_edge(scale: Any) -> Any:
    density = lambda p, obs, scale: norm.logpdf(obs, scale * p)  # noqa: E731
    return mle.fit(density, 0.5, jnp.arange(3.0) - 5, args=scale, constraints=mle.interval(0.0, 1.0))


def out_of_steps(scale: Any) -> Any:
    data = logistic_data(50)
    return mle.fit(logistic, np.zeros(3), {"x": data["x"] * scale, "y": data["y"]}, max_steps=1)


def nonfinite(scale: Any) -> Any:
    return mle.fit(lambda p, obs: norm.logpdf(obs, p), 0.0, scale * jnp.array([1.0, jnp.nan]))


DESIGN = jnp.column_stack([jnp.ones(20), jnp.linspace(-1, 1, 20)])
NOWHERE = {
    "unbounded": (separated, DESIGN),
    "not_identified": (flat, 1.0),
    "edge": (at_an_edge, 1.0),
    "max_steps": (out_of_steps, 1.0),
    "nonfinite_data": (nonfinite, 1.0),
}


@pytest.mark.parametrize("name", mostly_slow(NOWHERE, "nonfinite_data"))
def test_no_derivative_where_no_maximum_is_proven(name: str) -> None:
    """NaN in both modes, of estimates, log-likelihood and errors, and a status that says why."""
    fn, at = NOWHERE[name]
    at = jnp.asarray(at)
    assert fn(at).status == ("unbounded" if name == "edge" else name)

    def found(at: Any) -> Any:
        fit = fn(at)
        leaves = jax.tree.leaves((fit.params, fit.log_likelihood, fit.standard_errors()))
        return jnp.stack([jnp.sum(leaf) for leaf in leaves])

    assert np.all(np.isnan(jax.jacrev(found)(at)))
    assert np.all(np.isnan(jax.jvp(found, (at,), (jnp.ones_like(at),))[1]))


def test_one_failure_spoils_no_other() -> None:
    """Of a batch with a data set that has no maximum, whatever leaves that out has derivatives."""
    y = jnp.stack([(jnp.sin(7.0 * DESIGN[:, 1]) > 0), DESIGN[:, 1] > 0, (jnp.cos(5.0 * DESIGN[:, 1]) > 0)]).astype(
        float
    )
    x = jnp.broadcast_to(DESIGN, (3, 20, 2))
    density = lambda c, obs, ridge: logistic(c, obs) - 0.0 * ridge + ridge * obs["x"][1] * c[0]  # noqa: E731

    def totals(ridge: Any, keep: Any) -> Any:
        fits = mle.fit_batch(density, np.zeros(2), {"x": x, "y": y}, args=ridge)
        said = (fits.params, fits.standard_errors(), fits.log_likelihood)
        return jnp.stack([jnp.sum(jnp.where(keep, leaf.T, 0.0)) for leaf in said])

    alone = mle.fit_batch(density, np.zeros(2), {"x": x, "y": y}, args=0.3)
    assert alone.status.names() == ["converged", "unbounded", "converged"]
    gradient = jax.jit(jax.jacrev(totals))
    assert np.all(np.isnan(gradient(0.3, jnp.ones(3, bool))))
    wanted = difference(jax.jit(lambda ridge: totals(ridge, alone.converged)), (0.3,), (1.0,))
    np.testing.assert_allclose(gradient(0.3, alone.converged), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_weights_of_zero() -> None:
    """A row that does not count may begin to; one whose log-density is not known there has no derivative."""
    data = logistic_data(40)
    x, weights = jnp.asarray(data["x"]), jnp.ones(40).at[3].set(0.0)
    best = jax.jit(lambda w, x: mle.argmax(logistic, np.zeros(3), {"x": x, "y": data["y"]}, weights=w)[1])
    found = jax.grad(best)(weights, x)
    more, most = (best(weights.at[3].set(h), x) for h in (1e-4, 2e-4))
    one_sided = (4 * more - most - 3 * best(weights, x)) / 2e-4
    np.testing.assert_allclose(found[3], one_sided, rtol=1e-6)

    coef = jnp.ones(3)
    heights = jax.grad(lambda w: mle.log_likelihood(logistic, coef, {"x": x, "y": data["y"]}, weights=w))(weights)
    contributions = jax.vmap(logistic, (None, 0))(coef, {"x": x, "y": jnp.asarray(data["y"])})
    np.testing.assert_allclose(heights, contributions, rtol=1e-12)

    unknown = x.at[3, 2].set(jnp.nan)
    spoilt = jax.grad(best)(weights, unknown)
    assert np.isnan(spoilt[3])
    np.testing.assert_allclose(jnp.delete(spoilt, 3), jnp.delete(found, 3), rtol=1e-9)
    assert np.all(np.isfinite(jnp.delete(jax.grad(best, 1)(weights, unknown), 3, axis=0)))


@pytest.mark.slow
def test_certificates_and_modes_have_no_derivatives() -> None:
    def fit(bend: Any) -> Any:
        data = {"x": X[0], "y": Y[0]}
        return mle.fit(line, LINE, data, args=bend, constraints=RULES, starts=2, key=jax.random.key(0))

    assert np.isnan(jax.grad(lambda bend: fit(bend).certificate.min_eigenvalue)(0.1))
    assert np.isnan(jax.grad(lambda bend: fit(bend).modes.log_likelihood[0])(0.1))


# Many parameters.


@pytest.fixture(params=[60, pytest.param(2100, marks=pytest.mark.slow)])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many parameters; where these are few, a Hessian is refused to still fewer."""
    if request.param < 2000:
        for module in ("engine.search", "engine.implicit", "results.fit"):
            monkeypatch.setattr(f"mlekit.{module}.DENSE_CERTIFICATE", 30)
    return request.param


@pytest.mark.slow
def test_many_parameters_without_a_hessian(many: int) -> None:
    """Conjugate gradients prove the maximum and solve for its derivatives."""
    n = 3 * many // 2
    x = RNG.normal(size=(n, many)) * np.exp(RNG.normal(size=many)) / np.sqrt(many)
    y = (RNG.random(n) < 0.5).astype(float)

    def ridge(coef: Any, obs: Any, penalty: Any) -> Any:
        return logistic(coef, obs) - 0.5 * penalty * jnp.sum(coef**2) / n

    def fit(penalty: Any) -> Any:
        return mle.fit(ridge, np.zeros(many), {"x": x, "y": y}, args=penalty, solver=mle.LBFGS())

    found = fit(jnp.asarray(1.0))
    assert found.status == "converged"
    coef = np.asarray(found.params)
    chance = 1 / (1 + np.exp(-x @ coef))
    hessian = (x.T * (chance * (1 - chance))) @ x + np.eye(many)
    np.testing.assert_allclose(x.T @ (y - chance) - coef, 0, atol=1e-9)
    np.testing.assert_allclose(found.standard_errors(), np.sqrt(np.diag(np.linalg.inv(hessian))), rtol=1e-8)
    scores = (y - chance)[:, None] * x - coef / n
    scale = np.sqrt(np.mean(scores**2, axis=0))
    values = np.linalg.eigvalsh(hessian / n / scale / scale[:, None])
    # Inverse iteration comes from above, and slowly where eigenvalues are close to each other.
    assert values[0] * (1 - 1e-9) < found.certificate.min_eigenvalue < 1.3 * values[0]
    assert 0.7 < found.certificate.condition_number / (values[-1] / values[0]) < 1 + 1e-9

    wanted = -np.linalg.solve(hessian, coef)
    turn = np.cos(np.arange(many))

    def modes(penalty: Any) -> Any:
        _, linear = jax.linearize(lambda t: fit(t).params, penalty)
        return linear(jnp.asarray(1.0)), jax.linear_transpose(linear, penalty)(turn)[0]

    forward, reverse = jax.jit(modes)(jnp.asarray(1.0))
    np.testing.assert_allclose(forward, wanted, atol=1e-7 * np.max(np.abs(wanted)))
    np.testing.assert_allclose(reverse, wanted @ turn, rtol=1e-6)
    if many < 2000:
        first = jax.jit(jax.grad(lambda t: jnp.sin(fit(t).params) @ turn))
        second = jax.jit(jax.grad(jax.grad(lambda t: jnp.sin(fit(t).params) @ turn)))(1.0)
        np.testing.assert_allclose(second, difference(first, (jnp.asarray(1.0),), (1.0,)), rtol=1e-6)


@pytest.mark.slow
def test_a_fit_of_many_parameters_shows_itself_without_a_hessian() -> None:
    """It would take a terabyte."""
    network = {"weights": jnp.zeros((400, 1000))}
    density = lambda p, x: -0.5 * jnp.sum((p["weights"] - x) ** 2)  # noqa: E731
    fit = mle.fit(density, network, jnp.ones((3,)), solver=mle.Optax(optax.sgd(0.1), steps=2))
    assert "too_few_observations" in repr(fit)
    assert "... and 399," in repr(fit)
    assert np.all(np.isnan(errors(fit)))
    proven = mle.fit(density, {"weights": jnp.zeros(2500)}, jnp.ones((3,)))
    assert proven.converged
    assert "take a dense Hessian" in repr(proven)


@pytest.mark.parametrize(
    "solver",
    [pytest.param(mle.Scoring(), marks=pytest.mark.slow), optax.adam(0.03)],
    ids=["scoring", "adam"],
)
def test_many_parameters_are_proven_for_every_solver(solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the curvature that a solver goes by nor its own belief proves a maximum."""
    density = lambda coef, obs: norm.logpdf(obs["y"], obs["x"] @ coef)  # noqa: E731
    x = RNG.normal(size=(120, 40)) / 6
    x[:, 1] = x[:, 0] + 0.2 * x[:, 1]  # one eigenvalue far below the others
    y = 2 * RNG.normal(size=120)  # of twice the noise that the model has, so that scores tell another curvature
    monkeypatch.setattr("mlekit.engine.search.DENSE_CERTIFICATE", 30)
    found = mle.fit(density, np.zeros(40), {"x": x, "y": y}, solver=solver)
    assert found.status == "converged"
    np.testing.assert_allclose(found.params, np.linalg.lstsq(x, y)[0], atol=1e-9)
    unit = np.sqrt(np.mean(((y - x @ found.params)[:, None] * x) ** 2, axis=0))
    least = np.linalg.eigvalsh(x.T @ x / 120 / unit / unit[:, None])[0]
    np.testing.assert_allclose(found.certificate.min_eigenvalue, least, rtol=1e-3)
    copied = np.concatenate([x[:, :1], x[:, :-1]], axis=1)
    assert mle.fit(density, np.zeros(40), {"x": copied, "y": y}, solver=solver).status != "converged"


def test_many_parameters_that_are_not_identified(many: int) -> None:
    """A flat direction that no gradient shows is found by conjugate gradients from numbers at random."""
    x = RNG.normal(size=(2 * many, many)) / np.sqrt(many)
    x[:, 1] = x[:, 0]
    density = lambda coef, obs: norm.logpdf(obs["y"], obs["x"] @ coef)  # noqa: E731
    data = {"x": x, "y": RNG.normal(size=2 * many)}
    assert mle.fit(density, np.zeros(many), data, solver=mle.LBFGS()).status == "not_identified"


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
