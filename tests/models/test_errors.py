"""What is known to be wrong before tracing is an error that names the argument, what it got and what it wants."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import pyarrow
import pytest
from jax.scipy.stats import norm

import mlekit as mle
from tests.helpers.models import RULES, START, line, line_data
from tests.helpers.normal_sets import PLAIN, POSITIVE, Y, normal

DATA = line_data()


def fit(**changes: Any) -> mle.Fit:
    given: dict[str, Any] = {"log_density": line, "init": START, "data": DATA, "constraints": RULES}
    given.update(changes)
    return mle.fit(given.pop("log_density"), given.pop("init"), given.pop("data"), **given)


@dataclasses.dataclass
class Unregistered:
    sigma: float = 1.0


BAD: dict[str, tuple[dict[str, Any], type[Exception], list[str]]] = {
    "vector density": (
        {"log_density": lambda p, o: jnp.stack([o["x"], o["y"]])},
        ValueError,
        ["log_density", "one number", "(2,)"],
    ),
    "integer density": ({"log_density": lambda p, o: 3}, TypeError, ["log_density", "floating", "int"]),
    "complex density": (
        {"log_density": lambda p, o: 1j * o["x"].astype(complex)},
        TypeError,
        ["log_density", "real", "complex"],
    ),
    "no function": ({"log_density": 3.0}, TypeError, ["log_density", "function", "float"]),
    "unknown column": ({"log_density": lambda p, o: o["z"]}, ValueError, ["'z'", "obs has ['x', 'y']"]),
    "unknown parameter": ({"log_density": lambda p, o: p["tau"]}, ValueError, ["'tau'", "'sigma'"]),
    "empty data": ({"data": {"x": np.zeros(0), "y": np.zeros(0)}}, ValueError, ["data is empty"]),
    "no leaves": ({"data": {}}, ValueError, ["data holds no arrays", "(n_obs, ...)"]),
    "lengths": (
        {"data": {"x": np.zeros(3), "y": np.zeros(4)}},
        ValueError,
        ["data", 'data["x"] has 3', 'data["y"] has 4'],
    ),
    "scalar leaf": (
        {"data": {"x": np.zeros(()), "y": np.zeros(4)}},
        ValueError,
        ['data["x"] has shape ()', "(n_obs, ...)"],
    ),
    "list leaf": (
        {"data": {"x": [1.0, 2.0], "y": np.zeros(2)}},
        TypeError,
        ['data["x"]', "list of floats", "jnp.asarray"],
    ),
    "masked array": (
        {"data": {"x": np.ma.masked_invalid([1.0, 2.0]), "y": np.zeros(2)}},
        TypeError,
        ["x", "masked"],
    ),
    "text leaf": (
        {"data": {"x": np.array(["a", "b"]), "y": np.zeros(2)}},
        TypeError,
        ['data["x"] holds text', "numbers"],
    ),
    "text column": ({"data": pandas.DataFrame({"x": ["a"], "y": [1.0]})}, ValueError, ["x", "string"]),
    "empty table": (
        {"data": pyarrow.table({"x": pyarrow.array([], pyarrow.float64())})},
        ValueError,
        ["table", "no rows"],
    ),
    "groups": ({"data": mle.group_by({"k": [1, 2], "x": [1.0, 2.0]}, "k")}, TypeError, ["fit_batch"]),
    "start outside": (
        {"init": START | {"sigma": -1.0}},
        ValueError,
        ["init: sigma", "-1", "greater than 0", "1.0"],
    ),
    "start on edge": ({"init": START | {"sigma": 0.0}}, ValueError, ["init: sigma", "greater than 0"]),
    "start NaN": ({"init": START | {"slope": np.nan}}, ValueError, ["init: slope", "finite"]),
    "text start": ({"init": START | {"slope": "1"}}, TypeError, ["init: slope", "'1'"]),
    "complex start": ({"init": START | {"slope": 1j}}, TypeError, ["init: slope"]),
    "no parameter": ({"init": {"a": None}, "constraints": None}, ValueError, ["init", "no parameter"]),
    "dataclass": (
        {"init": Unregistered(), "constraints": None},
        TypeError,
        ["Unregistered", "register_dataclass"],
    ),
    "unknown rule": (
        {"constraints": {"tau": mle.positive}},
        ValueError,
        ["constraints", "tau", "intercept, sigma, slope"],
    ),
    "rule no constraint": (
        {"constraints": {"sigma": "positive"}},
        ValueError,
        ["constraints", "'positive'", "sigma"],
    ),
    "rule of a number": ({"constraints": {"sigma": {"low": mle.positive}}}, ValueError, ["constraints", "sigma"]),
    "rule of wrong shape": ({"constraints": {"sigma": mle.simplex}}, ValueError, ["constraints: sigma", "()"]),
    "tied nowhere": ({"constraints": {"sigma": mle.tied(to="tau")}}, ValueError, ["sigma", "'tau'", "slope"]),
    "tied in a circle": (
        {"constraints": {"sigma": mle.tied(to="slope"), "slope": mle.tied(to="sigma")}},
        ValueError,
        ["tied"],
    ),
    "weights shape": ({"weights": np.ones(3)}, ValueError, ["weights", "(40,)", "(3,)"]),
    "weights sign": ({"weights": -np.ones(40)}, ValueError, ["weights", "negative", "-1"]),
    "solver class": ({"solver": mle.Newton}, TypeError, ["mle.Newton()"]),
    "solver text": ({"solver": "newton"}, TypeError, ["solver", "str", "mle.Newton()"]),
    "max_steps": ({"max_steps": 0}, ValueError, ["max_steps", "0"]),
    "tolerance": ({"tolerance": -1.0}, ValueError, ["tolerance", "-1"]),
    "joint shape": ({"log_density": mle.joint(lambda p, d: jnp.zeros(3))}, ValueError, ["(40,)", "(3,)"]),
    "joint weights": (
        {"log_density": mle.joint(lambda p, d: jnp.sum(d["x"])), "weights": np.ones(40)},
        ValueError,
        ["contributions"],
    ),
    "joint batches": (
        {
            "log_density": mle.joint(lambda p, d: d["x"] * p["slope"]),
            "solver": mle.Optax(optax.sgd(0.1), batch_size=5, steps=3, key=jax.random.key(0)),
        },
        ValueError,
        ["mini-batches", "batch_size"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_fit_says_what_is_wrong(name: str) -> None:
    changes, kind, words = BAD[name]
    with pytest.raises(kind) as caught:
        fit(**changes)
    for word in words:
        assert word in str(caught.value)


BATCH = line_data(n_sets=4)
BAD_BATCH: dict[str, tuple[dict[str, Any], type[Exception], list[str]]] = {
    "one axis": ({"data": DATA}, ValueError, ['data["x"] has shape (40,)', "(n_sets, n_obs, ...)"]),
    "sets differ": (
        {"data": {"x": np.zeros((2, 3)), "y": np.zeros((3, 3))}},
        ValueError,
        ['data["x"] has 2x3', 'data["y"] has 3x3'],
    ),
    "table": ({"data": pandas.DataFrame(DATA)}, ValueError, ["mle.group_by"]),
    "lengths shape": ({"lengths": np.array([3, 4])}, ValueError, ["lengths", "(4,)", "(2,)"]),
    "lengths range": ({"lengths": np.array([3, 4, 5, 41])}, ValueError, ["lengths", "40", "41"]),
    "lengths kind": ({"lengths": np.ones(4)}, TypeError, ["lengths", "float64"]),
    "init_axis": ({"init_axis": 1}, ValueError, ["init_axis", "1"]),
    "init sets": (
        {"init": {k: np.ones(3) for k in START}, "init_axis": 0},
        ValueError,
        ["init", "4 data sets", "(3,)"],
    ),
    "init of one set": (
        {"init": {k: np.array([1.0, 1, -2, 1]) for k in START}, "init_axis": 0},
        ValueError,
        ["sigma of data set 2", "-2"],
    ),
    "lanes": ({"lanes": 0}, ValueError, ["lanes", "0"]),
    "weights": ({"weights": np.ones((4, 3))}, ValueError, ["weights", "(4, 40)"]),
    "vector density": (
        {"log_density": lambda p, o: o["x"] * jnp.ones(2)},
        ValueError,
        ["log_density", "one number"],
    ),
    "integer density": ({"log_density": lambda p, o: 1}, TypeError, ["log_density", "int"]),
    "ragged scalar joint": (
        {"log_density": mle.joint(lambda p, d: jnp.sum(d["x"])), "lengths": np.array([3, 4, 5, 6])},
        ValueError,
        ["contributions"],
    ),
}


@pytest.mark.parametrize("name", BAD_BATCH)
def test_fit_batch_says_what_is_wrong(name: str) -> None:
    changes, kind, words = BAD_BATCH[name]
    given: dict[str, Any] = {"log_density": line, "init": START, "data": BATCH, "constraints": RULES}
    given.update(changes)
    with pytest.raises(kind) as caught:
        mle.fit_batch(given.pop("log_density"), given.pop("init"), given.pop("data"), **given)
    for word in words:
        assert word in str(caught.value)


def test_weights_of_groups_are_a_column() -> None:
    groups = mle.group_by({"k": [1, 1, 2], "x": [1.0, 2.0, 3.0], "w": [1.0, -1.0, 2.0]}, "k")
    density = lambda p, o: -((o["x"] - p) ** 2)  # noqa: E731
    for weights, kind, word in [
        ("v", ValueError, "'v'"),
        ("w", ValueError, "negative"),
        (np.ones(3), TypeError, "column"),
    ]:
        with pytest.raises(kind, match=word):
            mle.fit_batch(density, 0.0, groups, weights=weights)
    with pytest.raises(ValueError, match="lengths"):
        mle.fit_batch(density, 0.0, groups, lengths=np.array([2, 1]))


def test_a_fit_says_what_it_cannot_give() -> None:
    fit = mle.fit(line, START, DATA, constraints=RULES)
    with pytest.raises(ValueError, match="observed, expected, opg, sandwich, hac"):
        fit.covariance("robust")
    with pytest.raises(ValueError, match="wald, wald-transformed"):
        fit.intervals(method="magic")
    with pytest.raises(ValueError, match="level"):
        fit.intervals(level=95)
    with pytest.raises(ValueError, match="sandwich"):
        fit.covariance("opg", clusters=np.zeros(40))
    with pytest.raises(ValueError, match=r"\(40,\)"):
        fit.covariance("sandwich", clusters=np.zeros(3))
    with pytest.raises(TypeError, match="single fit"):
        len(fit)
    with pytest.raises(TypeError, match="single fit"):
        fit[0]
    scalar = mle.joint(lambda p, d: -jnp.sum((d["x"] - p) ** 2))
    whole = mle.fit(scalar, 0.0, DATA)
    assert bool(whole.converged)
    for ask in (
        whole.contributions,
        whole.scores,
        lambda: whole.covariance("opg"),
        lambda: whole.covariance("sandwich"),
    ):
        with pytest.raises(ValueError, match="joint model returns a scalar"):
            ask()
    with pytest.raises(IndexError, match="4 is out of range"):
        mle.fit_batch(line, START, BATCH, constraints=RULES)[4]


def test_options_of_solvers() -> None:
    with pytest.raises(TypeError, match=r"optax\.GradientTransformation.*str"):
        mle.Optax("adam")
    with pytest.raises(ValueError, match="batch_size"):
        mle.Optax(optax.adam(0.1), batch_size=0)
    with pytest.raises(ValueError, match="key"):
        mle.Optax(optax.adam(0.1), batch_size=10)
    with pytest.raises(ValueError, match="memory"):
        mle.LBFGS(memory=0)
    with pytest.raises(TypeError, match="joint: fn"):
        mle.joint(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="simulate"):
        mle.Model(line, simulate=3)  # type: ignore[arg-type]


def test_log_likelihood_checks_its_data_too() -> None:
    assert float(mle.log_likelihood(line, START, pandas.DataFrame(DATA))) == float(
        mle.log_likelihood(line, START, DATA)
    )
    with pytest.raises(ValueError, match=r'data\["x"\] has 3, data\["y"\] has 4'):
        mle.log_likelihood(line, START, {"x": np.zeros(3), "y": np.zeros(4)})
    with pytest.raises(ValueError, match=r"weights.*\(40,\).*\(2,\)"):
        mle.log_likelihood(line, START, DATA, weights=np.ones(2))


@pytest.mark.parametrize(
    "options", [{"tolerance": np.inf}, {"tolerance": 1e3}, {"max_steps": True}, {"max_steps": 2**40}]
)
def test_limits_of_options(options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        mle.fit(normal, PLAIN, Y[0], constraints=POSITIVE, **options)


@pytest.mark.parametrize("wrap", [lambda density: density, jax.jit], ids=["plain", "jitted"])
def test_a_density_that_ignores_its_observation(wrap: Any) -> None:
    """The habit of all who wrote a likelihood before: a sum over data that the function knows by itself."""
    y = np.random.default_rng(0).normal(size=20)
    habit = wrap(lambda mean, obs: norm.logpdf(y, mean, 1.0).sum())
    said = r"does not use obs, .* ONE observation, and mlekit sums over the (20|5) rows"
    with pytest.raises(ValueError, match=said):
        mle.fit(habit, 0.0, y)
    with pytest.raises(ValueError, match=said):
        mle.fit(habit, 0.0, y, solver=mle.BFGS())
    with pytest.raises(ValueError, match=said):
        mle.fit_batch(habit, 0.0, y.reshape(4, 5))
    with pytest.raises(ValueError, match=said):
        mle.log_likelihood(habit, 0.0, y)
    assert mle.fit(wrap(lambda mean, obs: norm.logpdf(obs, mean, 1.0)), 0.0, y).converged


def test_one_observation_may_be_ignored() -> None:
    """A function of the parameters alone, with one row of anything."""
    fit = mle.fit(lambda p, obs: -((p - 3.0) ** 2), 0.0, np.zeros(1))
    np.testing.assert_allclose(fit.params, 3.0)
