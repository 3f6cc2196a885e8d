"""What is no table, no key and no number."""

import datetime as dt
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mlekit.data.columns import is_table, table_columns
from mlekit.data.groups import group_by

SMALL = {"plane": ["b", "a", "b"], "delay": [1.0, 2.0, 3.0], "tries": [1, 2, 3]}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (pa.table({"x": [1]}), True),
        (pa.record_batch({"x": [1]}), True),
        (pd.DataFrame({"x": [1]}), True),
        (pl.DataFrame({"x": [1]}), True),
        ({"x": [1]}, False),
        (pa.array([1]), False),
        (pa.chunked_array([[1]]), False),
        (pd.Series([1]), False),
        (pl.Series([1]), False),
        (pl.LazyFrame({"x": [1]}), False),
        (np.ones(1), False),
        (jnp.ones(1), False),
        (None, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_is_table(obj, expected):
    assert is_table(obj) is expected


def test_import_needs_no_table_package():
    code = "import sys; before = set(sys.modules); import mlekit.data.groups; new = set(sys.modules) - before; "
    code += "assert not new & {'pyarrow', 'pandas', 'polars'}, new"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("by", "columns", "message"),
    [
        ("plan", None, "by: there is no 'plan'; nearest: 'plane'; want one of 'plane', 'delay', 'tries'."),
        ("zzz", None, "by: there is no 'zzz'; want one of 'plane', 'delay', 'tries'."),
        ([], None, "by: got no name, want at least one of 'plane', 'delay', 'tries'."),
        (["plane", "plane"], None, "by: 'plane' is named twice, want each column once."),
        (
            "plane",
            ["dela"],
            "columns: there is no 'dela'; nearest: 'delay'; want one of 'plane', 'delay', 'tries'.",
        ),
        ("plane", [], "columns: got no name, want at least one of 'plane', 'delay', 'tries'."),
        ("plane", ["delay", "delay"], "columns: 'delay' is named twice, want each column once."),
        (
            "tries",
            None,
            "columns: 'plane' holds string, want numbers; encode it as numbers (levels, codes = "
            "numpy.unique(table['plane'], return_inverse=True) gives a whole number a row), "
            "or leave it out with columns=[...].",
        ),
        (
            ["plane", "delay", "tries"],
            None,
            "columns: nothing is left beside 'plane', 'delay', 'tries', want at least one column.",
        ),
    ],
)
def test_wrong_names(by, columns, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        group_by(SMALL, by, columns)
    assert str(caught.value) == message


@pytest.mark.parametrize("by", [3, [3]])
def test_names_that_are_no_names(by):
    with pytest.raises((TypeError, ValueError), match="by"):  # whichever comes first: ours or a type checker's
        group_by(SMALL, by)


def test_wrong_drop():
    with pytest.raises(ValueError, match=r"drop: there is no 'plan'; nearest: 'plane'"):
        table_columns(SMALL, drop="plan")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "table: got no columns, want at least one."),
        ({"k": [], "x": []}, "table: got no rows, want at least one."),
        (pa.table({"k": pa.array([], pa.int64())}), "table: got no rows, want at least one."),
        ({"k": [1, 2, 3], "x": np.ones(4)}, "table: 'k' has 3 rows and 'x' 4, want the same of both."),
        ({"k": [], "x": np.ones(4)}, "table: 'k' has 0 rows and 'x' 4, want the same of both."),
        ({"k": [1], "x": 2.0}, "table: column 'x' is 2.0, want one entry a row."),
        ({"k": [1], "x": np.array(2.0)}, "table: column 'x' is array(2.), want one entry a row."),
        ({"k": [1], "x": "a"}, "table: column 'x' is 'a', want one entry a row."),
        (
            pa.table([[1], [2]], names=["k", "k"]),
            "table: several columns are called 'k', want a name of its own for each.",
        ),
        (
            pd.DataFrame([[1, 2]], columns=["k", "k"]),
            "table: several columns are called 'k', want a name of its own for each.",
        ),
    ],
    ids=str,
)
def test_wrong_tables(table, message):
    for call in (lambda: group_by(table, "k"), lambda: table_columns(table)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            call()
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("table", "got"),
    [
        (np.ones(3), "numpy.ndarray, want "),
        ([{"k": 1}], "builtins.list, want "),
        (pd.Series([1]), "pandas"),
        (pl.LazyFrame({"k": [1]}), r"LazyFrame, want .*; call \.collect\(\) first\.$"),
    ],
    ids=str,
)
def test_no_table_at_all(table, got):
    with pytest.raises(TypeError, match=got) as caught:
        group_by(table, "k")
    assert "a pyarrow Table or RecordBatch, a polars or pandas DataFrame, or a dict of columns" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("column", "got"),
    [
        (["a", "b"], "'x' holds string, want numbers; encode it"),
        (pd.Series(["a", "b"], dtype="category"), "'x' holds .*string, want numbers; encode it"),
        ([dt.date(2020, 1, 1), None], r"'x' holds date32\[day\], want numbers"),
        (np.array(["2020", "2021"], "M8[D]"), r"'x' holds date32\[day\], want numbers"),
        (pd.Series(pd.to_datetime(["2020", "2021"])), "'x' holds timestamp.*, want numbers"),
        (pl.Series([dt.timedelta(1), None]), "'x' holds duration.*, want numbers"),
        ([[1], [1, 2]], "'x' holds list<.*>, want numbers"),
        (
            pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
            r"'x' holds fixed_size_list<.*>.* with nulls, want numbers",
        ),
        ([1, "a"], "'x' is no column of one type: Could not convert 'a'"),
        (np.array([1, "a"], object), "'x' is no column of one type: "),
        (np.array([1j, 2j]), "'x' is no column of one type: "),
    ],
    ids=str,
)
def test_no_numbers(column, got):
    with pytest.raises(ValueError, match=f"columns: {got}"):
        group_by({"k": [1, 2], "x": column}, "k")


@pytest.mark.parametrize(
    ("column", "got"),
    [
        (
            [[1], [1, 2]],
            "'k' holds list<.*>, want a key that can be sorted: text, numbers, booleans or dates",
        ),
        ([{"a": 1}, {"a": 2}], "'k' holds struct<.*>, want a key"),
        ([1, "a"], "'k' is no column of one type: "),
        (np.ones((2, 2)), "'k' is no column of one type: "),
    ],
    ids=str,
)
def test_no_key(column, got):
    with pytest.raises(ValueError, match=f"by: {got}"):
        group_by({"k": column, "x": [1, 2]}, "k")
