"""What tests of jobs begin with: tables, models and folders; and a Ray of their own."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers.processes import environment
from tests.jobs import command, outputs, ray_runs


@pytest.fixture
def table(tmp_path) -> Path:
    pq.write_table(outputs.make_table(), tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def job(tmp_path, monkeypatch) -> Path:
    """A folder, entered, with a model and a table."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(command.MODEL)
    pq.write_table(command.make_table(), "table.parquet")
    return tmp_path


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One local Ray for all tests of a file that want one."""
    with ray_runs.ray_starts(), pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():  # its workers inherit it
            patch.setenv(name, value)
        import ray
        import ray.data

        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        ray.data.DataContext.get_current()
    yield
    ray.shutdown()


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder, entered, with a model."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(ray_runs.MODEL)
    return tmp_path
