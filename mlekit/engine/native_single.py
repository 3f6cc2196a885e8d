"""The search of one data set in memory by native kernels: threads share its rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..likelihood.host_rows import HostRows, host_array
from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.ragged import BoundModel
from ..native import single_fit
from ..native.sums_kernel import Prepared
from ..native.unsupported import Unsupported
from .native_backend import ROWS_ELSEWHERE
from .native_kernels import model_kernels
from .native_search import Searches
from .problem import Problem
from .search import Steps, last_state
from .solution import Solution, compiled_solution_of_facts, doubtful

#: Bytes of rows that are copied into columns at most.
MOST_BYTES = 4 << 30


def solve_one(problem: Problem, warm_up: bool, n_threads: int = 1) -> Solution:
    """The maximum of one data set in memory, searched natively.

    Args:
        problem: the problem, none of it traced.
        warm_up: True if Newton's method begins with the expected information.
        n_threads: threads to use.

    Raises:
        Unsupported: XLA must do it.
    """
    likelihood = problem.likelihood
    if not isinstance(likelihood, InMemoryLikelihood) or likelihood.sampled is not None:
        raise Unsupported(ROWS_ELSEWHERE)
    if sum(leaf.nbytes for leaf in jax.tree.leaves(likelihood.data)) > MOST_BYTES:
        raise Unsupported(f"more than {MOST_BYTES >> 30} GiB of rows, which they copy")
    data = jax.tree.map(host_array, likelihood.data)
    weights = None if likelihood.weights is None else host_array(likelihood.weights)
    first = np.asarray([0 if likelihood.offset is None else int(likelihood.offset)])
    rows = HostRows(jax.tree.leaves(data), weights, first, np.asarray([int(likelihood.n_unpadded)]))
    starts = [np.asarray(leaf)[None] for leaf in problem.starts]
    job = Searches(data, rows, 1, problem.of(BoundModel(problem.model, problem.args), starts), n_threads)
    state, steps = _last_state(job, problem, warm_up)
    known = jax.tree.map(lambda leaf: np.asarray(leaf[0]), rows.facts(doubtful(np.asarray(state.status))[None]))
    return compiled_solution_of_facts(problem.objective.parameters, known, state, steps, problem.stop)


def _last_state(job: Searches, problem: Problem, warm_up: bool) -> tuple[Any, Any]:
    """`search.last_state` of the problem, searched natively."""
    rows, extra = job.rows, job.extra()
    first, count = int(rows.offsets[0]), int(rows.lengths[0])
    mine = slice(first, first + count)
    leaves, weights = [leaf[mine] for leaf in rows.leaves], None if rows.weights is None else rows.weights[mine]
    prepared: dict[int, Prepared] = {}

    def run(steps: Steps, state: Any) -> Any:
        kernels = model_kernels(job.problem, job.data, rows, steps.solver)
        if id(kernels) not in prepared:
            prepared[id(kernels)] = kernels.sums.prepare(leaves, weights, count, job.n_threads)
        parts, treedef = jax.tree.flatten(state)
        out = single_fit.search(
            kernel=kernels.sums,
            step=kernels.step,
            prepared=prepared[id(kernels)],
            state=[np.asarray(part) for part in parts],
            point=np.asarray(steps.solver.trial_point(state)),  # type: ignore[attr-defined]
            settings=job.settings(),
            n_obs=float(job.n_obs[0]),
            tolerance=float(steps.stop.tolerance),
            max_steps=int(steps.stop.max_steps),
            extra=None if extra is None else np.split(extra[0], 2),
            n_threads=job.n_threads,
        )
        return jax.tree.unflatten(treedef, [jnp.asarray(leaf) for leaf in out])

    return last_state(problem, warm_up, run, by_sample=False)
