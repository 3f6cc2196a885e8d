"""From the start of a process to its first printed fit."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import scipy.special

from ..harness import Way, Workload
from ..peers import available
from ..peers_single import needs

#: What is wanted of mlekit, in seconds.
REACH = 3.0

#: The data, and for those who need one the start: what every script begins with.
DATA = """
import numpy as np
x = np.random.default_rng(23).gamma(2.5, 1.5, 1_000)
start = x.mean() ** 2 / x.var(), x.var() / x.mean()
"""

MLEKIT = """
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import mlekit as mle
from mlekit.special import gammaln

def log_density(params, x):
    shape, scale = params["shape"], params["scale"]
    return (shape - 1) * jnp.log(x) - x / scale - shape * jnp.log(scale) - gammaln(shape)

fit = mle.fit(log_density, {"shape": start[0], "scale": start[1]}, x, constraints=mle.positive)
assert fit.converged
print(fit.params["shape"], fit.params["scale"])
"""

SCIPY = """
from scipy.stats import gamma
shape, _, scale = gamma.fit(x, floc=0)
print(shape, scale)
"""

#: With NumPy and SciPy alone: compiling a cost with numba would take seconds.
IMINUIT = """
from iminuit import Minuit
from scipy.special import digamma, gammaln

n, total, logs = len(x), x.sum(), np.log(x).sum()

def cost(shape, scale):
    return n * (shape * np.log(scale) + gammaln(shape)) + total / scale - (shape - 1) * logs

def gradient(shape, scale):
    return np.array([n * (np.log(scale) + digamma(shape)) - logs, (n * shape - total / scale) / scale])

search = Minuit(cost, *start, grad=gradient, name=("shape", "scale"))
search.errordef, search.tol = Minuit.LIKELIHOOD, 1e-4
search.limits = (1e-9, None)
search.migrad()
assert search.valid
print(*search.values)
"""


def workloads(size: str) -> list[Workload]:
    """The one workload, the same for every size."""
    known: dict[str, Any] = {}
    exec(DATA, known)
    x = known["x"]

    def log_likelihood(estimates: np.ndarray) -> np.ndarray:
        shape, scale = estimates.T
        constant = shape * np.log(scale) + scipy.special.gammaln(shape)
        return (shape - 1) * np.log(x).sum() - x.sum() / scale - len(x) * constant

    def way(name: str, package: str, script: str) -> Way:
        needs(package)

        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # this process holds the card

        def run() -> np.ndarray:
            command = [sys.executable, "-c", DATA + script]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            return np.array([[float(number) for number in done.stdout.split()]])

        return Way(name, run)

    ways, missing = available(
        {
            "mlekit": lambda: way("mlekit", "mlekit", MLEKIT),
            "SciPy fit": lambda: way("SciPy fit", "scipy", SCIPY),
            "iminuit": lambda: way("iminuit, NumPy cost and gradient", "iminuit", IMINUIT),
        }
    )
    return [
        Workload(
            name="cold start",
            title=f"a new process until it prints its first fit of {len(x):,} points; wanted: under {REACH:g} s",
            n_fits=1,
            ways=ways,
            log_likelihood=log_likelihood,
            missing=missing,
        )
    ]
