"""What a fit says of its model: influence, diagnosis, identifiability, comparison and prediction."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.scipy.stats import norm

import mlekit as mle

from .models import RULES, START, least_squares, line, line_data

FAMILIES = mle.families
N = 30
DATA = line_data(N)
DESIGN = np.column_stack([np.ones(N), DATA["x"]])
BEST = least_squares(DATA)
RESIDUAL = DATA["y"] - DESIGN @ [BEST["intercept"], BEST["slope"]]


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return mle.fit(line, START, DATA, constraints=RULES)


# --- influence -----------------------------------------------------------------------------------------------


def test_influence_of_the_normal_line(fit: mle.Fit) -> None:
    """Of coefficients in closed form, as regression texts have it; of sigma from its square, a weighted mean."""
    found = dict(zip(fit.parameter_names, np.asarray(fit.influence()).T))
    coef = np.linalg.solve(DESIGN.T @ DESIGN, (DESIGN * RESIDUAL[:, None]).T)
    np.testing.assert_allclose([found["intercept"], found["slope"]], coef, rtol=1e-9, atol=1e-12)
    wanted = (RESIDUAL**2 - BEST["sigma"] ** 2) / (2 * N * BEST["sigma"])
    np.testing.assert_allclose(found["sigma"], wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_influence_against_refits(fit: mle.Fit) -> None:
    """Each observation left out, and each weighed a little more and a little less: 90 fits in one batch."""
    weights = np.ones((3 * N, N))
    step = 1e-4
    each = np.arange(N)
    weights[each, each] = 0.0
    weights[N + each, each] += step
    weights[2 * N + each, each] -= step
    data = {name: np.broadcast_to(column, (3 * N, N)) for name, column in DATA.items()}
    refits = mle.fit_batch(line, START, data, constraints=RULES, weights=weights)
    assert np.all(refits.converged)
    out, more, less = np.split(np.column_stack([refits.params[name] for name in fit.parameter_names]), 3)
    influence = np.asarray(fit.influence())
    # A central difference errs by the square of its step.
    np.testing.assert_allclose((more - less) / (2 * step), influence, rtol=1e-6, atol=1e-8)
    # Coefficients move by the influence over one less the leverage, exactly; sigma about so.
    leverage = np.sum(DESIGN @ np.linalg.inv(DESIGN.T @ DESIGN) * DESIGN, axis=1)
    moves = out - [float(fit.params[name]) for name in fit.parameter_names]
    which = [fit.parameter_names.index(name) for name in ("intercept", "slope")]
    np.testing.assert_allclose(
        moves[:, which] * (1 - leverage)[:, None], -influence[:, which], rtol=1e-7, atol=1e-10
    )
    sigma = fit.parameter_names.index("sigma")
    assert np.corrcoef(moves[:, sigma], -influence[:, sigma])[0, 1] > 0.99
    own = np.asarray(refits[3].influence())
    np.testing.assert_allclose(weights[3] @ own, 0, atol=1e-10)  # as the scores of a fit add up to none
    # Back in with the row that was left out: what it would then do, by the leverage it had before.
    np.testing.assert_allclose(own[3, which] * (1 - leverage[3]), -moves[3, which], rtol=1e-7)


@pytest.mark.slow
def test_influence_of_ragged_sets() -> None:
    data = {name: np.stack([column, column[::-1]]) for name, column in DATA.items()}
    fits = mle.fit_batch(line, START, data, constraints={**RULES, "slope": mle.fixed}, lengths=np.array([N, 12]))
    found = np.asarray(fits.influence())
    assert found.shape == (2, N, 3)
    assert np.all(found[1, 12:] == 0)
    assert np.all(found[..., fits.parameter_names.index("slope")] == 0)
    off = (data["y"] - data["x"])[1, :12]
    np.testing.assert_allclose(
        found[1, :12, fits.parameter_names.index("intercept")], (off - off.mean()) / 12, rtol=1e-8, atol=1e-12
    )


def test_influence_of_what_did_not_converge() -> None:
    fit = mle.fit(lambda p, x: p * x - jnp.exp(p), 0.0, np.zeros(5))
    assert str(fit.status) == "unbounded"
    assert np.all(np.isnan(fit.influence()))
    scalar = mle.fit(mle.joint(lambda m, x: -0.5 * jnp.sum((x - m) ** 2)), 0.0, np.arange(5.0))
    with pytest.raises(ValueError, match="the joint model returns a scalar"):
        scalar.influence()


# --- diagnosis -----------------------------------------------------------------------------------------------

COUNTS = mle.regression(lambda p, obs: jnp.exp(p["const"] + p["slope"] * obs["x"]), FAMILIES.poisson)
COUNTS_START = {"const": 1.0, "slope": 0.0}


@pytest.fixture(scope="module")
def counts() -> mle.Fit:
    """Three data sets: counts of the model, counts that vary far too much, and no counts at all."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3, 200))
    mean = np.exp(1 + 0.3 * x)
    y = np.stack([rng.poisson(mean[0]), rng.poisson(mean[1] * rng.gamma(0.3, 1 / 0.3, 200)), np.zeros(200)])
    return mle.fit_batch(COUNTS, COUNTS_START, {"x": x, "y": y.astype(float)})


