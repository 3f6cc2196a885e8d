"""One data set in memory, searched natively by threads over its rows, against XLA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from tests.helpers.marks import mostly_slow

pytestmark = pytest.mark.standard_promotion

ROWS = 40_000
RNG = np.random.default_rng(5)
X = RNG.normal(size=(ROWS, 3))
DATA = {"x": X, "y": (RNG.random(ROWS) < 1 / (1 + np.exp(-X @ np.array([0.5, -1.0, 0.2])))).astype(float)}
WEIGHTS = RNG.integers(0, 3, ROWS).astype(float)


def logistic(p: Any, o: Any) -> Any:
    eta = p["intercept"] + o["x"] @ p["slope"]
    return o["y"] * eta - jnp.logaddexp(0.0, eta)


START = {"intercept": 0.0, "slope": np.zeros(3)}
REGRESSION = mle.regression(lambda p, o: p["intercept"] + o["x"] @ p["slope"], mle.families.bernoulli)
CASES: dict[str, Callable[..., Any]] = {
    "Newton": lambda **how: mle.fit(logistic, START, DATA, **how),
    "weights": lambda **how: mle.fit(logistic, START, DATA, weights=WEIGHTS, **how),
    "bounds": lambda **how: mle.fit(
        logistic, START, DATA, constraints={"intercept": mle.between(-0.5, 0.0)}, **how
    ),
    "regression": lambda **how: mle.fit(REGRESSION, START, DATA, **how),
    "BFGS": lambda **how: mle.fit(logistic, START, DATA, solver=mle.BFGS(), **how),
}


@pytest.mark.parametrize("name", mostly_slow(CASES, "regression"))
def test_fits_are_those_of_xla(name: str, natively: Callable[..., Any]) -> None:
    want, got, two = CASES[name](backend="xla"), natively(CASES[name]), natively(CASES[name], 2)
    assert got.status == want.status
    np.testing.assert_allclose(got.log_likelihood, want.log_likelihood, rtol=1e-11)
    for mine, theirs in zip(jax.tree.leaves(got.params), jax.tree.leaves(want.params)):
        np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-8)
    for one, other in zip(jax.tree.leaves(got.params), jax.tree.leaves(two.params)):
        np.testing.assert_array_equal(one, other)


def test_steps_are_not_shown() -> None:
    with pytest.raises(ValueError, match="backend='native' cannot run this fit: they show no steps"):
        mle.fit(logistic, START, DATA, backend="native", history=True)
