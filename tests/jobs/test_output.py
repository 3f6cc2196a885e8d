"""The output directory: nothing lost, nothing doubled, whatever is done to the process or to the files."""

import collections
import os
import pickle

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlekit as mle
from mlekit.core.digest import digest_of
from mlekit.jobs.table_files import open_table_files
from tests.jobs.outputs import INIT, fit, log_density, make_table, rows_of


def test_fit_table_is_fit_batch(table, out):
    outcome = fit(table, out)
    assert outcome == mle.Outcome(12, 0, outcome.seconds, collections.Counter(converged=12))
    wanted = mle.fit_batch(log_density, INIT, mle.group_by(make_table(), "group")).to_arrow()
    assert rows_of(out).equals(wanted)
    again = fit(table, out)
    assert (again.fitted, again.found, again.statuses) == (0, 12, outcome.statuses)


def test_parts_are_alike(table, out):
    fit(table, out, part_sets=5)
    assert [pq.read_metadata(path).num_rows for path in sorted(out.glob("*.parquet"))] == [4, 4, 4]


def test_another_model_is_refused(table, out):
    def shifted(by):
        return lambda params, obs: log_density(params, {"y": obs["y"] - by})

    def call(by, init=INIT):
        return mle.fit_table(shifted(by), init, table, "group", out, progress=False)

    assert call(1.0).fitted == 12
    assert call(1.0).found == 12
    for change in ({"by": 2.0}, {"by": 1.0, "init": {"mean": 0.5}}):
        with pytest.raises(ValueError, match="another job: the content of the functions has changed"):
            call(**change)


def test_digests():
    import functools

    import jax
    import optax

    def recursive(n):
        return recursive(n - 1) if n else digest_of

    def same(make):
        return digest_of(make()) == digest_of(make())

    for make in (
        lambda: mle.positive,
        lambda: {"a": mle.interval(0, 1), "b": [mle.Newton(), None]},
        lambda: optax.adam(1e-2),
        lambda: mle.LBFGS(),
        lambda: functools.partial(log_density, {"mean": jnp.ones(2)}),
        lambda: jax.jit(log_density),
        lambda: mle.regression(lambda params, obs: params, mle.families.poisson),
        lambda: recursive,
        lambda: jax.random.key(0),
        lambda: eval("lambda x: x + 1"),
        lambda: INIT.items,
    ):
        assert same(make)
    things = [mle.interval(0, 1), mle.interval(0, 2), mle.Newton(), mle.BFGS(), optax.adam(1e-2), optax.adam(1e-3)]
    things += [eval("lambda x: x + 1"), eval("lambda x: x + 2"), jnp.ones(2), jnp.ones(3), np.ones(2, np.float32)]
    assert len({digest_of(thing) for thing in things}) == len(things)


def test_a_directory_and_a_list_of_files(tmp_path, out):
    whole, folder = make_table(), tmp_path / "table"
    folder.mkdir()
    pq.write_table(whole.slice(0, 10), folder / "a.parquet", row_group_size=4)  # groups straddle row groups
    pq.write_table(whole.slice(10, 0), folder / "b.parquet")
    second = whole.slice(10).set_column(0, "group", whole["group"].slice(10).cast(pa.int32()).dictionary_encode())
    pq.write_table(second.append_column("more", second["y"]), folder / "c.parquet")  # and files
    (folder / "_metadata.parquet").write_text("nobody reads this")
    (folder / "notes.txt").write_text("nor this")
    fit(folder, out)
    assert rows_of(out).equals(mle.fit_batch(log_density, INIT, mle.group_by(whole, "group")).to_arrow())
    listed = [folder / f"{name}.parquet" for name in "abc"]
    assert fit(listed, out).found == 12  # the same table
    pq.write_table(whole.slice(0, 9), folder / "a.parquet", row_group_size=4)
    with pytest.raises(ValueError, match="the content of the table files has changed"):
        fit(folder, out)


def test_rows_are_read_where_they_are(tmp_path):
    pq.write_table(make_table(), tmp_path / "a.parquet", row_group_size=7)
    pq.write_table(make_table(3), tmp_path / "b.parquet", row_group_size=4)
    source = open_table_files(tmp_path)
    whole = source.read(["y"])
    assert source.n_rows == whole.num_rows == 45
    for begin, end in [(0, 45), (0, 1), (6, 8), (7, 14), (35, 37), (44, 45), (3, 3)]:
        assert source.read(["y"], begin, end).equals(whole.slice(begin, end - begin))
    for most in (1, 7, 10, 100):
        ranges = list(source.ranges(most))
        assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
        assert ranges[-1][1] == 45


def test_large_tables_are_told_apart_by_their_footers(table, monkeypatch):
    monkeypatch.setattr("mlekit.jobs.table_files.MOST_DIGESTED", 1)
    before = open_table_files(table).fingerprint()
    assert open_table_files(table).fingerprint() == before
    os.utime(table, ns=(0, 0))
    assert open_table_files(table).fingerprint() != before


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, ValueError, "there is no .parquet file in .*want at least one"),
        ({"a.parquet": b"no parquet"}, ValueError, "a.parquet cannot be read as parquet: "),
        ({"a.parquet": pickle.dumps(print)}, ValueError, "a.parquet cannot be read as parquet: "),
        ({"a.parquet": None, "b.parquet": {"group": ["x"], "y": [1.0]}}, ValueError, "the columns of .*b.parquet"),
        (
            {"a.parquet": None, "b.parquet": {"y": [1.0]}},
            ValueError,
            "by: .* has no column 'group', want one of 'y'",
        ),
    ],
    ids=str,
)
def test_wrong_directories(tmp_path, out, files, error, message):
    folder = tmp_path / "table"
    folder.mkdir()
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            pq.write_table(make_table() if content is None else pa.table(content), folder / name)
    with pytest.raises(error, match=message):
        fit(folder, out)
    assert not out.exists()


def test_wrong_arguments(table, out):
    for options, error, message in (
        ({"engine": "spark"}, ValueError, "engine must be one of local, ray; got 'spark'"),
        ({"address": "auto"}, ValueError, "address: the local engine has none"),
        ({"workers": 2}, ValueError, "workers: the local engine has none"),
        ({"engine": "ray", "workers": 0}, ValueError, "workers must be a positive whole number"),
        ({"part_sets": 2.5}, ValueError, "part_sets must be a positive whole number"),
        ({"columns": "z"}, ValueError, "columns: .* has no column 'z', want one of 'group', 'y'"),
        ({"weights": "w"}, ValueError, "weights: .* has no column 'w'"),
    ):
        with pytest.raises(error, match=message):
            fit(table, out, **options)
    with pytest.raises(TypeError, match="table: got dict, want a path"):
        fit({}, out)
    with pytest.raises(TypeError, match="by: got 3, want a column name or a list of names"):
        mle.fit_table(log_density, INIT, table, 3, out)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"table: .* is one of several files, want these to be .parquet"):
        fit([table, "b.csv"], out)
    assert not out.exists()
