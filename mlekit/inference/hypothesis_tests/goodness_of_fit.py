"""Goodness of fit by parametric bootstrap: the data against data drawn from the fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core.checks import check_choice, check_count
from ...core.random_keys import check_key, seeds
from ...core.status import Status
from ...core.trees import batch_of_one, tracing
from ...engine import map_datasets
from ...likelihood.objective import Objective
from ..bootstrap.resample import repeat_sets, resampled_sets
from ..evaluate import evaluate
from ..record import FitRecord, index
from ..refit import leaves_at, refit, shared_batch, shared_parameters, shared_rows
from ..residuals import log_tails
from ..simulate import check_simulator
from .result import HypothesisTest

STATISTICS = ("anderson-darling", "cramer-von-mises", "kolmogorov-smirnov")


def goodness_of_fit_test(
    fit: FitRecord,
    key: Any,
    replicates: int = 1000,
    statistic: str | Callable[..., Any] = "anderson-darling",
) -> HypothesisTest:
    r"""Test of goodness of fit: are data drawn from the fit as far from their own fit as the data at hand?

    $$p = \frac{1 + \#\{r : T_r \ge T\}}{1 + R}$$

    where $T$ measures how far the values $u_i = F(x_i \mid \hat\theta)$ are from uniform, and $T_r$ does the
    same for data set $r$ drawn from the fit *and fitted anew*, so that it is allowed for that parameters were
    estimated. Where $F$ jumps, as for whole numbers, $u_i$ is the middle of the jump.

    Args:
        fit: a fit, or a batch of fits, of a model with `simulate`, and `log_cdf` unless a statistic is given.
        key: random key.
        replicates: $R$.
        statistic: `anderson-darling`, `cramer-von-mises` or `kolmogorov-smirnov`; or
            `statistic(params, data)`, a number that is large where the model fits badly; with `args` it is
            `statistic(params, data, args)`. It sees data sets of equal length only.

    Returns:
        `HypothesisTest` without degrees of freedom. Replicates whose fit failed are left out.

    Raises:
        ValueError: a model without these companions, or weights.

    Example:
        >>> import jax, jax.numpy as jnp, mlekit as mle
        >>> model = mle.regression(lambda rate, obs: rate, mle.families.exponential)
        >>> even = {"y": jnp.linspace(0.9, 1.1, 30)}
        >>> fit = mle.fit(model, 1.0, even, constraints=mle.positive)
        >>> print(mle.goodness_of_fit_test(fit, jax.random.key(0), 200))
        Anderson-Darling test: the hypothesis that the model fits is rejected at 5 %: 12.2, p = 0.0050
        (parametric bootstrap)

    Source: Stute, Gonzalez Manteiga and Presedo Quindimil 1993.
    """
    check_simulator(fit.model, "goodness_of_fit_test")
    check_key(key, "goodness_of_fit_test")
    check_count(replicates, "replicates")
    if isinstance(statistic, str):
        check_choice(statistic, STATISTICS, "statistic")
        if fit.model.log_cdf is None:
            raise ValueError(
                f"statistic={statistic!r} wants the distribution function, and this model has no log_cdf: write "
                "mle.Model(log_density, simulate=simulate, log_cdf=log_cdf), or pass a statistic(params, data)"
            )
    elif fit._dataset.padded or (fit.batched and fit._dataset.weight_column is None and _is_ragged(fit)):
        raise ValueError("a statistic of your own sees whole data sets, so these must be of equal length")
    if fit._dataset.weighted:
        raise ValueError("goodness_of_fit_test draws each row once, so it has no use for weights: repeat the rows")
    if tracing(fit._solution):
        raise ValueError("goodness_of_fit_test draws on the host, so it does not run under jit or vmap")
    many = fit if fit.batched else batch_of_one(fit)
    name = (
        f"{statistic.title().replace('-Von-', '-von ')} test"
        if isinstance(statistic, str)
        else "Goodness-of-fit test"
    )
    measure = _Measure(statistic)
    observed = evaluate(many, measure, many._solution.free)
    p_value = _p_value(many, key, int(replicates), measure, np.asarray(observed))
    found = jnp.where(many.converged, observed, jnp.nan)
    if not fit.batched:
        found, p_value = found[0], p_value[0]
    nothing = jnp.full_like(found, jnp.nan)
    return HypothesisTest(found, nothing, p_value, name, "the model fits", "parametric bootstrap")


def _p_value(fits: FitRecord, key: Any, replicates: int, measure: Any, observed: np.ndarray) -> Array:
    batch, parameters = shared_rows(fits), shared_parameters(fits)
    words = np.asarray(seeds(key, index(fits)))
    starts = leaves_at(parameters, fits._solution.free, fits.parameters.values)
    fine = np.flatnonzero(np.asarray(fits.converged))
    above, count = np.zeros(fits.n_sets), np.zeros(fits.n_sets)
    for sets, times, resampled, _ in resampled_sets(fits, batch, words, fine, replicates, "parametric", None):
        found = refit(resampled, parameters, repeat_sets(starts, sets, len(times)))
        mine = repeat_sets(fits.parameters, sets, len(times))
        value = map_datasets.map_datasets(measure, resampled, mine, found.free, lost={})
        shape = (len(sets), len(times))
        proven = np.asarray(found.status == Status.converged).reshape(shape)
        beyond = np.asarray(value).reshape(shape) >= observed[sets][:, None]
        above[sets] += np.sum(proven & beyond, axis=1)
        count[sets] += np.sum(proven, axis=1)
    p = jnp.asarray((1 + above) / (1 + count), fits._solution.estimates.dtype)
    return jnp.where(fits.converged & (jnp.asarray(count) > 0), p, jnp.nan)


def _is_ragged(fit: FitRecord) -> bool:
    counts = shared_batch(fit).row_counts
    return bool(np.any(counts != counts[:1]))


class _Measure(eqx.Module):
    """The distance of a data set from the model."""

    statistic: str | Callable[..., Any]

    def __call__(self, objective: Objective, free: Array) -> Float[Array, ""]:
        likelihood = objective.likelihood
        params = objective.parameters.natural(free)
        extra = () if likelihood.args is None else (likelihood.args,)
        data, counts = likelihood.aligned()
        if not isinstance(self.statistic, str):
            return jnp.asarray(self.statistic(params, data, *extra))
        below, above = log_tails(likelihood, params, 0.5 if likelihood.model.atoms else None)
        n = jnp.asarray(likelihood.rows if counts is None else jnp.sum(counts), below.dtype)
        fine = jnp.ones(below.shape, bool) if counts is None else counts > 0
        place = jnp.arange(below.shape[0], dtype=below.dtype)
        here = place < n
        # Each tail by its own function, where floating-point numbers are finer: the first of one belongs to the
        # last of the other. A probability that underflows counts as the smallest number.
        least = jnp.log(jnp.finfo(below.dtype).tiny)
        lows, highs = (jnp.sort(jnp.where(fine, jnp.maximum(tail, least), jnp.inf)) for tail in (below, above))
        u = jnp.where(here, jnp.exp(lows), 0.5)
        if self.statistic == "kolmogorov-smirnov":
            off = jnp.maximum((place + 1) / n - u, u - place / n)
            return jnp.max(jnp.where(here, off, 0.0))
        if self.statistic == "cramer-von-mises":
            off = (u - (place + 0.5) / n) ** 2
            return 1 / (12 * n) + jnp.sum(jnp.where(here, off, 0.0))
        return -n - jnp.sum(jnp.where(here, (2 * place + 1) * (lows + highs), 0.0)) / n
