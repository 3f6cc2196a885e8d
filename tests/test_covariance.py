"""Every kind of covariance: against statsmodels, closed forms and NumPy; weighted, clustered, batched, ragged."""

from __future__ import annotations

import functools
import itertools
import warnings
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.special
import scipy.stats
import statsmodels.api as sm

import mlekit as mle
from mlekit.inference.covariance_kinds import KINDS, AbstractCovarianceKind, CovarianceOptions
from mlekit.inference.record import FitRecord

from .marks import mostly_slow
from .models import RULES, START, least_squares, line, line_data

FAMILIES = mle.families
N = 60


def seasons(n_obs: int = N, seed: int = 3) -> dict[str, np.ndarray]:
    """Counts that vary more than the model says, alike within firms and years."""
    rng = np.random.default_rng(seed)
    firm, year = rng.integers(0, 9, n_obs), rng.integers(0, 6, n_obs)
    shift = 0.4 * rng.normal(size=9)[firm] + 0.4 * rng.normal(size=6)[year]
    x = rng.normal(size=n_obs)
    y = rng.poisson(np.exp(1 + 0.5 * x + shift) * rng.gamma(2.0, 0.5, n_obs)).astype(float)
    return {"x": x, "y": y, "firm": firm, "year": year}


DATA = seasons()
LABELS = np.column_stack([DATA["firm"], DATA["year"]])
COUNTS = mle.regression(lambda p, obs: p["level"] * jnp.exp(p["slope"] * obs["x"]), FAMILIES.poisson)
COUNTS_START = {"level": 2.0, "slope": 0.0}
COUNTS_RULES = {"level": mle.positive}


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    """Two parameters, one of them through a constraint."""
    return mle.fit(COUNTS, COUNTS_START, DATA, constraints=COUNTS_RULES)


# --- statsmodels ---------------------------------------------------------------------------------------------


@functools.cache
def statsmodels_counts(kind: str, correction: bool = False, columns: tuple[int, ...] = ()) -> np.ndarray:
    """The covariance of level and slope; statsmodels has the logarithm of the level."""
    model = sm.Poisson(DATA["y"], sm.add_constant(DATA["x"]))
    by_kind: dict[str, dict[str, Any]] = {
        "cluster": {"cov_kwds": {"groups": np.squeeze(LABELS[:, list(columns)]), "use_correction": correction}},
        "HAC": {"cov_kwds": {"maxlags": 4, "use_correction": correction}},
    }
    found = model.fit(method="newton", tol=1e-13, disp=0, cov_type=kind, **by_kind.get(kind, {}))
    scale = np.array([np.exp(found.params[0]), 1.0])
    return found.cov_params() * np.outer(scale, scale)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"kind": "observed"}, ("nonrobust",)),
        ({"kind": "sandwich"}, ("HC0",)),
        ({"kind": "sandwich", "clusters": "firm"}, ("cluster", False, (0,))),
        ({"kind": "sandwich", "clusters": "firm", "small_sample": "regression"}, ("cluster", True, (0,))),
        ({"kind": "sandwich", "clusters": ["firm", "year"]}, ("cluster", False, (0, 1))),
        (
            {"kind": "sandwich", "clusters": ["firm", "year"], "small_sample": "regression"},
            ("cluster", True, (0, 1)),
        ),
        ({"kind": "hac", "lags": 4}, ("HAC", False)),
        ({"kind": "hac", "lags": 4, "small_sample": "regression"}, ("HAC", True)),
    ],
    ids=lambda case: "-".join(map(str, case.values())) if isinstance(case, dict) else "",
)
def test_statsmodels_agrees(fit: mle.Fit, ours: dict[str, Any], theirs: tuple[Any, ...]) -> None:
    np.testing.assert_allclose(fit.covariance(**ours), statsmodels_counts(*theirs), rtol=1e-8)


def test_small_samples(fit: mle.Fit) -> None:
    """The factors that statsmodels has no name for: G/(G-1) alone, and each observation a cluster of its own."""
    one, two = fit.covariance("sandwich"), fit.covariance("sandwich", "firm")
    np.testing.assert_allclose(fit.covariance("sandwich", small_sample="clusters"), one * 60 / 59, rtol=1e-12)
    np.testing.assert_allclose(fit.covariance("sandwich", small_sample="regression"), one * 60 / 58, rtol=1e-12)
    np.testing.assert_allclose(
        fit.covariance("sandwich", "firm", small_sample="clusters"), two * 9 / 8, rtol=1e-12
    )
    np.testing.assert_allclose(fit.covariance("sandwich", np.arange(N)), one, rtol=1e-10)
    np.testing.assert_allclose(fit.covariance("hac", lags=0), one, rtol=1e-10)
    # All lags there are and more: weights go on falling, products of rows that are not there are zero.
    scores, bread = np.asarray(fit.scores()), np.linalg.inv(fit.information())
    jacobian = np.asarray(fit.parameters.jacobian(fit._solution.free))
    distance = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))
    middle = scores.T @ np.maximum(0, 1 - distance / 101) @ scores
    np.testing.assert_allclose(
        fit.covariance("hac", lags=100), jacobian @ bread @ middle @ bread @ jacobian.T, rtol=1e-8, atol=1e-12
    )


