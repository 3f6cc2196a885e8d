"""How much each observation moves the estimates."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from tests.helpers.models import RULES, START, line
from tests.inference.lines_and_counts import BEST, DATA, DESIGN, RESIDUAL, N, line_fit


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return line_fit()


def test_influence_of_the_normal_line(fit: mle.Fit) -> None:
    """Of coefficients in closed form, as regression texts have it; of sigma from its square, a weighted mean."""
    found = dict(zip(fit.parameter_names, np.asarray(fit.influence()).T))
    coef = np.linalg.solve(DESIGN.T @ DESIGN, (DESIGN * RESIDUAL[:, None]).T)
    np.testing.assert_allclose([found["intercept"], found["slope"]], coef, rtol=1e-9, atol=1e-12)
    wanted = (RESIDUAL**2 - BEST["sigma"] ** 2) / (2 * N * BEST["sigma"])
    np.testing.assert_allclose(found["sigma"], wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_influence_against_refits(fit: mle.Fit) -> None:
    """Each observation left out, and each weighed a little more and a little less: 90 fits in one batch."""
    weights = np.ones((3 * N, N))
    step = 1e-4
    each = np.arange(N)
    weights[each, each] = 0.0
    weights[N + each, each] += step
    weights[2 * N + each, each] -= step
    data = {name: np.broadcast_to(column, (3 * N, N)) for name, column in DATA.items()}
    refits = mle.fit_batch(line, START, data, constraints=RULES, weights=weights)
    assert np.all(refits.converged)
    out, more, less = np.split(np.column_stack([refits.params[name] for name in fit.parameter_names]), 3)
    influence = np.asarray(fit.influence())
    # A central difference errs by the square of its step.
    np.testing.assert_allclose((more - less) / (2 * step), influence, rtol=1e-6, atol=1e-8)
    # Coefficients move by the influence over one less the leverage, exactly; sigma about so.
    leverage = np.sum(DESIGN @ np.linalg.inv(DESIGN.T @ DESIGN) * DESIGN, axis=1)
    moves = out - [float(fit.params[name]) for name in fit.parameter_names]
    which = [fit.parameter_names.index(name) for name in ("intercept", "slope")]
    np.testing.assert_allclose(
        moves[:, which] * (1 - leverage)[:, None], -influence[:, which], rtol=1e-7, atol=1e-10
    )
    sigma = fit.parameter_names.index("sigma")
    assert np.corrcoef(moves[:, sigma], -influence[:, sigma])[0, 1] > 0.99
    own = np.asarray(refits[3].influence())
    np.testing.assert_allclose(weights[3] @ own, 0, atol=1e-10)  # as the scores of a fit add up to none
    # Back in with the row that was left out: what it would then do, by the leverage it had before.
    np.testing.assert_allclose(own[3, which] * (1 - leverage[3]), -moves[3, which], rtol=1e-7)


@pytest.mark.slow
def test_influence_of_ragged_sets() -> None:
    data = {name: np.stack([column, column[::-1]]) for name, column in DATA.items()}
    fits = mle.fit_batch(line, START, data, constraints={**RULES, "slope": mle.fixed}, lengths=np.array([N, 12]))
    found = np.asarray(fits.influence())
    assert found.shape == (2, N, 3)
    assert np.all(found[1, 12:] == 0)
    assert np.all(found[..., fits.parameter_names.index("slope")] == 0)
    off = (data["y"] - data["x"])[1, :12]
    np.testing.assert_allclose(
        found[1, :12, fits.parameter_names.index("intercept")], (off - off.mean()) / 12, rtol=1e-8, atol=1e-12
    )


def test_influence_of_what_did_not_converge() -> None:
    fit = mle.fit(lambda p, x: p * x - jnp.exp(p), 0.0, np.zeros(5))
    assert str(fit.status) == "unbounded"
    assert np.all(np.isnan(fit.influence()))
    scalar = mle.fit(mle.joint(lambda m, x: -0.5 * jnp.sum((x - m) ** 2)), 0.0, np.arange(5.0))
    with pytest.raises(ValueError, match="the joint model returns a scalar"):
        scalar.influence()
