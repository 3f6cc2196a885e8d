"""Native fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def natively(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a fit natively, on so many threads."""

    def run(fit: Callable[..., Any], n_threads: int = 1) -> Any:
        monkeypatch.setenv("NPROC", str(n_threads))
        return fit(backend="native")

    return run