def test_three_ways_at_once(fit: mle.Fit) -> None:
    """Inclusion and exclusion, written out."""
    third = np.arange(N) % 5
    ways = [DATA["firm"], DATA["year"], third]
    total = np.zeros((2, 2))
    for size in (1, 2, 3):
        for some in itertools.combinations(ways, size):
            label = np.unique(np.column_stack(some), axis=0, return_inverse=True)[1].ravel()
            total += (-1) ** (size + 1) * np.asarray(fit.covariance("sandwich", label))
    np.testing.assert_allclose(fit.covariance("sandwich", ways), total, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    "clusters",
    [
        ["firm", "year"],
        (LABELS[:, 0], LABELS[:, 1]),
        [LABELS[:, 0].tolist(), [f"in {1990 + year}" for year in LABELS[:, 1]]],
        [[f"firm {firm}" for firm in LABELS[:, 0]], "year"],
        pd.DataFrame({"firm": pd.Categorical(LABELS[:, 0]), "year": [f"y{year}" for year in LABELS[:, 1]]}),
        pa.table({"firm": LABELS[:, 0], "year": pa.array([f"y{year}" for year in LABELS[:, 1]])}),
        [pd.Series(LABELS[:, 0] - 4.5), pd.Timestamp("2020-01-01") + pd.to_timedelta(LABELS[:, 1], unit="D")],
    ],
    ids=["names", "arrays", "lists", "name and strings", "pandas", "pyarrow", "floats and dates"],
)
def test_labels_in_every_form(fit: mle.Fit, clusters: Any) -> None:
    wanted = statsmodels_counts("cluster", False, (0, 1))
    np.testing.assert_allclose(fit.covariance("sandwich", clusters), wanted, rtol=1e-8)


def test_one_way_in_every_form(fit: mle.Fit) -> None:
    wanted = fit.covariance("sandwich", "firm")
    firm = DATA["firm"]
    for labels in (
        firm,
        firm.tolist(),
        jnp.asarray(firm),
        firm - 100,
        firm * 2**40,
        firm.astype("U3"),
        pd.Series(firm),
    ):
        np.testing.assert_allclose(fit.covariance("sandwich", labels), wanted, rtol=1e-12)
    np.testing.assert_allclose(
        fit.covariance("sandwich", firm > 3), fit.covariance("sandwich", np.where(firm > 3, "a", "b")), rtol=1e-12
    )
    errors = fit.standard_errors("sandwich", clusters="firm")
    np.testing.assert_allclose(errors["level"], np.sqrt(wanted[0, 0]))
    low, high = fit.intervals(kind="sandwich", clusters="firm")["level"]
    np.testing.assert_allclose(high - low, 2 * scipy.stats.norm.ppf(0.975) * errors["level"], rtol=1e-9)


def test_labels_that_are_missing_are_a_cluster_of_their_own(fit: mle.Fit) -> None:
    firm = DATA["firm"]
    labels = np.array([None if one == 0 else f"firm {one}" for one in firm], object)
    np.testing.assert_allclose(fit.covariance("sandwich", labels), fit.covariance("sandwich", "firm"), rtol=1e-12)


# --- the expected information --------------------------------------------------------------------------------


def negative_binomial_information(mean: np.ndarray, alpha: float) -> np.ndarray:
    """Of alpha: the variance of its score, summed over counts, with the score from a difference quotient."""
    y, h = np.arange(4000)[:, None], 1e-5
    log_density = lambda a: scipy.stats.nbinom.logpmf(y, 1 / a, 1 / (1 + a * mean))  # noqa: E731
    score = (log_density(alpha + h) - log_density(alpha - h)) / (2 * h)
    return np.sum(np.where(np.isfinite(score), score, 0) ** 2 * np.exp(log_density(alpha)), axis=0)


def blocks(first: np.ndarray, last: float) -> np.ndarray:
    whole = np.zeros((3, 3))
    whole[:2, :2], whole[2, 2] = first, last
    return whole


