"""Several fits of the same data side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.checks import check_choice
from ..core.format.numbers import count, counted, likelihood, share
from ..core.format.renderers import HtmlRenderer, Renderer, TextRenderer
from ..core.status import StatusArray
from .hypothesis_tests.nested import same_data
from .record import FitRecord

if TYPE_CHECKING:
    import pandas


class Comparison(eqx.Module):
    """Several fits of the same data, made by `mle.compare`; prints as a table, the best first.

    Args:
        names: of the fits.
        n_free: number of free parameters of each.
        log_likelihood: of each, shape `(models,)`, of batches `(n_sets, models)`.
        aic: Akaike's criterion.
        aicc: with the correction for small samples.
        bic: Schwarz's criterion.
        weight: Akaike weights, from `aicc` where `criterion="aicc"`, from `bic` where `criterion="bic"`.
        status: why each fit ended; criteria of a fit that did not converge are NaN, and its weight zero.
        criterion: the one that orders the fits and gives their weights.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    n_free: tuple[int, ...] = eqx.field(static=True)
    log_likelihood: Float[Array, "... models"]
    aic: Float[Array, "... models"]
    aicc: Float[Array, "... models"]
    bic: Float[Array, "... models"]
    weight: Float[Array, "... models"]
    status: StatusArray
    criterion: str = eqx.field(static=True)

    @property
    def best(self) -> Any:
        """The name of the fit with the lowest criterion, of batches an array; `None` where none converged."""
        values = np.asarray(getattr(self, self.criterion))
        names = np.array([*self.names, None], dtype=object)
        none = np.all(np.isnan(values), axis=-1)
        place = np.where(none, len(self.names), np.argmin(np.where(np.isnan(values), np.inf, values), axis=-1))
        return names[place]

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a pandas data frame, one row a fit; of batches the index has the data set, too."""
        import pandas

        columns = ("log_likelihood", "aic", "aicc", "bic", "weight")
        shape = self.aic.shape
        table = {name: np.asarray(getattr(self, name)).ravel() for name in columns}
        table["n_free"] = np.broadcast_to(np.array(self.n_free), shape).ravel()
        table["status"] = np.ravel(np.array(self.status.names(), dtype=object))
        if len(shape) == 1:
            index: Any = pandas.Index(self.names, name="fit")
        else:
            index = pandas.MultiIndex.from_product([range(shape[0]), self.names], names=["set", "fit"])
        frame = pandas.DataFrame(table, index=index)
        return frame.sort_values(self.criterion) if len(shape) == 1 else frame

    def __repr__(self) -> str:
        if isinstance(self.aic, jax.core.Tracer):
            return f"Comparison(<traced>, {', '.join(self.names)})"
        return comparison_text(self)

    def _repr_html_(self) -> str:
        return comparison_html(self)


def compare(fits: Mapping[str, FitRecord], *, criterion: str = "aic") -> Comparison:
    r"""Fits of the same data side by side: log-likelihood, parameters, criteria and weights.

    $$w_m = \frac{e^{-\Delta_m / 2}}{\sum_j e^{-\Delta_j / 2}}, \qquad
    \Delta_m = \text{AIC}_m - \min_j \text{AIC}_j$$

    Args:
        fits: `{name: fit}`, or `{name: batch}` with the same data sets in each.
        criterion: `aic`, `aicc` or `bic`, to order by and to make weights of.

    Returns:
        `Comparison`.

    Raises:
        ValueError: no fits, fits of different numbers of observations or data sets, or another criterion.
        TypeError: `fits` is no mapping.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> x = {"y": jnp.array([0.3, 2.0, 0.7, 5.1, 1.2, 0.4, 2.8])}
        >>> plain = mle.regression(lambda p, obs: p, mle.families.exponential)
        >>> shaped = mle.regression(lambda p, obs: (p["mean"], p["shape"]), mle.families.gamma)
        >>> table = mle.compare({
        ...     "exponential": mle.fit(plain, 1.0, x, constraints=mle.positive),
        ...     "gamma": mle.fit(shaped, {"mean": 1.0, "shape": 1.0}, x, constraints=mle.positive)})
        >>> print(table.best, table.weight.round(1))
        exponential [0.7 0.3]

    Source: Burnham and Anderson 2002, *Model Selection and Multimodel Inference*, for the weights.
    """
    if not isinstance(fits, Mapping):
        raise TypeError(f"fits must be a dict of fits by name, got {type(fits).__name__}")
    if not fits:
        raise ValueError("fits: there are none to compare")
    check_choice(criterion, ("aic", "aicc", "bic"), "criterion")
    first, *others = fits.values()
    for other in others:
        same_data(first, other)
    stack = lambda values: jnp.stack(list(values), axis=-1)  # noqa: E731
    proven = stack(fit.converged for fit in fits.values())
    table = {
        name: jnp.where(proven, stack(getattr(fit, name) for fit in fits.values()), jnp.nan)
        for name in ("aic", "aicc", "bic")
    }
    height = jnp.where(jnp.isnan(table[criterion]), jnp.inf, table[criterion])
    lowest = jnp.min(height, axis=-1, keepdims=True)
    share = jnp.where(
        jnp.isfinite(height), jnp.exp(-0.5 * (height - jnp.where(jnp.isfinite(lowest), lowest, 0))), 0.0
    )
    return Comparison(
        names=tuple(map(str, fits)),
        n_free=tuple(fit.n_free for fit in fits.values()),
        log_likelihood=stack(fit.log_likelihood for fit in fits.values()),
        **table,
        weight=share / jnp.where(jnp.isfinite(lowest), jnp.sum(share, axis=-1, keepdims=True), 1.0),
        status=StatusArray(stack(fit._solution.status for fit in fits.values())),
        criterion=criterion,
    )


def comparison_text(table: Comparison) -> str:
    """The comparison for a terminal."""
    return _draw_comparison(TextRenderer(), table)


def comparison_html(table: Comparison) -> str:
    """The same for a notebook."""
    return _draw_comparison(HtmlRenderer(), table)


def _draw_comparison(out: Renderer, table: Comparison) -> str:
    criterion = {"aic": "AIC", "aicc": "AICc", "bic": "BIC"}[table.criterion]
    if table.aic.ndim > 1:
        best = list(table.best)
        out.title(f"Comparison of {counted(len(table.names), 'fit')} over {counted(len(best), 'data set')}")
        rows = [[name, count(best.count(name)), share(best.count(name), len(best))] for name in table.names]
        missing = best.count(None)
        rows += [["none converged", count(missing), share(missing, len(best))]] if missing else []
        out.table(rows, ["", f"lowest {criterion}", ""], ["left", "right", "right"])
        return out.render()
    values = np.asarray(getattr(table, table.criterion))
    order = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")
    states: Any = table.status.names()
    rows = [
        [
            table.names[i],
            likelihood(table.log_likelihood[i]),
            count(table.n_free[i]),
            *(likelihood(values[i]) for values in (table.aic, table.aicc, table.bic)),
            f"{float(table.weight[i]):.3f}" if states[i] == "converged" else states[i],
        ]
        for i in order
    ]
    out.title(f"Comparison by {criterion}")
    headers = ["", "log-likelihood", "parameters", "AIC", "AICc", "BIC", "weight"]
    out.table(rows, headers, ["left", *["right"] * 6])
    return out.render()
