"""Fits as tables."""

import numpy as np
import pyarrow as pa
import pytest
from jax.scipy.stats import norm

import mlekit as mle
from tests.results.reported import rate


@pytest.fixture(scope="module")
def grouped():
    waits = {"line": ["b", "a", "b", "a", "c", "c"], "rate": [2, 1, 2, 1, 1, 1], "wait": [2.0, 1, 8, 3, 1, 1]}
    groups = mle.group_by(waits, by=["line", "rate"])
    return mle.fit_batch(rate, {"rate": 1.0}, groups, constraints={"rate": mle.positive})


def test_arrow_is_the_fits_arrays(fits):
    table = fits.to_arrow()
    names = ["set", "a", "a_se", "b", "b_se", "log_likelihood", "status", "steps", "n_obs"]
    assert table.column_names == names
    assert table.schema.field("set").type == pa.int64()
    assert table.schema.field("status").type == pa.string()
    assert pa.types.is_integer(table.schema.field("n_obs").type)
    np.testing.assert_array_equal(table["a"], fits.params["a"])
    np.testing.assert_array_equal(table["b_se"], fits.standard_errors()["b"])
    np.testing.assert_array_equal(table["log_likelihood"], fits.log_likelihood)
    np.testing.assert_array_equal(table["steps"], fits.steps)
    assert table["status"].to_pylist() == fits.status.names()
    assert table["b_se"].null_count == 0, "errors of unproven fits are NaN, not null"
    assert fits.to_pandas().equals(table.to_pandas())


def test_arrow_of_a_selection(fits):
    mask = np.asarray(fits.params["b"]) > 3
    assert fits[mask].to_arrow()["set"].to_pylist() == np.flatnonzero(mask).tolist()
    assert fits[mask].to_pandas().equals(fits.to_pandas()[mask].reset_index(drop=True))
    assert fits[7].to_arrow()["set"].to_pylist() == [7]
    assert fits[7].to_pandas().equals(fits.to_arrow().slice(7, 1).to_pandas())


def test_arrow_with_keys(grouped):
    table = grouped.to_arrow()
    names = ["line", "rate_key", "rate", "rate_se", "log_likelihood", "status", "steps", "n_obs"]
    assert table.column_names == names, "the key `rate` gives way to the parameter"
    assert table["line"].to_pylist() == ["a", "b", "c"]
    np.testing.assert_allclose(table["rate"], [0.5, 0.2, 1.0], rtol=1e-9)
    assert grouped[1:].to_arrow().equals(table.slice(1))
    assert repr(grouped[1]).startswith("Fit of line=b, rate=2: converged")


def test_arrow_of_a_single_fit(fit):
    table = fit.to_arrow()
    assert table.num_rows == 1
    assert table.column_names[:2] == ["coef[0]", "coef[0]_se"]
    assert table["log_likelihood"][0].as_py() == float(fit.log_likelihood)


def test_difficult_names():
    def density(params, x):
        return norm.logpdf(x, params["[x]"]) - params["a"] ** 2 - params["a_se"] ** 2 - params["steps"] ** 2

    fit = mle.fit(density, {"[x]": 0.0, "a": 0.0, "a_se": 0.0, "steps": 0.0}, np.zeros(4))
    names = fit.to_arrow().column_names
    assert names[:6] == ["[x]", "[x]_se", "a", "a_se_se", "a_se", "a_se_se_se"]
    assert names[6:] == ["steps_estimate", "steps_se", "log_likelihood", "status", "steps", "n_obs"]
    assert "\n {[}x]" in fit.summary().to_latex(), "after a line end a bracket would open an argument"