def test_nothing_to_remark(fit: mle.Fit, counts: mle.Fit) -> None:
    for one in (fit, counts[0]):
        found = one.diagnose()
        assert repr(found) == "Nothing to remark."
        assert found.remarks == ()
        assert not found.disagree


def test_a_model_in_doubt(counts: mle.Fit) -> None:
    one = counts[1]
    found = one.diagnose()
    information, squares = np.asarray(one.information()), np.asarray(one.information("opg"))
    values = np.sort(np.linalg.eigvals(np.linalg.solve(information, squares)).real)
    np.testing.assert_allclose([found.least, found.largest], values, rtol=1e-8)
    errors, robust = (np.array([*one.standard_errors(kind).values()]) for kind in ("observed", "sandwich"))
    np.testing.assert_allclose(found.factor, robust / errors, rtol=1e-8)
    assert found.disagree
    worst = int(np.argmax(found.factor))
    assert found.remarks == (
        "The observed information and the outer product of the scores disagree strongly, so the model is in "
        f'doubt: kind="sandwich" makes the standard error of {one.parameter_names[worst]} '
        f"{found.factor[worst]:.1f} times as large.",
    )
    assert "sandwich" in str(one.summary())
    assert "sandwich" not in str(counts[0].summary())


def test_remarks_on_a_batch(counts: mle.Fit) -> None:
    found = counts.diagnose()
    assert found.disagree.tolist() == [False, True, False]
    assert np.isnan(found.largest).tolist() == [False, False, True]
    assert np.all(np.isnan(found.factor[2]))
    np.testing.assert_allclose(found.factor[1], counts[1].diagnose().factor, rtol=1e-8)
    assert found.remarks[-1].startswith("1 data set (33.3%): the observed information and the outer product")
    alone = counts[:1].diagnose()
    assert repr(alone) == "Nothing to remark."