def information_of(name: str, fit: mle.Fit, design: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """About constant, slope and the second parameter of the family, in natural units."""
    coef = np.array([fit.params["const"], fit.params["slope"]])
    second = float(fit.params["alpha"]) if name != "poisson" else 0.0
    line, mean = design @ coef, np.exp(design @ coef)
    square = lambda each: (design * (weights * each)[:, None]).T @ design  # noqa: E731
    total = weights.sum()
    if name == "normal":
        return blocks(square(np.full(len(line), 1 / second**2)), 2 * total / second**2)
    if name == "poisson":  # with the identity as link
        return square(1 / line)
    if name == "gamma":
        return blocks(
            square(np.full(len(line), second)), total * (scipy.special.polygamma(1, second) - 1 / second)
        )
    return blocks(square(mean / (1 + second * mean)), float(weights @ negative_binomial_information(mean, second)))


PREDICTORS = {
    "normal": lambda p, o: (p["const"] + p["slope"] * o["x"], p["alpha"]),
    "poisson": lambda p, o: p["const"] + p["slope"] * o["x"],
    "gamma": lambda p, o: (jnp.exp(p["const"] + p["slope"] * o["x"]), p["alpha"]),
    "negative_binomial": lambda p, o: (jnp.exp(p["const"] + p["slope"] * o["x"]), p["alpha"]),
}


@pytest.mark.parametrize("name", mostly_slow(PREDICTORS, "normal", "poisson", "negative_binomial"))
def test_expected_information_in_closed_form(name: str) -> None:
    """With frequency weights, one of which is zero."""
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 1, 40)
    y = {
        "normal": 1 + x + rng.normal(size=40),
        "gamma": np.exp(1 + x) * rng.gamma(3.0, 1 / 3, 40),
    }.get(name, rng.poisson(np.exp(1 + x) * rng.gamma(2.0, 0.5, 40)))
    weights = rng.integers(0, 4, 40).astype(float)
    start = {"const": 3.0, "slope": 0.0} | ({} if name == "poisson" else {"alpha": 1.0})
    rules = None if name == "poisson" else {"alpha": mle.positive}
    model = mle.regression(PREDICTORS[name], getattr(FAMILIES, name))
    fit = mle.fit(model, start, {"x": x, "y": y}, constraints=rules, weights=weights)
    assert fit.converged
    information = information_of(name, fit, np.column_stack([np.ones(40), x]), weights)
    names = ("const", "slope", "alpha")[: len(information)]
    # The reference for a negative binomial is a difference quotient.
    digits = 1e-7 if name == "negative_binomial" else 1e-9
    order = [names.index(one) for one in fit.parameter_names]
    wanted = np.linalg.inv(information)[np.ix_(order, order)]
    np.testing.assert_allclose(fit.covariance("expected"), wanted, rtol=digits, atol=1e-14)


COPIES, DRAWS = 100, 100


