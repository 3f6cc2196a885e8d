"""Problems that people had with other programs, from public trackers, with answers that are found by other means.

The answers are those of SciPy (Nelder-Mead on likelihoods written in NumPy, to eleven digits) or were published
with the problem. Each is fitted from several starts, some of them far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import mlekit as mle

pytestmark = pytest.mark.standard_promotion  # models as their authors wrote them


class Case(NamedTuple):
    """A problem.

    Args:
        density: the log-density, or a model.
        starts: one start a column of numbers: from all of them the answer is the same.
        data: one data set.
        constraints: as in `mle.fit`.
        params: the answer.
        log_likelihood: there.
        errors: standard errors, of those parameters of which they are known.
        weights: frequency weights.
        rtol: relative precision of the answer, unless it is an integral with few digits.
    """

    density: Any
    starts: dict[str, Any]
    data: Any
    constraints: Any
    params: dict[str, Any]
    log_likelihood: float
    errors: dict[str, Any] = {}  # noqa: RUF012
    weights: Any = None
    rtol: float = 2e-6


def lives_from_unknown_birth() -> Case:
    """scipy#11806: a Weibull distribution whose support begins at a parameter; 40 published lives."""

    def density(p: Any, x: Any) -> Any:
        z = (x - p["loc"]) / p["scale"]
        return jnp.log(p["shape"] / p["scale"]) + (p["shape"] - 1) * jnp.log(z) - z ** p["shape"]

    text = """4836.6 823.6 3131.7 1343.4 709.7 610.6 3034.2 1973 7358.5 265 4590.5 5440.4 4613.7 4763.1 115.3
    5385.1 6398.1 8444.6 2397.1 3259.7 307.5 4607.4 6523.7 600.3 2813.5 6119.8 6438.8 2799.1 2849.8 5309.6
    3182.4 705.5 5673.3 2939.9 2631.8 5002.1 1967.3 2810.4 2948 6904.8"""
    return Case(
        density,
        {"shape": [1.5, 1.5], "loc": [0.0, 100.0], "scale": [3000.0, 3000.0]},
        np.array(text.split(), float),
        {"shape": mle.positive, "scale": mle.positive},
        {"shape": 1.776007, "loc": -322.0927, "scale": 4355.2629},
        -363.001297,
    )


def one_failure() -> Case:
    """lifelines#533: five lives of which one ended, the second longest."""
    model = mle.censored(
        mle.regression(lambda p, o: (p["scale"], p["shape"]), mle.families.weibull),
        upper=lambda o: jnp.where(o["ended"], o["y"], jnp.inf),
    )
    return Case(
        model,
        {"shape": [1.0, 1.0, 3.0], "scale": [10000.0, 1.0, 100.0]},
        {"y": np.array([13467.0, 13760.0, 12011.0, 7798.0, 7928.0]), "ended": np.arange(5) == 0},
        mle.positive,
        {"shape": 59.4855971, "scale": 13816.90359},
        -7.948098122222,
    )


def limited_failures() -> Case:
    """SurPyval#50: circuits of which few can fail at all; the data and the answer are Meeker's (1987)."""

    def density(p: Any, o: Any) -> Any:
        z = (o["t"] / p["alpha"]) ** p["beta"]
        rate = jnp.log(p["beta"] / p["alpha"]) + (p["beta"] - 1) * jnp.log(o["t"] / p["alpha"])
        return jnp.where(o["failed"], jnp.log(p["p"]) + rate - z, jnp.log1p(p["p"] * jnp.expm1(-z)))

    text = """.1 .1 .15 .6 .8 .8 1.2 2.5 3 4 4 6 10 10 12.5 20 20 43 43 48 48 54 74 84 94 168 263 593 1370"""
    return Case(
        density,
        {"p": [0.01, 0.5, 0.98], "alpha": [50.0, 1000.0, 1e6], "beta": [1.0, 1.0, 0.5]},
        {"t": np.array(text.split(), float), "failed": np.arange(29) < 28},
        {"p": mle.unit_interval, "alpha": mle.positive, "beta": mle.positive},
        {"p": 0.00674445095, "alpha": 28.36719793, "beta": 0.49597622137},
        -293.032887984,
        {"p": 0.00127037, "alpha": 11.5224953, "beta": 0.0750007},
        weights=np.append(np.ones(28), 4128.0),
    )


