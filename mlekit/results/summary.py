"""The summary of a fit: a table for the terminal, the notebook, a paper and pandas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import SEPARATING_LINE

from ..core.checks import check_level
from ..core.format.numbers import count, counted, likelihood, number, share
from ..core.format.renderers import HtmlRenderer, Renderer, TextRenderer, draw_table
from ..core.status import ADVICE, Status
from ..inference.diagnosis import diagnose
from ..inference.record import FitRecord
from .estimates import Estimates, single, spread

if TYPE_CHECKING:
    import pandas


class Summary:
    r"""The table that `fit.summary()` gives.

    Of a single fit: how it ended, then one row a scalar parameter with its estimate, standard error, z, two-sided
    normal p-value of zero, and Wald interval; below them the certificate and the remarks of `Fit.diagnose`. There
    are no z and p-values where zero is at or beyond the ends of every range. A Wald interval that is wider than
    what its parameter may be is marked so, and not cut off: it says what a normal estimate would have. Of a
    batch: how many data sets ended how, then the spread of every parameter's estimates over the data sets that
    converged.

    Args:
        fit: the fit, or batch of fits.
        level: confidence level of the intervals.
        kind: of the standard errors of a single fit, as in `Fit.covariance`.
        options: further arguments of `Fit.covariance`.

    Raises:
        ValueError: a level outside (0, 1), or another kind for a batch.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> def log_density(params, x):
        ...     return jnp.log(params["rate"]) - params["rate"] * x
        >>> fit = mle.fit(log_density, {"rate": 1.0}, jnp.array([0.5, 1.5, 1.0, 3.0]),
        ...               constraints={"rate": mle.positive})
        >>> summary = fit.summary()
        >>> print(summary.to_pandas().loc["rate", ["estimate", "standard_error"]].round(4).tolist())
        [0.6667, 0.3333]
        >>> print(summary.to_latex().splitlines()[0])
        \begin{tabular}{lrrrr}
    """

    def __init__(self, fit: FitRecord, level: float = 0.95, kind: str = "observed", **options: Any) -> None:
        check_level(level)
        self.fit = fit
        self.level = level
        self.kind = kind
        if fit.batched and kind != "observed":
            raise ValueError(
                f"kind={kind!r} is for the summary of a single fit; there is fits.standard_errors({kind!r})"
            )
        self.estimates: Estimates = spread(fit) if fit.batched else single(fit, level, kind=kind, **options)

    def to_latex(self) -> str:
        """The table in LaTeX, for the package booktabs; status, log-likelihood and counts stand below."""
        rows, headers, align = self.estimates.cells()
        fit = self.fit
        if fit.batched:
            below = [[status, count(n)] for status, n in fit.status.counts().items()]
        else:
            below = [
                ["status", fit.status.names()],
                ["log-likelihood", likelihood(fit.log_likelihood)],
                ["n_obs", count(fit.n_obs)],
            ]
        filled = [row + [""] * (len(headers) - 2) for row in below]
        text = draw_table([*rows, SEPARATING_LINE, *filled], self._with_level(headers), align, "latex_booktabs")
        text = re.sub(r"(?<=&)( *)-(?=\d)", r"\1$-$", text)  # a minus sign, not a hyphen
        return re.sub(r"(?m)^( *)\[", r"\1{[}", text)  # after \\ a bracket would open an argument

    def to_pandas(self) -> pandas.DataFrame:
        """The numbers as a data frame, one row a parameter; `note` says which are fixed or tied."""
        import pandas

        table = self.estimates
        notes = [
            ", ".join(part for part in ("fixed" * fixed, note) if part)
            for fixed, note in zip(table.fixed, table.notes)
        ]
        return pandas.DataFrame(
            {**table.columns, "note": notes}, index=pandas.Index(table.names, name="parameter")
        )

    def __str__(self) -> str:
        return self._draw(TextRenderer())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._draw(HtmlRenderer())

    def _draw(self, out: Renderer) -> str:
        if self.fit.batched:
            draw_batch(out, self.fit, self.estimates)
            for name in self.fit.status.counts():
                if name != Status.converged.name:
                    out.paragraph(f"{name}: {ADVICE[Status[name]]}")
            return out.render()
        fit, proof = self.fit, self.fit.certificate
        left = [
            ["status", fit.status.names()],
            ["log-likelihood", likelihood(fit.log_likelihood)],
            ["n_obs", count(fit.n_obs)],
            ["AIC", likelihood(fit.aic)],
        ]
        right = [
            ["solver", fit.solver],
            ["steps", count(fit.steps)],
            ["n_free", count(fit.n_free)],
            ["BIC", likelihood(fit.bic)],
        ]
        out.table([a + b for a, b in zip(left, right)], align=("left", "right", "left", "right"))
        rows, headers, align = self.estimates.cells()
        out.table(rows, self._with_level(headers), align)
        out.paragraph(
            f"certificate: decrement {number(proof.decrement, 2)}, "
            f"condition number {number(proof.condition_number, 3)}"
        )
        if self.kind != "observed":
            out.paragraph(f"standard errors: {self.kind}")
        if not fit.converged:
            out.paragraph(fit.message)
        else:
            for remark in diagnose(fit).remarks:
                out.paragraph(remark)
        return out.render()

    def _with_level(self, headers: list[str]) -> list[str]:
        edges = ("lower", "upper")
        return [f"{name} {100 * self.level:g}%" if name in edges else name for name in headers]


def draw_batch(out: Renderer, fit: FitRecord, estimates: Estimates) -> None:
    """Draw a batch: how many data sets ended how, and the spread of the estimates."""
    whole, proven = np.size(fit._solution.status), int(np.sum(np.asarray(fit.converged)))
    out.title(f"Fit: {counted(whole, 'data set')}")
    if not whole:
        return
    out.statuses(fit.status.counts())
    if proven:
        out.paragraph(f"Estimates over the {counted(proven, 'converged data set')} ({share(proven, whole)}):")
        out.table(*estimates.cells())
    else:
        out.paragraph("No data set converged, so there are no estimates to show.")
    out.paragraph(f"n_obs {_extent(fit.n_obs)}; steps {_extent(fit.steps)}; {fit.solver}")


def _extent(values: Any) -> str:
    """From where to where, and the middle."""
    low, middle, high = np.quantile(np.ravel(values), [0.0, 0.5, 1.0])
    return count(low) if low == high else f"{count(low)} to {count(high)}, median {count(middle)}"