def test_parameters_that_move_together() -> None:
    """Two columns that are nearly the same: their sum is known, their difference is not."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    data = {"x": x, "z": x + 1e-3 * rng.normal(size=60), "y": x + rng.normal(size=60)}
    density = lambda p, o: norm.logpdf(o["y"], p["a"] * o["x"] + p["b"] * o["z"] + p["level"], 1.0)  # noqa: E731
    start = {"a": 0.0, "b": 0.0, "level": 0.0}
    fit = mle.fit(density, start, data)
    found = fit.diagnose()
    correlation = x @ data["z"] / np.sqrt(x @ x * (data["z"] @ data["z"]))
    np.testing.assert_allclose(found.certificate.condition_number, (1 + correlation) / (1 - correlation), rtol=0.1)
    assert found.certificate.weak_parameters == ("a", "b")
    assert len(found.remarks) == 1
    assert found.remarks[0].startswith("a and b move together: the data say little of this direction (condition")
    fits = mle.fit_batch(density, start, {name: np.stack([column, column]) for name, column in data.items()})
    assert repr(fits.diagnose()) == "2 data sets (100%): some parameters move together; fits[i].diagnose()."


def test_diagnosis_of_a_joint_model_that_returns_a_scalar() -> None:
    fit = mle.fit(mle.joint(lambda m, x: -0.5 * jnp.sum((x - m) ** 2)), 0.0, np.arange(5.0))
    found = fit.diagnose()
    assert np.isnan(found.largest)
    assert repr(found) == "Nothing to remark."


@pytest.mark.slow
@pytest.mark.parametrize(("n_obs", "most"), [(30, 0.02), (100, 0.002)])
def test_false_alarms(n_obs: int, most: float) -> None:
    """Few of 5,000 data sets of the model itself are called in doubt; counts are among the worst families."""
    x = np.random.default_rng(n_obs).normal(size=(5000, n_obs))
    y = np.random.default_rng(1).poisson(np.exp(0.5 + 0.5 * x)).astype(float)
    fits = mle.fit_batch(COUNTS, COUNTS_START, {"x": x, "y": y})
    assert np.mean(fits.diagnose().disagree) < most


# --- identifiability -----------------------------------------------------------------------------------------


def around(mean: Any) -> Any:
    return lambda p, obs: -0.5 * (obs["y"] - mean(p, obs["x"])) ** 2


POINTS = {"x": np.array([0.5, 1.0, 2.0, 3.0, 5.0]), "y": np.array([2.0, 2.5, 4.0, 5.0, 7.0])}


@pytest.mark.parametrize(
    ("mean", "start", "text"),
    [
        (
            lambda p, x: p["a"] + p["b"] + p["c"] * x,
            "abc",
            "a and b: only their sum matters, not their difference.",
        ),
        (
            lambda p, x: p["a"] - p["b"] + p["c"] * x,
            "abc",
            "a and b: only their difference matters, not their sum.",
        ),
        (lambda p, x: p["a"] + 0 * p["b"], "ab", "b: the data tell nothing of it."),
        (
            lambda p, x: p["a"] + p["b"] * x + p["c"] * (1 + 2 * x),
            "abc",
            "a, b and c can move together without any effect: a by 0.500, b by 1.00, c by -0.500.",
        ),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_flat_directions_are_named(mean: Any, start: str, text: str, dtype: Any) -> None:
    data = {name: column.astype(dtype) for name, column in POINTS.items()}
    found = mle.identifiability(around(mean), dict.fromkeys(start, dtype(0.3)), data)
    assert not found.identified
    assert found.rank == found.n_free - 1 == len(start) - 1
    first, second = repr(found).split("\n")
    assert first == f"Not identified: the data tell {len(start) - 1} of {len(start)} directions apart."
    assert second == text


def test_directions_are_in_the_units_of_the_parameters() -> None:
    """Of a product, through a constraint, at 2 times 3: the factors move by -2 to 3."""
    scaled = around(lambda p, x: p["a"] * p["b"] * x)
    found = mle.identifiability(scaled, {"a": 2.0, "b": 3.0}, POINTS, constraints=mle.positive)
    (direction,) = found.directions
    assert direction["b"] == 1
    # The best of five points near the start is not known from outside: the ratio is that of its factors.
    assert direction["a"] == pytest.approx(-2 / 3, rel=0.5)
    assert mle.identifiability(scaled, {"a": 2.0, "b": 3.0}, POINTS, constraints={"b": mle.fixed}).identified


def test_identified_though_the_start_is_no_good() -> None:
    """At a factor of zero, or between equal halves of a mixture, a single point would look singular."""
    product = around(lambda p, x: p["a"] + p["b"] * jnp.exp(-p["c"] * x))
    assert mle.identifiability(product, {"a": 0.0, "b": 0.0, "c": 1.0}, POINTS).identified

    def mixture(p: Any, x: Any) -> Any:
        return jnp.logaddexp(norm.logpdf(x, p["m"], 1.0), norm.logpdf(x, p["n"], 1.0))

    found = mle.identifiability(mixture, {"m": 0.0, "n": 0.0}, POINTS["y"])
    assert found.identified
    assert repr(found).startswith("Identified: the data tell all 2 directions apart (condition number ")


@pytest.mark.parametrize("scalar", [False, True])
def test_identifiability_of_joint_models(scalar: bool) -> None:
    def density(p: Any, data: Any) -> Any:
        each = -0.5 * (data["y"] - p["a"] - p["b"] - p["c"] * data["x"]) ** 2
        return jnp.sum(each) if scalar else each

    found = mle.identifiability(mle.joint(density), {"a": 0.0, "b": 0.0, "c": 0.0}, POINTS)
    assert repr(found).endswith("a and b: only their sum matters, not their difference.")
    fewer = mle.identifiability(
        mle.joint(density), {"a": 0.0, "b": 0.0, "c": 0.0}, POINTS, constraints={"b": mle.fixed}
    )
    assert fewer.identified


def test_identifiability_takes_what_fit_takes() -> None:
    density = lambda p, obs, args: -0.5 * (obs["y"] - p["a"] - p["b"] * args * obs["x"]) ** 2  # noqa: E731
    start = lambda data: {"a": jnp.mean(data["y"]), "b": jnp.asarray(1.0)}  # noqa: E731
    assert mle.identifiability(density, start, POINTS, args=jnp.asarray(2.0)).identified
    assert not mle.identifiability(density, start, POINTS, args=jnp.asarray(0.0)).identified
    one = np.array([1.0, 0, 0, 0, 0])
    assert mle.identifiability(density, start, POINTS, args=jnp.asarray(1.0), weights=one).rank == 1
    nothing = mle.identifiability(density, start, POINTS, args=jnp.asarray(1.0), constraints=mle.fixed)
    assert nothing.identified
    assert nothing.n_free == 0
    with pytest.raises(ValueError, match="init: the scores are not finite there"):
        mle.identifiability(lambda p, x: jnp.log(p - x), 1.0, POINTS["x"])


# --- comparison ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rivals() -> dict[str, mle.Fit]:
    """A line without slope and one with, for data that have a slope and for data that have none."""
    data = {name: np.stack([column, column]) for name, column in DATA.items()}
    data["y"][1] -= BEST["slope"] * data["x"][1]  # the level alone is the better model here
    flat = mle.fit_batch(line, {**START, "slope": 0.0}, data, constraints={**RULES, "slope": mle.fixed})
    return {"flat": flat, "line": mle.fit_batch(line, START, data, constraints=RULES)}


@pytest.mark.parametrize("criterion", ["aic", "aicc", "bic"])
def test_comparison_by_hand(criterion: str, rivals: dict[str, mle.Fit]) -> None:
    fits = {name: fit[0] for name, fit in rivals.items()}
    table = mle.compare(fits, criterion=criterion)
    level = {"intercept": DATA["y"].mean(), "sigma": DATA["y"].std()}
    heights = np.array(
        [
            scipy.stats.norm.logpdf(DATA["y"], level["intercept"], level["sigma"]).sum(),
            scipy.stats.norm.logpdf(RESIDUAL, 0, BEST["sigma"]).sum(),
        ]
    )
    k = np.array([2, 3])
    wanted = {
        "aic": -2 * heights + 2 * k,
        "aicc": -2 * heights + 2 * k + 2 * k * (k + 1) / (N - k - 1),
        "bic": -2 * heights + k * np.log(N),
    }
    np.testing.assert_allclose(table.log_likelihood, heights, rtol=1e-10)
    for name, values in wanted.items():
        np.testing.assert_allclose(getattr(table, name), values, rtol=1e-10)
    np.testing.assert_allclose(table.weight, scipy.special.softmax(-0.5 * wanted[criterion]), rtol=1e-7)
    assert table.best == "line"
    assert table.n_free == (2, 3)
    lines = repr(table).splitlines()
    assert lines[0] == f"Comparison by { {'aic': 'AIC', 'aicc': 'AICc', 'bic': 'BIC'}[criterion] }"
    assert repr(table).index("\nline") < repr(table).index("\nflat")
    frame = table.to_pandas()
    assert frame.index.tolist() == ["line", "flat"]
    np.testing.assert_allclose(frame.loc["flat", criterion], wanted[criterion][0], rtol=1e-10)


def test_comparison_of_batches(rivals: dict[str, mle.Fit]) -> None:
    table = mle.compare(rivals, criterion="bic")
    assert table.best.tolist() == ["line", "flat"]
    assert table.weight.shape == (2, 2)
    np.testing.assert_allclose(np.sum(table.weight, axis=1), 1, rtol=1e-12)
    one = mle.compare({name: fit[1] for name, fit in rivals.items()}, criterion="bic")
    np.testing.assert_allclose(table.weight[1], one.weight, rtol=1e-12)
    frame = table.to_pandas()
    assert frame.index.tolist() == [(0, "flat"), (0, "line"), (1, "flat"), (1, "line")]
    assert frame["status"].tolist() == ["converged"] * 4
    text = repr(table)
    assert text.startswith("Comparison of 2 fits over 2 data sets")
    assert "50.0%" in text
    assert "<table" in table._repr_html_()


def test_comparison_with_a_fit_that_did_not_converge(fit: mle.Fit) -> None:
    lost = mle.fit(line, START, DATA, constraints=RULES, max_steps=1)
    assert not lost.converged
    table = mle.compare({"lost": lost, "found": fit})
    assert np.isnan(table.aic).tolist() == [True, False]
    assert table.weight.tolist() == [0, 1]
    assert table.best == "found"
    assert "max_steps" in repr(table)
    none = mle.compare({"lost": lost})
    assert none.best is None
    assert none.weight.tolist() == [0]  # as the docstring says of a fit that did not converge


def test_comparison_says_what_is_wrong(fit: mle.Fit, rivals: dict[str, mle.Fit]) -> None:
    with pytest.raises(TypeError, match="fits must be a dict of fits by name, got list"):
        mle.compare([fit])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fits: there are none"):
        mle.compare({})
    with pytest.raises(ValueError, match="criterion must be one of aic, aicc, bic; got 'dic'"):
        mle.compare({"line": fit}, criterion="dic")
    with pytest.raises(ValueError, match="compare like with like"):
        mle.compare({"line": fit, "batch": rivals["line"]})
    short = {name: column[:20] for name, column in DATA.items()}
    with pytest.raises(ValueError, match="different numbers of observations"):
        mle.compare({"line": fit, "short": mle.fit(line, START, short, constraints=RULES)})


# --- prediction ----------------------------------------------------------------------------------------------

NEW = {"x": np.array([-1.0, 0.0, 2.0, 4.0])}
AHEAD = np.column_stack([np.ones(4), NEW["x"]])


@pytest.mark.parametrize(("level", "kind"), [(0.95, "observed"), (0.8, "sandwich")])
def test_prediction_by_hand(level: float, kind: str, fit: mle.Fit) -> None:
    found = fit.predict(lambda p, o: {"mean": p["intercept"] + p["slope"] * o["x"]}, NEW, level=level, kind=kind)
    value = AHEAD @ [BEST["intercept"], BEST["slope"]]
    inverse = np.linalg.inv(DESIGN.T @ DESIGN)
    middle = DESIGN.T * RESIDUAL**2 @ DESIGN if kind == "sandwich" else DESIGN.T @ DESIGN * BEST["sigma"] ** 2
    error = np.sqrt(np.sum(AHEAD @ inverse @ middle @ inverse * AHEAD, axis=1))
    z = scipy.stats.norm.ppf(0.5 + level / 2)
    np.testing.assert_allclose(found.value["mean"], value, rtol=1e-10)
    np.testing.assert_allclose(found.standard_error["mean"], error, rtol=1e-8)
    np.testing.assert_allclose(found.lower["mean"], value - z * error, rtol=1e-8)
    np.testing.assert_allclose(found.upper["mean"], value + z * error, rtol=1e-8)


def test_prediction_of_vectors_is_an_estimate(fit: mle.Fit) -> None:
    """Each row as `estimate` has it, where sigma takes part in a product."""
    both = lambda p, o: jnp.stack([p["intercept"] + p["slope"] * o["x"], p["sigma"] * o["x"]])  # noqa: E731
    found = fit.predict(both, NEW)
    assert found.value.shape == (4, 2)
    one = fit.estimate(lambda p: both(p, {"x": 4.0}))
    np.testing.assert_allclose(found.value[3], one.value, rtol=1e-12)
    np.testing.assert_allclose(found.standard_error[3], one.standard_error, rtol=1e-10)


def test_prediction_of_a_regression(counts: mle.Fit) -> None:
    """By default the family's parameters, of new data without a response; in a batch for shared or own data."""
    shared = counts.predict(data=NEW)
    assert list(shared.value) == ["rate"]
    covariance = np.asarray(counts.covariance())
    for i in (0, 1):
        value = np.exp(AHEAD @ [counts.params["const"][i], counts.params["slope"][i]])
        error = value * np.sqrt(np.sum(AHEAD @ covariance[i] * AHEAD, axis=1))
        np.testing.assert_allclose(shared.value["rate"][i], value, rtol=1e-10)
        np.testing.assert_allclose(shared.standard_error["rate"][i], error, rtol=1e-8)
        alone = counts[i].predict(data=NEW)
        np.testing.assert_allclose(alone.upper["rate"], shared.upper["rate"][i], rtol=1e-10)
    assert np.all(np.isnan(shared.standard_error["rate"][2]))
    shifted = np.stack([NEW["x"], NEW["x"] + 1, NEW["x"]])
    own = counts.predict(data={"x": shifted}, data_axis=0)
    np.testing.assert_allclose(own.lower["rate"][0], shared.lower["rate"][0], rtol=1e-12)
    np.testing.assert_allclose(own.value["rate"][1, 0], shared.value["rate"][1, 1], rtol=1e-12)


