"""The bootstrap: refits to resampled, simulated or reweighted data, all of them through the batch engine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...core.checks import check_choice, check_count, warn
from ...core.format.progress import batch_bar
from ...core.random_keys import check_key, seeds
from ...core.status import Status, StatusArray
from ...core.trees import batch_of_one, n_rows, only_one, replace_rows, tracing
from ...likelihood.objective import Objective
from ...likelihood.ragged import RaggedBatch
from ...likelihood.weights import weighted_rows
from ..evaluate import encode_row_labels, evaluate, has_contributions, longest
from ..influence import influence
from ..record import FitRecord, index
from ..refit import leaves_at, refit, shared_parameters, shared_rows
from ..sandwich import sums_of_clusters
from ..simulate import check_simulator
from .resample import repeat_sets, resampled_sets
from .result import Bootstrap

KINDS = ("nonparametric", "parametric", "cluster", "weights")
#: More failed refits than this share are worth a warning: the others are no longer a fair sample.
FAILURES = 0.01
#: What ends a search where it begins.
NO_START = (Status.nonfinite_start, Status.raised)


def bootstrap(
    fit: FitRecord,
    key: Any,
    replicates: int = 1000,
    kind: str = "nonparametric",
    *,
    clusters: Any = None,
    progress: bool = False,
) -> Bootstrap:
    r"""Refits to data drawn anew: the spread of an estimate without any approximation by derivatives.

    All replicates of all data sets go through the batch engine, and each search begins where the influence of the
    rows that were drawn leads from the estimate. A refit that finds no proven maximum has failed: it is counted,
    and left out of everything else.

    Args:
        fit: a fit, or a batch of fits.
        key: random key, such as `jax.random.key(0)`; what a data set draws depends on the key and on its number
            in the batch alone.
        replicates: how often each data set is drawn.
        kind: `nonparametric`, as many observations drawn from those there are, with replacement; `parametric`,
            every observation drawn from the model at the estimate, which wants `simulate`; `cluster`, whole
            clusters drawn with replacement; or `weights`, the observations as they are, with random weights that
            are exponential and of mean one (the Bayesian bootstrap of Rubin 1981), which suits fits that fail
            where observations are left out.
        clusters: for `cluster`, labels or the name of a column, as in `Fit.covariance`.
        progress: show a bar with finished refits, fits per second and statuses.

    Returns:
        `Bootstrap`; of a batch with a leading axis of data sets on every array.

    Raises:
        ValueError: another kind, a model without the companion that the kind needs, a joint model where
            observations are resampled, or clusters that lack or have no place.
        TypeError: `key` is no random key.

    Example:
        >>> import jax, jax.numpy as jnp, mlekit as mle
        >>> density = lambda mean, x: -0.5 * (x - mean) ** 2
        >>> fit = mle.fit(density, 0.0, jnp.array([1.0, 2.0, 3.0, 4.0, 10.0]))
        >>> draws = mle.bootstrap(fit, jax.random.key(0), 2000)
        >>> print(draws.failed, f"{draws.standard_errors():.2f} {fit.standard_errors('sandwich'):.2f}")
        0 1.41 1.41
        >>> lower, upper = draws.intervals(0.9, "bca")
        >>> print(bool(lower < 4.0 < upper))
        True

    Source: Efron and Tibshirani 1993, *An Introduction to the Bootstrap*.
    """
    check_choice(kind, KINDS)
    check_key(key, "the bootstrap")
    check_count(replicates, "replicates", least=2)
    if (clusters is None) == (kind == "cluster"):
        raise ValueError(
            "kind='cluster' wants clusters=, one label an observation or the name of a column"
            if clusters is None
            else f"clusters go with kind='cluster', got kind={kind!r}"
        )
    if fit.model.is_joint and kind in ("nonparametric", "cluster"):
        raise ValueError(
            f"kind={kind!r} draws observations in any order, and those of a joint model depend on one another; "
            "use kind='parametric', with a simulator, or kind='weights'"
        )
    weighted = fit._dataset.weighted
    if kind == "parametric":
        check_simulator(fit.model, "kind='parametric'")
        if weighted:
            raise ValueError(
                "kind='parametric' draws each row once, so it has no use for weights: repeat the rows"
            )
    if tracing(fit._solution):
        raise ValueError("bootstrap: it draws on the host, so it does not run under jit or vmap; pass it a batch")
    if not fit.batched:
        return only_one(_bootstrap(batch_of_one(fit), key, int(replicates), kind, clusters, progress, fit))
    return _bootstrap(fit, key, int(replicates), kind, clusters, progress, fit)


def _bootstrap(
    fits: FitRecord, key: Any, replicates: int, kind: str, clusters: Any, progress: bool, asked: FitRecord
) -> Bootstrap:
    """The bootstrap of a batch, perhaps of one."""
    batch, parameters = shared_rows(fits), shared_parameters(fits)
    labels = None if clusters is None else _flat_labels(asked, batch, clusters)
    fine = np.flatnonzero(np.asarray(fits.converged))
    n_sets, k = fits._solution.estimates.shape
    vector = np.full((n_sets, replicates, k), np.nan, fits._solution.estimates.dtype)
    errors = vector.copy()
    status = np.broadcast_to(np.asarray(fits._solution.status)[:, None], (n_sets, replicates)).copy()
    words = np.asarray(seeds(key, index(fits)))
    scored = has_contributions(asked)
    row_influence = None
    if scored and kind != "parametric":
        row_influence = np.asarray(_at_estimates(asked, influence(longest(asked), natural=False)))

    with batch_bar(progress, len(fine) * replicates, ()) as report:
        for sets, times, resampled, moves in resampled_sets(
            fits, batch, words, fine, replicates, kind, labels, row_influence
        ):
            free, values = repeat_sets((fits._solution.free, fits.parameters.values), sets, len(times))
            moved = free + moves.reshape(free.shape).astype(free.dtype)
            found = refit(resampled, parameters, leaves_at(parameters, moved, values), report)
            bad_start = np.flatnonzero(np.isin(np.asarray(found.status), NO_START))
            if len(bad_start):  # the estimate itself is a start that can never fail
                starts = repeat_sets(leaves_at(parameters, free, values), bad_start, 1)
                second = refit(resampled.subset(bad_start), parameters, starts)
                found = jax.tree.map(functools.partial(replace_rows, bad_start), found, second)
            where = np.ix_(sets, times)
            proven = np.asarray(found.status == Status.converged)[:, None]
            shape = (len(sets), len(times), k)
            vector[where] = np.where(proven, found.estimates, np.nan).reshape(shape)
            errors[where] = np.where(proven, found.standard_errors, np.nan).reshape(shape)
            status[where] = np.asarray(found.status).reshape(shape[:2])
    failures = int(np.sum(status[fine] != Status.converged))
    if failures > FAILURES * len(fine) * replicates:
        counts = StatusArray(status[fine]).counts()
        reasons = ", ".join(f"{n:,} {name}" for name, n in counts.items() if name != "converged")
        warn(
            f"bootstrap: {failures:,} of {len(fine) * replicates:,} refits failed ({reasons}) and are left out, "
            "so what is left is no fair sample"
        )
    return Bootstrap(
        vector=jnp.asarray(vector),
        errors=jnp.asarray(errors),
        status=StatusArray(jnp.asarray(status)),
        acceleration=_acceleration(asked, clusters) if scored else None,
        fit=fits,
        kind=kind,
    )


def _flat_labels(fit: FitRecord, batch: RaggedBatch, clusters: Any) -> np.ndarray:
    """One label a row of the batch."""
    columns = encode_row_labels(fit, clusters, "clusters")
    if len(columns) > 1:
        raise ValueError("clusters: the bootstrap draws clusters of one kind; got several columns")
    labels = np.asarray(columns[0]).ravel()
    if fit.batched:
        return labels
    # A single group lies among the rows of all.
    whole = np.zeros(n_rows(batch.rows), labels.dtype)
    whole[int(batch.offsets[0]) :][: len(labels)] = labels
    return whole


def _acceleration(fit: FitRecord, clusters: Any) -> Array:
    labels = None if clusters is None else encode_row_labels(fit, clusters, "clusters")
    return _at_estimates(fit, _skewness(labels is not None), labels)


def _at_estimates(fit: FitRecord, fn: Callable[..., Array], rows: Any = None) -> Array:
    """`evaluate` at the estimates, with a leading axis of data sets even where there is one."""
    found = evaluate(fit, fn, fit._solution.free, rows)
    return found if fit.batched else found[None]


@functools.cache
def _skewness(clustered: bool) -> Callable[..., Array]:
    """A sixth of the skewness of the influence of the observations, or clusters, on each parameter."""

    def of_dataset(objective: Objective, free: Array, labels: Any = ()) -> Array:
        likelihood = objective.likelihood
        moves = influence(likelihood.rows)(objective, free)
        _, weights = likelihood.aligned()
        weights = jnp.ones(len(moves), moves.dtype) if weights is None else weights
        if clustered:
            moves, _ = sums_of_clusters(weighted_rows(moves, weights), weights > 0, labels)
            weights = jnp.ones_like(weights)
        cubes, squares = (jnp.sum(weighted_rows(moves**power, weights), axis=0) for power in (3, 2))
        return cubes / jnp.where(squares > 0, 6 * squares**1.5, jnp.nan)

    return of_dataset
