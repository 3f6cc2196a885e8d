"""Remarks on fits: none where all is well."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import mlekit as mle
from tests.helpers.models import RULES, START, line
from tests.inference.lines_and_counts import COUNTS, COUNTS_START, DATA, NEW, counts_fit, line_fit


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return line_fit()


@pytest.fixture(scope="module")
def counts() -> mle.Fit:
    return counts_fit()


def test_nothing_to_remark(fit: mle.Fit, counts: mle.Fit) -> None:
    for one in (fit, counts[0]):
        found = one.diagnose()
        assert repr(found) == "Nothing to remark.\nSearched by native kernels."
        assert found.remarks == ()
        assert not found.disagree


def test_a_model_in_doubt(counts: mle.Fit) -> None:
    one = counts[1]
    found = one.diagnose()
    information, squares = np.asarray(one.information()), np.asarray(one.information("opg"))
    values = np.sort(np.linalg.eigvals(np.linalg.solve(information, squares)).real)
    np.testing.assert_allclose([found.least, found.largest], values, rtol=1e-8)
    errors, robust = (np.array([*one.standard_errors(kind).values()]) for kind in ("observed", "sandwich"))
    np.testing.assert_allclose(found.factor, robust / errors, rtol=1e-8)
    assert found.disagree
    worst = int(np.argmax(found.factor))
    assert found.remarks == (
        "The observed information and the outer product of the scores disagree strongly, so the model is in "
        f'doubt: kind="sandwich" makes the standard error of {one.parameter_names[worst]} '
        f"{found.factor[worst]:.1f} times as large.",
    )
    assert "sandwich" in str(one.summary())
    assert "sandwich" not in str(counts[0].summary())


def test_remarks_on_a_batch(counts: mle.Fit) -> None:
    found = counts.diagnose()
    assert found.disagree.tolist() == [False, True, False]
    assert np.isnan(found.largest).tolist() == [False, False, True]
    assert np.all(np.isnan(found.factor[2]))
    np.testing.assert_allclose(found.factor[1], counts[1].diagnose().factor, rtol=1e-8)
    assert found.remarks[-1].startswith("1 data set (33.3%): the observed information and the outer product")
    alone = counts[:1].diagnose()
    assert repr(alone) == "Nothing to remark.\nSearched by native kernels."


def test_what_failed_is_said(counts: mle.Fit) -> None:
    fit = mle.fit(lambda p, x: x * p - jnp.exp(p), 0.0, np.zeros(5))
    assert fit.diagnose().remarks[0].startswith("unbounded: the log-likelihood keeps rising")
    nan = mle.fit(lambda p, x: -0.5 * (x - p) ** 2, 0.0, np.array([1.0, np.nan]))
    assert repr(nan.diagnose()).startswith("nonfinite_data: the data hold NaN")
    name = counts[2].status.names()
    assert counts[2].diagnose().remarks[0].startswith(f"{name}: ")
    assert counts.diagnose().remarks[0] == f"1 data set (33.3%): {name}; fits[i].message."


def test_parameters_that_move_together() -> None:
    """Two columns that are nearly the same: their sum is known, their difference is not."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    data = {"x": x, "z": x + 1e-3 * rng.normal(size=60), "y": x + rng.normal(size=60)}
    density = lambda p, o: norm.logpdf(o["y"], p["a"] * o["x"] + p["b"] * o["z"] + p["level"], 1.0)  # noqa: E731
    start = {"a": 0.0, "b": 0.0, "level": 0.0}
    fit = mle.fit(density, start, data)
    found = fit.diagnose()
    correlation = x @ data["z"] / np.sqrt(x @ x * (data["z"] @ data["z"]))
    np.testing.assert_allclose(found.certificate.condition_number, (1 + correlation) / (1 - correlation), rtol=0.1)
    assert found.certificate.weak_parameters == ("a", "b")
    assert len(found.remarks) == 1
    assert found.remarks[0].startswith("a and b move together: the data say little of this direction (condition")
    fits = mle.fit_batch(density, start, {name: np.stack([column, column]) for name, column in data.items()})
    assert fits.diagnose().remarks == ("2 data sets (100%): some parameters move together; fits[i].diagnose().",)


def test_diagnosis_of_a_joint_model_that_returns_a_scalar() -> None:
    fit = mle.fit(mle.joint(lambda m, x: -0.5 * jnp.sum((x - m) ** 2)), 0.0, np.arange(5.0))
    found = fit.diagnose()
    assert np.isnan(found.largest)
    assert found.remarks == ()


@pytest.mark.slow
@pytest.mark.parametrize(("n_obs", "most"), [(30, 0.02), (100, 0.002)])
def test_false_alarms(n_obs: int, most: float) -> None:
    """Few of 5,000 data sets of the model itself are called in doubt; counts are among the worst families."""
    x = np.random.default_rng(n_obs).normal(size=(5000, n_obs))
    y = np.random.default_rng(1).poisson(np.exp(0.5 + 0.5 * x)).astype(float)
    fits = mle.fit_batch(COUNTS, COUNTS_START, {"x": x, "y": y})
    assert np.mean(fits.diagnose().disagree) < most


def test_inside_jit(fit: mle.Fit) -> None:
    @jax.jit
    def every(data: Any) -> Any:
        inner = mle.fit(line, START, data, constraints=RULES)
        diagnosis, table = inner.diagnose(), mle.compare({"line": inner})
        assert repr(diagnosis) == "Diagnosis(<traced>)"
        assert repr(table) == "Comparison(<traced>, line)"
        ahead = inner.predict(lambda p, o: p["intercept"] + p["slope"] * o["x"], NEW)
        return inner.influence(), diagnosis.largest, table.aic, ahead.upper

    wanted = (
        fit.influence(),
        fit.diagnose().largest,
        np.array([fit.aic]),
        fit.predict(lambda p, o: p["intercept"] + p["slope"] * o["x"], NEW).upper,
    )
    for one, other in zip(every(DATA), wanted):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)


def test_which_backend_searched_is_said_with_the_reason() -> None:
    density = lambda mean, x: -0.5 * (x - mean) ** 2  # noqa: E731
    x = np.array([1.0, 2.0, 6.0])
    by = lambda fit: (fit.backend, repr(fit.diagnose()).splitlines()[-1])  # noqa: E731
    native, xla = "Searched by native kernels.", "Searched by XLA; native kernels cannot: "
    assert by(mle.fit(density, 0.0, x)) == ("native", native)
    assert by(mle.fit(density, 0.0, x, backend="xla")) == ("xla", "Searched by XLA.")
    assert by(mle.fit(density, 0.0, x, starts=3, key=jax.random.key(0))) == ("native", native)
    assert by(mle.fit_batch(density, 0.0, x[None])[0]) == ("native", native)
    steps = "they show no steps, as history, progress and checkpoint need."
    assert by(mle.fit(density, 0.0, x, history=True)) == ("xla", xla + steps)
    traced = jax.jit(lambda x: mle.fit(density, 0.0, x))(x)
    assert by(traced) == ("xla", xla + "they run outside of jit and vmap.")
    joint = mle.fit(mle.joint(lambda mean, x: -0.5 * jnp.sum((x - mean) ** 2)), 0.0, x)
    assert by(joint) == ("xla", xla + "a joint model.")


def test_the_backend_of_all_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLEKIT_BACKEND", "xla")
    fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, np.arange(3.0))
    assert fit.backend == "xla"
