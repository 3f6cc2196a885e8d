"""Any PyTree of parameters, through all constraints, and back."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal, norm

import mlekit as mle
from mlekit.models.initial_parameters import build_parameters
from tests.helpers.marks import mostly_slow
from tests.helpers.models import RULES, START, least_squares, line, line_data

DATA = line_data()
BEST = least_squares(DATA)


class Named(NamedTuple):
    intercept: Any
    slope: Any
    sigma: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Registered:
    intercept: Any
    slope: Any
    sigma: Any


class Module(eqx.Module):
    intercept: Any
    slope: Any
    sigma: Any
    power: int
    shape: Any = jnp.square
    label: str = eqx.field(static=True, default="line")


def by_attribute(params: Any, obs: Any) -> Any:
    return line(params._asdict() if hasattr(params, "_asdict") else vars(params), obs)


@pytest.mark.parametrize("kind", [Named, Registered, Module])
def test_any_pytree(kind: Any) -> None:
    extra = {"power": 2} if kind is Module else {}
    init = kind(0.0, 1.0, 1.0, **extra)
    rules: Any = kind(None, None, mle.positive, **({"power": None, "shape": None} if kind is Module else {}))
    for constraints in (rules, {"sigma": mle.positive}):
        fit = mle.fit(by_attribute, init, DATA, constraints=constraints)
        assert isinstance(fit.params, kind)
        assert fit.parameter_names == ("intercept", "slope", "sigma")
        np.testing.assert_allclose([getattr(fit.params, k) for k in BEST], list(BEST.values()), rtol=1e-9)
    if kind is Module:
        assert (fit.params.power, fit.params.shape, fit.params.label) == (2, jnp.square, "line")
        assert isinstance(fit.standard_errors(), Module)


def test_an_equinox_network() -> None:
    net = eqx.nn.MLP(1, "scalar", width_size=2, depth=1, activation=jnp.tanh, key=jax.random.key(0))

    def density(params: Any, obs: Any) -> Any:
        return norm.logpdf(obs["y"], params["net"](obs["x"][None]), params["sigma"])

    fit = mle.fit(density, {"net": net, "sigma": 1.0}, DATA, constraints={"sigma": mle.positive}, max_steps=200)
    assert fit.params["net"].activation is jnp.tanh
    assert fit.parameter_names[:3] == (
        "net.layers[0].weight[0,0]",
        "net.layers[0].weight[1,0]",
        "net.layers[0].bias[0]",
    )
    assert fit.n_free == 8
    # A network nests the straight line, so its likelihood is at least as high.
    assert float(fit.log_likelihood) > float(mle.log_likelihood(line, BEST, DATA)) - 1e-3


def test_names_and_whole_numbers() -> None:
    tree = {"a": {"b": [1, np.zeros((2, 2))]}, "c": 2.5}
    parameters, init = build_parameters(tree)
    assert parameters.names == ("a.b[0]", "a.b[1][0,0]", "a.b[1][0,1]", "a.b[1][1,0]", "a.b[1][1,1]", "c")
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(init))
    assert build_parameters(1.0)[0].names == ("params",)
    assert build_parameters(np.ones(2))[0].names == ("params[0]", "params[1]")
    assert build_parameters((1.0, [2.0]))[0].names == ("params[0]", "params[1][0]")


def test_free_and_natural_are_inverse() -> None:
    init: dict[str, Any] = {
        "share": np.array([0.2, 0.3, 0.5]),
        "cut": np.array([-1.0, 0.5, 2.0]),
        "cov": np.array([[2.0, 0.5], [0.5, 1.0]]),
        "corr": np.array([[1.0, -0.3], [-0.3, 1.0]]),
        "held": np.array([3.0, 4.0]),
        "twin": 0.0,
        "rate": 0.25,
        "below": -1.0,
        "far": np.array([5.0, 6.0]),
    }
    rules = {
        "share": mle.simplex, "cut": mle.ordered, "cov": mle.positive_definite, "corr": mle.correlation,
        "held": mle.fixed, "twin": mle.tied(to="rate"), "rate": mle.unit_interval, "below": mle.less_than(0.0),
        "far": mle.interval(np.array([4.0, 5.0]), np.array([6.0, 7.0])),
    }  # fmt: skip
    parameters, start = build_parameters(init, rules)
    assert parameters.n_free == 2 + 3 + 3 + 1 + 0 + 0 + 1 + 1 + 2
    parameters = parameters.fixed_at(start)
    back = jax.jit(lambda start: parameters.natural(parameters.free(start)))(start)
    for name, value in init.items():
        np.testing.assert_allclose(back[name], 0.25 if name == "twin" else value, rtol=1e-12, err_msg=name)
    jacobian = jax.jit(lambda start: parameters.jacobian(parameters.free(start)))(start)
    names = parameters.names
    assert not np.any(jacobian[names.index("held[0]")])
    assert not np.any(jacobian[names.index("held[1]")])
    np.testing.assert_array_equal(jacobian[names.index("twin")], jacobian[names.index("rate")])


def test_fixed_and_tied() -> None:
    held = mle.fit(line, START | {"intercept": 0.4}, DATA, constraints=RULES | {"intercept": mle.fixed})
    x, y = DATA["x"], DATA["y"] - 0.4
    slope = x @ y / (x @ x)
    assert held.n_free == 2
    assert float(held.params["intercept"]) == 0.4
    np.testing.assert_allclose(held.params["slope"], slope, rtol=1e-10)
    assert float(held.standard_errors()["intercept"]) == 0.0
    np.testing.assert_allclose(held.covariance()[0], 0.0)
    np.testing.assert_allclose(held.intervals()["intercept"], (0.4, 0.4))

    tied = mle.fit(line, START, DATA, constraints=RULES | {"intercept": mle.tied(to="slope")})
    assert tied.n_free == 2
    assert float(tied.params["intercept"]) == float(tied.params["slope"])
    np.testing.assert_allclose(tied.params["slope"], (1 + x) @ DATA["y"] / ((1 + x) @ (1 + x)), rtol=1e-10)
    assert float(tied.standard_errors()["intercept"]) == float(tied.standard_errors()["slope"]) > 0
    both = mle.fit(line, START, DATA, constraints={"sigma": mle.fixed, "slope": mle.tied(to="sigma")})
    assert both.n_free == 1
    assert float(both.params["slope"]) == 1.0

    nothing = mle.fit(line, START, DATA, constraints=mle.fixed)
    assert nothing.n_free == 0
    assert bool(nothing.converged)
    np.testing.assert_allclose(nothing.log_likelihood, mle.log_likelihood(line, START, DATA))


def test_a_constrained_covariance_matrix() -> None:
    rng = np.random.default_rng(3)
    x = rng.multivariate_normal([1.0, -2.0], [[2.0, 0.8], [0.8, 1.0]], size=60)

    def density(params: Any, row: Any) -> Any:
        return multivariate_normal.logpdf(row, params["mean"], params["cov"])

    fit = mle.fit(density, {"mean": np.zeros(2), "cov": np.eye(2)}, x, constraints={"cov": mle.positive_definite})
    assert bool(fit.converged)
    np.testing.assert_allclose(fit.params["mean"], x.mean(0), rtol=1e-9)
    cov = np.cov(x.T, bias=True)
    np.testing.assert_allclose(fit.params["cov"], cov, rtol=1e-9)
    # Known: var(cov_ij) = (cov_ii cov_jj + cov_ij^2) / n, through the log-Cholesky map by the delta method.
    diagonal = np.diag(cov)
    expected = np.sqrt((np.outer(diagonal, diagonal) + cov**2) / len(x))
    np.testing.assert_allclose(fit.standard_errors()["cov"], expected, rtol=1e-8)


def test_a_simplex_is_the_shares() -> None:
    draws = np.repeat(np.arange(4), [10, 20, 30, 40])
    fit = mle.fit(lambda p, i: jnp.log(p[i]), np.full(4, 0.25), draws, constraints=mle.simplex)
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(fit.params, shares, rtol=1e-10)
    np.testing.assert_allclose(fit.covariance(), (np.diag(shares) - np.outer(shares, shares)) / 100, atol=1e-12)
    low, high = fit.intervals(method="wald-free")
    assert np.all((low > 0) & (high < 1) & (low < shares) & (shares < high))


@pytest.mark.parametrize("library", mostly_slow(["distreqx", "numpyro"], "distreqx"))
def test_foreign_bijectors(library: str) -> None:
    if library == "distreqx":
        import distreqx.bijectors as bijectors

        rule: Any = bijectors.ScalarAffine(shift=jnp.asarray(0.0), scale=jnp.asarray(0.5))
        rules = {"slope": rule, "sigma": mle.positive}
    else:
        from numpyro.distributions import transforms

        rules = {"sigma": transforms.ExpTransform()}
    fit = mle.fit(line, START, DATA, constraints=rules)
    assert bool(fit.converged)
    np.testing.assert_allclose([fit.params[k] for k in BEST], list(BEST.values()), rtol=1e-9)
    plain = mle.fit(line, START, DATA, constraints=RULES)
    np.testing.assert_allclose(fit.covariance(), plain.covariance(), rtol=1e-7, atol=1e-15)


@pytest.mark.standard_promotion
@pytest.mark.parametrize("x64", mostly_slow([True, False], True))
def test_precision_follows_the_inputs(x64: bool) -> None:
    single = {k: v.astype(np.float32) for k, v in DATA.items()}
    with jax.enable_x64(x64):
        fit = mle.fit(line, START, single, constraints=RULES)
        assert {leaf.dtype for leaf in jax.tree.leaves(fit.params)} == {jnp.dtype("float32")}
        assert fit.log_likelihood.dtype == jnp.float32
        assert bool(fit.converged)
        np.testing.assert_allclose([fit.params[k] for k in BEST], list(BEST.values()), rtol=2e-5)
        fits = mle.fit_batch(line, START, {k: v[None] for k, v in single.items()}, constraints=RULES)
        assert fits.params["slope"].dtype == jnp.float32
        assert bool(fits.converged[0])
        np.testing.assert_allclose(fits.params["slope"][0], fit.params["slope"], rtol=1e-6)
        mixed = {"intercept": np.float32(0), "slope": np.float32(1), "sigma": np.float32(1)}
        assert mle.fit(line, mixed, DATA, constraints=RULES).params["slope"].dtype == jnp.float32
