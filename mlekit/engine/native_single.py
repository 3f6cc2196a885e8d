"""The search of one data set in memory by native kernels: threads share its rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..likelihood.in_memory import InMemoryLikelihood
from ..likelihood.ragged import BoundModel, Chunk
from ..native import single_fit
from ..native.sums_kernel import Prepared
from ..native.unsupported import Unsupported
from .native_backend import ROWS_ELSEWHERE
from .native_search import Searches, model_kernels
from .problem import Problem
from .search import Steps, last_state
from .solution import Solution, compiled_solution


def solve_one(problem: Problem, warm_up: bool, n_threads: int = 1) -> Solution:
    """The maximum of one data set in memory, searched natively; arguments as in `native_last_state`."""
    return compiled_solution(problem.objective, *native_last_state(problem, warm_up, n_threads), problem.stop)


def native_last_state(problem: Problem, warm_up: bool, n_threads: int = 1) -> tuple[Any, Any]:
    """`search.last_state` of one data set in memory, searched natively.

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
    first = 0 if likelihood.offset is None else int(likelihood.offset)
    count = int(likelihood.n_unpadded)
    rows = jax.tree.map(lambda leaf: np.asarray(leaf)[first : first + count], likelihood.data)
    weights = None if likelihood.weights is None else np.asarray(likelihood.weights)[first : first + count]
    zero = np.zeros(1, np.int32)
    chunk = Chunk(rows, weights, zero, None, None, np.asarray(1), longest=count, block=0)
    starts = [np.asarray(leaf)[None] for leaf in problem.starts]
    job = Searches(chunk, problem.of(BoundModel(problem.model, problem.args), starts), n_threads)
    extra = job.extra()
    prepared: dict[int, Prepared] = {}

    def run(steps: Steps, state: Any) -> Any:
        kernels = model_kernels(job, steps.solver)
        if id(kernels) not in prepared:
            prepared[id(kernels)] = kernels.sums.prepare(job.leaves, job.weights, count, n_threads)
        leaves, treedef = jax.tree.flatten(state)
        out = single_fit.search(
            kernel=kernels.sums,
            step=kernels.step,
            prepared=prepared[id(kernels)],
            state=[np.asarray(leaf) for leaf in leaves],
            point=np.asarray(steps.solver.trial_point(state)),  # type: ignore[attr-defined]
            settings=job.settings(),
            n_obs=float(job.n_obs[0]),
            tolerance=float(steps.stop.tolerance),
            max_steps=int(steps.stop.max_steps),
            extra=None if extra is None else np.split(extra[0], 2),
            n_threads=n_threads,
        )
        return jax.tree.unflatten(treedef, [jnp.asarray(leaf) for leaf in out])

    return last_state(problem, warm_up, run, by_sample=False)
