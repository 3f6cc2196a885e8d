"""A model: the log-density of one observation, with the companions it may carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .families.numerics import log_rest
from .regression_density import Regression


class Joint(eqx.Module):
    """The log-density of a whole data set whose observations are not independent given the parameters."""

    contributions: Callable[..., Any]

    def __call__(self, params: Any, data: Any, *args: Any) -> Any:
        """The contributions of all observations, or their sum."""
        return self.contributions(params, data, *args)


def joint(fn: Callable[..., Any]) -> Joint:
    r"""A model for data that are not independent given the parameters: time series, autoregressions.

    $$\ell(\theta) = \sum_t \log p(x_t \mid x_{<t}, \theta)$$

    Args:
        fn: `fn(params, data)` returning the vector of contributions $\log p(x_t \mid x_{<t})$, shape
            `(n_obs,)`, or one scalar, their sum. With a scalar, whatever needs contributions (weights,
            ragged sets, scores) is a `ValueError`.

    Returns:
        A model that `mle.fit` and its sisters accept wherever they accept a log-density.

    Raises:
        TypeError: `fn` is not callable.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> def ar1(params, data):
        ...     previous = jnp.concatenate([jnp.zeros(1), data["x"][:-1]])
        ...     return -0.5 * (data["x"] - params["phi"] * previous) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
        >>> fit = mle.fit(mle.joint(ar1), {"phi": 0.0}, {"x": jnp.array([1.0, 0.5, 0.25, 0.125])})
        >>> print(round(float(fit.params["phi"]), 6))
        0.5
    """
    if not callable(fn):
        raise TypeError(f"joint: fn must be callable as fn(params, data), got {type(fn).__name__}")
    return Joint(fn)


class Complement(eqx.Module):
    """The logarithm of one less a probability: the survival function from the distribution function.

    Or the other way round. It has no more digits than the probability that it is made of.
    """

    log_probability: Callable[..., Any]

    def __call__(self, params: Any, obs: Any, *args: Any) -> Any:
        """The logarithm of one less the probability."""
        return log_rest(jnp.asarray(self.log_probability(params, obs, *args)))


class Model(eqx.Module):
    """A log-density with its companions, accepted wherever a log-density is.

    Args:
        log_density: `log_density(params, obs)`, or `log_density(params, obs, args)`: the scalar
            log-density of one observation; or the result of `mle.joint`.
        simulate: `simulate(key, params, obs) -> obs`: one observation drawn from the model, for the
            parametric bootstrap and the expected information by simulation.
        log_cdf: `log_cdf(params, obs)`: the logarithm of the distribution function, for residuals and
            censoring.
        log_survival: `log_survival(params, obs)`: the logarithm of the survival function, the chance of more than
            the response, which keeps the digits of the upper tail. Of `log_cdf` and `log_survival` each one gives
            the other, if that is left out.

    Raises:
        TypeError: a companion is neither callable nor `None`.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> model = mle.Model(lambda rate, x: jnp.log(rate) - rate * x)
        >>> float(model(2.0, 0.5)) == float(jnp.log(2.0) - 1.0)
        True
    """

    log_density: Callable[..., Any]
    simulate: Callable[..., Any] | None = None
    log_cdf: Callable[..., Any] | None = None
    log_survival: Callable[..., Any] | None = None

    def __init__(
        self,
        log_density: Callable[..., Any],
        simulate: Callable[..., Any] | None = None,
        log_cdf: Callable[..., Any] | None = None,
        log_survival: Callable[..., Any] | None = None,
    ) -> None:
        # `dataclasses.replace` hands in the old complement beside a new companion: complements are made anew.
        log_cdf, log_survival = (None if isinstance(fn, Complement) else fn for fn in (log_cdf, log_survival))
        self.log_density, self.simulate = log_density, simulate
        self.log_cdf = log_cdf if log_cdf is not None or log_survival is None else Complement(log_survival)
        self.log_survival = log_survival if log_survival is not None or log_cdf is None else Complement(log_cdf)

    def __check_init__(self) -> None:
        if not callable(self.log_density):
            raise TypeError(
                "log_density must be a function log_density(params, obs) of one observation, "
                f"got {type(self.log_density).__name__}"
            )
        for name in ("simulate", "log_cdf", "log_survival"):
            companion = getattr(self, name)
            if companion is not None and not callable(companion):
                raise TypeError(f"{name} must be a function or None, got {type(companion).__name__}")

    @property
    def is_joint(self) -> bool:
        """True if the model needs a whole data set at once (`mle.joint`)."""
        return isinstance(self.log_density, Joint)

    @property
    def regression(self) -> Regression | None:
        """The structure of a model made by `mle.regression`; `None` for any other."""
        return self.log_density if isinstance(self.log_density, Regression) else None

    @property
    def atoms(self) -> bool | Callable[[Any], Any] | None:
        """The responses that are atoms of the distribution: that have a probability, and no density.

        `True` if all are, as whole numbers; `False` if none is; a function `atoms(obs)` of an observation if some
        are, as the zeros of `mle.zero_inflated`; `None` if the model does not tell.
        """
        return getattr(self.log_density, "atoms", None)

    def __call__(self, params: Any, obs: Any, *args: Any) -> Any:
        """The log-density of one observation."""
        return self.log_density(params, obs, *args)


def as_model(log_density: Any) -> Model:
    """The `Model` around a log-density; a `Model` is handed back as it is."""
    return log_density if isinstance(log_density, Model) else Model(log_density)
