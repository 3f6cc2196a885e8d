"""Tests of hypotheses against statsmodels, scipy, closed forms and NumPy, and how often they reject the truth."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import statsmodels.api as sm
from jax.scipy.stats import cauchy, norm

import mlekit as mle

from .marks import mostly_slow
from .models import RULES, START, line, line_data

FAMILIES = mle.families
N = 50
rng = np.random.default_rng(4)
X = rng.normal(size=(3, N))
DATA = {
    "x": X,
    "y": rng.poisson(np.exp(1 + 0.1 * X) * rng.gamma(4.0, 0.25, X.shape)).astype(float),
    "firm": X > 0.3,
}
FIRST = {name: column[0] for name, column in DATA.items()}
COUNTS = mle.regression(lambda p, obs: jnp.exp(p["const"] + p["slope"] * obs["x"]), FAMILIES.poisson)
COUNTS_START = {"const": 1.0, "slope": 0.0}
HELD = {"slope": mle.fixed}


@pytest.fixture(scope="module")
def full() -> mle.Fit:
    return mle.fit(COUNTS, COUNTS_START, FIRST)


@pytest.fixture(scope="module")
def null() -> mle.Fit:
    return mle.fit(COUNTS, COUNTS_START, FIRST, constraints=HELD)


@pytest.fixture(scope="module")
def many() -> mle.Fit:
    return mle.fit_batch(COUNTS, COUNTS_START, DATA)


@pytest.fixture(scope="module")
def many_null() -> mle.Fit:
    return mle.fit_batch(COUNTS, COUNTS_START, DATA, constraints=HELD)


def check(test: mle.HypothesisTest, statistic: float, df: int) -> None:
    """A chi-square test with this statistic."""
    np.testing.assert_allclose(test.statistic, statistic, rtol=1e-8)
    assert test.degrees_of_freedom == df
    np.testing.assert_allclose(test.p_value, scipy.stats.chi2.sf(statistic, df), rtol=1e-7)


# --- against the full model ----------------------------------------------------------------------------------


def test_likelihood_ratio(full: mle.Fit, null: mle.Fit) -> None:
    design = sm.add_constant(FIRST["x"])
    wanted = sm.Poisson(FIRST["y"], design).fit(disp=0, tol=1e-12)
    test = mle.likelihood_ratio_test(null, full)
    check(test, wanted.llr, 1)
    assert repr(test) == (
        f"Likelihood-ratio test: the hypothesis that the restriction holds is rejected at 5 %: "
        f"chi-square(1) = {wanted.llr:.2f}, p = {wanted.llr_pvalue:.4f}"
    )


@pytest.mark.parametrize("df", [1, 2])
def test_likelihood_ratio_at_a_boundary(df: int, full: mle.Fit, null: mle.Fit) -> None:
    """Half of the distribution has one degree of freedom less; with none left it is a point at zero."""
    if df == 2:
        null = mle.fit(COUNTS, COUNTS_START, FIRST, constraints=mle.fixed)
    test = mle.likelihood_ratio_test(null, full, boundary=True)
    statistic = 2 * float(full.log_likelihood - null.log_likelihood)
    less = scipy.stats.chi2.sf(statistic, 1) if df == 2 else 0.0
    np.testing.assert_allclose(test.p_value, 0.5 * (less + scipy.stats.chi2.sf(statistic, df)), rtol=1e-8)
    assert repr(test).endswith(f"(half chi-square({df - 1}) and half chi-square({df}))")


@pytest.mark.slow
def test_likelihood_ratio_where_the_maximum_is_at_the_boundary() -> None:
    """Half of all data sets without overdispersion look underdispersed: nothing is gained, so p is one."""
    model = mle.regression(lambda p, obs: (p["mean"], p["alpha"]), FAMILIES.negative_binomial)
    y = np.stack([np.tile([2.0, 3.0, 4.0, 3.0], 10), np.tile([0.0, 9.0, 1.0, 2.0], 10)])
    start = {"mean": 3.0, "alpha": 0.5}
    wide = mle.fit_batch(model, start, {"y": y}, constraints=mle.positive)
    assert wide.status.names() == ["unbounded", "converged"]
    rules = {"mean": mle.positive, "alpha": mle.fixed}
    poisson = mle.fit_batch(model, {"mean": 3.0, "alpha": 0.0}, {"y": y}, constraints=rules)
    test = mle.likelihood_ratio_test(poisson, wide, boundary=True)
    assert test.p_value[1] < 1e-4
    assert test.p_value[0] == 1


def test_a_full_model_that_missed_its_maximum_has_no_verdict(full: mle.Fit, null: mle.Fit) -> None:
    worse = mle.fit(COUNTS, {"const": 5.0, "slope": 0.0}, FIRST, max_steps=1)
    test = mle.likelihood_ratio_test(null, worse)
    assert np.isnan(test.statistic)
    assert np.isnan(test.p_value)
    assert repr(test).startswith("Likelihood-ratio test: no verdict; the fits did not converge")


@pytest.mark.parametrize(
    ("kind", "options", "theirs"),
    [
        ("observed", {}, {}),
        ("sandwich", {}, {"cov_type": "HC0"}),
        ("sandwich", {"clusters": "firm"}, {"cov_type": "cluster"}),
    ],
    ids=["observed", "sandwich", "clusters"],
)
def test_wald(kind: str, options: dict[str, Any], theirs: dict[str, Any], full: mle.Fit) -> None:
    if "clusters" in options:
        theirs = {**theirs, "cov_kwds": {"groups": FIRST["firm"].astype(int), "use_correction": False}}
    fitted = sm.Poisson(FIRST["y"], sm.add_constant(FIRST["x"])).fit(disp=0, tol=1e-12, **theirs)
    one = fitted.wald_test("x1 = 0", use_f=False, scalar=True)
    check(mle.wald_test(full, "slope", kind, **options), one.statistic, 1)
    if "clusters" not in options:  # whose middle, of two clusters, has rank one
        both = fitted.wald_test("const = 1, x1 = 0.1", use_f=False, scalar=True)
        restriction = lambda p: {"a": p["const"] - 1, "b": jnp.stack([p["slope"] - 0.1])}  # noqa: E731
        check(mle.wald_test(full, restriction, kind), both.statistic, 2)


def test_wald_of_a_smooth_function(full: mle.Fit) -> None:
    test = mle.wald_test(full, lambda p: jnp.exp(p["const"]) * p["slope"] - 1)
    const, slope = (float(full.params[name]) for name in ("const", "slope"))
    gradient = np.exp(const) * np.array([slope, 1])
    wanted = (np.exp(const) * slope - 1) ** 2 / (gradient @ np.asarray(full.covariance()) @ gradient)
    check(test, wanted, 1)
    twice = mle.wald_test(full, lambda p: (p["slope"], 2 * p["slope"]))
    assert np.isnan(twice.p_value)
    assert np.isnan(mle.wald_test(full, lambda p: p["slope"] * 0).p_value)
    assert "the hypothesis that slope = const = 0 is rejected" in repr(mle.wald_test(full, ["slope", "const"]))


@pytest.mark.parametrize("kind", ["observed", "expected", "opg"])
def test_score(kind: str, null: mle.Fit) -> None:
    """The link is canonical, so that observed and expected information are the same."""
    test = mle.score_test(null, kind=kind)
    if kind == "opg":
        scores = (FIRST["y"] - FIRST["y"].mean())[:, None] * sm.add_constant(FIRST["x"])
        total = scores.sum(axis=0)
        return check(test, total @ np.linalg.solve(scores.T @ scores, total), 1)
    model = sm.GLM(FIRST["y"], np.ones((N, 1)), family=sm.families.Poisson())
    wanted = model.score_test(model.fit(tol=1e-12).params, exog_extra=FIRST["x"], observed=kind == "observed")
    return check(test, float(np.squeeze(wanted[0])), 1)


def test_score_of_tied_parameters() -> None:
    """Rates that are one: Pearson's chi-square."""
    y = np.array([3.0, 5, 2, 8, 9, 4, 7, 12, 10])
    cell = np.repeat(np.arange(3), 3)
    model = mle.regression(lambda p, obs: jnp.stack([p["a"], p["b"], p["c"]])[obs["cell"]], FAMILIES.poisson)
    tied = {"a": mle.positive, "b": mle.tied(to="a"), "c": mle.tied(to="a")}
    fit = mle.fit(model, {"a": 5.0, "b": 5.0, "c": 5.0}, {"y": y, "cell": cell}, constraints=tied)
    wanted = scipy.stats.chisquare(np.bincount(cell, y)).statistic
    check(mle.score_test(fit, kind="expected"), wanted, 2)
    check(mle.score_test(fit, mle.positive, kind="expected"), wanted, 2)  # whatever the scale


