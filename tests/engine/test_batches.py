"""Many data sets: the same as one by one, whatever shares the batch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from tests.engine.ragged_sets import LENGTHS, PADDED, RNG, ragged_fit
from tests.helpers.models import RULES, START, least_squares, line, line_data


@pytest.fixture(scope="module")
def ragged() -> mle.Fit:
    return ragged_fit()


def test_ragged_sets_are_their_own_rows(ragged: mle.Fit) -> None:
    """Padding is NaN here and must never be seen."""
    for i, n in enumerate(LENGTHS):
        if n < 3:
            assert str(ragged[i].status) == "too_few_observations"
            assert np.isnan(float(ragged.standard_errors()["slope"][i]))
        elif n > 3:
            best = least_squares({k: v[i, :n] for k, v in PADDED.items()})
            assert str(ragged[i].status) == "converged"
            np.testing.assert_allclose([ragged.params[k][i] for k in best], list(best.values()), rtol=1e-9)
    np.testing.assert_array_equal(ragged.n_obs, LENGTHS)


def test_groups_and_padded_sets_agree(ragged: mle.Fit) -> None:
    key = np.repeat(np.arange(40), LENGTHS)
    inside = np.arange(60) < LENGTHS[:, None]
    order = RNG.permutation(len(key))
    table = {"key": key[order], **{k: v[inside][order] for k, v in PADDED.items()}}
    fits = mle.fit_batch(line, START, mle.group_by(table, "key"), constraints=RULES)
    present = np.flatnonzero(LENGTHS)
    np.testing.assert_array_equal(fits.keys["key"], present)
    np.testing.assert_array_equal(fits._solution.status, np.asarray(ragged._solution.status)[present])
    sure = np.asarray(fits.converged)
    np.testing.assert_allclose(fits.params["sigma"][sure], ragged.params["sigma"][present][sure], rtol=1e-9)
    np.testing.assert_allclose(fits.covariance()[sure], ragged.covariance()[present][sure], rtol=1e-6, atol=1e-12)
    one = fits[5]
    data = mle.group_by(table, "key")[5]
    np.testing.assert_allclose(
        one.contributions(), [line(one.params, {k: v[i] for k, v in data.items()}) for i in range(len(data["x"]))]
    )
    assert one.contributions().shape == (LENGTHS[present[5]],)
    np.testing.assert_allclose(np.sum(one.scores(), axis=0), 0, atol=1e-7)
    wide = fits.contributions()
    assert wide.shape == (len(present), 60)
    np.testing.assert_allclose(wide[5, : len(data["x"])], one.contributions(), rtol=1e-12)
    assert not np.any(wide[5, len(data["x"]) :])
    np.testing.assert_allclose(np.sum(wide, axis=1)[sure], fits.log_likelihood[sure], rtol=1e-12)
    picked = fits[sure]
    assert len(picked) == sure.sum()
    np.testing.assert_array_equal(picked.keys["key"], present[sure])
    np.testing.assert_allclose(picked[-3:].covariance(), fits.covariance()[sure][-3:], rtol=1e-9, atol=1e-14)


def test_composition_never_matters(ragged: mle.Fit) -> None:
    """Bit for bit, in any order, with other neighbours, even sick ones."""
    order = RNG.permutation(40)
    shuffled = mle.fit_batch(
        line, START, {k: v[order] for k, v in PADDED.items()}, lengths=LENGTHS[order], constraints=RULES
    )
    np.testing.assert_array_equal(
        np.asarray(shuffled._solution.estimates), np.asarray(ragged._solution.estimates)[order]
    )
    np.testing.assert_array_equal(
        np.asarray(shuffled._solution.standard_errors), np.asarray(ragged._solution.standard_errors)[order]
    )
    np.testing.assert_array_equal(shuffled.steps, np.asarray(ragged.steps)[order])
    sick = {k: v.copy() for k, v in PADDED.items()}
    sick["y"][0], sick["x"][5, :7] = 0.0, np.nan
    others = mle.fit_batch(line, START, sick, lengths=LENGTHS, constraints=RULES)
    assert str(others[5].status) == "nonfinite_data"
    healthy = ~np.isin(np.arange(40), [0, 5])
    np.testing.assert_array_equal(
        np.asarray(others._solution.estimates)[healthy], np.asarray(ragged._solution.estimates)[healthy]
    )


@pytest.mark.slow
def test_init_of_each_set() -> None:
    sets = line_data(30, 6, seed=9)
    starts = {"intercept": np.linspace(-1, 1, 6), "slope": np.full(6, 2.0), "sigma": np.linspace(0.5, 2, 6)}
    shared = mle.fit_batch(line, START, sets, constraints=RULES)
    own = mle.fit_batch(line, starts, sets, init_axis=0, constraints=RULES)
    np.testing.assert_allclose(own._solution.estimates, shared._solution.estimates, rtol=1e-9)
    held = mle.fit_batch(line, starts, sets, init_axis=0, constraints=RULES | {"intercept": mle.fixed})
    np.testing.assert_array_equal(held.params["intercept"], starts["intercept"])
    one = mle.fit(
        line,
        {k: v[2] for k, v in starts.items()},
        {k: v[2] for k, v in sets.items()},
        constraints=RULES | {"intercept": mle.fixed},
    )
    np.testing.assert_allclose(held[2].params["slope"], one.params["slope"], rtol=1e-10)

    def guess(data: Any) -> Any:
        return {"intercept": jnp.mean(data["y"]), "slope": 0.0, "sigma": jnp.std(data["y"])}

    called = mle.fit_batch(line, guess, sets, constraints=RULES)
    np.testing.assert_allclose(called._solution.estimates, shared._solution.estimates, rtol=1e-9)
    groups = mle.group_by({"key": np.repeat([0, 1, 2], [5, 20, 40]), **line_data(65)}, "key")
    grouped = mle.fit_batch(line, guess, groups, constraints=RULES)
    for i in range(3):
        best = least_squares(groups[i])
        np.testing.assert_allclose([grouped.params[k][i] for k in best], list(best.values()), rtol=1e-9)
        np.testing.assert_allclose(
            mle.fit(line, guess, groups[i], constraints=RULES).params["slope"], best["slope"], rtol=1e-9
        )
    # A start that fails for one set is that set's status.
    bad = {k: v.copy() for k, v in sets.items()}
    bad["y"][1] = 3.0
    statuses = mle.fit_batch(line, guess, bad, constraints=RULES).status.names()
    assert statuses[1] == "nonfinite_start"
    assert set(statuses[:1] + statuses[2:]) == {"converged"}


@pytest.mark.slow
def test_an_empty_set_with_weights_at_the_end() -> None:
    """Its rows would begin where the arrays of its piece end."""
    x, weights = np.arange(24.0).reshape(3, 8), np.ones((3, 8))
    fits = mle.fit_batch(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, x, weights=weights, lengths=[8, 8, 0])
    assert [str(status) for status in fits.status] == ["converged", "converged", "too_few_observations"]
    np.testing.assert_allclose(fits.params[:2], [3.5, 11.5], rtol=1e-12)


@pytest.mark.slow
def test_weights_repeat_rows() -> None:
    sets = line_data(20, 3, seed=6)
    weights = RNG.integers(0, 4, size=(3, 20)).astype(float)
    sets["y"][weights == 0] = np.nan  # of weight zero: never seen
    fits = mle.fit_batch(line, START, sets, weights=weights, constraints=RULES)
    table = {"key": np.repeat(np.arange(3), 20), "w": weights.ravel(), **{k: v.ravel() for k, v in sets.items()}}
    groups = mle.group_by(table, "key")
    grouped = mle.fit_batch(line, START, groups, weights="w", constraints=RULES)
    for i in range(3):
        repeated = {k: np.repeat(v[i], weights[i].astype(int)) for k, v in sets.items()}
        plain = mle.fit(line, START, repeated, constraints=RULES)
        for fit in (
            fits[i],
            grouped[i],
            mle.fit(line, START, {k: v[i] for k, v in sets.items()}, weights=weights[i], constraints=RULES),
        ):
            np.testing.assert_allclose(fit._solution.estimates, plain._solution.estimates, rtol=1e-9)
            np.testing.assert_allclose(fit._solution.standard_errors, plain._solution.standard_errors, rtol=1e-9)
            np.testing.assert_allclose(fit.covariance(), plain.covariance(), rtol=1e-8, atol=1e-14)
            assert float(fit.n_obs) == weights[i].sum()
            np.testing.assert_allclose(fit.bic, plain.bic, rtol=1e-12)
    np.testing.assert_allclose(grouped.covariance(), fits.covariance(), rtol=1e-9, atol=1e-14)
    # Contributions are unweighted, and a row that does not count is still its own.
    for contributions in (fits.contributions(), grouped.contributions()):
        np.testing.assert_array_equal(np.isnan(contributions), weights == 0)


def test_weights_that_count_nothing() -> None:
    data = line_data()
    names = [
        str(mle.fit(line, START, data, weights=weights, constraints=RULES).status)
        for weights in (np.full(40, np.nan), np.zeros(40), np.where(np.arange(40) == 7, np.nan, 1.0))
    ]
    assert names == ["nonfinite_data", "too_few_observations", "nonfinite_data"]


def autoregression(params: Any, data: Any) -> Any:
    previous = jnp.concatenate([jnp.zeros(1), data["x"][:-1]])
    z = (data["x"] - params["phi"] * previous) / params["sigma"]
    return -0.5 * z**2 - jnp.log(params["sigma"]) - 0.5 * jnp.log(2 * jnp.pi)


@pytest.mark.slow
def test_series_of_unequal_length() -> None:
    lengths = np.array([50, 7, 23, 12])
    x = np.where(np.arange(50) < lengths[:, None], np.cumsum(RNG.normal(size=(4, 50)), axis=1), np.inf)
    model = mle.joint(autoregression)
    start, rules = {"phi": 0.0, "sigma": 1.0}, {"sigma": mle.positive}
    fits = mle.fit_batch(model, start, {"x": x}, lengths=lengths, constraints=rules)
    assert fits.status.counts() == {"converged": 4}
    for i, n in enumerate(lengths):
        now, before = x[i, :n], np.concatenate([[0.0], x[i, : n - 1]])
        phi = now @ before / (before @ before)
        np.testing.assert_allclose(fits.params["phi"][i], phi, rtol=1e-9)
        np.testing.assert_allclose(fits.params["sigma"][i], np.sqrt(np.mean((now - phi * before) ** 2)), rtol=1e-9)
    single = mle.fit(model, start, {"x": x[2, :23]}, constraints=rules)
    np.testing.assert_allclose(
        fits.covariance("sandwich")[2], single.covariance("sandwich"), rtol=1e-7, atol=1e-12
    )
    assert fits.scores().shape == (4, 50, 2)


def test_inside_jit() -> None:
    sets = line_data(15, 5, seed=8)
    plain = mle.fit_batch(line, START, sets, constraints=RULES)

    @jax.jit
    def inside(data: Any, lengths: Any) -> Any:
        fits = mle.fit_batch(line, START, data, lengths=lengths, constraints=RULES)
        return fits, fits.covariance(), fits[1:3].params, fits.intervals()

    fits, covariance, some, _ = inside(sets, np.full(5, 15))
    np.testing.assert_allclose(fits._solution.estimates, plain._solution.estimates, rtol=1e-12)
    np.testing.assert_allclose(covariance, plain.covariance(), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(some["slope"], plain.params["slope"][1:3], rtol=1e-12)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(plain)} == {5}
    taken = jax.tree.map(lambda leaf: leaf[3], plain)
    np.testing.assert_allclose(taken.covariance(), plain.covariance()[3], rtol=1e-9, atol=1e-14)


@pytest.mark.slow
@pytest.mark.standard_promotion
def test_a_regression_keeps_the_precision_of_its_start() -> None:
    """float64 data, weights and blocks beside float32 parameters."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(12, 40))
    data = {"x": x, "y": rng.poisson(np.exp(0.3 + 0.5 * x)).astype(float)}
    model = mle.regression(lambda p, obs: jnp.exp(p["a"] + p["b"] * obs["x"]), mle.families.poisson)
    start = {"a": jnp.float32(0.0), "b": jnp.float32(0.0)}
    exact = mle.fit_batch(model, {"a": 0.0, "b": 0.0}, data)
    for options in ({}, {"weights": np.ones((12, 40))}, {"lengths": np.full(12, 40)}, {"solver": mle.Scoring()}):
        fits = mle.fit_batch(model, start, data, **options)
        assert fits.params["b"].dtype == jnp.float32
        assert fits.status.counts() == {"converged": 12}
        np.testing.assert_allclose(fits.params["b"], exact.params["b"], rtol=2e-3)