def test_prediction_with_args() -> None:
    model = mle.regression(lambda p, obs, power: (p["a"] + p["b"] * obs["x"] ** power, 1.0), FAMILIES.normal)
    fit = mle.fit(model, {"a": 0.0, "b": 0.0}, DATA, args=jnp.asarray(2.0))
    found = fit.predict(data=NEW)
    assert list(found.value) == ["mean", "scale"]
    coef, *_ = np.linalg.lstsq(np.column_stack([np.ones(N), DATA["x"] ** 2]), DATA["y"])
    np.testing.assert_allclose(found.value["mean"], coef[0] + coef[1] * NEW["x"] ** 2, rtol=1e-9)
    np.testing.assert_allclose(found.standard_error["scale"], 0)


def test_prediction_says_what_is_missing(fit: mle.Fit, counts: mle.Fit) -> None:
    with pytest.raises(ValueError, match="fn: say what to predict"):
        fit.predict(data=NEW)
    with pytest.raises(ValueError, match="data: the observations to predict are missing"):
        counts.predict()
    with pytest.raises(ValueError, match="data_axis must be None or 0, got 1"):
        counts.predict(data=NEW, data_axis=1)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        counts.predict(data=NEW, level=95)
    with pytest.raises(ValueError, match="all leaves must share their leading axis"):
        counts.predict(data={"x": np.zeros(3), "z": np.zeros(4)})
    with pytest.raises(ValueError, match=r"data: .*3 data sets"):
        counts.predict(data={"x": np.zeros((2, 4))}, data_axis=0)
    with pytest.raises(ValueError, match="data_axis"):
        counts[0].predict(data={"x": np.zeros((3, 4))}, data_axis=0)