def test_score_at_the_edge() -> None:
    """Overdispersion, by the score where there is none (Dean 1992); inside `positive` it would lie at infinity."""
    model = mle.regression(lambda p, obs: (p["mean"], p["alpha"]), FAMILIES.negative_binomial)
    y = FIRST["y"]
    fit = mle.fit(model, {"mean": 1.0, "alpha": 0.0}, {"y": y}, constraints={"alpha": mle.fixed})
    mean = y.mean()
    score = 0.5 * np.sum((y - mean) ** 2 - y)
    check(mle.score_test(fit, kind="expected"), score**2 / (0.5 * N * mean**2), 1)
    with pytest.raises(ValueError, match="lies on the edge of its constraint"):
        mle.score_test(fit, {"alpha": mle.positive})


# --- two models that do not contain each other ---------------------------------------------------------------


def location_scale(density: Any) -> Any:
    return lambda p, obs: density(obs["y"], p["place"], p["scale"])


PLACE = {"place": 3.0, "scale": 1.0}
NORMAL, CAUCHY = location_scale(norm.logpdf), location_scale(cauchy.logpdf)
PAIR_RULES = {"scale": mle.positive}


def vuong(a: mle.Fit, b: mle.Fit, y: np.ndarray, weights: Any = None, correction: float = 0.0) -> float:
    first = scipy.stats.norm.logpdf(y, float(a.params["place"]), float(a.params["scale"]))
    second = scipy.stats.cauchy.logpdf(y, float(b.params["place"]), float(b.params["scale"]))
    difference = np.repeat(first - second, 1 if weights is None else weights)
    return (difference.sum() - correction) / (np.sqrt(len(difference)) * difference.std())


