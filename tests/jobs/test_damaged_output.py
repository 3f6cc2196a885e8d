"""Parts, manifests and links that are not what they say."""

import json
import pickle
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlekit.core.archive import LARGEST_HEADER
from mlekit.jobs.output_directory import LOCK, MANIFEST
from tests.jobs.outputs import fit, names_in, rows_of

WANTED = "want a directory that is new, empty or of the same job"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def a_flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60] ^= 1  # inside a page: the file still opens
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Trap(path.with_name("sprung"))))


def another_part(path: Path) -> None:
    shutil.copy(path.with_name("part-00000.parquet"), path)


def fewer_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(1), path)


def a_table_of_another_program(path: Path) -> None:
    pq.write_table(pa.table({"group": [1], "status": ["converged"]}), path)


def a_link(path: Path) -> None:
    path.rename(path.with_name(".elsewhere"))
    path.symlink_to(path.with_name(".elsewhere"))


class Trap:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


DAMAGES = [truncated, a_flipped_bit, empty, a_pickle, another_part, fewer_rows, a_table_of_another_program, a_link]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_part_is_fitted_again(table, out, damage):
    fit(table, out)
    whole, elsewhere = rows_of(out), out / ".elsewhere"
    damage(out / "part-00002.parquet")
    before = elsewhere.read_bytes() if elsewhere.exists() else None
    outcome = fit(table, out)
    assert (outcome.fitted, outcome.found, outcome.damaged) == (3, 9, ("part-00002.parquet",))
    assert rows_of(out).equals(whole)
    assert not (out / "part-00002.parquet").is_symlink()
    assert not (out / "sprung").exists()
    if before is not None:
        assert elsewhere.read_bytes() == before
    assert fit(table, out).damaged == ()


def test_a_part_of_nobody_is_refused(table, out):
    fit(table, out)
    shutil.copy(out / "part-00000.parquet", out / "part-00007.parquet")
    with pytest.raises(
        ValueError, match=r"out: .* holds part-00007.parquet, which is no part of this job; move it"
    ):
        fit(table, out)


def test_what_killed_runs_left_is_removed(table, out):
    fit(table, out)
    for name in (".part-00001.parquet.0123.partial", ".part-00001.parquet.begun.partial"):
        (out / name).write_text("half a part")
    fit(table, out)
    assert names_in(out) == [LOCK, MANIFEST, *(f"part-0000{i}.parquet" for i in range(4))]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": true}',
        b'{"format": "1"}',
        b'{"format": 1.0}',
        pickle.dumps(Trap(Path("sprung"))),
        b" " * (LARGEST_HEADER + 1),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_malformed_manifest(table, out, content, monkeypatch):
    monkeypatch.chdir(table.parent)
    fit(table, out)
    (out / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=f"out: .*{MANIFEST} is no manifest of mlekit, {WANTED}"):
        fit(table, out)
    assert (out / MANIFEST).read_bytes() == content
    assert not Path("sprung").exists()


def test_a_manifest_of_another_version(table, out):
    fit(table, out)
    path = out / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(ValueError, match="is of format 2, and this version of mlekit reads formats up to 1"):
        fit(table, out)


def test_a_manifest_leads_nowhere(table, out, tmp_path):
    """Whatever it says is compared, and nothing of it is opened, or shown as it is."""
    fit(table, out)
    path, before = out / MANIFEST, names_in(tmp_path)
    manifest = json.loads(path.read_text())
    for name in manifest:
        if name in ("format", "table"):
            continue
        path.write_text(json.dumps(manifest | {name: "../../\x1b[31m" + "x" * 9999}))
        with pytest.raises(ValueError, match="holds another job") as info:
            fit(table, out)
        assert "\x1b" not in str(info.value)
        assert len(str(info.value)) < 1000
    path.write_text(json.dumps(manifest | {"../x\x1b": {"parts": ["../../etc"]}}))
    with pytest.raises(ValueError, match="holds another job"):
        fit(table, out)
    path.write_text(json.dumps(manifest | {"table": "../elsewhere.parquet"}))  # may have moved
    assert fit(table, out).found == 12
    assert names_in(tmp_path) == before


def test_links_are_not_followed(table, out, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("{}")
    for name in (MANIFEST, "part-00001.parquet", LOCK):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        (out / name).symlink_to(precious)
        if name == MANIFEST:  # makes way, as that of a job that never finished a part
            assert fit(table, out).fitted == 12
        else:
            with pytest.raises(ValueError, match=r"no _manifest.json|cannot use"):
                fit(table, out)
        assert precious.read_text() == "{}"
    shutil.rmtree(out)
    fit(table, out)
    (out / MANIFEST).rename(precious)
    (out / MANIFEST).symlink_to(precious)
    with pytest.raises(ValueError, match="is no manifest of mlekit"):
        fit(table, out)
