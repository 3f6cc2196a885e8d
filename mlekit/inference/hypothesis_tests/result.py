"""The result of a test of a hypothesis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaincc, ndtri
from jaxtyping import Array, Float

from ...core.compilation import Compiled
from ...core.format.numbers import count, counted, number, probability
from ...core.trees import tracing


class HypothesisTest(eqx.Module):
    """The result of a test: it prints as a sentence.

    Args:
        statistic: the test statistic, of a batch shape `(n_sets,)`.
        degrees_of_freedom: of its distribution under the hypothesis; NaN where that has none.
        p_value: the chance of a statistic at least as extreme if the hypothesis holds; NaN where the fits did not
            converge.
        name: of the test.
        hypothesis: the hypothesis in words.
        distribution: that of the statistic under the hypothesis, in words.
        reason: why a single test has no verdict, if it has none.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, jnp.array([1.0, 2.0, 6.0]))
        >>> test = mle.wald_test(fit, lambda mean: mean - 1.0)
        >>> print(f"{test.statistic:.1f} {test.p_value:.4f}")
        12.0 0.0005
    """

    statistic: Float[Array, "..."]
    degrees_of_freedom: Float[Array, "..."]
    p_value: Float[Array, "..."]
    name: str = eqx.field(static=True)
    hypothesis: str = eqx.field(static=True)
    distribution: str = eqx.field(static=True)
    reason: str = eqx.field(static=True, default="")

    @property
    def z(self) -> Float[Array, "..."]:
        r"""The significance in standard deviations of a normal, one-sided: $\Phi^{-1}(1 - p)$, zero for $p > 1/2$.

        Where the hypothesis lies on a bound, with one parameter, it is the root of the statistic.
        """
        return jnp.maximum(-ndtri(self.p_value), 0.0)

    def or_reason(self, why: Callable[..., str], *args: Any) -> HypothesisTest:
        """The test with a reason where it is a single one without a verdict.

        Args:
            why: what gives the reason.
            args: its arguments.
        """
        if tracing(self.statistic) or jnp.ndim(self.statistic) or not np.isnan(self.p_value):
            return self
        return dataclasses.replace(self, reason=why(*args))

    def __repr__(self) -> str:
        if isinstance(self.statistic, jax.core.Tracer):
            return f"HypothesisTest(<traced>, {self.name})"
        return test_text(self)


def chi_square(
    statistic: Any, degrees_of_freedom: Any, name: str, hypothesis: str, distribution: str = ""
) -> HypothesisTest:
    """A test whose statistic is distributed as chi-square."""
    statistic = jnp.asarray(statistic)
    df = jnp.broadcast_to(jnp.asarray(degrees_of_freedom, statistic.dtype), statistic.shape)
    return HypothesisTest(
        statistic, df, chi_square_tail(statistic, df), name, hypothesis, distribution or "chi-square"
    )


@Compiled
def chi_square_tail(statistic: Array, df: Array) -> Array:
    """The chance that chi-square exceeds a statistic; one with no degrees of freedom is zero."""
    inside = jnp.maximum(statistic, 0.0)
    tail = gammaincc(jnp.where(df > 0, 0.5 * df, 1.0), 0.5 * inside)
    tail = jnp.where(df > 0, tail, jnp.where(inside > 0, 0.0, 1.0))
    return jnp.where(jnp.isnan(statistic), jnp.nan, tail)


LEVEL = 0.05


def test_text(test: HypothesisTest) -> str:
    """A test in one sentence; of a batch how often it rejects."""
    p = np.asarray(test.p_value)
    if p.ndim:
        known = p[np.isfinite(p)]
        text = (
            f"{test.name} of {counted(p.size, 'data set')}: the hypothesis that {test.hypothesis} is rejected at "
        )
        text += "5 % in "
        text += f"{count(int(np.sum(known < LEVEL)))} of {count(known.size)}"
        return text + (f"; {count(p.size - known.size)} have no p-value" if known.size < p.size else "")
    if np.isnan(p):
        reason = test.reason or "the fits did not converge, or the statistic has no covariance"
        return f"{test.name}: no verdict; {reason}"
    verdict = "is rejected" if p < LEVEL else "is not rejected"
    df = float(test.degrees_of_freedom)
    shown = number(test.statistic, 3)
    if test.distribution == "chi-square":
        shown = f"chi-square({count(df)}) = {shown}"
    elif test.distribution == "normal":
        shown = f"z = {shown}"
    text = f"{test.name}: the hypothesis that {test.hypothesis} {verdict} at 5 %: {shown}, p {_equals(float(p))}"
    return text if test.distribution in ("chi-square", "normal") else f"{text} ({test.distribution})"


def _equals(p: float) -> str:
    shown = probability(p)
    return f"< {shown[1:]}" if shown.startswith("<") else f"= {shown}"
