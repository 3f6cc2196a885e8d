"""More problems from public trackers: integrals, quantiles and hidden states in densities, tied parameters.

The answers are those of SciPy, which printed fewer digits of integrals and of numerical derivatives.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import mlekit as mle

pytestmark = pytest.mark.standard_promotion  # models as their authors wrote them


def test_normalised_by_quadrature() -> None:
    """A habit of zfit: a density that is known but for its integral, which depends on all parameters."""
    rng = np.random.default_rng(4)
    z, u = rng.uniform(-3, 3, 20000), rng.uniform(0, 1, 20000)
    x = z[u * 1.3 < np.exp(-(np.abs(z - 0.5) ** 1.5) / 1.2) * (1 + 0.3 * np.cos(2 * z))][:800]
    nodes, masses = map(jnp.asarray, np.polynomial.legendre.leggauss(64))

    def density(p: Any, x: Any) -> Any:
        def unnormalised(t: Any) -> Any:
            return -(jnp.abs(t - p["m"]) ** p["k"]) / p["s"] + jnp.log1p(p["c"] * jnp.cos(2 * t))

        below, above = (p["m"] + 3) / 2, (3 - p["m"]) / 2
        integral = below * jnp.sum(masses * jnp.exp(unnormalised((nodes + 1) * below - 3)))
        integral += above * jnp.sum(masses * jnp.exp(unnormalised((nodes + 1) * above + p["m"])))
        return unnormalised(x) - jnp.log(integral)

    begin = {"m": [0.4, -1.0], "s": [1.0, 3.0], "k": [2.0, 2.5], "c": [0.1, -0.3]}
    starts = {name: np.array(values) for name, values in begin.items()}
    rules = {"m": mle.interval(-2.9, 2.9), "s": mle.positive, "k": mle.positive, "c": mle.interval(-1.0, 1.0)}
    fits = mle.fit_batch(density, starts, np.stack([x, x]), init_axis=0, constraints=rules)
    assert fits.status.counts() == {"converged": 2}
    for name, value in {"m": 0.5529858, "s": 1.3087541, "k": 1.5642623, "c": 0.4109959}.items():
        np.testing.assert_allclose(fits.params[name], value, rtol=3e-7, err_msg=name)
    np.testing.assert_allclose(fits.log_likelihood, -994.1975249, rtol=2e-9)


def test_copula_of_student() -> None:
    """openturns#2371: the quantile of Student's t with derivatives by the degrees of freedom."""
    z = scipy.stats.multivariate_t.rvs([0, 0], [[1, 0.6], [0.6, 1]], df=4, size=200, random_state=1)
    u = scipy.stats.rankdata(z, axis=0) / 201

    def density(p: Any, o: Any) -> Any:
        nu, rho = p["nu"], p["rho"]
        a, b = (mle.special.student_t_quantile(share, nu) for share in (o[0], o[1]))
        form = (a * a - 2 * rho * a * b + b * b) / (1 - rho * rho)
        both = -jnp.log(2 * jnp.pi) - 0.5 * jnp.log1p(-rho * rho) - (nu + 2) / 2 * jnp.log1p(form / nu)
        return both - jax.scipy.stats.t.logpdf(a, nu) - jax.scipy.stats.t.logpdf(b, nu)

    rules = {"rho": mle.interval(-1.0, 1.0), "nu": mle.positive}
    fit = mle.fit(density, {"rho": 0.3, "nu": 8.0}, u, constraints=rules)
    assert str(fit.status) == "converged"
    np.testing.assert_allclose([fit.params["rho"], fit.params["nu"]], [0.64388089, 7.99534], rtol=1e-6)
    np.testing.assert_allclose(fit.log_likelihood, 51.2931386429, rtol=1e-10)