def covariate_far_from_zero() -> Case:
    """lifelines#652: Weibull regression on a covariate of 20,000 +- 10; the answer is that of the centred one."""
    rng = np.random.default_rng(5)
    n = 5000
    z, x, u = rng.binomial(1, 0.5, n), rng.binomial(1, 0.5, n), 20000 + 10 * rng.standard_normal(n)
    t = np.exp(np.log(0.5) * x + np.log(4) * z) * rng.exponential(size=n)

    def density(p: Any, o: Any) -> Any:
        w = (jnp.log(o["t"]) - p["b"] @ o["x"]) / p["s"]
        return -jnp.log(p["s"]) + w - jnp.exp(w) - jnp.log(o["t"])

    return Case(
        density,
        {"b": [[0.0] * 4, [1.0] * 4], "s": [1.0, 1.0]},
        {"t": t, "x": np.stack([np.ones(n), x, z, u], axis=1)},
        {"s": mle.positive},
        {"b": [-49.1130414, -0.735737497, 1.36360906, 0.00245696343], "s": 1.01172020536},
        -6612.810852746,
        {"b": [28.1204354, 0.02863034, 0.02863200, 0.001406015], "s": 0.01120925},
    )


def rain() -> Case:
    """statsmodels#7310: sums of a Poisson number of gamma variates, some of them zero, and their power."""
    rng = np.random.default_rng(3)
    mu, phi, p = 2.0, 1.5, 1.6
    number = rng.poisson(mu ** (2 - p) / phi / (2 - p), 300)
    shape, scale = (2 - p) / (p - 1), phi * (p - 1) * mu ** (p - 1)
    y = np.array([rng.gamma(shape * k, scale) if k else 0.0 for k in number])
    count = jnp.arange(1.0, 60.0)

    def density(q: Any, y: Any) -> Any:
        mu, phi, p = q["mu"], q["phi"], q["p"]
        a, safe, g = (2 - p) / (p - 1), jnp.where(y > 0, y, 1.0), mle.special.gammaln
        step = a * jnp.log(safe) - a * jnp.log(p - 1) - (1 + a) * jnp.log(phi) - jnp.log(2 - p)
        series = jax.nn.logsumexp(count * step - g(count + 1) - g(a * count)) - jnp.log(safe)
        return (y * mu ** (1 - p) / (1 - p) - mu ** (2 - p) / (2 - p)) / phi + jnp.where(y > 0, series, 0.0)

    return Case(
        density,
        {"mu": [1.0, 5.0], "phi": [1.0, 3.0], "p": [1.5, 1.3]},
        y,
        {"mu": mle.positive, "phi": mle.positive, "p": mle.interval(1.0, 2.0)},
        {"mu": 2.12934238, "phi": 1.4099249, "p": 1.58937002},
        -595.921053046,
    )


def zeros_of_their_own() -> Case:
    """statsmodels#9156: negative binomial counts of which half were set to zero."""
    rng = np.random.default_rng(9)
    y = np.where(rng.random(300) < 0.5, 0, rng.negative_binomial(10, 0.5, 300))
    counts = mle.regression(lambda p, o: (p["mu"], p["alpha"]), mle.families.negative_binomial)
    return Case(
        mle.zero_inflated(counts, "pi"),
        {"mu": [2.0, 10.0], "alpha": [0.5, 0.01], "pi": [0.3, 0.9]},
        {"y": y},
        {"mu": mle.positive, "alpha": mle.positive, "pi": mle.unit_interval},
        {"mu": 10.4894773, "alpha": 1 / 10.43567604, "pi": 0.46962721},
        -667.689292564,
    )


