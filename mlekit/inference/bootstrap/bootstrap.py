"""The bootstrap: refits to resampled, simulated or reweighted data, all of them through the batch engine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ...core.checks import check_choice, check_count, check_level, warn
from ...core.format.numbers import count, counted, number, uncertain
from ...core.format.renderers import TextRenderer
from ...core.random_keys import check_key, seeds
from ...core.status import Status, StatusArray
from ...core.trees import batch_of_one, n_rows, only_one, tracing
from ...likelihood.objective import Objective
from ...likelihood.ragged import RaggedBatch
from ...likelihood.weights import weighted_rows
from ..arviz import check_one, draws_tree
from ..evaluate import encode_row_labels, evaluate, has_contributions, longest
from ..influence import influence
from ..record import FitRecord, index
from ..refit import leaves_at, refit, shared_parameters, shared_rows
from ..sandwich import sums_of_clusters
from ..simulate import check_simulator
from ..wald import quantile
from .intervals import METHODS, _ends
from .resample import again, drawn

KINDS = ("nonparametric", "parametric", "cluster", "weights")
#: More failed refits than this share are worth a warning: what is left is no longer a fair sample.
FAILURES = 0.01


class Bootstrap(eqx.Module):
    """Refits to data drawn anew, made by `mle.bootstrap`.

    Args:
        vector: the estimates of each, in natural units, shape `(replicates, k)`; NaN where a refit failed.
        errors: their standard errors.
        status: why each refit ended.
        acceleration: for BCa intervals, shape `(k,)`; `None` where the model gives no scores.
        fit: the fit that was resampled.
        kind: how.
    """

    vector: Float[Array, "... replicates k"]
    errors: Float[Array, "... replicates k"]
    status: StatusArray
    acceleration: Float[Array, "... k"] | None
    fit: FitRecord
    kind: str = eqx.field(static=True)

    @property
    def params(self) -> PyTree:
        """The estimates of all refits, a PyTree like `init` whose leaves have a leading axis of replicates."""
        return self.fit.parameters.tree(self.vector)

    @property
    def replicates(self) -> int:
        """Number of refits."""
        return self.vector.shape[-2]

    @property
    def failed(self) -> Int[Array, "..."]:
        """Number of refits that found no proven maximum; they count in nothing else."""
        return jnp.sum(self.status.codes != Status.converged, axis=-1)

    @property
    def bias(self) -> PyTree:
        """How far the mean of the refits lies above the estimate, a PyTree like `params` of the fit."""
        return self.fit.parameters.tree(jnp.nanmean(self.vector, axis=-2) - self.fit._solution.estimates)

    def covariance(self) -> Float[Array, "... k k"]:
        """The covariance of the refits over `parameter_names`."""
        fine = ~jnp.any(jnp.isnan(self.vector), axis=-1, keepdims=True)
        count = jnp.sum(fine, axis=-2, keepdims=True)
        mean = jnp.nanmean(self.vector, axis=-2, keepdims=True)
        off = jnp.where(fine, self.vector - mean, 0.0)
        return jnp.swapaxes(off, -1, -2) @ off / (count - 1)

    def standard_errors(self) -> PyTree:
        """The standard deviations of the refits, a PyTree like `params`."""
        return self.fit.parameters.tree(jnp.nanstd(self.vector, axis=-2, ddof=1))

    def intervals(self, level: float = 0.95, method: str = "percentile") -> PyTree:
        r"""Confidence intervals, a PyTree like `params` of `(lower, upper)`.

        Args:
            level: confidence level, between 0 and 1.
            method: `percentile`, the quantiles of the refits; `basic`, these mirrored at the estimate; `bca`,
                quantiles corrected for bias and for how the standard error changes, with the acceleration
                $\sum u_i^3 / 6 (\sum u_i^2)^{3/2}$ from the influence $u_i$ of each observation; or
                `studentized`, from the refits' own standard errors. (Efron 1987; Davison and Hinkley 1997.)

        Returns:
            A pair of numbers in place of every parameter; fixed ones are their own intervals.

        Raises:
            ValueError: another method, a level outside (0, 1), or `bca` for a model without scores.
        """
        lower, upper = map(self.fit.parameters.tree, self.ends(level, method))
        return jax.tree.map(lambda a, b: (a, b), lower, upper)

    def ends(self, level: float, method: str) -> tuple[Float[Array, "... k"], Float[Array, "... k"]]:
        """Both ends of `intervals` as vectors over `parameter_names`; arguments as in `intervals`."""
        check_choice(method, METHODS, "method")
        check_level(level)
        if method == "bca" and self.acceleration is None:
            raise ValueError("method='bca' wants scores, and the joint model returns a scalar, not contributions")
        solution, z = self.fit._solution, quantile(level, self.vector.dtype)
        refits, fixed = (self.vector, self.errors, self.acceleration), np.array(self.fit.fixed)
        return _ends(refits, solution.estimates, solution.standard_errors, fixed, z, method)

    def to_arviz(self, *, log_likelihood: bool | None = None) -> Any:
        """The refits of a single fit as ArviZ reads them, without those that failed.

        Args:
            log_likelihood: as in `Fit.to_arviz`; contributions are those of the observations as they were.

        Raises:
            ValueError: the bootstrap of a batch, or as in `Fit.to_arviz`.
        """
        check_one(self.vector.ndim > 2)
        about = (
            "refits of a maximum-likelihood estimate to data drawn anew (a bootstrap): no prior, and no posterior "
            "distribution"
        )
        vector = np.asarray(self.vector)
        fine = vector[~np.isnan(vector).any(axis=-1)]
        more = {"bootstrap": self.kind, "failed_refits": int(self.failed)}
        return draws_tree(self.fit, fine, log_likelihood, about, **more)

    def __repr__(self) -> str:
        if isinstance(self.vector, jax.core.Tracer):
            return f"Bootstrap(<traced>, kind={self.kind!r})"
        pass

        return bootstrap_text(self)


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
    influence_of = None
    if scored and kind != "parametric":
        influence_of = np.asarray(_of_each(asked, influence(longest(asked), natural=False)))

    from ...core.format.progress import batch_bar  # a room beside this one

    with batch_bar(progress, len(fine) * replicates, ()) as report:
        for sets, times, resampled, moves in drawn(
            fits, batch, words, fine, replicates, kind, labels, influence_of
        ):
            free, values = again((fits._solution.free, fits.parameters.values), sets, len(times))
            moved = free + moves.reshape(free.shape).astype(free.dtype)
            found = refit(resampled, parameters, leaves_at(parameters, moved, values), report)
            beyond = np.flatnonzero(found.status == Status.nonfinite_start)
            if len(beyond):  # the estimate itself is a start that can never fail
                begin = again(leaves_at(parameters, free, values), beyond, 1)
                once_more = refit(resampled.subset(beyond), parameters, begin)
                found = jax.tree.map(lambda old, new: old.at[beyond].set(new), found, once_more)  # noqa: B023
            at = np.ix_(sets, times)
            proven = np.asarray(found.status == Status.converged)[:, None]
            shape = (len(sets), len(times), k)
            vector[at] = np.where(proven, found.estimates, np.nan).reshape(shape)
            errors[at] = np.where(proven, found.standard_errors, np.nan).reshape(shape)
            status[at] = np.asarray(found.status).reshape(shape[:2])
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
    return _of_each(fit, _skewness(labels is not None), labels)


def _of_each(fit: FitRecord, fn: Callable[..., Array], rows: Any = None) -> Array:
    """`evaluate` at the estimates, with a leading axis of data sets even where there is one."""
    found = evaluate(fit, fn, fit._solution.free, rows)
    return found if fit.batched else found[None]


@functools.cache
def _skewness(clustered: bool) -> Callable[..., Array]:
    """A sixth of the skewness of the influence of the observations, or clusters, on each parameter."""

    def at(objective: Objective, free: Array, labels: Any = ()) -> Array:
        likelihood = objective.likelihood
        moves = influence(likelihood.rows)(objective, free)
        _, weights = likelihood.aligned()
        weights = jnp.ones(len(moves), moves.dtype) if weights is None else weights
        if clustered:
            moves, _ = sums_of_clusters(weighted_rows(moves, weights), weights > 0, labels)
            weights = jnp.ones_like(weights)
        cubes, squares = (jnp.sum(weighted_rows(moves**power, weights), axis=0) for power in (3, 2))
        return cubes / jnp.where(squares > 0, 6 * squares**1.5, jnp.nan)

    return at


def bootstrap_text(draws: Bootstrap) -> str:
    """The bootstrap as a table: estimate, bias and standard error of each parameter, and the failures."""
    out = TextRenderer()
    many = draws.vector.ndim > 2
    failed, replicates = np.asarray(draws.failed), draws.replicates
    out.title(f"Bootstrap ({draws.kind}): {count(replicates)} replicates" + " a data set" * many)
    if many:
        whole = count(replicates * failed.size)
        out.paragraph(f"{counted(failed.size, 'data set')}; {count(failed.sum())} of {whole} refits failed")
        return out.render()
    reasons = {name: n for name, n in draws.status.counts().items() if name != "converged"}
    text = f"{count(int(failed))} refits failed" + (
        f" ({', '.join(f'{n} {name}' for name, n in reasons.items())})" * bool(reasons)
    )
    out.paragraph(f"{text}, {count(replicates - int(failed))} count")
    vector = np.asarray(draws.vector)
    fine = ~np.any(np.isnan(vector), axis=1)
    best = np.asarray(draws.fit._solution.estimates)
    rows = []
    for i, name in enumerate(draws.fit.parameter_names):
        if draws.fit.fixed[i] or fine.sum() < 2:
            rows.append([name, number(best[i]), "", "fixed" if draws.fit.fixed[i] else ""])
            continue
        error = vector[fine, i].std(ddof=1)
        bias = vector[fine, i].mean() - best[i]
        rows.append([name, uncertain(best[i], error), number(bias, 2), number(error, 4)])
    out.table(rows, ["", "estimate", "bias", "std. error"], ["left", "decimal", "decimal", "decimal"])
    return out.render()
