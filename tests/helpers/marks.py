"""Which of the parameters of a test take long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(names: Iterable[Any], *quick: Any) -> list[Any]:
    """The parameters of a test, of which only these run in `make test`; the others take `make test-all`."""
    several = lambda name: name if isinstance(name, tuple) else (name,)  # noqa: E731
    return [name if name in quick else pytest.param(*several(name), marks=pytest.mark.slow) for name in names]