@pytest.fixture(scope="module")
def pair() -> tuple[mle.Fit, mle.Fit]:
    data = {"y": DATA["y"]}
    a, b = (mle.fit_batch(one, PLACE, data, constraints=PAIR_RULES) for one in (NORMAL, CAUCHY))
    assert np.all(a.converged & b.converged)
    return a, b


def test_vuong(pair: tuple[mle.Fit, mle.Fit], full: mle.Fit) -> None:
    a, b = pair
    test = mle.vuong_test(a, b)
    wanted = [vuong(a[i], b[i], DATA["y"][i]) for i in range(3)]
    np.testing.assert_allclose(test.statistic, wanted, rtol=1e-10)
    np.testing.assert_allclose(test.p_value, 2 * scipy.stats.norm.sf(np.abs(wanted)), rtol=1e-8)
    assert np.all(np.isnan(test.degrees_of_freedom))
    np.testing.assert_allclose(mle.vuong_test(b[0], a[0]).statistic, -wanted[0], rtol=1e-10)
    assert np.isnan(mle.vuong_test(a[0], a[0]).p_value)
    # The counts have two parameters as well: what is taken off is nothing.
    corrected = mle.vuong_test(full, a[0], correction="bic").statistic
    np.testing.assert_allclose(corrected, mle.vuong_test(full, a[0]).statistic, rtol=1e-12)


