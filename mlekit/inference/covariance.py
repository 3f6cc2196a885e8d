"""The covariance of the estimates in natural units: one bread, and a middle for every way to be wrong."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..core.checks import check_choice, check_count, warn
from ..core.trees import tracing
from ..engine.implicit import with_derivative_of
from ..likelihood.objective import Objective
from ..likelihood.weights import weighted_rows
from ..solvers.choice import DENSE_CERTIFICATE
from . import expected_information
from .evaluate import encode_row_labels, evaluate_proven
from .information import information, inverse
from .record import FitRecord

KINDS = ("observed", "expected", "opg", "sandwich", "hac")
#: Small-sample factors of a sum over G clusters of n observations, with k free parameters.
SMALL_SAMPLE = ("clusters", "regression")


def covariance(
    fit: FitRecord,
    kind: str = "observed",
    clusters: Any = None,
    *,
    small_sample: str | None = None,
    lags: Any = None,
    key: Any = None,
    n_simulations: int = expected_information.N_SIMULATIONS,
) -> Float[Array, "... k k"]:
    """`Fit.covariance`, which says what the arguments are."""
    check_choice(kind, KINDS)
    if clusters is not None and kind != "sandwich":
        raise ValueError(f"clusters go with kind='sandwich', got kind={kind!r}")
    if small_sample is not None:
        check_choice(small_sample, SMALL_SAMPLE, "small_sample")
        if kind not in ("sandwich", "hac"):
            raise ValueError(f"small_sample goes with kind='sandwich' or 'hac', got kind={kind!r}")
    if (lags is None) == (kind == "hac"):
        raise ValueError(
            "kind='hac' wants lags=, the number of lags whose correlation it allows for, such as lags=4"
            if lags is None
            else f"lags go with kind='hac', got kind={kind!r}"
        )
    if key is not None and kind != "expected":
        raise ValueError(f"key goes with kind='expected' of a model that simulates, got kind={kind!r}")
    if n_simulations != expected_information.N_SIMULATIONS and key is None:
        raise ValueError(
            f"n_simulations goes with a key and kind='expected' of a model that simulates, got kind={kind!r}"
        )
    if kind == "hac":
        if fit._dataset.weighted:
            raise ValueError("kind='hac' wants a series of single observations; it has no meaning with weights")
        check_count(lags, "lags", least=0)
    k = len(fit.parameter_names)
    if not fit.n_free:
        return jnp.zeros((*fit.status.shape, k, k), fit._solution.estimates.dtype)

    free = fit._solution.free
    if kind == "expected" and (key is not None or fit.model.regression is None):
        matrix = expected_information.by_simulation(fit, key, n_simulations).covariance
        matrix = jnp.where(fit.converged[..., None, None], matrix, jnp.nan)
    elif kind == "hac":
        lags = jnp.broadcast_to(jnp.asarray(lags), fit.status.shape)
        matrix = evaluate_proven(fit, _robust(0, small_sample, True), (free, lags))
    elif kind == "sandwich":
        labels = () if clusters is None else encode_row_labels(fit, clusters, "clusters")
        matrix = evaluate_proven(fit, _robust(len(labels), small_sample, False), (free, None), labels or None)
    else:
        matrix = evaluate_proven(fit, _plain(kind), free)
    _say_what_is_missing(fit, matrix, kind, clusters is not None)
    return matrix


def errors(fit: FitRecord, kind: str = "observed", clusters: Any = None, **options: Any) -> Float[Array, "... k"]:
    """The standard errors as a vector over `parameter_names`; arguments as in `covariance`."""
    known = fit.n_free <= DENSE_CERTIFICATE or not (tracing(fit) or np.any(fit.converged))
    if kind == "observed" and clusters is None and not options and known:
        return with_derivative_of(fit._solution.standard_errors, fit, _observed_errors)
    return errors_of(covariance(fit, kind, clusters, **options))


def _observed_errors(fit: FitRecord) -> Array:
    return errors_of(covariance(fit))


def errors_of(matrix: Float[Array, "... k k"]) -> Float[Array, "... k"]:
    """The standard errors of a covariance."""
    variance = jnp.diagonal(matrix, axis1=-2, axis2=-1)
    # The root of nothing has no derivative, but that of a fixed parameter is nothing.
    root = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
    return jnp.where(variance > 0, root, jnp.where(variance == 0, 0.0, variance + jnp.nan))


def in_natural_units(objective: Objective, free: Array, matrix: Float[Array, "n n"]) -> Float[Array, "k k"]:
    """The covariance of the natural parameters from that of the free vector, by the exact delta method."""
    jacobian = objective.parameters.jacobian(free)
    return jacobian @ matrix @ jacobian.T


@functools.cache
def _plain(kind: str) -> Callable[[Objective, Array], Array]:
    r"""$J I^{-1} J^T$ with the information of this kind."""
    return lambda objective, free: in_natural_units(objective, free, inverse(objective, free, kind))


@functools.cache
def _robust(columns: int, small_sample: str | None, series: bool) -> Callable[..., Array]:
    r"""The sandwich.

    $$V = J\, I^{-1} M I^{-1} J^T$$

    with $M = \sum_i w_i s_i s_i^T$; of clusters $M = \sum_c s_c s_c^T$, where $s_c$ is the sum of the weighted
    scores of a cluster; of clusters in several ways their sum less that of those who share two ways, and so on; of
    a series $M = \Gamma_0 + \sum_l (1 - l / (L + 1)) (\Gamma_l + \Gamma_l^T)$, $\Gamma_l = \sum_t s_t s_{t-l}^T$.
    (White 1982; Liang and Zeger 1986; Cameron, Gelbach and Miller 2011; Newey and West 1987.)
    """

    def at(objective: Objective, value: Any, labels: Any = ()) -> Array:
        free, lags = value
        n_obs = objective.n_obs
        factor = lambda groups: _factor(small_sample, groups, n_obs, free.shape[0])  # noqa: E731
        if series:
            middle = _of_series(objective.likelihood.scores(free, objective.parameters.natural), lags)
            middle = middle * factor(n_obs)
        elif columns:
            scores, counts = _weighted_scores(objective, free)
            middle = jnp.zeros((free.shape[0],) * 2, free.dtype)
            for size in range(1, columns + 1):
                for chosen in itertools.combinations(range(columns), size):
                    sums, groups = sums_of_clusters(scores, counts, tuple(labels[i] for i in chosen))
                    part = jnp.where(groups > 1, factor(groups), jnp.nan) * (sums.T @ sums)
                    middle = middle + (part if size % 2 else -part)
        else:
            middle = information(objective, free, "opg") * factor(n_obs)
        bread = inverse(objective, free, "observed")
        return in_natural_units(objective, free, bread @ middle @ bread)

    return at


def _factor(small_sample: str | None, groups: Array, n_obs: Array, k: int) -> Any:
    """The factor for `groups` clusters: G/(G-1), and (n-1)/(n-k) with it for regressions."""
    if small_sample is None:
        return 1.0
    few = groups / (groups - 1.0)
    return few if small_sample == "clusters" else few * (n_obs - 1.0) / (n_obs - k)


def _weighted_scores(
    objective: Objective, free: Array
) -> tuple[Float[Array, "rows n_free"], Float[Array, " rows"]]:
    """Gradients of the weighted contributions, and which rows count."""
    likelihood = objective.likelihood
    scores = likelihood.scores(free, objective.parameters.natural)
    _, weights = likelihood.aligned()
    if weights is None:
        return scores, jnp.ones(scores.shape[0], bool)
    return weighted_rows(scores, weights), weights > 0


def sums_of_clusters(
    rows: Float[Array, "rows m"], counts: Array, labels: tuple[Int[Array, " rows"], ...]
) -> tuple[Float[Array, "rows m"], Int[Array, ""]]:
    """The sums of the rows with the same labels, and how many there are of these clusters."""
    n = rows.shape[0]
    order = jnp.lexsort(labels)
    changes = [jnp.diff(label[order], prepend=label[order][:1]) != 0 for label in labels]
    number = jnp.zeros(n, int).at[order].set(jnp.cumsum(functools.reduce(jnp.logical_or, changes)))
    add = functools.partial(jax.ops.segment_sum, segment_ids=number, num_segments=n)
    return add(rows), jnp.sum(add(counts.astype(int)) > 0)


def _of_series(scores: Float[Array, "rows n_free"], lags: Int[Array, ""]) -> Float[Array, "n_free n_free"]:
    """The long-run sum of squares of a series, with the weights of Bartlett."""
    place = jnp.arange(scores.shape[0])[:, None]

    def add(lag: Array, middle: Array) -> Array:
        before = jnp.where(place >= lag, jnp.roll(scores, lag, axis=0), 0)
        product = scores.T @ before
        return middle + (1 - lag / (lags + 1)).astype(scores.dtype) * (product + product.T)

    return jax.lax.fori_loop(1, lags + 1, add, scores.T @ scores)


def _say_what_is_missing(fit: FitRecord, matrix: Array, kind: str, clustered: bool) -> None:
    """A warning where a proven maximum has no error of this kind."""
    if tracing((matrix, fit._solution)):
        return
    diagonal = np.diagonal(np.asarray(matrix), axis1=-2, axis2=-1)
    missing = np.asarray(fit.converged) & ~np.all(diagonal >= 0, axis=-1)
    if not np.any(missing):
        return
    why = {
        "observed": "the information is not positive definite",
        "expected": "the expected information is not positive definite",
        "opg": "the outer product of the scores is singular: there are too few different observations",
        "sandwich": "the sum over clusters is not positive: there are too few clusters, or one alone"
        if clustered
        else "the scores are not finite",
        "hac": "the sum over lags is not finite",
    }[kind]
    who = f"{int(missing.sum()):,} of {missing.size:,} data sets" if fit.batched else "this fit"
    warn(f"kind={kind!r} gives {who} no standard errors (NaN): {why}")
