"""Draws, two by two."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

import mlekit as mle
from tests.plot.figures import MEAN, SD, bootstrap, line, line_fit, new_axes, plot, said


def test_pairs_of_two() -> None:
    draws = bootstrap()
    ax = plot.pairs(draws, ["sd", "mean"], level=0.8)
    np.testing.assert_allclose(line(ax, "replicate"), np.asarray(draws.vector)[:, ::-1])
    off = (line(ax, "Wald 80%") - [SD, MEAN]) * np.sqrt(25) / SD
    np.testing.assert_allclose(2 * off[:, 0] ** 2 + off[:, 1] ** 2, stats.chi2.ppf(0.8, 2), rtol=1e-6)
    np.testing.assert_allclose(line(ax, "estimate"), [[SD, MEAN]])
    assert (ax.get_xlabel(), ax.get_ylabel(), said(ax)) == ("sd", "mean", "")


def test_pairs_count_failures() -> None:
    draws = bootstrap()
    holed = dataclasses.replace(draws, vector=draws.vector.at[:3].set(jnp.nan))
    ax = plot.pairs(holed, ax=new_axes())
    np.testing.assert_allclose(line(ax, "replicate"), np.asarray(draws.vector)[3:])
    assert said(ax) == "3 of 80 replicates failed, left out"
    nothing = dataclasses.replace(draws, vector=jnp.full_like(draws.vector, jnp.nan))
    with pytest.raises(ValueError, match="no replicate converged"):
        plot.pairs(nothing)


def test_pairs_in_a_triangle() -> None:
    rng = np.random.default_rng(0)
    vector = np.asarray(line_fit()._solution.estimates) + 0.1 * rng.normal(size=(50, 4))
    status = dataclasses.replace(line_fit().status, codes=jnp.zeros(50, int))
    draws = mle.Bootstrap(jnp.asarray(vector), jnp.asarray(vector), status, None, line_fit(), "weights")
    given = plt.figure().subplots(3, 3)
    table = plot.pairs(draws, ax=given)
    assert table.shape == (3, 3)
    assert all(new is old for new, old in zip(table.ravel(), given.ravel()))
    names = ["a", "b", "s"]
    assert [ax.get_xlabel() for ax in table[2]] == names
    assert [ax.get_ylabel() for ax in table[:, 0]] == ["", "b", "s"]
    columns = vector[:, [0, 1, 3]]
    for i in range(3):
        (bars,) = table[i, i].patches
        wanted, edges = np.histogram(columns[:, i], "auto", density=True)
        assert bars.get_xy()[:, 1].max() == pytest.approx(wanted.max())
        assert (bars.get_xy()[:, 0].min(), bars.get_xy()[:, 0].max()) == pytest.approx((edges[0], edges[-1]))
        for j in range(i):
            np.testing.assert_allclose(table[i, j].get_lines()[0].get_xydata(), columns[:, [j, i]])
            assert table[i, j].get_xlim() == table[j, j].get_xlim()
        assert not any(table[i, j].axison for j in range(i + 1, 3))
    assert plot.pairs(draws, names[:2]).get_ylabel() == "b"
