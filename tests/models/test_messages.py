"""Mistakes that people make, each with the sentence that names its cause."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.stats

import mlekit as mle
from tests.helpers.models import RULES, START, line, line_data

DATA = line_data()
TEXT = ["u", "v"] * 20


def forgotten(params: Any, obs: Any) -> None:
    line(params, obs)


def simple(p: Any, x: Any) -> Any:
    return -((x - p) ** 2)


def call(*arguments: Any, fn: Callable[..., Any] = mle.fit) -> Any:
    """A call that a type checker would refuse."""
    return fn(*arguments)


CASES: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    "forgotten return": (
        lambda: mle.fit(forgotten, START, DATA),
        TypeError,
        ["log_density returned None", "`return` missing"],
    ),
    "forgotten return of a joint model": (
        lambda: mle.fit(mle.joint(forgotten), START, DATA),
        TypeError,
        ["joint model returned None"],
    ),
    "float": (
        lambda: mle.fit(lambda p, x: -((float(x) - p) ** 2), 0.0, np.ones(3)),
        TypeError,
        ["makes a Python number", "float()", "test_messages.py:"],
    ),
    "math": (
        lambda: mle.fit(lambda p, x: -math.log(p) - x / p, 1.0, np.ones(3)),
        TypeError,
        ["makes a Python number", "use jax.numpy"],
    ),
    "NumPy": (
        lambda: mle.fit(lambda p, x: -np.log(p) - x / p, 1.0, np.ones(3)),
        TypeError,
        ["to NumPy or SciPy", "test_messages.py:"],
    ),
    "SciPy": (
        lambda: mle.fit(lambda p, x: scipy.stats.norm.logpdf(x, p), 1.0, np.ones(3)),
        TypeError,
        ["to NumPy or SciPy", "use jax.numpy and jax.scipy"],
    ),
    "if": (lambda: mle.fit(lambda p, x: -x / p if x > 0 else p, 1.0, np.ones(3)), TypeError, ["use jnp.where"]),
    "attribute of a dict": (
        lambda: mle.fit(lambda p, x: -((x - p.mean) ** 2), {"mean": 0.0}, np.ones(3)),
        AttributeError,
        ["reads .mean of a dict", "['mean']"],
    ),
    "constraint called": (lambda: call(fn=mle.positive), TypeError, ["not mle.positive()"]),
    "constraint not called": (
        lambda: mle.fit(simple, 0.5, np.ones(3), constraints=mle.between),
        ValueError,
        ["call it, as in mle.between(0.0, 1.0)"],
    ),
    "name for a number": (
        lambda: mle.at_least("a"),
        TypeError,
        ["mle.greater_than and mle.less_than take the name"],
    ),
    "tuple returned": (lambda: mle.fit(lambda p, o: (p, p), 0.0, DATA), TypeError, ["returned a tuple"]),
    "data before init": (lambda: mle.fit(line, DATA, START), TypeError, ["(log_density, init, data)", "swapped"]),
    "data before init of a batch": (
        lambda: mle.fit_batch(simple, np.ones((2, 3)), 0.0),
        TypeError,
        ["(log_density, init, data)", "swapped"],
    ),
    "table before init": (lambda: mle.fit(line, pd.DataFrame(DATA), START), TypeError, ["swapped"]),
    "init first": (lambda: call(START, line, DATA), TypeError, ["a function as init", "swapped"]),
    "data first": (lambda: call(DATA, START, line), TypeError, ["a function as data", "swapped"]),
    "data before params": (
        lambda: mle.log_likelihood(line, DATA, START),
        TypeError,
        ["(log_density, params, data)"],
    ),
    "obs before params": (
        lambda: mle.fit(lambda obs, params: line(params, obs), START, DATA),
        ValueError,
        ["It is obs that has 'y', and params was asked", "parameters first"],
    ),
    "obs before a number": (
        lambda: mle.fit(lambda obs, p: simple(p, obs["x"]), 0.0, DATA),
        TypeError,
        ["log_density(params, obs), in this order", "params is a single number", "obs is a dict with ['x', 'y']"],
    ),
    "dicts in a list": (
        lambda: mle.fit(line, START, [{"x": 1.0, "y": 2.0}] * 3),
        TypeError,
        ["data is a list of 3 dicts", "{name: jnp.asarray([row[name] for row in data]) for name in data[0]}"],
    ),
    "numbers in a list": (
        lambda: mle.fit(simple, 0.0, [1.0, 2.0]),
        TypeError,
        ["data is a list of floats", "jnp.asarray(data)"],
    ),
    "rows in a list": (
        lambda: mle.fit(simple, 0.0, [(1.0, 2.0)]),
        TypeError,
        ["list of tuples", "jnp.asarray(data)"],
    ),
    "tuple that is taken apart": (
        lambda: mle.fit(lambda p, x, y: simple(p, x), 0.0, (DATA["x"], DATA["y"])),
        TypeError,
        ["(p, x, y) is called as log_density(params, obs)", "x, y = obs"],
    ),
    "tuple asked by name": (
        lambda: mle.fit(line, START, (DATA["x"], DATA["y"])),
        TypeError,
        ["obs is a tuple of 2", "tuple indices"],
    ),
    "lengths in a tuple": (
        lambda: mle.fit(simple, 0.0, (DATA["x"], np.ones(3))),
        ValueError,
        ["data[0] has 40, data[1] has 3"],
    ),
    "missing args": (lambda: mle.fit(lambda p, o, a: p, 0.0, DATA), TypeError, ["(p, o, a)", "args="]),
    "superfluous args": (lambda: mle.fit(simple, 0.0, DATA["x"], args=1.0), TypeError, ["leave out args="]),
    "value of fixed": (lambda: mle.fixed(2.0), TypeError, ["no function", "{'name': 2.0}", "{'name': mle.fixed}"]),
    "unlike names": (lambda: mle.fit(simple, 0.0, {0: DATA["x"], "y": DATA["y"]}), ValueError, ["0, 'y'", "text"]),
    "numbers as names": (
        lambda: mle.fit(lambda p, o: simple(p, o[0]), 0.0, pd.DataFrame({0: DATA["x"]})),
        ValueError,
        ["called by text: obs['0']"],
    ),
    "number as key": (lambda: call({0: [1, 2], 1: [1.0, 2.0]}, 0, fn=mle.group_by), TypeError, ["by='0'"]),
    "weights of another name": (
        lambda: mle.fit(line, START, DATA, weights="w"),
        ValueError,
        ["no column 'w'; there are x, y"],
    ),
    "weights by name of an array": (
        lambda: mle.fit(simple, 0.0, DATA["x"], weights="w"),
        ValueError,
        ["'w' names a column", "one weight a row"],
    ),
    "list of text": (lambda: mle.fit(line, START, {**DATA, "c": TEXT}), TypeError, ["numpy.unique(data["]),
    "dates": (
        lambda: mle.fit(line, START, pd.DataFrame({"d": pd.date_range("2020", periods=3)})),
        ValueError,
        ["numpy.asarray(data[", "gives days"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sentence_names_the_cause(name: str) -> None:
    call, kind, words = CASES[name]
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_the_cause_is_named_inside_jit_too() -> None:
    with pytest.raises(TypeError, match="single number"):
        jax.jit(lambda x: mle.argmax(lambda obs, p: simple(p, obs["x"]), 0.0, {"x": x}))(jnp.ones(3))


def test_an_error_of_the_density_itself_stays_what_it_is() -> None:
    own = TypeError("my own")

    def broken(params: Any, obs: Any) -> Any:
        raise own

    with pytest.raises(TypeError) as caught:
        mle.fit(broken, START, DATA)
    assert caught.value is own


def test_a_level_that_is_a_name() -> None:
    fit = mle.fit(line, START, DATA, constraints=RULES)
    with pytest.raises(TypeError, match=r"fit\.intervals\(\)\['slope'\]"):
        fit.intervals("slope")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="say method='profile'"):
        fit.intervals("profile")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="level must be a number"):
        fit.summary("slope")  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pl.DataFrame, pa.table])
def test_weights_by_the_name_of_a_column(make: Any) -> None:
    weights = np.arange(40) % 3 + 0.5
    named = mle.fit(line, START, make(DATA | {"w": weights}), weights="w", constraints=RULES)
    given = mle.fit(line, START, DATA, weights=weights, constraints=RULES)
    jax.tree.map(np.testing.assert_array_equal, named.params, given.params)
    assert float(named.n_obs) == weights.sum()


def test_weights_of_a_batch_by_the_name_of_a_column() -> None:
    sets = line_data(n_sets=3)
    weights = np.arange(120).reshape(3, 40) % 3 + 0.5
    named = mle.fit_batch(line, START, sets | {"w": weights}, weights="w", constraints=RULES)
    given = mle.fit_batch(line, START, sets, weights=weights, constraints=RULES)
    jax.tree.map(np.testing.assert_array_equal, named.params, given.params)


@pytest.mark.parametrize(
    "column",
    [pd.Series(TEXT), pd.Series(TEXT, dtype="category"), pl.Series(TEXT), pl.Series(TEXT, dtype=pl.Categorical)],
    ids=["text", "pandas categories", "polars text", "polars categories"],
)
def test_the_line_that_encodes_a_column(column: Any) -> None:
    """The code in the message runs as it is written there."""
    kind: Any = pd.DataFrame if isinstance(column, pd.Series) else pl.DataFrame
    data = kind(DATA | {"c": column})
    with pytest.raises(ValueError, match="gives a whole number a row") as caught:
        mle.fit(line, START, data)
    code = str(caught.value).partition("(")[2].partition(" gives")[0]
    names: dict[str, Any] = {"data": data, "numpy": np}
    exec(code, names)
    np.testing.assert_array_equal(names["codes"], [0, 1] * 20)