def returns(unit: float = 1.0) -> Case:
    """arch#213: GARCH(1,1) of daily returns in their own units, of which the constant is 3e-6."""
    rng = np.random.default_rng(11)
    n, w, a, b = 1250, 2e-6, 0.08, 0.9
    s, r = w / (1 - a - b), np.empty(1250)
    for i in range(n):
        r[i] = 5e-4 + np.sqrt(s) * rng.standard_normal()
        s = w + a * (r[i] - 5e-4) ** 2 + b * s

    def contributions(p: Any, d: Any) -> Any:
        e = d["r"] - p["mu"]
        _, v = jax.lax.scan(lambda s, x: (p["omega"] + p["alpha"] * x**2 + p["beta"] * s, s), d["before"][0], e)
        return -0.5 * (jnp.log(2 * jnp.pi * v) + e**2 / v)

    return Case(
        mle.joint(contributions),
        {"mu": [0.0, 0.0], "omega": [0.1, 1e-5], "alpha": [0.1, 0.1], "beta": [0.8, 0.8]},
        {"r": r, "before": np.full(n, r.var())},
        {"omega": mle.positive, "alpha": mle.unit_interval, "beta": mle.unit_interval},
        {"mu": 0.0005537373, "omega": 2.6862692e-6, "alpha": 0.100389558, "beta": 0.874630513},
        -1711.956108018 + n * np.log(100),
    )


def selection() -> Case:
    """Statalist 2009: a regression seen where another one is positive, by full maximum likelihood."""
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal((600, 2)), rng.standard_normal(600)
    e = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 600)
    seen = 0.3 + w @ [0.8, 0.5] + 0.4 * x + e[:, 0] > 0

    def density(p: Any, o: Any) -> Any:
        z = p["g"][0] + o["w"] @ p["g"][1:3] + p["g"][3] * o["x"]
        u, r = (o["y"] - p["b"][0] - p["b"][1] * o["x"]) / p["sigma"], p["rho"]
        chosen = mle.special.log_ndtr((z + r * u) / jnp.sqrt(1 - r * r))
        here = -0.5 * u**2 - 0.5 * jnp.log(2 * jnp.pi) - jnp.log(p["sigma"]) + chosen
        return jnp.where(o["seen"], here, mle.special.log_ndtr(-z))

    return Case(
        density,
        {"g": [[0.0] * 4] * 3, "b": [[0.0] * 2] * 3, "sigma": [1.0] * 3, "rho": [0.0, 0.9, -0.9]},
        {"x": x, "w": w, "seen": seen, "y": np.where(seen, 1 + 0.7 * x + 1.5 * e[:, 1], 0.0)},
        {"sigma": mle.positive, "rho": mle.interval(-1.0, 1.0)},
        {"g": [0.30762, 0.8143, 0.44928, 0.48726], "b": [0.95789, 0.75559], "sigma": 1.5310693, "rho": 0.46466},
        -907.7501644838,
        rtol=2e-5,  # as it was printed
    )


def purity() -> Case:
    """A question of 76996580 at Stack Overflow: beta regression with a cauchit link, 18 published rows."""
    model = mle.regression(
        lambda p, o: (jnp.arctan(p["a"] + p["b"] * o["x"]) / jnp.pi + 0.5, p["phi"]), mle.families.beta
    )
    text = """.97175 .9191161111 .9456172222 .0464116667 .0413683333 .034105555 .9178222222 .9661872222 .9619844444
    .9576777778 .9710794444 .9562516667"""
    y = np.append(np.array(text.split(), float), [0.0277777778] * 6)
    return Case(
        model,
        {"a": [0.0, -1.0, -10.0], "b": [0.0, 0.01, 0.1], "phi": [5.0, 5.0, 5.0]},
        {"x": np.repeat([194.0, 73.0, 105.0, 222.0, 0.0, 0.0], 3), "y": y},
        {"phi": mle.positive},
        {"a": -19.165619, "b": 0.2139302, "phi": 40.188214},
        31.218574427,
    )


@pytest.mark.parametrize(
    "case",
    [
        lives_from_unknown_birth,
        one_failure,
        limited_failures,
        covariate_far_from_zero,
        rain,
        zeros_of_their_own,
        returns,
        selection,
        purity,
    ],
)
def test_right_from_every_start(case: Callable[[], Case]) -> None:
    one = case()
    starts = {name: np.asarray(values) for name, values in one.starts.items()}
    n = len(next(iter(starts.values())))
    repeat = lambda leaf: np.broadcast_to(leaf, (n, *np.shape(leaf)))  # noqa: E731
    data, weights = jax.tree.map(repeat, (one.data, one.weights))
    fits = mle.fit_batch(one.density, starts, data, init_axis=0, constraints=one.constraints, weights=weights)
    assert fits.status.counts() == {"converged": n}
    np.testing.assert_allclose(fits.log_likelihood, one.log_likelihood, rtol=2e-9)
    for known, found in ((one.params, fits.params), (one.errors, fits.standard_errors())):
        for name, value in known.items():
            np.testing.assert_allclose(found[name], repeat(value), rtol=one.rtol, err_msg=name)


