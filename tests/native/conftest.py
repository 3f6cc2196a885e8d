"""Native fits; their object code is kept beside the other caches of tests, not in the user's directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["MLEKIT_NATIVE_CACHE"] = str(Path(__file__).parents[2] / ".pytest_cache" / "native")


@pytest.fixture
def natively(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a fit natively, on so many threads."""

    def run(fit: Callable[..., Any], n_threads: int = 1) -> Any:
        monkeypatch.setenv("NPROC", str(n_threads))
        return fit(backend="native")

    return run
