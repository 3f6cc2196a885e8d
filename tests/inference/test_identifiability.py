"""Directions in which nothing changes are named."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import mlekit as mle


def around(mean: Any) -> Any:
    return lambda p, obs: -0.5 * (obs["y"] - mean(p, obs["x"])) ** 2


POINTS = {"x": np.array([0.5, 1.0, 2.0, 3.0, 5.0]), "y": np.array([2.0, 2.5, 4.0, 5.0, 7.0])}


@pytest.mark.parametrize(
    ("mean", "start", "text"),
    [
        (
            lambda p, x: p["a"] + p["b"] + p["c"] * x,
            "abc",
            "a and b: only their sum matters, not their difference.",
        ),
        (
            lambda p, x: p["a"] - p["b"] + p["c"] * x,
            "abc",
            "a and b: only their difference matters, not their sum.",
        ),
        (lambda p, x: p["a"] + 0 * p["b"], "ab", "b: the data tell nothing of it."),
        (
            lambda p, x: p["a"] + p["b"] * x + p["c"] * (1 + 2 * x),
            "abc",
            "a, b and c can move together without any effect: a by 0.500, b by 1.00, c by -0.500.",
        ),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_flat_directions_are_named(mean: Any, start: str, text: str, dtype: Any) -> None:
    data = {name: column.astype(dtype) for name, column in POINTS.items()}
    found = mle.identifiability(around(mean), dict.fromkeys(start, dtype(0.3)), data)
    assert not found.identified
    assert found.rank == found.n_free - 1 == len(start) - 1
    first, second = repr(found).split("\n")
    assert first == f"Not identified: the data tell {len(start) - 1} of {len(start)} directions apart."
    assert second == text


def test_directions_are_in_the_units_of_the_parameters() -> None:
    """Of a product, through a constraint, at 2 times 3: the factors move by -2 to 3."""
    scaled = around(lambda p, x: p["a"] * p["b"] * x)
    found = mle.identifiability(scaled, {"a": 2.0, "b": 3.0}, POINTS, constraints=mle.positive)
    (direction,) = found.directions
    assert direction["b"] == 1
    # The best of five points near the start is not known from outside: the ratio is that of its factors.
    assert direction["a"] == pytest.approx(-2 / 3, rel=0.5)
    assert mle.identifiability(scaled, {"a": 2.0, "b": 3.0}, POINTS, constraints={"b": mle.fixed}).identified


def test_identified_though_the_start_is_no_good() -> None:
    """At a factor of zero, or between equal halves of a mixture, a single point would look singular."""
    product = around(lambda p, x: p["a"] + p["b"] * jnp.exp(-p["c"] * x))
    assert mle.identifiability(product, {"a": 0.0, "b": 0.0, "c": 1.0}, POINTS).identified

    def mixture(p: Any, x: Any) -> Any:
        return jnp.logaddexp(norm.logpdf(x, p["m"], 1.0), norm.logpdf(x, p["n"], 1.0))

    found = mle.identifiability(mixture, {"m": 0.0, "n": 0.0}, POINTS["y"])
    assert found.identified
    assert repr(found).startswith("Identified: the data tell all 2 directions apart (condition number ")


@pytest.mark.parametrize("scalar", [False, True])
def test_identifiability_of_joint_models(scalar: bool) -> None:
    def density(p: Any, data: Any) -> Any:
        each = -0.5 * (data["y"] - p["a"] - p["b"] - p["c"] * data["x"]) ** 2
        return jnp.sum(each) if scalar else each

    found = mle.identifiability(mle.joint(density), {"a": 0.0, "b": 0.0, "c": 0.0}, POINTS)
    assert repr(found).endswith("a and b: only their sum matters, not their difference.")
    fewer = mle.identifiability(
        mle.joint(density), {"a": 0.0, "b": 0.0, "c": 0.0}, POINTS, constraints={"b": mle.fixed}
    )
    assert fewer.identified


def test_identifiability_takes_what_fit_takes() -> None:
    density = lambda p, obs, args: -0.5 * (obs["y"] - p["a"] - p["b"] * args * obs["x"]) ** 2  # noqa: E731
    start = lambda data: {"a": jnp.mean(data["y"]), "b": jnp.asarray(1.0)}  # noqa: E731
    assert mle.identifiability(density, start, POINTS, args=jnp.asarray(2.0)).identified
    assert not mle.identifiability(density, start, POINTS, args=jnp.asarray(0.0)).identified
    one = np.array([1.0, 0, 0, 0, 0])
    assert mle.identifiability(density, start, POINTS, args=jnp.asarray(1.0), weights=one).rank == 1
    nothing = mle.identifiability(density, start, POINTS, args=jnp.asarray(1.0), constraints=mle.fixed)
    assert nothing.identified
    assert nothing.n_free == 0
    with pytest.raises(ValueError, match="init: the scores are not finite there"):
        mle.identifiability(lambda p, x: jnp.log(p - x), 1.0, POINTS["x"])


@pytest.mark.parametrize("scalar", [False, True])
def test_identifiability_of_a_joint_model_with_args(scalar: bool) -> None:
    def contributions(params: Any, data: Any, args: Any) -> Any:
        values = -0.5 * (data - (params["a"] + params["b"]) * args) ** 2
        return jnp.sum(values) if scalar else values

    found = mle.identifiability(
        mle.joint(contributions), {"a": 0.0, "b": 1.0}, jnp.arange(5.0), args=jnp.asarray(2.0)
    )
    assert not found.identified
    assert found.rank == 1
