"""A backend of one's own is one class, which is asked first."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import numpy as np
import pytest

import mlekit as mle
from mlekit.engine import batch_solve
from mlekit.engine.backend import AbstractBackend, Finish
from mlekit.engine.problem import Problem
from mlekit.engine.solution import Solution
from mlekit.engine.xla_backend import XLABackend
from tests.helpers.models import RULES, START, line, line_data

SEEN: list[int] = []


class Counting(AbstractBackend):
    """Runs searches by BFGS, as XLA does, and counts data sets."""

    name: ClassVar[str] = "counting"

    def supports(self, problem: Problem) -> bool:
        return isinstance(problem.solver, mle.BFGS)

    def solve_chunks(self, problem: Problem, n_lanes: int, warm_up: bool, finish: Finish, lost: Any) -> Solution:
        SEEN.append(problem.likelihood.n_sets)
        return XLABackend().solve_chunks(problem, n_lanes, warm_up, finish, lost)


@pytest.mark.parametrize("solver", [mle.BFGS(), mle.Newton()], ids=["supported", "not supported"])
def test_a_backend_of_ones_own(solver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = jax.tree.map(lambda column: np.stack([column, 2 * column, column[::-1]]), line_data(20))
    plain = mle.fit_batch(line, START, data, constraints=RULES, solver=solver, backend="xla")
    monkeypatch.setattr(batch_solve, "BACKENDS", (Counting(), XLABackend()))
    SEEN.clear()
    fits = mle.fit_batch(line, START, data, constraints=RULES, solver=solver)
    assert [n >= 3 for n in SEEN] == [True] * isinstance(solver, mle.BFGS)
    for found, wanted in zip(jax.tree.leaves(fits._solution), jax.tree.leaves(plain._solution), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert fits.status.names() == ["converged"] * 3
