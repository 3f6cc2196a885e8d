"""Converged if and only if there is a maximum, on data drawn at random."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import strategies as st
from jax.scipy.special import gammaln
from jax.scipy.stats import norm

import mlekit as mle
from tests.helpers.marks import mostly_slow
from tests.solvers.sick_data import (
    MODELS,
    S,
    constraints_of,
    fit_one,
    healthy,
    logistic,
    negative_binomial,
    student,
)


def poisson(params, obs):
    eta = obs["x"] @ params["coef"]
    return obs["y"] * eta - jnp.exp(eta) - gammaln(obs["y"] + 1)


def normal(params, obs):
    return norm.logpdf(obs["y"], obs["x"] @ params["coef"], params["sigma"])


@pytest.mark.parametrize("model", MODELS)
def test_a_converged_fit_is_a_maximum(model):
    """Central differences of the log-likelihood vanish, and every neighbour has less."""
    log_density, _ = MODELS[model]
    data = healthy(model, 0)
    fit = fit_one(model, data)
    assert fit.converged
    assert 0 <= fit.certificate.decrement <= 1e-9
    assert fit.certificate.min_eigenvalue > 0
    params, errors = (jax.flatten_util.ravel_pytree(tree) for tree in (fit.params, fit.standard_errors()))
    (centre, unravel), sizes = params, errors[0]
    assert np.all(sizes > 0)
    values = jax.jit(jax.vmap(lambda v: mle.log_likelihood(log_density, unravel(v), data)))
    k = len(centre)
    steps = np.concatenate([np.eye(k), -np.eye(k)])
    up, down = np.split(np.asarray(values(centre[None] + 1e-4 * sizes[None] * steps)), 2)
    # In units of standard errors: a rise of 1e-6 nats a standard error; rounding alone makes 1e-9.
    assert np.max(np.abs(up - down)) / 2e-4 < 1e-6
    best = float(values(centre[None])[0])
    assert best == pytest.approx(float(fit.log_likelihood), rel=1e-13)
    directions = np.random.default_rng(0).normal(size=(200, k))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for distance in (0.01, 0.1):
        assert np.all(np.asarray(values(centre[None] + distance * sizes[None] * directions)) < best)


def existing(x: np.ndarray, y: np.ndarray, model: str) -> str:
    """Whether the likelihood has one maximum: `yes`, `flat`, `infinite` or `both`, by linear programming.

    It rises for ever along `b` if no observation loses and some gain (Albert and Anderson 1984 for the
    logistic, Santos Silva and Tenreyro 2010 for the Poisson regression).
    """
    k = x.shape[1]
    if model == "logistic":
        gains, still = (2 * y - 1)[:, None] * x, np.zeros((0, k))
    else:
        gains, still = -x[y == 0], x[y > 0]
    flat = np.linalg.matrix_rank(x) < k
    away = False
    if len(gains):
        equal = {"A_eq": still, "b_eq": np.zeros(len(still))} if len(still) else {}
        found = scipy.optimize.linprog(
            -gains.sum(0), A_ub=-gains, b_ub=np.zeros(len(gains)), bounds=[(-1, 1)] * k, **equal
        )
        away = -found.fun > 1e-7
    return {(0, 0): "yes", (1, 0): "flat", (0, 1): "infinite", (1, 1): "both"}[flat, away]


@pytest.mark.parametrize("model", mostly_slow(["logistic", "poisson"], "logistic"))
def test_converged_if_and_only_if_a_maximum_exists(model):
    """400 data sets of 1 to 12 rows on a small grid: separated, tied, constant and singular ones abound."""
    rng = np.random.default_rng(7)
    n_sets, n = 400, 12
    lengths = rng.integers(1, n + 1, n_sets)
    x = rng.integers(-2, 3, (n_sets, n, 3)).astype(float)
    x[..., 0] = 1
    x[rng.random(n_sets) < 0.1, :, 2] = 1
    y = rng.integers(0, 2, (n_sets, n)) * (1 if model == "logistic" else rng.integers(0, 4, (n_sets, n)))
    y = y.astype(float)
    log_density = {"logistic": logistic, "poisson": poisson}[model]
    fits = mle.fit_batch(log_density, {"coef": jnp.zeros(3)}, {"x": x, "y": y}, lengths=lengths)
    wanted = [existing(x[i, : lengths[i]], y[i, : lengths[i]], model) for i in range(n_sets)]
    assert {kind: wanted.count(kind) >= 20 for kind in ("yes", "flat", "infinite", "both")} == dict.fromkeys(
        ("yes", "flat", "infinite", "both"), True
    )
    few = lengths < 3
    allowed = {
        "yes": {S.converged},
        "flat": {S.not_identified},
        "infinite": {S.unbounded},
        "both": {S.unbounded, S.not_identified},
    }
    wrong = [
        (i, int(lengths[i]), wanted[i], S(int(code)).name)
        for i, code in enumerate(np.asarray(fits.status))
        if S(int(code)) not in ({S.too_few_observations} if few[i] else allowed[wanted[i]])
    ]
    assert not wrong, f"{len(wrong)}: {wrong[:20]}"


@pytest.mark.slow
def test_negative_binomial_converges_if_and_only_if_over_dispersed():
    """Without regressors a positive dispersion is best exactly where the variance exceeds the mean."""
    rng = np.random.default_rng(3)
    n_sets, lengths = 300, np.repeat([20, 60, 200], 100)
    y = rng.poisson(rng.uniform(1, 8, (n_sets, 1)), (n_sets, 200)).astype(float)
    y[::3] = rng.binomial(8, rng.uniform(0.2, 0.9, (n_sets // 3, 1)), (n_sets // 3, 200))
    init = MODELS["negative binomial"][1]
    fits = mle.fit_batch(negative_binomial, init, {"y": y}, lengths=lengths, constraints={"alpha": mle.positive})
    excess = np.array([np.var(row[:n]) / np.mean(row[:n]) - 1 for row, n in zip(y, lengths)])
    clear = np.abs(excess) > 0.01  # the rest converges slowly: a dispersion of almost nothing
    wanted = np.where(excess > 0, S.converged, S.unbounded)
    assert np.sum(clear & (excess > 0)) > 80
    wrong = np.flatnonzero(clear & (np.asarray(fits.status) != wanted))
    assert not wrong.size, [(int(lengths[i]), float(excess[i]), fits.status[i]) for i in wrong[:10]]


N_SETS, N_ROWS = 4, 6
ODD = st.sampled_from([0.0, 1.0, 1.0, 2.0, -1.0, 0.5, 3.0, 1e-6, -1e4, 1e8])


@hypothesis.settings(deadline=None, derandomize=True, max_examples=30, database=None)
@hypothesis.given(
    x=hnp.arrays(float, (N_SETS, N_ROWS), elements=ODD | st.floats(-5, 5)),
    y=hnp.arrays(float, (N_SETS, N_ROWS), elements=ODD | st.floats(-5, 5)),
    lengths=hnp.arrays(int, (N_SETS,), elements=st.integers(1, N_ROWS)),
    model=st.sampled_from(["normal", "student"]),
)
def test_never_converged_without_proof(x, y, lengths, model):
    lengths[0] = N_ROWS  # one shape for all
    data = {"x": np.stack([np.ones_like(x), x], -1), "y": y}
    init: dict[str, Any] = {"coef": jnp.zeros(2)}
    if model == "normal":
        init["sigma"] = 2.0
    else:
        init = MODELS["student"][1]
    log_density = {"normal": normal, "student": student}[model]
    fits = mle.fit_batch(log_density, init, data, lengths=lengths, constraints=constraints_of(init))
    done = np.asarray(fits.converged)
    errors = np.concatenate(
        [np.reshape(leaf, (N_SETS, -1)) for leaf in jax.tree.leaves(fits.standard_errors())], 1
    )
    certificate = fits.certificate
    assert np.all(np.asarray(certificate.decrement)[done] <= 1e-9)
    assert np.all(np.asarray(certificate.min_eigenvalue)[done] > 0)
    assert np.all(np.isfinite(errors[done]) & (errors[done] > 0))
    assert np.all(np.isnan(errors[~done]))
    assert np.all(np.isfinite(np.asarray(fits.log_likelihood)[done]))
    assert not np.any(fits.status == S.nonfinite_data)
    # What must not have a maximum: a line through constant or fully explained data has no error left.
    for i in np.flatnonzero(done):
        rows = slice(0, lengths[i])
        if model == "normal":
            rest = np.linalg.lstsq(data["x"][i, rows], y[i, rows])[1]
            assert rest.size
            assert rest[0] > 0
        else:
            assert np.ptp(y[i, rows]) > 0