@pytest.mark.slow
def test_simulation_agrees_with_the_exact_information() -> None:
    """A hundred copies of one data set have keys of their own: the errors are spread as they say."""

    def simulate(key: Any, params: Any, obs: Any) -> Any:
        mean = params["intercept"] + params["slope"] * obs["x"]
        return {"x": obs["x"], "y": mean + params["sigma"] * jax.random.normal(key)}

    data = line_data(20)
    copies = {name: np.broadcast_to(column, (COPIES, 20)) for name, column in data.items()}
    fits = mle.fit_batch(mle.Model(line, simulate=simulate), START, copies, constraints=RULES)
    found = mle.expected_information(fits, jax.random.key(0), n_simulations=DRAWS)
    # Of a normal line the expected information at the maximum is the observed one.
    for name, exact in (("information", fits.information()), ("covariance", of_line(data, "observed"))):
        value, error = np.asarray(getattr(found, name)), np.asarray(getattr(found, f"{name}_error"))
        score = (value - np.asarray(exact)) / error
        assert np.all(np.abs(score) < 6), np.abs(score).max()
        # A hundred draws of a standard deviation of one give 1 ± 0.07; the inverse is not quite linear.
        spread = np.sqrt(np.mean(score**2, axis=0))
        assert np.all(np.abs(spread - 1) < 0.3), spread
        assert np.all(np.abs(score.mean(axis=0)) < 0.5)  # five standard deviations of a mean of a hundred
    one = jax.tree.map(lambda leaf: leaf[7], found)
    share = np.max(0.5 * np.diag(one.covariance_error) / np.diag(one.covariance))
    assert repr(one) == (
        "ExpectedInformation: 3 x 3, from 100 simulated data sets; "
        f"standard errors are known to within {100 * share:.2g} % (one Monte Carlo standard error)"
    )
    # One of a batch keeps its key.
    again = fits[7].covariance("expected", key=jax.random.key(0), n_simulations=DRAWS)
    np.testing.assert_allclose(again, found.covariance[7], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("scalar", [False, True], ids=["contributions", "scalar"])
def test_simulation_of_a_joint_model(scalar: bool) -> None:
    """A mean of a series with known correlation: the information is 1' V^-1 1."""

    def density(params: Any, data: Any) -> Any:
        off = data["x"] - params
        each = -0.5 * (off - 0.5 * jnp.concatenate([jnp.zeros(1), off[:-1]])) ** 2
        return jnp.sum(each) if scalar else each

    def simulate(key: Any, params: Any, data: Any) -> Any:
        noise = jax.random.normal(key, data["x"].shape)
        step = lambda last, new: (0.5 * last + new,) * 2  # noqa: E731
        return {"x": params + jax.lax.scan(step, 0.0, noise)[1]}

    model = mle.Model(mle.joint(density), simulate=simulate)
    fit = mle.fit(model, 0.0, {"x": np.linspace(-1, 3, 20)})
    found = mle.expected_information(fit, jax.random.key(1), n_simulations=2000)
    error = float(found.information_error[0, 0])
    # A squared normal has twice the square of its mean as variance.
    np.testing.assert_allclose(error, 5.75 * np.sqrt(2 / 2000), rtol=0.15)
    assert abs(float(found.information[0, 0]) - (1 + 19 / 4)) < 4 * error


# --- constraints, fixed and tied parameters ------------------------------------------------------------------


@pytest.mark.slow
def test_a_simplex_in_every_kind() -> None:
    """A saturated multinomial: all informations are the same, the covariance is (diag p - p p') / n."""
    draws = np.repeat(np.arange(3), [12, 20, 28])
    fit = mle.fit(lambda p, one: jnp.log(p[one]), np.full(3, 1 / 3), draws, constraints=mle.simplex)
    p = np.array([12, 20, 28]) / 60
    wanted = (np.diag(p) - np.outer(p, p)) / 60
    for kind in ("observed", "opg", "sandwich"):
        np.testing.assert_allclose(fit.covariance(kind), wanted, rtol=1e-9, atol=1e-15, err_msg=kind)


def test_fixed_and_tied() -> None:
    """A fixed parameter has no variance, a tied one that of its twin; what is left is a mean of `y - x`."""
    data = line_data()
    start = {**START, "twin": 0.0}
    rules = {"slope": mle.fixed, "sigma": mle.fixed, "twin": mle.tied(to="intercept")}
    halves = lambda p, obs: line({**p, "intercept": 0.5 * (p["intercept"] + p["twin"])}, obs)  # noqa: E731
    fit = mle.fit(halves, start, data, constraints=rules)
    nothing = mle.fit(line, START, data, constraints=mle.fixed)
    moving = np.array([name in ("intercept", "twin") for name in fit.parameter_names])
    off = data["y"] - data["x"]
    off = off - off.mean()
    cases: list[tuple[dict[str, Any], float]] = [
        ({"kind": "observed"}, 1 / 40),
        ({"kind": "opg"}, 1 / (off @ off)),
        ({"kind": "sandwich"}, off @ off / 1600),
        ({"kind": "hac", "lags": 2}, newey_west(off[:, None], 2)[0, 0] / 1600),
    ]
    for options, variance in cases:
        wanted = variance * np.outer(moving, moving)
        np.testing.assert_allclose(fit.covariance(**options), wanted, rtol=1e-10, atol=1e-18)
        assert np.array_equal(nothing.covariance(**options), np.zeros((3, 3)))


# --- batches, ragged data and groups against NumPy -----------------------------------------------------------


def newey_west(scores: np.ndarray, lags: int) -> np.ndarray:
    distance = np.abs(np.subtract.outer(np.arange(len(scores)), np.arange(len(scores))))
    return scores.T @ np.maximum(0, 1 - distance / (lags + 1)) @ scores


def of_line(
    data: Any, kind: str, ways: tuple[np.ndarray, ...] = (), small: bool = False, lags: int = 0
) -> np.ndarray:
    """The covariance of intercept, sigma and slope of `line` at its maximum, by hand."""
    best, n = least_squares(data), len(data["x"])
    design, s = np.column_stack([np.ones(n), data["x"]]), best["sigma"]
    residual = data["y"] - design @ [best["intercept"], best["slope"]]
    bread = np.linalg.inv(blocks(design.T @ design / s**2, 2 * n / s**2))[np.ix_([0, 2, 1], [0, 2, 1])]
    scores = np.column_stack([residual / s**2, residual**2 / s**3 - 1 / s, data["x"] * residual / s**2])
    if kind == "observed":
        return bread
    if kind == "opg":
        return np.linalg.inv(scores.T @ scores)
    factor = lambda groups: groups / (groups - 1) * (n - 1) / (n - 3) if small else 1.0  # noqa: E731
    if kind == "hac":
        return factor(n) * bread @ newey_west(scores, lags) @ bread
    middle = np.zeros((3, 3))
    for size in range(1, len(ways) + 1):
        for some in itertools.combinations(ways, size):
            label = np.unique(np.column_stack(some), axis=0, return_inverse=True)[1].ravel()
            sums = np.array([scores[label == one].sum(axis=0) for one in np.unique(label)])
            middle -= (-1) ** size * factor(len(sums)) * sums.T @ sums
    middle = middle if ways else factor(n) * scores.T @ scores
    return bread @ middle @ bread


LENGTHS = np.array([25, 12, 18])
CASES: dict[str, dict[str, Any]] = {
    "opg": {"kind": "opg"},
    "sandwich": {"kind": "sandwich", "small_sample": "regression"},
    "two ways": {"kind": "sandwich", "clusters": ["a", "b"], "small_sample": "regression"},
    "hac": {"kind": "hac", "lags": 3, "small_sample": "regression"},
}


def ragged_data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    labels = {"a": rng.integers(0, 5, (3, 25)), "b": rng.integers(-2, 2, (3, 25))}
    return {**line_data(25, 3, seed=7), **labels}


@pytest.fixture(scope="module")
def ragged() -> mle.Fit:
    padded = ragged_data()
    for i, length in enumerate(LENGTHS):
        padded["a"][i, length:] = 99  # neither clusters nor rows of padding may count
        padded["x"][i, length:] = np.nan
    return mle.fit_batch(line, START, padded, constraints=RULES, lengths=LENGTHS)


@pytest.fixture(scope="module")
def grouped() -> mle.Fit:
    """The same rows in groups, out of order: groups keep the order of their rows."""
    data = ragged_data()
    parts = {name: np.concatenate([column[i, :n] for i, n in enumerate(LENGTHS)]) for name, column in data.items()}
    number = np.repeat(np.arange(3), LENGTHS)
    mixed = np.concatenate([np.flatnonzero(number == one) for one in (2, 0, 1)])
    table = pa.table({**parts, "number": number}).take(pa.array(mixed))
    return mle.fit_batch(line, START, mle.group_by(table, "number"), constraints=RULES)


@pytest.mark.parametrize("case", mostly_slow(["sandwich", "two ways", "hac"], "sandwich", "hac"))
def test_ragged_sets_and_groups(case: str, ragged: mle.Fit, grouped: mle.Fit) -> None:
    options, data = CASES[case], ragged_data()
    wanted = []
    for i, n in enumerate(LENGTHS):
        own = {name: column[i, :n] for name, column in data.items()}
        ways = tuple(own[name] for name in options.get("clusters", ()))
        wanted.append(of_line(own, options["kind"], ways, "small_sample" in options, options.get("lags", 0)))
    np.testing.assert_allclose(ragged.covariance(**options), wanted, rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose(grouped.covariance(**options), wanted, rtol=1e-8, atol=1e-13)
    if case == "two ways":  # one of them, and some of them, know which rows are theirs
        for fits in (ragged, grouped):
            np.testing.assert_allclose(fits[1].covariance(**options), wanted[1], rtol=1e-8, atol=1e-13)
        some = grouped[[2, 0]].covariance(**options)
        np.testing.assert_allclose(some, np.array(wanted)[[2, 0]], rtol=1e-8, atol=1e-13)


@pytest.fixture(scope="module")
def batch() -> mle.Fit:
    return mle.fit_batch(line, START, ragged_data(), constraints=RULES)


@pytest.mark.parametrize("case", ["opg", "two ways"])
def test_batches_are_single_fits(case: str, batch: mle.Fit) -> None:
    data, options = ragged_data(), dict(CASES[case])
    together = batch.covariance(**options)
    for i in range(3):
        own = {name: column[i] for name, column in data.items()}
        alone = mle.fit(line, START, own, constraints=RULES).covariance(**options)
        np.testing.assert_allclose(together[i], alone, rtol=1e-9, atol=1e-15)
    if "clusters" in options:
        options["clusters"] = [data["a"].astype("U2"), data["b"]]
        np.testing.assert_allclose(batch.covariance(**options), together, rtol=1e-12)


def test_clusters_of_each_set_of_a_batch(batch: mle.Fit) -> None:
    """Labels may come back in the next data set, and mean another cluster there."""
    labels = ragged_data()["a"]
    found = batch.covariance("sandwich", labels)
    wanted = batch.covariance("sandwich", labels + 10 * np.arange(3)[:, None])
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


# --- weights -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weighted_and_repeated() -> tuple[mle.Fit, mle.Fit]:
    weights = np.random.default_rng(2).integers(0, 4, N)
    repeated = {name: np.repeat(column, weights) for name, column in DATA.items()}
    hidden = {**DATA, "x": np.where(weights == 0, np.nan, DATA["x"])}  # what weighs nothing may be anything
    one = mle.fit(COUNTS, COUNTS_START, hidden, constraints=COUNTS_RULES, weights=weights)
    return one, mle.fit(COUNTS, COUNTS_START, repeated, constraints=COUNTS_RULES)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "observed"},
        {"kind": "expected"},
        {"kind": "opg"},
        {"kind": "sandwich", "small_sample": "regression"},
        {"kind": "sandwich", "clusters": ["firm", "year"], "small_sample": "regression"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_weight_repeats_a_row(weighted_and_repeated: tuple[mle.Fit, mle.Fit], options: dict[str, Any]) -> None:
    weighted, repeated = weighted_and_repeated
    np.testing.assert_allclose(
        weighted.covariance(**options), repeated.covariance(**options), rtol=1e-8, atol=1e-14
    )


def test_simulation_ignores_rows_without_weight(weighted_and_repeated: tuple[mle.Fit, mle.Fit]) -> None:
    weighted, _ = weighted_and_repeated
    found = mle.expected_information(weighted, jax.random.key(3), n_simulations=400)
    exact = np.asarray(weighted.information("expected"))
    assert np.all(np.abs(np.asarray(found.information) - exact) < 4.5 * np.asarray(found.information_error))


@pytest.mark.slow
def test_weights_of_groups() -> None:
    data = ragged_data()
    weights = np.random.default_rng(1).integers(1, 4, (3, 25))
    table = {name: column.ravel() for name, column in {**data, "w": weights}.items()}
    groups = mle.group_by({**table, "set": np.repeat(np.arange(3), 25)}, "set")
    fits = mle.fit_batch(line, START, groups, constraints=RULES, weights="w")
    found = fits.covariance("sandwich", "a", small_sample="regression")
    for i in range(3):
        repeated = {name: np.repeat(column[i], weights[i]) for name, column in data.items()}
        wanted = of_line(repeated, "sandwich", (repeated["a"],), True)
        np.testing.assert_allclose(found[i], wanted, rtol=1e-8, atol=1e-13)


# --- where there is no covariance ----------------------------------------------------------------------------


def test_one_cluster_alone(fit: mle.Fit) -> None:
    with pytest.warns(
        UserWarning, match=r"kind='sandwich' gives this fit no standard errors \(NaN\): the sum over clus"
    ):
        assert np.all(np.isnan(fit.covariance("sandwich", np.zeros(N, int))))
    with pytest.warns(UserWarning, match="one alone"):
        assert np.all(np.isnan(fit.covariance("sandwich", ["firm", np.zeros(N, int)])))


def test_a_warning_points_at_the_line_that_asked(fit: mle.Fit) -> None:
    for ask in (fit.covariance, fit.standard_errors):
        with pytest.warns(UserWarning, match="no standard errors") as record:
            ask("sandwich", np.zeros(N, int))
        assert record[0].filename == __file__, ask


def test_a_negative_variance_has_no_error() -> None:
    """Two ways less their common part need not be positive."""
    draw = np.random.default_rng(0).integers
    data = line_data()
    fit = mle.fit(line, START, data, constraints=RULES)
    for _ in range(50):  # nearly all pairs of few clusters have one
        ways = [draw(0, 3, 40), draw(0, 3, 40)]
        wanted = np.diag(of_line(data, "sandwich", tuple(ways)))
        if np.any(wanted < 0):
            break
    with pytest.warns(UserWarning, match="the sum over clusters is not positive"):
        errors = fit.standard_errors("sandwich", ways)
    negative = [bool(np.isnan(errors[name])) for name in fit.parameter_names]
    assert negative == (wanted < 0).tolist()
    assert any(negative)


def test_too_few_different_observations() -> None:
    """Observations at one distance from their mean say nothing of the scale by their scores."""
    spread = np.array([[-1.0, 1.0, -1.0, 1.0], [-1.0, 1.0, 0.5, 2.0]])
    fits = mle.fit_batch(
        line, START, {"x": np.zeros((2, 4)), "y": spread}, constraints={**RULES, "slope": mle.fixed}
    )
    with pytest.warns(UserWarning, match=r"kind='opg' gives 1 of 2 data sets .* too few different observations"):
        matrix = fits.covariance("opg")
    assert np.all(np.isnan(matrix[0]))
    assert np.all(np.isfinite(matrix[1]))
    with pytest.warns(UserWarning, match="kind='opg' gives this fit no standard errors"):
        assert np.isnan(fits[0].standard_errors("opg")["sigma"])


def test_fits_that_did_not_converge_have_none() -> None:
    """Without a warning, as the status says it already; and the neighbour keeps its own."""
    model = mle.regression(lambda p, obs: p * obs["x"], FAMILIES.bernoulli)
    x = np.linspace(-1, 1, 20) + 0.01
    y = np.stack([x > 0, np.arange(20) % 3 > 0]).astype(float)
    fits = mle.fit_batch(model, 0.0, {"x": np.stack([x, x]), "y": y})
    assert fits.status.names() == ["unbounded", "converged"]
    asked: list[dict[str, Any]] = [{"kind": "observed"}, {"kind": "expected"}, {"kind": "hac", "lags": 1}]
    for options in asked:
        matrix = fits.covariance(**options)
        assert np.isnan(matrix[0, 0, 0])
        assert matrix[1, 0, 0] > 0


# --- arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"kind": "exact"}, "kind must be one of observed, expected, opg, sandwich, hac"),
        ({"kind": "opg", "clusters": "firm"}, "clusters go with kind='sandwich'"),
        ({"kind": "observed", "small_sample": "clusters"}, "small_sample goes with"),
        ({"kind": "sandwich", "small_sample": "few"}, "small_sample must be one of clusters, regression"),
        ({"kind": "hac"}, "wants lags="),
        ({"kind": "sandwich", "lags": 2}, "lags go with kind='hac'"),
        ({"kind": "hac", "lags": -1}, "lags must be a whole number"),
        ({"kind": "hac", "lags": 1.5}, "lags must be a whole number"),
        ({"kind": "hac", "lags": True}, "lags must be a whole number"),
        ({"kind": "opg", "key": jax.random.key(0)}, "key goes with kind='expected'"),
        ({"kind": "opg", "n_simulations": 500}, "n_simulations goes with a key and kind='expected'"),
        (
            {"kind": "expected", "key": jax.random.key(0), "n_simulations": 1},
            "n_simulations must be a whole number of at least 2",
        ),
        ({"kind": "sandwich", "clusters": "company"}, "clusters: 'company' is no column of the data, .* firm"),
        ({"kind": "sandwich", "clusters": np.arange(5)}, r"clusters must hold one label .* \(60,\); got \(5,\)"),
        ({"kind": "sandwich", "clusters": LABELS}, r"clusters must hold one label .* \(60,\); got \(60, 2\)"),
        ({"kind": "sandwich", "clusters": []}, "clusters"),
    ],
    ids=str,
)
def test_errors_name_the_argument(fit: mle.Fit, options: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        fit.covariance(**options)


def test_errors_of_other_models(grouped: mle.Fit, weighted_and_repeated: tuple[mle.Fit, mle.Fit]) -> None:
    with pytest.raises(ValueError, match="clusters of groups are names of columns"):
        grouped.covariance("sandwich", np.zeros(55, int))
    with pytest.raises(ValueError, match="no simulate"):
        grouped.covariance("expected")
    with pytest.raises(ValueError, match=r"kind='expected' is exact for a mle\.regression"):
        grouped.information("expected")
    with pytest.raises(ValueError, match="no meaning with weights"):
        weighted_and_repeated[0].covariance("hac", lags=1)
    simulator = mle.Model(lambda m, x: -0.5 * (x - m) ** 2, simulate=lambda key, m, x: m + jax.random.normal(key))
    plain = mle.fit(simulator, 0.0, np.arange(5.0))
    with pytest.raises(ValueError, match=r"needs a key, such as key=jax\.random\.key"):
        plain.covariance("expected")
    with pytest.raises(ValueError, match="whose columns have no names"):
        plain.covariance("sandwich", "firm")
    scalar = mle.fit(mle.joint(lambda m, x: -0.5 * jnp.sum((x - m) ** 2)), 0.0, np.arange(5.0))
    asked: list[dict[str, Any]] = [{"kind": "opg"}, {"kind": "sandwich"}, {"kind": "hac", "lags": 1}]
    for options in asked:
        with pytest.raises(ValueError, match="the joint model returns a scalar"):
            scalar.covariance(**options)


# --- a kind of one's own -------------------------------------------------------------------------------------


class Inflated(AbstractCovarianceKind):
    """The observed one four times over, or nothing."""

    name: ClassVar[str] = "inflated"
    takes: ClassVar[dict[str, str]] = {"lags": "kind='inflated'"}

    def check(self, fit: FitRecord, options: CovarianceOptions) -> None:
        if options.lags not in (None, 0):
            raise ValueError("kind='inflated' wants lags=0")

    def compute(self, fit: FitRecord, options: CovarianceOptions) -> Any:
        return KINDS["observed"].compute(fit, options) * (jnp.nan if options.lags == 0 else 4)

    def why_missing(self, options: CovarianceOptions) -> str:
        return "it was asked for nothing"


def test_a_kind_of_ones_own(fit: mle.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"kind must be one of .* hac; got 'inflated'"):
        fit.covariance("inflated")
    monkeypatch.setitem(KINDS, "inflated", Inflated())
    np.testing.assert_array_equal(fit.covariance(kind="inflated"), 4 * fit.covariance())
    errors, observed = fit.standard_errors(kind="inflated"), fit.standard_errors()
    np.testing.assert_allclose(errors["slope"], 2 * observed["slope"], rtol=1e-14)
    summary = fit.summary(kind="inflated")
    assert "standard errors: inflated" in str(summary)
    np.testing.assert_allclose(
        summary.to_pandas()["standard_error"], [2 * e for e in observed.values()], rtol=1e-14
    )
    with pytest.warns(UserWarning, match=r"kind='inflated' gives this fit .* \(NaN\): it was asked for nothing"):
        fit.standard_errors("inflated", lags=0)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"kind": "inflated", "lags": 1}, "wants lags=0"),
        ({"kind": "inflated", "clusters": "firm"}, "clusters go with kind='sandwich', got kind='inflated'"),
        ({"kind": "opg", "lags": 1}, "lags go with kind='hac' or kind='inflated', got kind='opg'"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            fit.covariance(**options)


# --- inside jit, and in float32 ------------------------------------------------------------------------------

EVERY: tuple[dict[str, Any], ...] = (
    {"kind": "observed"},
    {"kind": "expected"},
    {"kind": "opg"},
    {"kind": "sandwich", "clusters": "firm"},
    {"kind": "sandwich", "clusters": LABELS.T, "small_sample": "regression"},
    {"kind": "hac", "lags": 3},
)


def all_kinds(data: Any, labels: Any) -> list[Any]:
    fit = mle.fit(COUNTS, COUNTS_START, data, constraints=COUNTS_RULES)
    named = [
        {**one, "clusters": list(labels)} if isinstance(one.get("clusters"), np.ndarray) else one for one in EVERY
    ]
    return [fit.covariance(**one) for one in named]


def test_inside_jit_and_vmap(fit: mle.Fit) -> None:
    wanted = [
        fit.covariance(**{**o, **({"clusters": list(LABELS.T)} if o.get("small_sample") else {})}) for o in EVERY
    ]
    both = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (DATA, LABELS.T))
    found = jax.jit(jax.vmap(all_kinds))(*both)
    for one, other in zip(found, wanted):
        # A sum in another order.
        np.testing.assert_allclose(one, [other, other], rtol=1e-8, atol=1e-13)


