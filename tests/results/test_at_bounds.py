"""What is printed, kept and saved of estimates at bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import mlekit as mle


def shifted(p: Any, t: Any) -> Any:
    return -jnp.log(p["scale"]) - (t - p["shift"]) / p["scale"]


RULES = {"shift": mle.at_most(500.0), "scale": mle.positive}


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    times = jnp.array([500.0, 600.0, 700.0, 800.0])
    return mle.fit(shifted, {"shift": 400.0, "scale": 100.0}, times, constraints=RULES)


def test_card_and_summary(fit: mle.Fit) -> None:
    sentence = "At its bound: shift = 500.00, 0.0267 nats per unit beyond."
    for text in (repr(fit), str(fit.summary())):
        assert sentence in text.replace("\n", " ")
        row = next(line for line in text.splitlines() if line.startswith("shift "))
        assert row.split() == ["shift", "500.00", "at", "bound"]
    assert "at bound" in fit.summary().to_latex()


def test_a_table_has_what_can_be_tested() -> None:
    """Means of 0.2 and 1.8 with errors of one half: one interval leaves its range, and zero is no hypothesis."""
    data = jnp.array([0.2, 0.2, 0.1, 0.3])

    def density(p: Any, x: Any) -> Any:
        return -0.5 * (x - p["m"]) ** 2 - 0.5 * (x + 1.6 - p["k"]) ** 2 + p["free"] - jnp.exp(p["free"])

    start = {"m": 1.0, "k": 1.0, "free": 0.0}
    rules = {"m": mle.nonnegative, "k": mle.nonnegative}
    table = mle.fit(density, start, data, constraints=rules).summary().to_pandas()
    assert list(table["note"]) == ["interval leaves its range", "", ""]
    np.testing.assert_allclose(table.loc["m", ["lower", "upper"]], scipy.stats.norm.interval(0.95, 0.2, 0.5))
    assert "z" in table
    alone = mle.fit(density, start, data, constraints=rules | {"free": mle.fixed}).summary()
    for text in (str(alone), alone.to_latex(), alone._repr_html_()):
        assert "p-value" not in text
    assert list(alone.to_pandas()) == ["estimate", "standard_error", "lower", "upper", "note"]


def test_bounds_that_are_arrays_in_batches() -> None:
    data = jnp.array([[[-1.0, 2.0]], [[-2.0, -3.0]]])
    rule = mle.at_least(jnp.zeros(2))
    fits = mle.fit_batch(lambda m, x: -0.5 * jnp.sum((x - m) ** 2), jnp.ones(2), data, constraints=rule)
    assert "at its bound in 50%" in repr(fits)
    assert fits[0].summary().to_pandas().loc["params[1]", "estimate"] == 2


def test_batches_say_how_often() -> None:
    data = jnp.array([[-1.0, -2.0], [1.0, 2.0], [3.0, 5.0], [-2.0, 1.0]])
    fits = mle.fit_batch(lambda m, x: -0.5 * (x - m) ** 2, 1.0, data, constraints=mle.nonnegative)
    assert "at its bound in 50%" in repr(fits)
    np.testing.assert_array_equal(np.isnan(fits.to_pandas()["params_se"]), [True, False, False, True])
    np.testing.assert_array_equal(fits[1:3].at_bound, [False, False])
    assert bool(fits[0].at_bound)
    assert "At its bound: params = 0" in fits[0].message


def test_an_open_edge_names_the_closed_constraint() -> None:
    chance = mle.fit(
        lambda p, y: y * jnp.log(p) + (1 - y) * jnp.log1p(-p), 0.5, jnp.zeros(20), constraints=mle.unit_interval
    )
    assert chance.status == mle.Status.unbounded
    assert "params ran to the edge: mle.between(0.0, 1.0) lets the estimate lie on it, where" in chance.message


def test_saved_and_passed_through_transformations(fit: mle.Fit, tmp_path: Path) -> None:
    fit.save(tmp_path / "fit.mle")
    again = mle.load(tmp_path / "fit.mle", like=fit)
    assert again.at_bound["shift"]
    assert not again.at_bound["scale"]
    np.testing.assert_array_equal(again.certificate.multipliers["shift"], fit.certificate.multipliers["shift"])
    inside = jax.jit(lambda t: mle.fit(shifted, {"shift": 400.0, "scale": 100.0}, t, constraints=RULES).at_bound)
    assert inside(fit.data)["shift"]
