"""Which rows make which part."""

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlekit as mle
from mlekit.jobs import partition
from mlekit.jobs.partition import key_codes, partition_rows
from mlekit.jobs.table_files import open_table_files

KEYS = [
    pa.array([1.5, None, float("nan"), 0.0, -0.0, 1.5]),
    pa.array([1.5, 2, None], pa.float32()),
    pa.array([1.5, 2, None], pa.float16()),
    pa.array(["a", None, "", "abc", "a", "aé"]),
    pa.array(["a", "b", "a"], pa.large_string()),
    pa.array(["a", "b", "a"], pa.string_view()),
    pa.array(["z", "a", None, "a"]).slice(1),
    pa.array([None, None], pa.string()),
    pa.array([None, None]),
    pa.array([True, None, False, True]),
    pa.array([0, -1, None, 0], pa.int8()),
    pa.array([2**64 - 1, 0, None], pa.uint64()),
    pa.array([0, 86400, None, 0], pa.timestamp("s", "UTC")),
    pa.array([0, 1, None, 1], pa.date32()),
    pa.array([0, 1, None, 1], pa.time32("s")),
    pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("1.50")]),
]


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: str(keys.type))
def test_codes_are_equal_where_keys_are(keys):
    codes = key_codes(pa.table({"key": keys}))
    groups = mle.group_by(pa.table({"key": keys, "row": np.arange(len(keys))}), "key")
    of_groups = [set(codes[group["row"]]) for group in groups]
    assert [len(one) for one in of_groups] == [1] * len(groups)
    assert len(set.union(*of_groups)) == len(groups)


def test_codes_are_the_same_everywhere():
    """Or else a run on another machine would make other parts."""
    keys = pa.table({"a": ["x", None, "yz"], "b": [1, 2, -3]})
    codes = [
        "0x3f3e21e22981117",
        "0x5aca47579f80fd5f",
        "0xea35dc371aa4f55f",
    ]
    assert [hex(code) for code in key_codes(keys)] == codes
    assert np.array_equal(key_codes(keys.slice(1)), key_codes(keys)[1:])
    twin = pa.table({"a": keys["a"].cast(pa.large_string()), "b": keys["b"].cast(pa.int8())})
    assert np.array_equal(key_codes(twin), key_codes(keys))


def test_binary_and_nested_keys():
    codes = key_codes(pa.table({"key": pa.array([b"a", None, b"a"])}))
    assert (codes[0] == codes[2]) & (codes[0] != codes[1])
    with pytest.raises(ValueError, match=r"by: 'key' holds list<.*want a key that can be sorted"):
        key_codes(pa.table({"key": [[1]]}))


def arranged(tmp_path, groups, part_sets=4, row_group_size=5):
    pq.write_table(pa.table({"group": groups}), tmp_path / "t.parquet", row_group_size=row_group_size)
    return partition_rows(open_table_files(tmp_path / "t.parquet"), ("group",), part_sets)


def test_rows_that_lie_together(tmp_path):
    order = np.random.default_rng(0).permutation(10)
    found = arranged(tmp_path, np.repeat(order, 3))
    assert (found.groups, found.n_parts) == (10, 3)
    assert found.first.tolist() == [0, 9, 18, 30]
    found = arranged(tmp_path, np.repeat(np.arange(1000), 2), part_sets=300, row_group_size=64)
    assert (found.groups, found.n_parts) == (1000, 4)
    assert all(first % 2 == 0 for first in found.first)
    assert max(np.diff(found.first)) <= 600


def test_rows_that_do_not(tmp_path):
    for groups in ([1, 1, 2, 2, 1], np.tile(np.arange(7), 3)):
        found = arranged(tmp_path, groups)
        assert (found.groups, found.first) == (len(set(groups)), None)


def test_very_many_groups_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(partition, "MOST_GROUPS", 1000)
    monkeypatch.setattr(partition, "SAMPLE", 500)
    assert arranged(tmp_path, np.arange(1000), 100, 300).first is not None
    for groups in (np.arange(20_000), np.tile(np.arange(20_000), 2)):
        found = arranged(tmp_path, groups, 100, 3000)
        assert found.first is None
        assert abs(found.groups / 20_000 - 1) < 0.2