@pytest.mark.parametrize(("correction", "less"), [("aic", 1.0), ("bic", 0.5 * np.log(N))])
def test_vuong_with_a_correction(correction: str, less: float, pair: tuple[mle.Fit, mle.Fit]) -> None:
    b = pair[1][0]
    a = mle.fit(NORMAL, {**PLACE, "unit": 1.0}, {"y": FIRST["y"]}, constraints={**PAIR_RULES, "unit": mle.fixed})
    narrow = mle.fit(CAUCHY, PLACE, {"y": FIRST["y"]}, constraints={"scale": mle.fixed})
    np.testing.assert_allclose(
        mle.vuong_test(a, narrow, correction=correction).statistic,
        vuong(a, narrow, FIRST["y"], correction=less),
        rtol=1e-10,
    )
    np.testing.assert_allclose(mle.vuong_test(a, b, correction=correction).statistic, vuong(a, b, FIRST["y"]))


@pytest.mark.slow
def test_vuong_with_weights_is_that_of_repeated_rows() -> None:
    weights = np.arange(N) % 3
    a, b = (
        mle.fit(one, PLACE, {"y": FIRST["y"]}, constraints=PAIR_RULES, weights=weights) for one in (NORMAL, CAUCHY)
    )
    np.testing.assert_allclose(mle.vuong_test(a, b).statistic, vuong(a, b, FIRST["y"], weights), rtol=1e-10)


@pytest.mark.slow
def test_vuong_of_series_of_unequal_length() -> None:
    lengths = [5, 6, 60]
    noise = np.random.default_rng(1).normal(size=sum(lengths))
    groups = mle.group_by({"set": np.repeat([0, 1, 2], lengths), "x": noise}, "set")
    before = lambda x: jnp.concatenate([jnp.zeros(1), x[:-1]])  # noqa: E731
    follow = mle.joint(lambda phi, data: norm.logpdf(data["x"], phi * before(data["x"]), 1.0))
    level = mle.joint(lambda mean, data: norm.logpdf(data["x"], mean, 1.0))
    a, b = mle.fit_batch(follow, 0.0, groups), mle.fit_batch(level, 0.0, groups)
    wanted = []
    for i, group in enumerate(groups):
        x = group["x"]
        last = np.concatenate([[0.0], x[:-1]])
        difference = 0.5 * ((x - float(b.params[i])) ** 2 - (x - float(a.params[i]) * last) ** 2)
        wanted.append(difference.sum() / (np.sqrt(len(x)) * difference.std()))
    np.testing.assert_allclose(mle.vuong_test(a, b).statistic, wanted, rtol=1e-8)


# --- White's test --------------------------------------------------------------------------------------------


def white(scores: Any, hessians: Any, theta: np.ndarray) -> tuple[float, int]:
    """Statistic and degrees of freedom from functions of theta that take complex numbers, by complex steps."""
    k = len(theta)
    upper = np.triu_indices(k)

    def indicators(at: np.ndarray) -> np.ndarray:
        s, h = scores(at), hessians(at)
        return (h + s[:, :, None] * s[:, None, :])[:, upper[0], upper[1]]

    slope = np.array([indicators(theta + 1e-30j * row).mean(axis=0).imag for row in np.eye(k)]).T / 1e-30
    d, s, h = indicators(theta), scores(theta), hessians(theta).mean(axis=0)
    left = d - s @ np.linalg.solve(h, slope.T)
    spread = left.T @ left / len(d)
    mean, rank = d.mean(axis=0), np.linalg.matrix_rank(spread, rtol=1e-9, hermitian=True)
    return len(d) * mean @ np.linalg.pinv(spread, rtol=1e-9, hermitian=True) @ mean, int(rank)