def test_float32_stays_float32(fit: mle.Fit) -> None:
    small = {name: column.astype(np.float32) if column.dtype == float else column for name, column in DATA.items()}
    start = jax.tree.map(np.float32, COUNTS_START)
    single = mle.fit(COUNTS, start, small, constraints=COUNTS_RULES)
    assert single.converged
    for options in EVERY[3:]:
        options = {**options, **({"clusters": list(LABELS.T)} if options.get("small_sample") else {})}
        found = single.covariance(**options)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, fit.covariance(**options), rtol=2e-3, atol=2e-5)


@pytest.mark.slow
def test_long_labels_without_x64() -> None:
    """Labels that differ in their upper half alone are different clusters, though JAX then has 32 bits."""
    x = np.array([1.0, 1.5, 2.0, 2.5, 6.0, 6.1], np.float32)
    firm = np.array([0, 0, 1, 1, 2, 2])
    with jax.enable_x64(False):
        fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, np.float32(0), x)
        wanted = fit.covariance("sandwich", firm)
        np.testing.assert_allclose(fit.covariance("sandwich", firm * 2**32 + 5), wanted, rtol=1e-6)
        groups = mle.group_by({"set": np.zeros(6, int), "x": x, "firm": firm * 2**32 + 5}, "set", ["x", "firm"])
        fits = mle.fit_batch(lambda mean, obs: -0.5 * (obs["x"] - mean) ** 2, np.float32(0), groups)
        np.testing.assert_allclose(fits.covariance("sandwich", "firm")[0], wanted, rtol=1e-6)


def test_no_kind_warns_where_all_is_well(fit: mle.Fit) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in EVERY[:4]:
            assert np.all(np.diag(fit.covariance(**options)) > 0)
