"""Tables of pandas, polars, Arrow and xarray are data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr

import mlekit as mle
from tests.helpers.interop import DATA, line_fit, numbers, same
from tests.helpers.models import RULES, START, line, line_data

FRAME = pd.DataFrame(DATA)
TABLES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: FRAME,
    "pandas, nullable": lambda: FRAME.convert_dtypes(),
    "pandas, of Arrow": lambda: FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "pandas, columns": lambda: {name: FRAME[name] for name in FRAME},
    "polars": lambda: pl.DataFrame(DATA),
    "pyarrow": lambda: pa.table(DATA),
    "pyarrow, streamed": lambda: pa.table(DATA).to_reader(),
    "xarray": lambda: xr.Dataset({name: ("obs", column) for name, column in DATA.items()}),
    "xarray, a coordinate": lambda: xr.Dataset({"y": ("obs", DATA["y"])}, coords={"x": ("obs", DATA["x"])}),
    "xarray, columns": lambda: {name: xr.DataArray(column, dims="obs") for name, column in DATA.items()},
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_every_kind_are_data(kind: str) -> None:
    same(numbers(mle.fit(line, START, TABLES[kind](), constraints=RULES)), numbers(line_fit()))


@pytest.mark.parametrize("kind", ["xarray", "pandas"])
def test_rows_of_other_labels_are_not_joined(kind: str) -> None:
    def column(values: np.ndarray, labels: np.ndarray) -> Any:
        return pd.Series(values, labels) if kind == "pandas" else xr.DataArray(values, {"t": labels}, ["t"])

    rows = np.arange(len(DATA["x"]))
    same_rows = {name: column(values, rows) for name, values in DATA.items()}
    same(numbers(mle.fit(line, START, same_rows, constraints=RULES)), numbers(line_fit()))
    with pytest.raises(ValueError, match=r"data: .* have different labels along .*align them first"):
        mle.fit(line, START, same_rows | {"x": column(DATA["x"], rows[::-1])}, constraints=RULES)


def test_what_is_null_is_no_number() -> None:
    holes = {"x": DATA["x"], "y": [None, *DATA["y"][1:]]}
    for table in (pd.DataFrame(holes).convert_dtypes(), pl.DataFrame(holes), pa.table(holes)):
        assert mle.fit(line, START, table, constraints=RULES).status == mle.Status.nonfinite_data


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"x": pd.Categorical(["a", "b"]), "y": [1.0, 2.0]}), r'data\["x"\] holds .*encode it'),
        (pl.DataFrame({"x": pl.Series(["a"], dtype=pl.Categorical)}), r'data\["x"\] holds .*encode it'),
        (xr.Dataset({"x": ("obs", ["a", "b"])}), r'data\["x"\] holds text'),
        (pl.LazyFrame({"x": [1.0]}), r"data is LazyFrame.* \(call \.collect\(\) first\)"),
    ],
)
def test_tables_that_are_no_numbers(table: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        mle.fit(line, START, table)


def seen(data: Any, fit: Callable[..., mle.Fit] = mle.fit) -> Any:
    """The columns that a log-density gets to see, as the fit keeps them."""
    return fit(lambda params, obs: -0.5 * (params - obs["y"]) ** 2, 0.0, data).data


def test_xarray_one_data_set() -> None:
    y, x = np.arange(4.0), np.arange(8.0).reshape(2, 4)
    labels = {"year": ("obs", [1, 2, 3, 4]), "site": ("obs", list("abab")), "feature": [0.0, 1.0], "lone": 2.0}
    data = seen(xr.Dataset({"y": ("obs", y), "x": (("feature", "obs"), x)}, coords=labels))
    assert set(data) == {"x", "y", "year"}
    np.testing.assert_array_equal(data["x"], x.T)
    with pytest.raises(ValueError, match=r"must begin with the axis of observations.* z has \(\)"):
        seen(xr.Dataset({"y": ("obs", y), "z": 1.0}))
    np.testing.assert_array_equal(mle.fit(lambda m, v: -0.5 * (m - v) ** 2, 0.0, xr.DataArray(y)).params, 1.5)


def test_xarray_many_data_sets() -> None:
    y = np.arange(9.0).reshape(3, 3)
    rules = {"year": ("obs", [1, 2, 3]), "site": ("set", [7, 8, 9]), "depth": (("obs", "set"), y)}
    dataset = xr.Dataset({"y": (("set", "obs"), y)}, coords=rules)
    data = seen(dataset, mle.fit_batch)
    assert set(data) == {"y", "year", "depth"}
    np.testing.assert_array_equal(data["year"], np.tile([1, 2, 3], (3, 1)))
    np.testing.assert_array_equal(data["depth"], y.T)
    turned = dataset.assign(x=(("obs", "set"), y))
    for wrong in (turned, {name: turned[name] for name in ("x", "y")}):
        with pytest.raises(ValueError, match=r"data sets and of observations, in that order.*\('obs', 'set'\)"):
            seen(wrong, mle.fit_batch)


def test_xarray_groups() -> None:
    heat = np.arange(24.0).reshape(2, 3, 4)
    grid = xr.Dataset({"heat": (("lat", "lon", "time"), heat)}, {"lat": [10, 20], "lon": [1, 2, 3]})
    for dataset in (grid, grid.stack(cell=("lon", "lat"))):
        groups = mle.group_by(dataset, ["lat", "lon"], "heat")
        assert groups.keys.to_pylist()[1] == {"lat": 10, "lon": 2}
        np.testing.assert_array_equal(groups.columns["heat"], heat.ravel())
    sites = xr.Dataset({"y": ("obs", [1.0, 2, 3]), "x": (("k", "obs"), np.arange(6.0).reshape(2, 3))})
    groups = mle.group_by(sites.assign_coords(site=("obs", ["b", "a", "b"])), "site")
    np.testing.assert_array_equal(groups[1]["x"], [[0, 3], [2, 5]])
    with pytest.raises(ValueError, match=r"or one that all share; 'heat' has .*'high' has \('lat', 'lon'\)"):
        mle.group_by(grid.assign(high=(("lat", "lon"), np.zeros((2, 3)))), "lat")


def test_columns_of_frames_are_arrays() -> None:
    frame = pandas.DataFrame(line_data() | {"w": np.tile([1.0, 2.0], 20)})
    data = {"x": frame["x"], "y": frame["y"]}
    fit = mle.fit(line, START, data, weights=frame["w"], constraints=RULES)
    plain = mle.fit(line, START, line_data(), weights=np.tile([1.0, 2.0], 20), constraints=RULES)
    np.testing.assert_array_equal(fit._solution.estimates, plain._solution.estimates)
