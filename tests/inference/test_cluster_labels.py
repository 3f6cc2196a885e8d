"""Which rows belong together, in every form that labels come in."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.special
import scipy.stats

import mlekit as mle
from tests.helpers.seasons import DATA, LABELS, N, batch_of_lines, counts_fit, ragged_data, statsmodels_counts


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return counts_fit()


@pytest.mark.parametrize(
    "clusters",
    [
        ["firm", "year"],
        (LABELS[:, 0], LABELS[:, 1]),
        [LABELS[:, 0].tolist(), [f"in {1990 + year}" for year in LABELS[:, 1]]],
        [[f"firm {firm}" for firm in LABELS[:, 0]], "year"],
        pd.DataFrame({"firm": pd.Categorical(LABELS[:, 0]), "year": [f"y{year}" for year in LABELS[:, 1]]}),
        pa.table({"firm": LABELS[:, 0], "year": pa.array([f"y{year}" for year in LABELS[:, 1]])}),
        [pd.Series(LABELS[:, 0] - 4.5), pd.Timestamp("2020-01-01") + pd.to_timedelta(LABELS[:, 1], unit="D")],
    ],
    ids=["names", "arrays", "lists", "name and strings", "pandas", "pyarrow", "floats and dates"],
)
def test_labels_in_every_form(fit: mle.Fit, clusters: Any) -> None:
    wanted = statsmodels_counts("cluster", False, (0, 1))
    np.testing.assert_allclose(fit.covariance("sandwich", clusters), wanted, rtol=1e-8)


def test_one_way_in_every_form(fit: mle.Fit) -> None:
    wanted = fit.covariance("sandwich", "firm")
    firm = DATA["firm"]
    for labels in (
        firm,
        firm.tolist(),
        jnp.asarray(firm),
        firm - 100,
        firm * 2**40,
        firm.astype("U3"),
        pd.Series(firm),
    ):
        np.testing.assert_allclose(fit.covariance("sandwich", labels), wanted, rtol=1e-12)
    np.testing.assert_allclose(
        fit.covariance("sandwich", firm > 3), fit.covariance("sandwich", np.where(firm > 3, "a", "b")), rtol=1e-12
    )
    errors = fit.standard_errors("sandwich", clusters="firm")
    np.testing.assert_allclose(errors["level"], np.sqrt(wanted[0, 0]))
    low, high = fit.intervals(kind="sandwich", clusters="firm")["level"]
    np.testing.assert_allclose(high - low, 2 * scipy.stats.norm.ppf(0.975) * errors["level"], rtol=1e-9)


def test_labels_that_are_missing_are_a_cluster_of_their_own(fit: mle.Fit) -> None:
    firm = DATA["firm"]
    labels = np.array([None if one == 0 else f"firm {one}" for one in firm], object)
    np.testing.assert_allclose(fit.covariance("sandwich", labels), fit.covariance("sandwich", "firm"), rtol=1e-12)


@pytest.fixture(scope="module")
def batch() -> mle.Fit:
    return batch_of_lines()


def test_clusters_of_each_set_of_a_batch(batch: mle.Fit) -> None:
    """Labels may come back in the next data set, and mean another cluster there."""
    labels = ragged_data()["a"]
    found = batch.covariance("sandwich", labels)
    wanted = batch.covariance("sandwich", labels + 10 * np.arange(3)[:, None])
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_one_cluster_alone(fit: mle.Fit) -> None:
    with pytest.warns(
        UserWarning, match=r"kind='sandwich' gives this fit no standard errors \(NaN\): the sum over clus"
    ):
        assert np.all(np.isnan(fit.covariance("sandwich", np.zeros(N, int))))
    with pytest.warns(UserWarning, match="one alone"):
        assert np.all(np.isnan(fit.covariance("sandwich", ["firm", np.zeros(N, int)])))


@pytest.mark.slow
def test_long_labels_without_x64() -> None:
    """Labels that differ in their upper half alone are different clusters, though JAX then has 32 bits."""
    x = np.array([1.0, 1.5, 2.0, 2.5, 6.0, 6.1], np.float32)
    firm = np.array([0, 0, 1, 1, 2, 2])
    with jax.enable_x64(False):
        fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, np.float32(0), x)
        wanted = fit.covariance("sandwich", firm)
        np.testing.assert_allclose(fit.covariance("sandwich", firm * 2**32 + 5), wanted, rtol=1e-6)
        groups = mle.group_by({"set": np.zeros(6, int), "x": x, "firm": firm * 2**32 + 5}, "set", ["x", "firm"])
        fits = mle.fit_batch(lambda mean, obs: -0.5 * (obs["x"] - mean) ** 2, np.float32(0), groups)
        np.testing.assert_allclose(fits.covariance("sandwich", "firm")[0], wanted, rtol=1e-6)