def test_white_for_the_normal() -> None:
    """Mean and standard deviation: what is left of three indicators are skewness and kurtosis."""
    y = np.random.default_rng(0).gamma(4.0, size=80)
    fit = mle.fit(NORMAL, PLACE, {"y": y}, constraints=PAIR_RULES)

    # On the free scale, that of log sigma, where the test is made.
    z = lambda at: (y - at[0]) * np.exp(-at[1])  # noqa: E731

    def scores(at: np.ndarray) -> np.ndarray:
        return np.column_stack([z(at) * np.exp(-at[1]), z(at) ** 2 - 1])

    def hessians(at: np.ndarray) -> np.ndarray:
        cross, unit = -2 * z(at) * np.exp(-at[1]), np.exp(-2 * at[1])
        return np.moveaxis(np.array([[-unit + 0 * cross, cross], [cross, -2 * z(at) ** 2]]), 2, 0)

    wanted, df = white(scores, hessians, np.array([fit.params["place"], np.log(fit.params["scale"])]))
    assert df == 2
    test = mle.information_matrix_test(fit)
    check(test, wanted, 2)
    # By hand: the parts of z³ - 3z and z⁴ - 6z² + 3 that mean and scale cannot follow.
    u = scipy.stats.zscore(y)
    m3, m4 = np.mean(u**3), np.mean(u**4)
    third = u**3 - 3 * u - 2 * m3 * (u**2 - 1)
    fourth = u**4 - 6 * u**2 + 3 - 4 * m3 * u - 2 * (m4 - 3) * (u**2 - 1)
    left, mean = np.column_stack([third, fourth]), np.array([m3, m4 - 3])
    np.testing.assert_allclose(test.statistic, 80 * mean @ np.linalg.solve(left.T @ left / 80, mean), rtol=1e-7)


@pytest.mark.parametrize("weighted", mostly_slow([False, True], False))
def test_white_for_counts(weighted: bool, full: mle.Fit) -> None:
    """A weight repeats a row."""
    weights = np.arange(N) % 3 if weighted else np.ones(N, int)
    fit = mle.fit(COUNTS, COUNTS_START, FIRST, weights=weights) if weighted else full
    design, y = np.repeat(sm.add_constant(FIRST["x"]), weights, axis=0), np.repeat(FIRST["y"], weights)
    mean = lambda at: np.exp(design @ at)  # noqa: E731
    wanted = white(
        lambda at: (y - mean(at))[:, None] * design,
        lambda at: -mean(at)[:, None, None] * design[:, :, None] * design[:, None, :],
        np.array([fit.params["const"], fit.params["slope"]]),
    )
    check(mle.information_matrix_test(fit), *wanted)


