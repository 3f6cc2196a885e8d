"""Vuong's test of two models that do not contain each other."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jax.scipy.special import ndtr
from jaxtyping import Array

from ...core.checks import check_choice
from ...likelihood.objective import Objective
from ..evaluate import contributions, evaluate, longest, to_width
from ..record import FitRecord
from .nested import same_data
from .result import HypothesisTest


def vuong_test(a: FitRecord, b: FitRecord, *, correction: str | None = None) -> HypothesisTest:
    r"""Vuong's test: are two models that do not contain each other equally close to the truth?

    $$z = \frac{\sum_i w_i m_i - c}{\sqrt{n}\,\hat\omega} \sim N(0, 1), \qquad
    m_i = \log p_a(x_i) - \log p_b(x_i), \quad \hat\omega^2 = \frac1n \sum_i w_i (m_i - \bar m)^2$$

    A positive statistic speaks for `a`. The test supposes that the models differ somewhere: where they are nested,
    or the data give both the same density, use `mle.likelihood_ratio_test`.

    Args:
        a: a fit, or a batch of fits.
        b: another one, to the same data, with contributions in the same order.
        correction: $c$, a penalty for parameters: none by default; `aic` for $k_a - k_b$; `bic` for
            $\tfrac12 (k_a - k_b) \log n$.

    Returns:
        `HypothesisTest` with a two-sided p-value, without degrees of freedom.

    Raises:
        ValueError: fits of different data, another correction, or a joint model that returns a scalar.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> from jax.scipy.stats import cauchy, norm
        >>> x = jnp.array([0.1, 0.9, 1.0, 1.1, 1.2, 2.9, -3.0, 1.05, 8.0, 0.95])
        >>> def fit(density):
        ...     return mle.fit(lambda p, x: density(x, p["place"], p["scale"]), {"place": 1.0, "scale": 1.0}, x,
        ...                    constraints={"scale": mle.positive})
        >>> print(mle.vuong_test(fit(cauchy.logpdf), fit(norm.logpdf)))
        Vuong test: the hypothesis that both models are equally close to the truth is ...rejected at 5 %: z = ...

    Source: Vuong 1989.
    """
    same_data(a, b)
    if correction is not None:
        check_choice(correction, ("aic", "bic"), "correction")
    total, square, n = _moments(a, b)
    difference = a.n_free - b.n_free
    less = 0.0 if correction is None else difference * (1.0 if correction == "aic" else 0.5 * jnp.log(n))
    spread = jnp.sqrt(jnp.maximum(square / n - (total / n) ** 2, 0.0))
    # A spread that is rounding means that both models say the same.
    rounding = 1e3 * jnp.finfo(spread.dtype).eps * jnp.abs(a.log_likelihood) / n
    fine = a.converged & b.converged & (spread > rounding)
    statistic = jnp.where(fine, (total - less) / (jnp.sqrt(n) * jnp.where(fine, spread, 1.0)), jnp.nan)
    p_value = 2 * ndtr(-jnp.abs(statistic))
    nothing = jnp.full_like(statistic, jnp.nan)
    name, hypothesis = "Vuong test", "both models are equally close to the truth"
    return HypothesisTest(statistic, nothing, p_value, name, hypothesis, "normal")


def _moments(a: FitRecord, b: FitRecord) -> tuple[Array, Array, Array]:
    """The weighted sum of the differences, that of their squares, and the sum of the weights."""
    of_fit = lambda fit: evaluate(fit, _contributions(longest(fit)), fit._solution.free)  # noqa: E731
    (first, weights), (second, _) = of_fit(a), of_fit(b)
    width = min(first.shape[-1], second.shape[-1])
    difference = first[..., :width] - second[..., :width]
    w = weights[..., :width]
    counts = w > 0
    total, square = (jnp.sum(jnp.where(counts, w * difference**power, 0), axis=-1) for power in (1, 2))
    return total, square, jnp.sum(w, axis=-1)


@functools.cache
def _contributions(width: int) -> Callable[[Objective, Array], tuple[Array, Array]]:
    """Log-densities of the rows and their weights, zero for padding."""

    def of_dataset(objective: Objective, free: Array) -> tuple[Array, Array]:
        _, weights = objective.likelihood.aligned()
        values = contributions(width)(objective, free)
        weights = jnp.ones(objective.likelihood.rows) if weights is None else weights
        return values, to_width(weights.astype(values.dtype), width)

    return of_dataset
