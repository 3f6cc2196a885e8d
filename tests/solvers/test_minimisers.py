"""Minimisers of optimistix find what the own solvers find, and prove no more than they may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import pytest

import mlekit as mle
from tests.helpers.interop import DATA, numbers, same
from tests.helpers.marks import mostly_slow
from tests.helpers.models import RULES, START, Counted, least_squares, line, line_data, logistic

BEST = least_squares(DATA)

CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}
MINIMISERS: dict[str, Callable[[], Any]] = {
    "BFGS": lambda: optimistix.BFGS(**CLOSE),
    "LBFGS": lambda: optimistix.LBFGS(**CLOSE),
    "NonlinearCG": lambda: optimistix.NonlinearCG(**CLOSE),
    "GradientDescent": lambda: optimistix.GradientDescent(0.1, **CLOSE),
    "NelderMead": lambda: optimistix.NelderMead(**CLOSE),
    "OptaxMinimiser": lambda: optimistix.OptaxMinimiser(optax.adam(0.1), **CLOSE),
    "BestSoFarMinimiser": lambda: optimistix.BestSoFarMinimiser(
        optimistix.OptaxMinimiser(optax.adam(0.1), **CLOSE)
    ),
}


@pytest.mark.parametrize("name", mostly_slow(MINIMISERS, "BFGS", "NelderMead", "OptaxMinimiser"))
def test_minimisers_find_the_closed_form_and_are_compiled_once(name: str) -> None:
    density = Counted(line)
    fit = mle.fit(density, START, DATA, constraints=RULES, solver=MINIMISERS[name]())
    traces = density.traces
    assert bool(fit.converged), fit.message
    assert fit.solver == f"Optimistix({name})"
    same([fit.params[k] for k in BEST], list(BEST.values()))
    assert float(fit.certificate.decrement) < 1e-9
    assert float(fit.certificate.min_eigenvalue) > 0
    mle.fit(density, START, line_data(seed=2), constraints=RULES, solver=MINIMISERS[name](), max_steps=99)
    assert density.traces == traces


@pytest.mark.slow
def test_minimisers_of_many_data_sets() -> None:
    sets = line_data(n_sets=3, seed=5)
    batch = mle.fit_batch(line, START, sets, constraints=RULES, solver=MINIMISERS["LBFGS"]())
    assert bool(jnp.all(batch.converged))

    def one(data: Any) -> mle.Fit:
        return mle.fit(line, START, data, constraints=RULES, solver=MINIMISERS["LBFGS"]())

    mapped = jax.jit(jax.vmap(one))(sets)
    same(numbers(mapped), numbers(batch))
    for i in range(3):
        best = least_squares({k: v[i] for k, v in sets.items()})
        same([batch[i].params[k] for k in best], list(best.values()))


@pytest.mark.parametrize("name", mostly_slow(["LBFGS", "NelderMead"], "NelderMead"))
def test_minimisers_in_float32(name: str) -> None:
    data = {k: v.astype(np.float32) for k, v in DATA.items()}
    start = {k: np.float32(v) for k, v in START.items()}
    fit = mle.fit(line, start, data, constraints=RULES, solver=MINIMISERS[name]())
    assert fit.params["slope"].dtype == jnp.float32
    assert bool(fit.converged), fit.message
    np.testing.assert_allclose([fit.params[k] for k in BEST], list(BEST.values()), rtol=2e-5)


@pytest.mark.parametrize("name", ["BFGS", "GradientDescent"])
def test_minimisers_never_prove_what_is_not_there(name: str) -> None:
    x = np.linspace(-1, 1, 20)
    apart = {"x": np.column_stack([np.ones(20), x]), "y": (x > 0).astype(float)}
    fit = mle.fit(logistic, np.zeros(2), apart, solver=MINIMISERS[name](), max_steps=300)
    assert not bool(fit.converged)
    if name == "BFGS":
        assert fit.status == mle.Status.unbounded


def test_minimisers_say_honestly_why_they_stop() -> None:
    bfgs = MINIMISERS["BFGS"]()
    short = mle.fit(line, START, DATA, constraints=RULES, solver=bfgs, max_steps=3)
    assert (str(short.status), int(short.steps)) == ("max_steps", 3)
    holes = {**DATA, "y": np.append(np.nan, DATA["y"][1:])}
    assert str(mle.fit(line, START, holes, constraints=RULES, solver=bfgs).status) == "nonfinite_data"
    beyond = mle.fit(lambda end, x: jnp.log(end - x), 0.5, np.array([0.1, 0.7]), solver=bfgs)
    assert str(beyond.status) == "nonfinite_start"
    # From so far out a step of fixed length leads where nothing is finite.
    far = lambda p, x: p - jnp.exp(p * x)  # noqa: E731
    data = np.array([0.1, 0.7])
    assert str(mle.fit(far, 30.0, data, solver=MINIMISERS["GradientDescent"]()).status) == "stalled"
    assert str(mle.fit(far, 30.0, data, solver=bfgs).status) == "converged"


def test_minimisers_show_their_progress(capsys: pytest.CaptureFixture[str]) -> None:
    fit = mle.fit(line, START, DATA, constraints=RULES, solver=MINIMISERS["BFGS"](), progress=True)
    assert bool(fit.converged)
    assert "log-likelihood" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (
            optimistix.LevenbergMarquardt(**CLOSE),
            r"wants a minimiser, .*optimistix\.BFGS.*got a LevenbergMarquardt",
        ),
        (optimistix.BFGS, "with its brackets; got the class BFGS"),
        (optimistix.GoldenSearch(**CLOSE), r"Optimistix\(GoldenSearch\) wants the option 'lower'"),
        (object(), "an optimistix minimiser such as"),
    ],
)
def test_solvers_that_are_no_minimisers(solver: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        mle.fit(line, START, DATA, constraints=RULES, solver=solver)