@pytest.mark.slow
def test_a_finished_fit_inside_jit() -> None:
    """What was fitted outside is known to no trace, and gives the same inside one."""
    data = line_data(30, 5, seed=1)
    fits = mle.fit_batch(line, START, data, constraints=RULES)
    one = mle.fit(line, START, {k: v[0] for k, v in data.items()}, constraints=RULES)
    for fit in (one, fits):
        inside = jax.jit(lambda factor, fit=fit: factor * fit.covariance("sandwich"))(2.0)
        np.testing.assert_allclose(inside, 2 * fit.covariance("sandwich"), rtol=1e-12)


def test_random_keys_among_args() -> None:
    """Typed keys are arrays that only JAX can hold."""
    key = jax.random.key(3)
    x = np.random.default_rng(0).normal(size=(4, 20))
    density = lambda mean, x, key: -0.5 * (x - mean - jax.random.normal(key)) ** 2  # noqa: E731
    fits = mle.fit_batch(density, 0.0, x, args=key)
    np.testing.assert_allclose(fits.params, x.mean(axis=1) - jax.random.normal(key), rtol=1e-10)
    spread = np.sum((x - x.mean(axis=1, keepdims=True)) ** 2, axis=1) / 20**2
    np.testing.assert_allclose(fits[[2, 0]].covariance("sandwich").ravel(), spread[[2, 0]], rtol=1e-8)
