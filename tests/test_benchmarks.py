"""The benchmarks at small size: mlekit finds every maximum that any peer finds. Nothing here depends on time."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.__main__ import RESULTS, WORKLOADS
from benchmarks.harness import Limit, Measured, Row, measure

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