def test_hidden_states_whose_labels_are_free() -> None:
    """seqHMM#7: a chain of two hidden states; with labels that nothing orders there are two maxima as high."""
    rng = np.random.default_rng(1)
    chain, state, y = np.array([[0.9, 0.1], [0.2, 0.8]]), 0, np.empty(300)
    for i in range(300):
        y[i] = rng.normal([0.0, 3.0][state], 1.0)
        state = rng.choice(2, p=chain[state])

    def log_likelihood(p: Any, y: Any) -> Any:
        moves = jnp.log(p["P"])
        seen = -0.5 * ((y[:, None] - p["m"]) / p["s"]) ** 2 - jnp.log(p["s"]) - 0.5 * jnp.log(2 * jnp.pi)

        def forward(before: Any, here: Any) -> Any:
            return jax.nn.logsumexp(before[:, None] + moves, axis=0) + here, None

        return jax.nn.logsumexp(jax.lax.scan(forward, seen[0] - jnp.log(2), seen[1:])[0])

    rules = {"P": mle.simplex, "s": mle.positive}
    starts = {"P": np.full((2, 2, 2), 0.5), "m": np.array([[0.0, 5.0], [4.0, 1.0]]), "s": np.full(2, 1.5)}
    fits = mle.fit_batch(mle.joint(log_likelihood), starts, np.stack([y, y]), init_axis=0, constraints=rules)
    assert fits.status.counts() == {"converged": 2}
    np.testing.assert_allclose(fits.log_likelihood, -488.9537255533, rtol=1e-11)
    np.testing.assert_allclose(np.sort(fits.params["m"], axis=1), [[-0.0123489, 3.0359422]] * 2, rtol=1e-5)


def test_peaks_that_share_their_width() -> None:
    """astropy#4521: one width tied to another one, a constant fixed, and the covariance of all of them."""
    rng = np.random.default_rng(0)
    x = np.linspace(-6, 10, 120)
    y = 3 * np.exp(-0.5 * (x / 1.1) ** 2) + 2 * np.exp(-0.5 * ((x - 4) / 1.1) ** 2) + 1
    y += 0.1 * rng.standard_normal(120)

    def density(p: Any, o: Any) -> Any:
        def peak(a: Any, m: Any, s: Any) -> Any:
            return a * jnp.exp(-0.5 * ((o["x"] - m) / s) ** 2)

        mean = peak(p["a1"], p["m1"], p["s1"]) + peak(p["a2"], p["m2"], p["s2"]) + p["c"]
        return -0.5 * ((o["y"] - mean) / 0.1) ** 2

    start = {"a1": 2.0, "m1": 0.3, "s1": 1.0, "a2": 1.0, "m2": 4.3, "s2": 1.0, "c": 1.0}
    rules = {"s2": mle.tied(to="s1"), "c": mle.fixed}
    fit = mle.fit(density, start, {"x": x, "y": y}, constraints=rules)
    assert (str(fit.status), fit.n_free) == ("converged", 5)
    known = {"a1": 3.0839028, "m1": 0.00122780, "s1": 1.08571806, "a2": 2.03695573, "m2": 3.9954833}
    for name, value in known.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
    assert fit.params["s2"] == fit.params["s1"]
    # SciPy has the expected information, which is within three per cent.
    errors = fit.standard_errors()
    for name, value in {"a1": 0.03082224, "m1": 0.01354043, "s1": 0.00990999, "a2": 0.02924352}.items():
        np.testing.assert_allclose(errors[name], value, rtol=0.03, err_msg=name)
    assert (errors["c"], errors["s2"]) == (0.0, errors["s1"])


@pytest.mark.parametrize("start", [5.0, 20.0, 30.0])
def test_counts_from_far(start: float) -> None:
    """A concave log-likelihood with exponentials, of which a full step from far brings one unit."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(60)
    y = rng.poisson(np.exp(0.5 + 0.3 * x))

    def density(p: Any, o: Any) -> Any:
        eta = p["a"] + p["b"] * o["x"]
        return o["y"] * eta - jnp.exp(eta)

    fit = mle.fit(density, {"a": start, "b": 0.0}, {"x": x, "y": y})
    assert str(fit.status) == "converged"
    np.testing.assert_allclose(fit.params["a"], 0.69422597056, rtol=1e-9)
