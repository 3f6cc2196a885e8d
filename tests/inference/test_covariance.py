"""Every kind of covariance: against statsmodels, closed forms and NumPy; weighted, clustered, batched, ragged."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pyarrow as pa
import pytest

import mlekit as mle
from mlekit.core import checks
from tests.helpers.marks import mostly_slow
from tests.helpers.models import RULES, START, line, line_data
from tests.helpers.seasons import (
    COUNTS,
    COUNTS_RULES,
    COUNTS_START,
    DATA,
    FAMILIES,
    LABELS,
    N,
    batch_of_lines,
    counts_fit,
    newey_west,
    of_line,
    ragged_data,
    weighted_and_repeated_fits,
)


@pytest.fixture(scope="module")
def fit() -> mle.Fit:
    return counts_fit()


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


LENGTHS = np.array([25, 12, 18])
CASES: dict[str, dict[str, Any]] = {
    "opg": {"kind": "opg"},
    "sandwich": {"kind": "sandwich", "small_sample": "regression"},
    "two ways": {"kind": "sandwich", "clusters": ["a", "b"], "small_sample": "regression"},
    "hac": {"kind": "hac", "lags": 3, "small_sample": "regression"},
}


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
    return batch_of_lines()


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


@pytest.fixture(scope="module")
def weighted_and_repeated() -> tuple[mle.Fit, mle.Fit]:
    return weighted_and_repeated_fits()


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


def test_a_warning_points_at_the_line_that_asked(fit: mle.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    # The checks of shapes put frames of their own between the package and the user.
    monkeypatch.setattr(checks, "INSIDE", (*checks.INSIDE, str(Path(jaxtyping.__file__).parent), "<@beartype"))
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


def test_no_kind_warns_where_all_is_well(fit: mle.Fit) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for options in EVERY[:4]:
            assert np.all(np.diag(fit.covariance(**options)) > 0)


def test_unknown_arguments_are_named() -> None:
    fit = mle.fit(lambda mean, x: -0.5 * (x - mean) ** 2, 0.0, jnp.array([1.0, 2.0, 6.0]))
    with pytest.raises(TypeError, match=r"^n is called n_draws; further ones are .*small_sample, lags, key"):
        fit.draws(jax.random.key(0), n=5)
    with pytest.raises(TypeError, match=r"^draws is called n_simulations"):
        fit.standard_errors("expected", draws=5)
    with pytest.raises(TypeError, match=r"^foo is not an argument"):
        fit.intervals(foo=1)
