"""The benchmarks at small size: mlekit finds every maximum that any peer finds. Nothing here depends on time."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import report
from benchmarks.__main__ import RESULTS, WORKLOADS
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


def test_the_readme_shows_the_latest_results() -> None:
    """Whoever renews the results puts `report.markdown` of them into the README."""
    kept = json.loads((RESULTS / "cpu.json").read_text())
    header = {name: kept[name] for name in ("machine", "device", "size")}
    results = report.read(RESULTS / "cpu.json", header)
    readme = (RESULTS.parents[1] / "README.md").read_text()
    assert header["size"] == "full"
    assert header["machine"] in readme
    assert report.markdown(results) in readme


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
