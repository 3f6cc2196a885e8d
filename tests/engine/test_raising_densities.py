"""Log-densities that raise while they run: a word to their own data sets, and nothing to the others.

JAX keeps no program that calls back, so all of them are compiled in every run: few are wanted here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest

import mlekit as mle
from mlekit.core.runtime_errors import raised
from mlekit.core.status import ADVICE

RULES = {"scale": mle.positive}
START = {"mean": 0.0, "scale": 1.0}
SETS = np.random.default_rng(0).normal(size=(60, 12))
#: One raises by an observation, wherever the search is; one where its maximum is, and not at its start.
BY_DATA, BY_PARAMS = 7, 30
SICK = SETS.copy()
SICK[BY_DATA, 3] = 99.0
SICK[BY_PARAMS] += 3.0
WALL = "On the way the log-density raised EquinoxRuntimeError: the mean is too large."
SAID = "EquinoxRuntimeError: an observation is too large"
HEALTHY = ~np.isin(np.arange(len(SETS)), [BY_DATA, BY_PARAMS])


def density(params: Any, y: Any) -> Any:
    y = eqx.error_if(y, y > 50, "an observation is too large")
    mean = eqx.error_if(params["mean"], params["mean"] > 2, "the mean is too large.")
    return -jnp.log(params["scale"]) - 0.5 * ((y - mean) / params["scale"]) ** 2


@pytest.fixture(scope="module")
def fits() -> mle.Fit:
    return mle.fit_batch(density, START, SICK, constraints=RULES)


def test_neighbours_are_bit_for_bit_what_they_are_without(fits: mle.Fit) -> None:
    np.testing.assert_array_equal(fits.converged, HEALTHY)
    healthy = mle.fit_batch(density, START, SETS, constraints=RULES)
    for mine, theirs in zip(jax.tree.leaves(fits._solution), jax.tree.leaves(healthy._solution), strict=True):
        np.testing.assert_array_equal(np.asarray(mine)[HEALTHY], np.asarray(theirs)[HEALTHY])


def test_a_fit_that_raised_says_so_with_the_words_of_the_exception(fits: mle.Fit) -> None:
    lost = fits[BY_DATA]
    assert lost.message == f"raised: {ADVICE[mle.Status.raised]} It was {SAID}." == fits.message[BY_DATA]
    for text in (repr(lost), str(lost.diagnose())):
        assert SAID in " ".join(text.split())
    for text in (repr(fits), str(fits.diagnose()), str(fits.to_arrow()["status"][BY_DATA])):
        assert "raised" in text
    assert (lost.params["mean"], int(lost.steps), int(lost.n_obs)) == (0.0, 0, 12)
    assert np.all(np.isnan([lost.log_likelihood, lost.standard_errors()["mean"]]))


def test_a_trial_point_where_it_raises_is_one_that_is_not_finite(fits: mle.Fit) -> None:
    """The search goes on: along the wall, or to a maximum before it."""
    walled = fits[BY_PARAMS]
    assert str(walled.status) == "unbounded"
    np.testing.assert_allclose(walled.params["mean"], 2.0, atol=1e-3)
    assert WALL in walled.message
    near = jnp.asarray(SETS[0] - SETS[0].mean() + 1.5)
    for solver in (None, mle.BFGS()):
        fit = mle.fit(density, START, near, constraints=RULES, solver=solver)
        assert str(fit.status) == "converged"
        np.testing.assert_allclose(fit.params["mean"], 1.5, rtol=1e-7)
        assert "raised" not in fit.message
    fit = mle.fit(density, START, near, constraints=RULES, solver=optax.sgd(3.0), max_steps=50)
    assert str(fit.status) == "raised"


def test_what_follows_a_fit_is_nan_for_those_that_raised(fits: mle.Fit) -> None:
    np.testing.assert_array_equal(np.isnan(fits.covariance("opg")).all(axis=(1, 2)), ~HEALTHY)
    assert np.isnan(fits[BY_DATA].covariance("opg")).all()
    some = fits[BY_DATA : BY_DATA + 2]
    lower, upper = some.intervals(method="profile")["mean"]
    assert np.isnan([lower[0], upper[0]]).all()
    assert lower[1] < some.params["mean"][1] < upper[1]


def test_what_raises_beyond_a_proven_maximum_is_a_warning() -> None:
    near = SETS - SETS.mean(axis=1, keepdims=True)
    near[0] += 1.5
    fits = mle.fit_batch(density, START, near, constraints=RULES)[:2]
    assert bool(jnp.all(fits.converged))
    with pytest.warns(UserWarning, match=r"raised an exception in [123] of 8 .* the mean is too large"):
        _, upper = fits.intervals(method="profile", level=0.99)["mean"]
    np.testing.assert_array_equal(np.isnan(upper), [True, False])


@pytest.mark.parametrize("history", [False, True], ids=["compiled", "seen"])
def test_single_fits(history: bool) -> None:
    fit = mle.fit(density, {"mean": 1.0, "scale": 1.0}, SICK[BY_PARAMS], constraints=RULES, history=history)
    assert str(fit.status) == "unbounded"
    assert WALL in fit.message
    assert (fit.history is not None) == history


@pytest.mark.slow
def test_one_of_many_starts_may_raise() -> None:
    x = jnp.asarray(SETS[0])
    fit = mle.fit(density, {"mean": 5.0, "scale": 1.0}, x, constraints=RULES, starts=6, key=jax.random.key(1))
    assert str(fit.status) == "converged"
    assert "raised" in repr(fit.modes)
    both = {"mean": jnp.array([5.0, 0.0]), "scale": jnp.ones(2)}
    fits = mle.fit_batch(
        density, both, SICK[[0, BY_DATA]], init_axis=0, constraints=RULES, starts=6, key=jax.random.key(1)
    )
    assert str(fits.status) == "[converged, raised]"
    assert SAID in fits.message[1]
    np.testing.assert_allclose(fits.params["mean"][0], fit.params["mean"], rtol=1e-9)


def test_joint_models_that_close_over_arrays_and_parameters_that_are_all_fixed() -> None:
    shift = jnp.zeros(12)
    total = mle.joint(lambda params, y: jnp.sum(density(params, y + shift)))
    fits = mle.fit_batch(total, START, SICK[[0, BY_DATA, 1]], constraints=RULES)
    assert str(fits.status) == "[converged, raised, converged]"
    assert SAID in fits.message[1]
    still = {"mean": mle.fixed, "scale": mle.fixed}
    fits = mle.fit_batch(density, START, SICK[[0, BY_DATA]], constraints=still)
    assert str(fits.status) == "[converged, raised]"


def test_weighted_groups_of_any_length() -> None:
    lengths = np.arange(3, 9)
    key, x = np.repeat(np.arange(6), lengths), SETS.ravel()[: lengths.sum()]
    by_row = lambda params, obs: density(params, obs["y"])  # noqa: E731
    fits = []
    for last in (0.0, 99.0):
        y = np.where(np.arange(len(key)) == lengths[:3].sum() - 1, last, x)
        groups = mle.group_by({"key": key, "y": y, "times": np.ones(len(key))}, "key")
        fits.append(mle.fit_batch(by_row, START, groups, constraints=RULES, weights="times"))
    others = np.arange(6) != 2
    np.testing.assert_array_equal(fits[1].status == mle.Status.raised, ~others)
    np.testing.assert_array_equal(fits[1].covariance("sandwich")[others], fits[0].covariance("sandwich")[others])
    assert np.isnan(fits[1].covariance("sandwich")[2]).all()
    assert np.isnan(fits[1][[2]].covariance("sandwich")).all()


@pytest.mark.slow
def test_bootstrap_refits_that_meet_the_wall_are_left_out() -> None:
    near = jnp.asarray(SETS[0] - SETS[0].mean() + 1.7)
    fit = mle.fit(density, START, near, constraints=RULES)
    with pytest.warns(UserWarning, match="refits failed .*unbounded"):
        found = mle.bootstrap(fit, jax.random.key(0), replicates=20)
    proven = np.asarray(found.status == mle.Status.converged)
    assert 10 < proven.sum() < 20
    np.testing.assert_array_equal(np.isnan(found.vector).any(axis=-1), ~proven)


def test_derivatives_are_nan_where_a_set_raised_and_untouched_elsewhere() -> None:
    def means(sets: Any) -> Any:
        return mle.fit_batch(density, START, sets, constraints=RULES).params["mean"]

    sets = jnp.asarray(SETS).at[BY_PARAMS].set(SICK[BY_PARAMS])
    np.testing.assert_allclose(jax.grad(lambda it: means(it)[0])(sets)[0], 1 / 12, rtol=1e-9)
    assert np.isnan(jax.grad(lambda it: means(it)[BY_PARAMS])(sets)[BY_PARAMS]).all()


@pytest.mark.slow
def test_rows_on_disk_and_starts_over_them(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"y": SICK[BY_PARAMS]}), tmp_path / "rows.parquet")
    table = mle.open_table(tmp_path / "rows.parquet")
    by_row = lambda params, obs: density(params, obs["y"])  # noqa: E731
    fit = mle.fit(by_row, START, table, constraints=RULES, starts=2, key=jax.random.key(0))
    assert str(fit.status) == "unbounded"
    assert WALL in fit.message
    assert np.isnan(fit.covariance("opg")).all()


def test_files_keep_what_was_raised(fits: mle.Fit, tmp_path: Path) -> None:
    fits.save(tmp_path / "fits")
    again = mle.load(tmp_path / "fits", like=fits[:2])
    np.testing.assert_array_equal(again.message, fits.message)


def test_a_root_find_that_meets_nan() -> None:
    def kepler(params: Any, obs: Any) -> Any:
        anomaly = optimistix.root_find(
            lambda it, mean: it - params["eccentricity"] * jnp.sin(it) - mean,
            optimistix.Newton(rtol=1e-10, atol=1e-10),
            obs["mean"],
            args=obs["mean"],
        ).value
        return -0.5 * (obs["y"] - anomaly) ** 2

    mean = np.linspace(0.1, 3.0, 8)
    y = np.stack([mean + 0.3 * np.sin(mean)] * 3)
    sets = {"mean": np.stack([mean] * 3), "y": y + 0.01 * SETS[:3, :8]}
    sets["mean"][1, 2] = np.nan
    fits = mle.fit_batch(kepler, {"eccentricity": 0.1}, sets)
    assert str(fits.status) == "[converged, raised, converged]"
    assert "(inf or nan) values" in fits.message[1]


def test_tracebacks_are_written_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        mle.fit_batch(density, START, SICK, constraints=RULES)
    assert len([one for one in caplog.records if "callback" in one.getMessage()]) <= jax.local_device_count() + 2


def test_interrupts_and_lack_of_memory_are_nobodys_status() -> None:
    kind: type[BaseException]

    @jax.custom_jvp
    def stops(y: Any) -> Any:
        def host(_: Any) -> Any:
            raise kind("enough")

        return jax.pure_callback(host, jax.ShapeDtypeStruct((), y.dtype), y, vmap_method="sequential")

    stops.defjvp(lambda primals, tangents: (stops(*primals), jnp.zeros_like(primals[0])))
    model = lambda mean, y: -0.5 * (y - mean) ** 2 + stops(y)  # noqa: E731
    for kind in (KeyboardInterrupt, MemoryError):
        with pytest.raises((RuntimeError, ValueError), match=kind.__name__):
            mle.fit(model, 0.0, jnp.ones(3))


def test_errors_that_are_not_the_densitys_go_on() -> None:
    for text in ("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.", "INTERNAL: the device is lost", "no"):
        error = RuntimeError(text)
        with pytest.raises(RuntimeError) as caught:
            raised(error)
        assert caught.value is error
    with pytest.raises(ValueError, match="not at the start either"):  # while it is traced
        mle.fit(_fails_in_python, 0.0, jnp.ones(3))


def _fails_in_python(params: Any, obs: Any) -> Any:
    raise ValueError("not at the start either")


def test_the_text_of_tracebacks_with_lines_of_code() -> None:
    text = """INTERNAL: CustomCall failed: CpuCallback error: Traceback (most recent call last):
  File "a.py", line 1, in host
    raise Strange("one line",
          ^^^^^^^
package.module._StrangeError: one line
and another: 2
"""
    assert raised(RuntimeError(text)) == "StrangeError: one line and another: 2"
    assert len(raised(RuntimeError(text + "x" * 1000))) < 600
