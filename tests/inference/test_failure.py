"""A fit that is not finite names the first row in trouble."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import mlekit as mle
from tests.helpers.models import RULES, START, line, line_data

S = mle.Status


def spoilt(**changes: Any) -> dict[str, np.ndarray]:
    """Forty rows with other values in places."""
    data = line_data()
    for name, (row, value) in changes.items():
        data[name][row] = value
    return data


def entropy(p: Any, obs: Any) -> Any:
    """Finite at a probability of zero where nothing was counted, but for its derivative."""
    return jnp.where(obs["k"] > 0, obs["k"] * jnp.log(p["chance"]), 0.0) - p["chance"]


def parabola(p: Any, x: Any) -> Any:
    """The log-density -inf of what is far away."""
    return jnp.where(jnp.abs(x - p) < 5, -((x - p) ** 2), -jnp.inf)


def said(fit: Any, status: S) -> str:
    assert fit.status == status
    assert repr(fit.diagnose()).startswith(fit.message)
    return str(fit.message)


def test_data() -> None:
    fit = mle.fit(line, START, spoilt(y=(7, np.nan), x=(9, np.inf)), constraints=RULES)
    assert said(fit, S.nonfinite_data).endswith('The first is in row 7: data["y"] is nan.')
    assert 'data["y"] is nan' in " ".join(repr(fit).split())
    table = pd.DataFrame(spoilt(x=(3, -np.inf)))
    fit = mle.fit(line, START, table, constraints=RULES)
    assert said(fit, S.nonfinite_data).endswith('row 3: data["x"] is -inf.')


def test_elements_and_weights() -> None:
    x = np.ones((6, 2))
    x[4, 1] = np.nan
    fit = mle.fit(lambda p, x: -jnp.sum((x - p) ** 2), 0.0, x)
    assert said(fit, S.nonfinite_data).endswith("row 4: data[1] is nan.")
    fit = mle.fit(lambda p, x: -((x - p) ** 2), 0.0, np.ones(3), weights=np.array([1.0, np.nan, 1.0]))
    assert said(fit, S.nonfinite_data).endswith("row 1: weights is nan.")


def test_rows_of_weight_zero_are_passed_over() -> None:
    data = spoilt(y=(7, np.nan))
    data["y"][2] = np.nan
    fit = mle.fit(line, START, data, constraints=RULES, weights=np.arange(40) != 2)
    assert said(fit, S.nonfinite_data).endswith('row 7: data["y"] is nan.')


def test_start() -> None:
    fit = mle.fit(parabola, 0.0, np.array([1.0, 2.0, 9.0, 10.0]))
    assert said(fit, S.nonfinite_start).endswith("The log-density of row 2 is -inf, where data is 9.")


@pytest.mark.parametrize("solver", [None, mle.BFGS()])
def test_derivative_at_the_start(solver: Any) -> None:
    data = {"k": np.zeros(3), "z": np.ones(3)}
    fit = mle.fit(entropy, {"chance": 0.0}, data, solver=solver)
    text = said(fit, S.nonfinite_start)
    assert "row 0 is finite, 0, but its derivative with respect to chance is not" in text
    assert re.search(r'where data\["k"\] is 0, data\["z"\] is 1\.', text)
    assert "0 * log(0)" in text


def test_batches() -> None:
    x = np.array([[1.0, 2.0, 3.0], [1.0, 9.0, 2.0], [1.0, 2.0, np.nan]])
    fits = mle.fit_batch(parabola, 0.0, x, lengths=np.array([3, 3, 3]))
    assert said(fits[1], S.nonfinite_start).endswith("row 1 of data set 1 is -inf, where data is 9.")
    assert said(fits[2], S.nonfinite_data).endswith("row 2 of data set 2: data is nan.")
    groups = mle.group_by({"k": [0, 0, 0, 1, 1, 1], "x": x[:2].ravel()}, "k")
    fits = mle.fit_batch(lambda p, o: parabola(p, o["x"]), 0.0, groups)
    assert said(fits[1], S.nonfinite_start).endswith('row 1 of data set 1 is -inf, where data["x"] is 9.')


def test_padding_is_passed_over() -> None:
    x = np.array([[1.0, 2.0, np.nan], [1.0, np.nan, np.nan]])
    fits = mle.fit_batch(parabola, 0.0, x, lengths=np.array([2, 2]))
    assert fits[0].converged
    assert said(fits[1], S.nonfinite_data).endswith("row 1 of data set 1: data is nan.")


def test_what_has_no_rows_at_hand_keeps_its_sentence() -> None:
    scalar = mle.joint(lambda p, x: jnp.sum(parabola(p, x)))
    fit = mle.fit(scalar, 0.0, np.array([1.0, 9.0]))
    assert said(fit, S.nonfinite_start).endswith("has a positive density.")
    table = mle.open_table(spoilt(y=(7, np.nan)), block_rows=20)
    fit = mle.fit(line, START, table, constraints=RULES)
    assert said(fit, S.nonfinite_data).endswith("or use other units.")


def test_inside_jit() -> None:
    found = jax.jit(lambda x: mle.fit(parabola, 0.0, x).diagnose())(jnp.array([1.0, 9.0]))
    assert repr(found).startswith("nonfinite_start: ")