def test_inside_jit(fit: mle.Fit) -> None:
    @jax.jit
    def every(data: Any) -> Any:
        inner = mle.fit(line, START, data, constraints=RULES)
        diagnosis, table = inner.diagnose(), mle.compare({"line": inner})
        assert repr(diagnosis) == "Diagnosis(<traced>)"
        assert repr(table) == "Comparison(<traced>, line)"
        ahead = inner.predict(lambda p, o: p["intercept"] + p["slope"] * o["x"], NEW)
        return inner.influence(), diagnosis.largest, table.aic, ahead.upper

    wanted = (
        fit.influence(),
        fit.diagnose().largest,
        np.array([fit.aic]),
        fit.predict(lambda p, o: p["intercept"] + p["slope"] * o["x"], NEW).upper,
    )
    for one, other in zip(every(DATA), wanted):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("scalar", [False, True])
def test_identifiability_of_a_joint_model_with_args(scalar: bool) -> None:
    def contributions(params: Any, data: Any, args: Any) -> Any:
        values = -0.5 * (data - (params["a"] + params["b"]) * args) ** 2
        return jnp.sum(values) if scalar else values

    found = mle.identifiability(
        mle.joint(contributions), {"a": 0.0, "b": 1.0}, jnp.arange(5.0), args=jnp.asarray(2.0)
    )
    assert not found.identified
    assert found.rank == 1