def test_white_without_anything_to_test() -> None:
    """One coin has no more to it than its chance: the indicator is a multiple of the score."""
    coin = mle.regression(lambda p, obs: p, FAMILIES.bernoulli)
    test = mle.information_matrix_test(mle.fit(coin, 0.0, {"y": np.arange(9) % 3 // 2}))
    assert np.isnan(test.p_value)
    assert repr(test).startswith("Information-matrix test: no verdict")


# --- goodness of fit -----------------------------------------------------------------------------------------


WAITS = mle.regression(lambda mean, obs: mean, FAMILIES.exponential)


def test_statistic_of_counts_that_can_be_no_larger() -> None:
    """Where the last has nothing above it, u is in the middle of its jump."""
    rng = np.random.default_rng(8)
    wide, model = rng.binomial(6, rng.beta(1, 1, 80)), mle.regression(lambda p, obs: p, mle.families.binomial(6))
    fits = mle.fit_batch(model, 0.0, {"y": np.stack([wide, rng.binomial(6, 0.4, 80)]).astype(float)})
    test = mle.goodness_of_fit_test(fits, jax.random.key(0), 99)
    at = scipy.stats.binom(6, scipy.special.expit(np.asarray(fits.params))[0])
    u = np.sort(at.cdf(wide) - at.pmf(wide) / 2)
    odd = 2 * np.arange(80) + 1
    np.testing.assert_allclose(test.statistic[0], -80 - odd @ (np.log(u) + np.log1p(-u[::-1])) / 80, rtol=1e-9)
    assert test.p_value[0] == pytest.approx(0.01)
    assert test.p_value[1] > 0.05


@pytest.mark.parametrize(
    ("statistic", "theirs"),
    [("anderson-darling", "ad"), ("cramer-von-mises", "cvm"), ("kolmogorov-smirnov", "ks")],
)
def test_statistics_of_fit(statistic: str, theirs: str) -> None:
    """Ragged: the same numbers as scipy's for each data set."""
    draws, lengths = np.random.default_rng(6).exponential(2.0, (2, 30)), np.array([30, 17])
    fits = mle.fit_batch(WAITS, 1.0, {"y": draws}, constraints=mle.positive, lengths=lengths)
    test = mle.goodness_of_fit_test(fits, jax.random.key(0), 19, statistic)
    for i, n in enumerate(lengths):
        known = {"loc": 0.0, "scale": float(fits.params[i])}
        y = draws[i, :n]
        # One resample: the p-value is not what is compared here.
        wanted = scipy.stats.goodness_of_fit(
            scipy.stats.expon, y, known_params=known, statistic=theirs, n_mc_samples=1, rng=0
        )
        np.testing.assert_allclose(test.statistic[i], wanted.statistic, rtol=1e-9)
        assert float(test.p_value[i]) * 20 == pytest.approx(round(float(test.p_value[i]) * 20))
    name = {"ad": "Anderson-Darling", "cvm": "Cramer-von Mises", "ks": "Kolmogorov-Smirnov"}[theirs]
    assert repr(test).startswith(
        f"{name} test of 2 data sets: the hypothesis that the model fits is rejected at 5 %"
    )


@pytest.mark.slow
def test_p_values_of_fit() -> None:
    """Uniform where the model holds, small where it does not; of one fit as in the batch."""
    draws = np.random.default_rng(6).exponential(2.0, (200, 20))
    fits = mle.fit_batch(WAITS, 1.0, {"y": draws}, constraints=mle.positive)
    test = mle.goodness_of_fit_test(fits, jax.random.key(1), 99)
    p = np.asarray(test.p_value)
    # On a grid of a hundredth, which the comparison with a continuous distribution hardly notices among 200.
    assert scipy.stats.kstest(p - 0.005, "uniform").pvalue > 0.01
    alone = mle.goodness_of_fit_test(fits[7], jax.random.key(1), 99)
    np.testing.assert_allclose([alone.statistic, alone.p_value], [test.statistic[7], p[7]], rtol=1e-9)
    even = mle.fit(WAITS, 1.0, {"y": np.random.default_rng(2).gamma(6.0, size=20)}, constraints=mle.positive)
    wrong = mle.goodness_of_fit_test(even, jax.random.key(1), 99)
    assert wrong.p_value == pytest.approx(0.01)
    assert repr(wrong).endswith("p = 0.0100 (parametric bootstrap)")


@pytest.mark.slow
def test_a_statistic_of_ones_own() -> None:
    """Twice the largest wait over the mean; and no distribution function is needed."""
    model = mle.Model(
        lambda mean, y: -y / mean - jnp.log(mean), simulate=lambda key, mean, y: mean * jax.random.exponential(key)
    )
    y = np.array([0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 0.2, 9.0])
    fit = mle.fit(model, 1.0, y, constraints=mle.positive)
    test = mle.goodness_of_fit_test(fit, jax.random.key(0), 199, lambda mean, data: 2 * jnp.max(data) / mean)
    np.testing.assert_allclose(test.statistic, 18 / y.mean(), rtol=1e-9)
    # Fisher's test of the largest of n exponential shares: n (1 - share)^(n-1) where that share exceeds a half.
    exact = 8 * (1 - 9 / y.sum()) ** 7
    assert test.p_value == pytest.approx((1 + np.round(199 * exact)) / 200, abs=0.015)
    with pytest.raises(ValueError, match="no log_cdf"):
        mle.goodness_of_fit_test(fit, jax.random.key(0))


# --- batches, sentences, arguments ---------------------------------------------------------------------------


def test_batches_are_single_tests(
    many: mle.Fit, many_null: mle.Fit, pair: tuple[mle.Fit, mle.Fit], full: mle.Fit, null: mle.Fit
) -> None:
    a, b = pair
    asked = {
        "likelihood ratio": lambda small, large, a, b: mle.likelihood_ratio_test(small, large),
        "boundary": lambda small, large, a, b: mle.likelihood_ratio_test(small, large, boundary=True),
        "wald": lambda small, large, a, b: mle.wald_test(
            large, lambda p: (p["slope"], p["const"] - 1.0), "sandwich"
        ),
        "score": lambda small, large, a, b: mle.score_test(small, kind="opg"),
        "vuong": lambda small, large, a, b: mle.vuong_test(a, b, correction="aic"),
        "white": lambda small, large, a, b: mle.information_matrix_test(large),
    }
    for name, ask in asked.items():
        together, alone = ask(many_null, many, a, b), ask(null, full, a[0], b[0])
        for part in ("statistic", "degrees_of_freedom", "p_value"):
            assert getattr(together, part).shape == (3,), name
            np.testing.assert_allclose(
                getattr(together, part)[0], getattr(alone, part), rtol=1e-7, err_msg=f"{name}: {part}"
            )
        share = int(np.sum(np.asarray(together.p_value) < 0.05))
        assert repr(together).endswith(f"is rejected at 5 % in {share} of 3"), name


@pytest.mark.slow
def test_what_did_not_converge_has_no_p_value() -> None:
    """No counts at all: their rate runs off to zero."""
    data = {**DATA, "y": DATA["y"] * np.array([[0], [1], [1]])}
    fits = mle.fit_batch(COUNTS, COUNTS_START, data)
    level = mle.fit_batch(COUNTS, COUNTS_START, data, constraints=HELD)
    assert fits.status.names() == ["unbounded", "converged", "converged"]
    tests = [
        mle.likelihood_ratio_test(level, fits),
        mle.wald_test(fits, "slope"),
        mle.score_test(level, kind="opg"),
        mle.information_matrix_test(fits),
    ]
    for test in tests:
        assert np.isnan(test.p_value).tolist() == [True, False, False]
        share = int(np.sum(np.asarray(test.p_value)[1:] < 0.05))
        assert repr(test).endswith(f"is rejected at 5 % in {share} of 2; 1 have no p-value")


@pytest.mark.slow
def test_inside_jit(null: mle.Fit, full: mle.Fit) -> None:
    @jax.jit
    def every(data: Any) -> list[Any]:
        small = mle.fit(COUNTS, COUNTS_START, data, constraints=HELD)
        large = mle.fit(COUNTS, COUNTS_START, data)
        tests = [
            mle.likelihood_ratio_test(small, large),
            mle.wald_test(large, "slope"),
            mle.score_test(small),
            mle.information_matrix_test(large),
            mle.vuong_test(large, small),
        ]
        assert repr(tests[0]) == "HypothesisTest(<traced>, Likelihood-ratio test)"
        return [test.p_value for test in tests]

    wanted = [
        mle.likelihood_ratio_test(null, full),
        mle.wald_test(full, "slope"),
        mle.score_test(null),
        mle.information_matrix_test(full),
        mle.vuong_test(full, null),
    ]
    np.testing.assert_allclose(every(FIRST), [test.p_value for test in wanted], rtol=1e-7)


def test_errors_name_what_is_wrong(full: mle.Fit, null: mle.Fit, many: mle.Fit) -> None:
    with pytest.raises(ValueError, match=r"it is likelihood_ratio_test\(restricted, full\), in this order"):
        mle.likelihood_ratio_test(full, null)
    with pytest.raises(ValueError, match=r"of \(\) and \(3,\) data sets"):
        mle.likelihood_ratio_test(null, many)
    with pytest.raises(ValueError, match="different numbers of observations"):
        mle.vuong_test(full, mle.fit(line, START, line_data(20), constraints=RULES))
    with pytest.raises(ValueError, match="there is no parameter 'tilt'; there are const, slope"):
        mle.wald_test(full, ["slope", "tilt"])
    with pytest.raises(ValueError, match="lags"):
        mle.wald_test(full, "slope", "hac")
    with pytest.raises(ValueError, match="more free parameters than the restricted fit: 2 and 2"):
        mle.score_test(full)
    with pytest.raises(ValueError, match="kind must be one of observed, expected, opg; got 'sandwich'"):
        mle.score_test(null, kind="sandwich")
    with pytest.raises(ValueError, match="correction must be one of aic, bic"):
        mle.vuong_test(full, null, correction="cubic")
    with pytest.raises(ValueError, match="statistic must be one of anderson-darling"):
        mle.goodness_of_fit_test(full, jax.random.key(0), statistic="shapiro")
    with pytest.raises(ValueError, match="needs a key"):
        mle.goodness_of_fit_test(full, None)
    with pytest.raises(TypeError, match="key must be one random key"):
        mle.goodness_of_fit_test(full, 3)
    with pytest.raises(ValueError, match="replicates"):
        mle.goodness_of_fit_test(full, jax.random.key(0), 0)
    plain = mle.fit(NORMAL, PLACE, {"y": FIRST["y"]}, constraints=PAIR_RULES)
    with pytest.raises(ValueError, match="no simulate"):
        mle.goodness_of_fit_test(plain, jax.random.key(0))
    with pytest.raises(ValueError, match="exact for a"):
        mle.score_test(plain, kind="expected")
    weighted = mle.fit(COUNTS, COUNTS_START, FIRST, weights=np.ones(N))
    with pytest.raises(ValueError, match="no use for weights"):
        mle.goodness_of_fit_test(weighted, jax.random.key(0))
    scalar = mle.fit(mle.joint(lambda m, x: -0.5 * jnp.sum((x - m) ** 2)), 0.0, np.arange(5.0))
    for ask in (mle.information_matrix_test, lambda fit: mle.vuong_test(fit, fit)):
        with pytest.raises(ValueError, match="the joint model returns a scalar"):
            ask(scalar)


# --- how often they reject what is true ----------------------------------------------------------------------

REPLICATES = 20_000


def size(test: mle.HypothesisTest) -> float:
    """The percentage of rejections at 5 %: from 20,000 replicates it is known to 0.15 (one standard error)."""
    p = np.asarray(test.p_value)
    assert np.all(np.isfinite(p))
    return 100 * float(np.mean(p < 0.05))


@pytest.mark.slow
def test_size_of_tests_against_the_full_model() -> None:
    """200 counts with a mean of three: at 600 events the statistics are chi-square to two digits."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(REPLICATES, 200))
    data = {"x": x, "y": rng.poisson(3.0, x.shape).astype(np.int16)}
    full = mle.fit_batch(COUNTS, COUNTS_START, data)
    null = mle.fit_batch(COUNTS, COUNTS_START, data, constraints=HELD)
    for test in (
        mle.likelihood_ratio_test(null, full),
        mle.wald_test(full, "slope"),
        mle.score_test(null),
        mle.score_test(null, kind="opg"),
    ):
        assert 4.5 < size(test) < 5.5, (test.name, size(test))


@pytest.mark.slow
def test_size_of_vuong() -> None:
    """Each model has one of two causes that matter alike; with 400 rows the statistic is normal to two digits."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(REPLICATES, 400, 2))
    data = {"x": x, "y": x.sum(axis=-1) + rng.normal(size=x.shape[:2])}

    def cause(i: int) -> mle.Fit:
        model = mle.regression(lambda p, obs: (p["slope"] * obs["x"][i], p["scale"]), FAMILIES.normal)
        return mle.fit_batch(model, {"slope": 1.0, "scale": 1.4}, data, constraints={"scale": mle.positive})

    assert 4.5 < size(mle.vuong_test(cause(0), cause(1))) < 5.5


@pytest.mark.slow
def test_size_of_white() -> None:
    """Two tosses, a thousand times: the indicator has short tails; a normal model would need far more."""
    y = np.random.default_rng(3).binomial(2, 0.5, (REPLICATES, 1000)).astype(np.int8)
    fits = mle.fit_batch(mle.regression(lambda p, obs: p, FAMILIES.binomial(2)), 0.0, {"y": y})
    assert 4.5 < size(mle.information_matrix_test(fits)) < 5.5