def test_mixed_logit_leaves_the_saddle() -> None:
    """logitr#26: even in the standard deviation, so that zero is stationary whatever the data; also a maximum."""
    nodes, masses = np.polynomial.hermite_e.hermegauss(24)
    shares = jnp.asarray(masses / np.sqrt(2 * np.pi))

    def density(p: Any, o: Any) -> Any:
        def of_node(z: Any) -> Any:
            utility = (p["m"] + p["s"] * z) * o["x"]
            mine = jnp.take_along_axis(utility, o["choice"][:, None], 1)[:, 0]
            return jnp.sum(mine - jax.nn.logsumexp(utility, axis=1))

        return jax.nn.logsumexp(jax.vmap(of_node)(jnp.asarray(nodes)) + jnp.log(shares))

    sets = []
    for spread, seed in ((0.7, 1), (0.0, 2), (0.0, 5)):
        rng = np.random.default_rng(seed)
        x, b = rng.standard_normal((150, 8, 3)), 0.8 + spread * rng.standard_normal(150)
        sets.append({"x": x, "choice": (b[:, None, None] * x + rng.gumbel(size=(150, 8, 3))).argmax(2)})
    data = jax.tree.map(lambda *parts: np.repeat(np.stack(parts), 3, axis=0), *sets)
    starts = {"m": np.zeros(9), "s": np.tile([1.0, 0.0, -1.0], 3)}
    fits = mle.fit_batch(density, starts, data, init_axis=0)
    assert fits.status.counts() == {"converged": 9}
    known = np.repeat([[0.786461396, 0.69503513], [0.783283024, 0.07682311], [0.805566078, 0.0]], 3, axis=0)
    found = np.stack([fits.params["m"], np.abs(fits.params["s"])], axis=1)
    np.testing.assert_allclose(found, known, rtol=1e-6, atol=1e-7)
    best = np.repeat([-1150.2268674413, -1129.22946275087, -1119.88982568624], 3)
    np.testing.assert_allclose(fits.log_likelihood, best, rtol=1e-12)


#: Shape, location and scale of extremes, and the log-likelihood; the last shape has no regular errors.
EXTREMES = {
    -0.2: (0.166285, 10.367857, 3.195905, -567.412564),
    0.4: (-0.48049, 10.398992, 3.043622, -483.877789),
    0.8: (-0.879535, 10.35758, 2.909338, -427.764707),
    0.0: (-0.050633, 10.382868, 3.14494, -539.709459),
}


def test_extremes_whose_support_ends_at_a_parameter() -> None:
    """scipy#20094: generalised extremes, written as in a textbook: NaN beyond their end."""

    def density(p: Any, x: Any) -> Any:
        z = (x - p["m"]) / p["s"]
        t = jnp.log1p(p["xi"] * z) / p["xi"]
        return -jnp.log(p["s"]) - (1 + p["xi"]) * t - jnp.exp(-t)

    sets = [scipy.stats.genextreme.rvs(xi, loc=10, scale=3, size=200, random_state=4) for xi in EXTREMES]
    x = np.repeat(np.stack(sets), 2, axis=0)
    starts = {"m": x.mean(axis=1), "s": x.std(axis=1), "xi": np.tile([0.1, -0.1], 4)}
    fits = mle.fit_batch(density, starts, x, init_axis=0, constraints={"s": mle.positive})
    assert fits.status.counts() == {"converged": 8}
    known = np.repeat(np.array(list(EXTREMES.values())), 2, axis=0).T
    for name, value in zip(("xi", "m", "s"), known):
        np.testing.assert_allclose(fits.params[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(fits.log_likelihood, known[3], rtol=2e-9)
