"""The benchmarks at small size: mlekit finds every maximum that any peer finds. Nothing here depends on time."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import report
from benchmarks.__main__ import RESULTS, SHOWN, WORKLOADS
from benchmarks.harness import Limit, Measured, Row, measure
from benchmarks.scale import engines, growth, picture, streaming

#: Where fits of few rows have several maxima, another start may end in another one.
MULTIMODAL = {"flights": 0.01, "decays": 0.01}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
def test_mlekit_finds_what_its_peers_find(name: str) -> None:
    for workload in importlib.import_module(f"benchmarks.workloads.{name}").workloads("quick"):
        measured = measure(workload, repeats=1)
        own, *others = measured.rows
        assert others, measured.missing
        assert not {why for why in measured.missing.values() if "not installable" not in why}
        assert own.fits == workload.n_fits
        assert own.failures <= MULTIMODAL.get(name, 0) * own.counted
        if measured.limit is not None:
            assert 0 < measured.limit.mean_over_executed_steps <= 1
            assert 0 < measured.limit.fewest_over_mean_steps <= 1


def row(**changes: Any) -> Row:
    known: dict[str, Any] = {
        "name": "mlekit", "fits": 10, "seconds": 0.5, "fits_per_second": 20.0, "ratio": 1.0, "steps": 6.0,
        "compile_seconds": 2.0, "failures": 0, "counted": 10, "reach": None,
    }  # fmt: skip
    return Row(**(known | changes))


def test_results_are_kept_and_shown(tmp_path: Path) -> None:
    measured = Measured(
        name="coins",
        title="ten coins",
        fits=10,
        rows=(row(), row(name="a peer, 2 processes", seconds=1.0, fits_per_second=10.0, ratio=2.0, reach=3.0)),
        limit=Limit(0.9, 0.8, 0.5),
        limit_reach=0.3,
        missing={"another": "not installable: ImportError"},
    )
    shown = report.table(measured)
    assert "0.36 = 0.90 x 0.80 x 0.50, wanted 0.30" in shown
    assert "another did not run: not installable" in shown
    assert report.missed(measured) == ["a peer 2 of 3"]
    assert "a peer 2 of 3" in report.summary([measured])
    header = {"machine": "here", "device": "cpu", "size": "quick"}
    report.write(tmp_path / "cpu.json", header, [measured])
    assert json.loads((tmp_path / "cpu.json").read_text())["workloads"][0]["limit"]["fraction"] == 0.36
    assert report.read(tmp_path / "cpu.json", header) == [measured]
    assert report.read(tmp_path / "cpu.json", header | {"machine": "elsewhere"}) == []
    report.picture(tmp_path / "cpu.png", "here", [measured])
    assert (tmp_path / "cpu.png").stat().st_size > 10_000


def test_tables_are_put_between_their_marks(tmp_path: Path) -> None:
    peers = (row(name="numba Newton, prange", ratio=0.25), row(name="SciPy fit, 2 processes", ratio=5.0))
    own = row(name="mlekit's own solver", ratio=0.1)
    measured = Measured(
        name="gamma", title="gammas", fits=10, rows=(row(), *peers, own), limit=None, limit_reach=None, missing={}
    )
    files = [tmp_path / "README.md", tmp_path / "benchmarks" / "README.md"]
    (tmp_path / "benchmarks").mkdir()
    for path in files:
        path.write_text(f"before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n")
    report.write_tables(tmp_path, "here", [measured])
    short, wide = (path.read_text() for path in files)
    assert re.search(r"\| +20 \| 0.25, numba by hand +\| 5, SciPy +\|$", short, re.MULTILINE)
    assert "numba Newton, prange **0.25**<br>SciPy fit, 2 processes **5**" in wide
    for text in (short, wide):
        assert text.startswith("before\n\n<!--")
        assert text.endswith("-->\n\nafter\n")
        assert "old" not in text
        assert "Machine: here." in text
    files[0].write_text("no marks")
    with pytest.raises(ValueError, match=r"README.md has no place for the table"):
        report.write_tables(tmp_path, "here", [measured])


def test_the_tables_show_the_latest_results() -> None:
    """Whoever renews the results by other means than `make bench` runs `python -m benchmarks --tables`."""
    header, results = report.stored(SHOWN)
    assert header["size"] == "full"
    short = report.short_table(results)
    assert short.count("\n") == 1 + len(report.SHORT)
    assert max(map(len, short.splitlines())) <= 105
    root = RESULTS.parents[1]
    assert report.marked(header["machine"], short) in (root / "README.md").read_text()
    wide = report.marked(header["machine"], report.wide_table(results))
    assert wide in (root / "benchmarks" / "README.md").read_text()


@pytest.mark.slow
def test_how_far_it_goes(tmp_path: Path) -> None:
    """At small size: rows on disk give what they give in memory, both engines fit every group, and it is drawn."""
    found: dict[str, Any] = {"machine": "here", "streaming": streaming.measure(tmp_path, [30_000, 300_000], 1)}
    for disk, memory in zip(found["streaming"]["fits"][::2], found["streaming"]["fits"][1::2]):
        assert (disk["on_disk"], memory["on_disk"]) == (True, False)
        assert disk["status"] == memory["status"] == "converged"
        np.testing.assert_allclose(disk["estimates"], memory["estimates"], rtol=1e-10)
    found["engines"] = engines.measure(tmp_path, 100, 10_000)
    for name, groups in (("dear", 100), ("many", 10_000)):
        for engine in ("local", "ray"):
            one = found["engines"][f"{name}, {engine}"]
            assert one["groups"] == sum(one["statuses"].values()) == groups
    found["growth"] = growth.measure(tmp_path, 10_000, 1_000)
    assert [one["groups"] for one in found["growth"]["groups"]] == [1_000, 10_000]
    picture.draw(found, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 20_000


def test_a_slope_is_the_exponent_of_the_growth() -> None:
    entries = [{"rows": n, "seconds": 3.0 * n**1.5} for n in (10, 100, 1000)]
    assert growth.slope(entries, "rows", lambda one: one["seconds"]) == pytest.approx(1.5)
