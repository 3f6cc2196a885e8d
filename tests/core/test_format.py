"""Numbers and progress as text."""

import re
import sys
import types

import numpy as np

from mlekit.core.format import numbers, progress


def test_fit_progress(capsys):
    with progress.FitProgress("Newton") as bar:
        bar(3, -12.3456, 1e-3)
        bar(7, -11.5, 1e-12)
    shown = capsys.readouterr()
    assert shown.out == ""
    last = shown.err.strip().split("\r")[-1]
    assert re.fullmatch(r"Newton: 7 steps \[\d\d:\d\d, log-likelihood -11.5, decrement 1e-12\]", last.strip())


def test_batch_progress(capsys):
    with progress.BatchProgress(5) as bar:
        bar.update(np.array([0, 0, 3]))
        bar.update(np.array([0]))
        bar.update(np.array([], int))
    assert bar.counts == {"converged": 3, "unbounded": 1}
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert "80%" in last
    assert "4/5" in last
    assert "fits/s" in last
    assert "3 converged, 1 unbounded" in last


def test_notebook_without_widgets_is_no_warning(monkeypatch):
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with progress.BatchProgress(1) as bar:
        assert type(bar._bar).__module__ == "tqdm.std"


def test_numbers():
    assert numbers.number(9.999999) == "10.000"
    assert numbers.number(float("-inf")) == "-inf"
    assert numbers.number(0.0) == "0"
    assert numbers.number(-0.0) == "0"
    assert numbers.count(1234567) == "1,234,567"
    assert numbers.count(np.float32(1234.3)) == "1,234.3"
    assert numbers.likelihood(np.float32(-123456.78)) == "-123456.8"
    assert numbers.likelihood(-1234567.89012) == "-1234567.8901"
    assert numbers.probability(0.04) == "0.0400"
