"""The front doors: `fit`, `fit_batch` and `argmax`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .core.checks import check_choice, check_count
from .core.compilation import Static
from .core.dtypes import widened
from .core.format.progress import batch_bar, fit_bar
from .core.runtime_errors import Raised
from .core.trees import default_float, is_array, is_inexact, leaf_name, repeat
from .data.arrays import as_arrays, as_lengths, as_weights
from .data.groups import Groups
from .engine import batch_solve, implicit, multistart, single
from .engine.backend import noting
from .engine.checkpoint import Checkpoint
from .engine.history import History
from .engine.modes import Modes
from .engine.problem import BatchLikelihood, Problem
from .engine.solution import Solution
from .likelihood.dataset import AbstractDataset, GroupsDataset, InMemoryDataset
from .likelihood.ragged import RaggedBatch
from .likelihood.remote_dataset import as_dataset
from .models.argument_order import check_order
from .models.closure_convert import convert_closure, observation_struct
from .models.initial_parameters import build_parameters
from .models.model import Model, as_model
from .models.reverse_mode import with_fallback
from .results.fit import Fit, make_fit
from .solvers import AbstractSolver, Stop
from .solvers.base import usual_tolerance
from .solvers.choice import choose_solver

#: A decrement beyond this is no convergence: the estimates are off by a seventh of their standard errors.
LOOSEST = 1e-2


def fit(
    log_density: Callable[..., Any],
    init: PyTree | Callable[[PyTree], PyTree],
    data: PyTree,
    *,
    args: PyTree = None,
    constraints: PyTree = None,
    weights: Any = None,
    solver: Any = None,
    max_steps: int | None = None,
    tolerance: float | None = None,
    starts: int | None = None,
    key: Any = None,
    progress: bool = False,
    history: bool = False,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    backend: str | None = None,
) -> Fit:
    r"""The maximum-likelihood fit of one data set.

    $$\hat\theta = \arg\max_\theta \sum_i w_i \log p(x_i \mid \theta)$$

    The estimates, the log-likelihood and all that a `Fit` says of their uncertainty have exact derivatives with
    respect to data, weights, `args`, whatever the log-density closes over, the ends of constraints and the values
    of fixed parameters: in forward and in reverse mode, to every order, through no step of the search. Where no
    maximum is proven they are NaN, and so are those of the certificate, which describes the search.

    Args:
        log_density: `log_density(params, obs)`, the scalar log-density of ONE observation; with `args` it is
            `log_density(params, obs, args)`. A `mle.Model` or the result of `mle.joint` as well.
        init: starting `params` in natural units, any PyTree of real numbers and arrays; or a function
            `data -> params`, or `(data, key) -> params` with `starts`.
        data: PyTree of arrays that share a leading axis `n_obs`; or a pyarrow, polars or pandas table, which
            becomes a dict of its columns; or an xarray Dataset, which becomes one of its variables, and of its
            coordinates along the axis of observations where these are numbers; or a table on disk,
            `mle.open_table`, which is read in blocks; or rows on many devices, `mle.shard`. Of the last two an
            `init` that is a function sees up to 65,536 rows from all over.
        args: further arrays the model needs, no parameters; new values never recompile.
        constraints: PyTree prefix of `params`: what each parameter may be (`mle.positive`, ...).
        weights: frequency weights, shape `(n_obs,)`, or the name of a column of the data; of a table on disk and
            of shards the name of a column.
        solver: `mle.Newton()`, `mle.Scoring()`, `mle.BFGS()`, `mle.LBFGS()`, `mle.Optax(...)`, any optax
            transformation such as `optax.adam(1e-2)`, or any optimistix minimiser such as
            `optimistix.BFGS(rtol=1e-8, atol=1e-8)`; `None` chooses by `n_free` and `n_obs`.
        max_steps: steps at most; by default 1,000, or what the solver says.
        tolerance: on the decrement, in nats of log-likelihood; by default 1e-9 in float64, 1e-5 in float32.
        starts: search from so many starts and keep the best maximum; `Fit.modes` says how many found which. The
            first is `init`. The others lie around the maximum found from there, about as far as the information
            in a single observation tells, some much closer and some much further; or an `init` that takes a key
            draws them all.
        key: random key for the starts, such as `jax.random.key(0)`.
        progress: show a line with steps, log-likelihood and decrement while it runs; not inside `jit`.
        history: keep the path of the search, of many starts that of the first, as `Fit.history`.
        checkpoint: a directory, or a `mle.Checkpoint`, where the state of the search is saved after each step; the
            same call made again goes on from there. For a single start.
        backend: `None` compiles the log-density to machine code where that can be: on a CPU, outside of `jit`,
            for rows in memory; XLA does the rest. `"native"` wants that and nothing else, and `"xla"` is XLA
            alone; results are the same to rounding. `Fit.backend` says which it was, `Fit.diagnose()` why.

    Returns:
        A `Fit`. Numerical trouble is its `status`, never an exception; outside `jit` that holds for what the
        log-density raises while it runs, too.

        Of many starts it is the highest proven maximum; only where nothing is proven, the highest log-likelihood
        that was reached, with its status. So a start that runs away to an infinite likelihood, as mixtures have
        where a component shrinks onto one observation, never wins over a maximum; `modes` counts it as failed.

    Raises:
        ValueError: leaves of different lengths, an empty data set, a start outside its constraint, constraints
            that do not match `init`, starts without a key, a log-density that does not return one number,
            `history` or `checkpoint` inside `jit` or `vmap`, a checkpoint of another fit or a damaged
            one, data on disk that cannot be read, or a fit that `backend="native"` cannot run, with the reason.
        TypeError: an argument of the wrong kind, a log-density that returns no floating-point number, or one that
            can be differentiated but once.

    Example:
        A straight line with normal noise:

        >>> import jax.numpy as jnp, mlekit as mle
        >>> from jax.scipy.stats import norm
        >>> def log_density(params, obs):
        ...     mean = params["intercept"] + params["slope"] * obs["x"]
        ...     return norm.logpdf(obs["y"], mean, params["sigma"])
        >>> data = {"x": jnp.array([1.0, 2.0, 3.0, 4.0]), "y": jnp.array([1.1, 1.9, 3.2, 3.9])}
        >>> fit = mle.fit(log_density, {"intercept": 0.0, "slope": 1.0, "sigma": 1.0}, data,
        ...               constraints={"sigma": mle.positive})
        >>> print(fit.status, round(float(fit.params["slope"]), 3))
        converged 0.97

        A likelihood with two maxima, and the lower one is near the start:

        >>> import jax
        >>> cauchy = lambda place, x: -jnp.log1p((x - place) ** 2)
        >>> fit = mle.fit(cauchy, 8.0, jnp.array([0.0, 1.0, 9.0]), starts=20, key=jax.random.key(1))
        >>> print(round(float(fit.params), 2), fit.modes.params[:2].round(2))
        0.62 [0.62 8.74]
    """
    check_order(log_density, init, data)
    keys, init = multistart.parse_starts(starts, key, init)
    _check_backend(backend)
    if checkpoint is not None and keys is not None:
        raise ValueError("checkpoint is for a single start; leave out starts")

    def attempt(change: Callable[[Model], Model]) -> Fit:
        problem, dataset, drawn, written = _problem(
            log_density, init, data, args, constraints, weights, solver, max_steps, tolerance, change
        )
        problem = dataclasses.replace(problem, backend=backend)
        lost: Raised = {}

        def search(problem: Problem, others: Any) -> tuple[Solution, Modes | None, History | None]:
            keys, drawn = others
            with fit_bar(progress, problem.solver.name, (problem, others)) as bar:
                found, path = dataset.checked(single.solve(problem, bar, history, checkpoint, dataset, lost))
            if keys is None:
                return found, None, path
            return *dataset.checked(single.best_of(keys, drawn, found, problem, progress, lost)), path

        with noting() as searched_by:
            found, optima, path = implicit.maximum(problem, (keys, drawn), search, single.linearise_single)
        return make_fit(
            found,
            problem.objective.parameters,
            problem.model,
            problem.args,
            dataset,
            solver=problem.solver.name,
            modes=optima,
            history=path,
            init=written,
            lost=lost,
            searched_by=searched_by,
        )

    return with_fallback(attempt, log_density)


def argmax(
    log_density: Callable[..., Any],
    init: PyTree | Callable[[PyTree], PyTree],
    data: PyTree,
    *,
    args: PyTree = None,
    constraints: PyTree = None,
    weights: Any = None,
    solver: Any = None,
    max_steps: int | None = None,
    tolerance: float | None = None,
) -> PyTree:
    r"""Only the maximiser of the log-likelihood: an ordinary, differentiable JAX function.

    $$\frac{\partial \hat\theta}{\partial x} = I^{-1} \frac{\partial^2 \ell}{\partial\theta\, \partial x}$$

    by the implicit function theorem, as for `mle.fit`, whose `params` these are.

    Args:
        log_density: as in `mle.fit`, like all the others.
        init: starting `params`, or a function of the data.
        data: PyTree of arrays with leading axis `n_obs`.
        args: further arrays the model needs.
        constraints: PyTree prefix of `params`.
        weights: frequency weights.
        solver: the solver.
        max_steps: steps at most.
        tolerance: on the decrement, in nats.

    Returns:
        The estimates in natural units, a PyTree like `init`.

    Raises:
        ValueError: as `mle.fit`.
        TypeError: as `mle.fit`.

    Example:
        How the mean moves with each observation:

        >>> import jax, jax.numpy as jnp, mlekit as mle
        >>> density = lambda mean, x: -0.5 * (x - mean) ** 2
        >>> x = jnp.array([1.0, 2.0, 6.0])
        >>> print(jax.grad(lambda x: mle.argmax(density, 0.0, x))(x).round(4))
        [0.3333 0.3333 0.3333]
    """
    return fit(
        log_density,
        init,
        data,
        args=args,
        constraints=constraints,
        weights=weights,
        solver=solver,
        max_steps=max_steps,
        tolerance=tolerance,
    ).params


def fit_batch(
    log_density: Callable[..., Any],
    init: PyTree | Callable[[PyTree], PyTree],
    data: PyTree | Groups,
    *,
    args: PyTree = None,
    init_axis: int | None = None,
    lengths: Any = None,
    constraints: PyTree = None,
    weights: Any = None,
    solver: Any = None,
    max_steps: int | None = None,
    tolerance: float | None = None,
    starts: int | None = None,
    key: Any = None,
    lanes: int | None = None,
    progress: bool = False,
    backend: str | None = None,
) -> Fit:
    r"""`mle.fit` of many data sets at once: the same statuses and, to rounding, the same numbers.

    $$\hat\theta_b = \arg\max_\theta \sum_i w_{bi} \log p(x_{bi} \mid \theta), \qquad b = 1 \dots B$$

    A fixed number of lanes each hold one data set until it finishes, then the next one moves in, so that none
    waits for the slowest. Data sets never influence each other.

    Args:
        log_density: as in `mle.fit`.
        init: starting `params`, shared by all sets; with `init_axis=0` every leaf has a leading axis of sets; a
            function sees the data of one set (rows of a ragged set may be repeated in turn up to the next power
            of two), and with `starts` perhaps a key.
        data: PyTree of arrays of shape `(n_sets, n_obs, ...)`; the result of `mle.group_by`; or an xarray Dataset
            whose variables begin with the axes of data sets and of observations, in that order.
        args: further arrays the model needs, shared by all sets.
        init_axis: `None` or 0.
        lengths: observations of each set, shape `(n_sets,)`, where sets are padded at the end.
        constraints: as in `mle.fit`.
        weights: frequency weights, shape `(n_sets, n_obs)`, or the name of a column; for groups the name of one.
        solver: as in `mle.fit`, for all sets.
        max_steps: steps at most, for each set.
        tolerance: on the decrement, in nats, for each set.
        starts: as in `mle.fit`, for each set.
        key: random key for the starts; all sets share the draws, so that none depends on the others.
        lanes: number of lanes; by default as many as suit the device.
        progress: show a bar with finished sets, fits per second and statuses; not inside `jit`.
        backend: as in `mle.fit`.

    Returns:
        A `Fit` whose leaves have a leading axis of data sets, in the order of `data`.

    Raises:
        ValueError: as in `mle.fit`; never because of what one data set holds.
        TypeError: as in `mle.fit`.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> density = lambda rate, x: jnp.log(rate) - rate * x
        >>> waits = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.25, 0.75]])
        >>> fits = mle.fit_batch(density, 1.0, waits, constraints=mle.positive)
        >>> print(fits.status, fits.params.round(4))
        [converged, converged] [0.5 2. ]
    """
    check_order(log_density, init, data)
    keys, init = multistart.parse_starts(starts, key, init)
    _check_backend(backend)

    def attempt(change: Callable[[Model], Model]) -> Fit:
        dataset, axes = _batch_dataset(data, weights, lengths)
        likelihood = BatchLikelihood(as_model(log_density), args, dataset)
        batch = likelihood.ragged
        if lanes is not None:
            check_count(lanes, "lanes")
        start, drawn = _batch_start(init, init_axis, batch), None
        if isinstance(init, multistart.DrawnStarts):
            start, drawn = multistart.split_first(start, axis=1)
        kind = default_float(batch.rows)
        parameters, start = build_parameters(
            start, constraints, dtype=kind, batched=True, check=not callable(init)
        )
        chosen = choose_solver(solver, parameters.n_free, batch.longest)
        stop = _stop(chosen, max_steps, tolerance, parameters.dtype)
        leaves, others = parameters.split(start), None if drawn is None else parameters.split(drawn)

        def example() -> tuple[PyTree, PyTree, PyTree]:
            first = parameters.join([leaf[0] for leaf in leaves])
            return first, observation_struct(batch.model, dataset.template, axes, batch.longest), args

        model = change(convert_closure(batch.model, example))
        problem = Problem(dataclasses.replace(likelihood, model=model), parameters, leaves, chosen, stop, backend)
        fits = batch.n_sets * (1 if keys is None else len(keys))
        lost: Raised = {}
        bar = batch_bar(progress, fits, (batch.rows, batch.lengths, start, args, keys))
        with bar as report, noting() as searched_by:

            def search(problem: Problem, rest: Any) -> tuple[Solution, Modes | None]:
                keys, drawn = rest
                return batch_solve.solve_from_starts(problem, keys, drawn, lanes, report, lost)

            found, optima = implicit.maximum(problem, (keys, others), search, batch_solve.linearise_batch)
        # Built by NumPy: no compilation for each number of data sets.
        known = {"index": jnp.asarray(np.arange(batch.n_sets))}
        if dataset.padded:
            known["lengths"] = jnp.asarray(batch.lengths)
        return make_fit(
            found,
            parameters.with_values(parameters.fixed_leaves(leaves)),
            model,
            args,
            dataclasses.replace(dataset, **known),
            solver=chosen.name,
            n_sets=batch.n_sets,
            modes=optima,
            init=None if callable(init) and not isinstance(init, eqx.Module) else init,
            lost=lost,
            searched_by=searched_by,
        )

    return with_fallback(attempt, log_density)


def _batch_dataset(data: Any, weights: Any, lengths: Any) -> tuple[AbstractDataset, int]:
    """The data sets, checked as far as can be before tracing; and how many axes they have over an observation."""
    if isinstance(data, Groups):
        column = _weight_column(data, weights)
        if lengths is not None:
            raise ValueError("lengths: groups know their own lengths; leave it out")
        if not len(data):
            raise ValueError("data: there are no groups to fit")
        return GroupsDataset(None, Static(data), column), 1
    data = as_arrays(data, axes=2)
    shape = jnp.shape(jax.tree.leaves(data)[0])[:2]
    lengths = as_lengths(lengths, *shape)
    weights = as_weights(weights, data, shape, default_float(data))
    return InMemoryDataset(None, data, weights, lengths), 2


def _problem(
    log_density: Any,
    init: Any,
    data: Any,
    args: Any,
    constraints: Any,
    weights: Any,
    solver: Any,
    max_steps: int | None,
    tolerance: float | None,
    change: Callable[[Model], Model],
) -> tuple[Problem, AbstractDataset, list[Any] | None, PyTree]:
    """The problem of one fit and its data, after all that can be known before tracing was checked.

    And the leaves of the parameters that `init` drew for all starts but the first, or `None`; and the start as it
    was written.
    """
    model, dataset = as_model(log_density), as_dataset(data, weights)
    drawn = None
    if isinstance(init, multistart.DrawnStarts):
        start, drawn = multistart.split_first(init(dataset.seen_by_init()))
    else:
        start = init(dataset.seen_by_init()) if callable(init) and not isinstance(init, eqx.Module) else init
    written, shapes = start, dataset.shapes
    parameters, start = build_parameters(start, constraints, dtype=default_float(shapes), check=drawn is None)
    original = model
    model = change(
        convert_closure(model, lambda: (start, observation_struct(original, shapes, 1, dataset.rows), args))
    )
    likelihood = dataset.likelihood(model, args, parameters.n_free)
    chosen = choose_solver(solver, parameters.n_free, dataset.rows)
    stop = _stop(chosen, max_steps, tolerance, parameters.dtype)
    problem = Problem(likelihood, parameters, parameters.split(start), chosen, stop)
    return problem, dataset, None if drawn is None else parameters.split(drawn), written


def _stop(solver: AbstractSolver, max_steps: int | None, tolerance: float | None, dtype: Any) -> Stop:
    if max_steps is None:
        max_steps = solver.default_max_steps
    elif not isinstance(max_steps, int | np.integer) or isinstance(max_steps, bool) or not 1 <= max_steps < 2**31:
        raise ValueError(f"max_steps must be a positive whole number below 2^31, got {max_steps!r}")
    if tolerance is None:
        tolerance = usual_tolerance(dtype)
    elif not isinstance(tolerance, float | int | np.number) or not 0 < tolerance <= LOOSEST:
        raise ValueError(f"tolerance must be a number of nats in (0, {LOOSEST}], such as 1e-9; got {tolerance!r}")
    return Stop(jnp.asarray(tolerance, dtype), jnp.asarray(max_steps, jnp.int32))


def _batch_start(init: Any, init_axis: int | None, batch: RaggedBatch) -> PyTree:
    """Starting parameters with a leading axis of data sets on every leaf, then one of starts if they are drawn."""
    if init_axis not in (None, 0):
        raise ValueError(f"init_axis must be None, one start for all, or 0, one a data set; got {init_axis!r}")
    if callable(init) and (isinstance(init, multistart.DrawnStarts) or not isinstance(init, eqx.Module)):
        if init_axis is not None:
            raise ValueError("init_axis: a function init sees one data set; leave init_axis out")
        return batch_solve.initial_starts(init, batch)
    n_sets = batch.n_sets
    if init_axis == 0:
        for path, leaf in jax.tree_util.tree_flatten_with_path(init)[0]:
            if is_inexact(leaf) and jnp.shape(leaf)[:1] != (n_sets,):
                raise ValueError(
                    f"init: with init_axis=0 every leaf has a leading axis of {n_sets} data sets; "
                    f"{leaf_name(path)} has shape {jnp.shape(leaf)}"
                )
        return init
    # The checks and the meaning of every leaf are those of one start.
    _, one = build_parameters(init, None, dtype=default_float(batch.rows))
    arrays, rest = eqx.partition(one, is_array)
    return eqx.combine(jax.tree.map(lambda leaf: repeat(leaf, n_sets), arrays), rest)


def _weight_column(groups: Groups, weights: Any) -> str | None:
    if weights is None:
        return None
    if not isinstance(weights, str):
        raise TypeError(
            f"weights of groups are the name of a column, got {type(weights).__name__}; put them into the table"
        )
    if weights not in groups.columns:
        raise ValueError(f"weights: there is no column {weights!r}; there are {', '.join(groups.columns)}")
    if np.any(groups.columns[weights] < 0):
        raise ValueError(f"weights: column {weights!r} has negative entries")
    return weights


def log_likelihood(
    log_density: Any,
    params: PyTree,
    data: PyTree,
    *,
    args: PyTree = None,
    weights: Any = None,
) -> Float[Array, ""]:
    r"""The log-likelihood of a data set at given parameters.

    $$\ell(\theta) = \sum_i w_i \log p(x_i \mid \theta)$$

    An ordinary JAX function: it may be jitted, mapped and differentiated with respect to all its arrays. Second
    derivatives of that of a table on disk want forward mode outside, as `jax.hessian` has it.

    Args:
        log_density: `log_density(params, obs)`, the log-density of one observation; a `mle.Model` or the
            result of `mle.joint` as well.
        params: parameters in natural units.
        data: as in `mle.fit`.
        args: third argument of the model, if it has one.
        weights: as in `mle.fit`.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: leaves of `data` of different lengths, weights of another shape, or a log-density that
            returns no scalar.
        TypeError: a log-density that returns no real floating-point number.

    Example:
        Seven heads in ten flips:

        >>> import jax.numpy as jnp, mlekit as mle
        >>> flips = jnp.array([1, 1, 1, 0, 1, 1, 0, 1, 0, 1])
        >>> coin = lambda p, heads: jnp.where(heads, jnp.log(p), jnp.log1p(-p))
        >>> print(f"{mle.log_likelihood(coin, 0.7, flips):.4f}")
        -6.1086
    """
    check_order(log_density, params, data, "params")
    dataset = as_dataset(data, weights)
    params = jax.tree.map(widened, params)
    likelihood = dataset.likelihood(as_model(log_density), args, len(jax.tree.leaves(params)))
    return dataset.checked(likelihood.log_likelihood(params))


def _check_backend(backend: str | None) -> None:
    if backend is not None:
        check_choice(backend, tuple(one.name for one in batch_solve.BACKENDS), "backend")
