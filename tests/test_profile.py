"""Profile likelihoods against closed forms, MINOS and SciPy: where intervals end, and where they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import iminuit
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import optimize, stats

import mlekit as mle
from mlekit.inference.profile.interval import ends

from .models import Counted, logistic

RNG = np.random.default_rng(3)
DROP = stats.chi2.ppf(0.95, 1) / 2


def crossing(profile: Callable[[float], float], best: float, far: float, drop: float = DROP) -> float:
    """Where a profile has fallen so far, between its maximum and a point beyond."""
    top = profile(best)
    return optimize.brentq(lambda v: profile(v) - top + drop, best, far, xtol=1e-13, rtol=1e-13)


def normal(params: Any, obs: Any) -> Any:
    return norm.logpdf(obs["x"], params["mean"], params["sd"])


def mean_interval(x: np.ndarray) -> list[float]:
    """The profile interval of a normal mean: the variance about it grows by exp(2 drop / n)."""
    half = x.std() * np.sqrt(np.expm1(2 * DROP / len(x)))
    return [x.mean() - half, x.mean() + half]


def sd_interval(x: np.ndarray) -> list[float]:
    n, s = len(x), x.std()
    profile = lambda v: -n * np.log(v) - n * s**2 / (2 * v**2)  # noqa: E731
    return [crossing(profile, s, 0.1 * s), crossing(profile, s, 10 * s)]


INIT = {"mean": 0.0, "sd": 1.0}
POSITIVE_SD = {"sd": mle.positive}
LENGTHS = np.array([15, 15, 9, 1, 12, 15])
X = RNG.normal(1.0, 2.0, size=(6, 15))
X[4, 3] = np.nan  # the fifth set is broken, the fourth too short
X[2, 9:] = np.nan  # padding, which must never be seen
FINE = [0, 1, 2, 5]


@pytest.fixture(scope="module")
def fits() -> mle.Fit:
    return mle.fit_batch(normal, INIT, {"x": X}, lengths=LENGTHS, constraints=POSITIVE_SD)


# Ends that are known in closed form ---------------------------------------------------------------


def test_normal_ends_are_the_closed_ones(fits: mle.Fit) -> None:
    found = fits.intervals(method="profile")
    for i in FINE:
        x = X[i, : LENGTHS[i]]
        np.testing.assert_allclose([end[i] for end in found["mean"]], mean_interval(x), rtol=1e-9)
        np.testing.assert_allclose([end[i] for end in found["sd"]], sd_interval(x), rtol=1e-9)
    for pair in found.values():
        assert np.all(np.isnan(np.stack(pair)[:, [3, 4]]))
    _, both = ends(fits, 0.95)
    assert np.all(np.asarray(both.status)[FINE] == mle.Status.converged)
    # Where there is no fit, its own status is that of the ends.
    np.testing.assert_array_equal(both.status[3], mle.Status.too_few_observations)
    np.testing.assert_array_equal(both.status[4], mle.Status.nonfinite_data)


@pytest.mark.parametrize("level", [0.5, 0.999])
def test_level(fits: mle.Fit, level: float) -> None:
    x = X[0]
    half = x.std() * np.sqrt(np.expm1(stats.chi2.ppf(level, 1) / 15))
    low, high = fits.intervals(level, "profile")["mean"]
    np.testing.assert_allclose([low[0], high[0]], [x.mean() - half, x.mean() + half], rtol=1e-9)


def test_a_batch_is_its_data_sets(fits: mle.Fit) -> None:
    together = fits.intervals(method="profile")
    alone = fits[2].intervals(method="profile")
    for name in INIT:
        np.testing.assert_allclose(alone[name], [end[2] for end in together[name]], rtol=1e-12)


@pytest.mark.slow
def test_groups_with_weights() -> None:
    """Weights count observations, whatever the order of the rows."""
    n = np.array([14, 6, 11])
    table = {"key": np.repeat(np.arange(3), n), "x": RNG.exponential(size=31), "w": RNG.integers(1, 4, 31) - 1.0}
    order = RNG.permutation(31)
    groups = mle.group_by({k: v[order] for k, v in table.items()}, "key")
    density = lambda rate, obs: jnp.log(rate) - rate * obs["x"]  # noqa: E731
    fits = mle.fit_batch(density, 1.0, groups, weights="w", constraints=mle.positive)
    low, high = fits.intervals(method="profile")
    for i in range(3):
        mine = table["key"] == i
        count, total = table["w"][mine].sum(), table["w"][mine] @ table["x"][mine]
        profile = lambda rate: count * np.log(rate) - total * rate  # noqa: B023, E731
        expected = [crossing(profile, count / total, far * count / total) for far in (1e-3, 20.0)]
        np.testing.assert_allclose([low[i], high[i]], expected, rtol=1e-9)


@pytest.mark.slow
def test_float32_keeps_what_it_can() -> None:
    init = {k: jnp.asarray(v, jnp.float32) for k, v in INIT.items()}
    fit = mle.fit(normal, init, {"x": X[0].astype(np.float32)}, constraints=POSITIVE_SD)
    found = fit.intervals(method="profile")
    assert found["mean"][0].dtype == jnp.float32
    # Sums of 15 terms carry six digits, and an end moves by about half of what the height is off.
    np.testing.assert_allclose(found["mean"], mean_interval(X[0]), rtol=2e-4)
    np.testing.assert_allclose(found["sd"], sd_interval(X[0]), rtol=2e-4)


@pytest.mark.slow
def test_joint_model() -> None:
    """An autoregression with known noise, given its first value, is a least-squares line through the origin."""
    x = np.cumsum(RNG.normal(size=30))

    def contributions(phi: Any, data: Any) -> Any:
        return jnp.concatenate([jnp.zeros(1), norm.logpdf(data["x"][1:], phi * data["x"][:-1])])

    fit = mle.fit(mle.joint(contributions), 0.5, {"x": x})
    best, square = x[1:] @ x[:-1] / (x[:-1] @ x[:-1]), x[:-1] @ x[:-1]
    half = np.sqrt(2 * DROP / square)
    np.testing.assert_allclose(fit.intervals(method="profile"), [best - half, best + half], rtol=1e-10)
    # Nothing is left to maximise over: the curve is the likelihood itself.
    curve = mle.profile(fit, "params", jnp.array([best - half, best, best + 2 * half]))
    np.testing.assert_allclose(curve.drop, [DROP, 0, 4 * DROP], atol=1e-10)


# Constraints --------------------------------------------------------------------------------------

N = 40
KIND = np.repeat([0, 1, 2], [7, 21, 12])
U = RNG.normal([0.0, 0.7], 1.0, size=(N, 2))
V = RNG.multivariate_normal([0, 0], [[2.0, 0.9], [0.9, 1.0]], size=N)
W = RNG.multivariate_normal([0, 0], [[1.0, -0.5], [-0.5, 1.0]], size=N)
HITS = (np.arange(N) < 9).astype(float)


def blocks(params: Any, obs: Any) -> Any:
    """Five models that share nothing, so that the profile of each is that of the others held anywhere."""
    cov, corr, scale = params["cov"], params["corr"], params["scale"]
    determinant = cov[0, 0] * cov[1, 1] - cov[0, 1] ** 2
    v, w = obs["v"], obs["w"] / scale
    square = (cov[1, 1] * v[0] ** 2 - 2 * cov[0, 1] * v[0] * v[1] + cov[0, 0] * v[1] ** 2) / determinant
    rest = 1 - corr[0, 1] ** 2
    return (
        jnp.log(params["share"][obs["kind"]])
        + jnp.sum(norm.logpdf(obs["u"], params["cuts"]))
        - 0.5 * (jnp.log(determinant) + square)
        - 0.5 * (jnp.log(rest) + (w[0] ** 2 - 2 * corr[0, 1] * w[0] * w[1] + w[1] ** 2) / rest)
        - jnp.sum(jnp.log(scale))
        + obs["hit"] * jnp.log(params["chance"])
        + (1 - obs["hit"]) * jnp.log1p(-params["chance"])
    )


@pytest.fixture(scope="module")
def constrained() -> Any:
    init = {
        "share": np.full(3, 1 / 3),
        "cuts": np.array([0.0, 1.0]),
        "cov": np.eye(2),
        "corr": np.eye(2),
        "scale": np.ones(2),
        "chance": 0.5,
    }
    rules = {
        "share": mle.simplex,
        "cuts": mle.ordered,
        "cov": mle.positive_definite,
        "corr": mle.correlation,
        "scale": mle.positive,
        "chance": mle.interval(0.05, 0.95),
    }
    data = {"kind": KIND, "u": U, "v": V, "w": W, "hit": HITS}
    fit = mle.fit(blocks, init, data, constraints=rules)
    assert str(fit.status) == "converged"
    return {key: np.stack(pair, -1) for key, pair in fit.intervals(method="profile").items()}


@pytest.mark.slow
def test_shares_and_chances(constrained: Any) -> None:
    """The profile of one share is the likelihood of that kind against all others."""
    for found, count in zip([*constrained["share"], constrained["chance"]], [7, 21, 12, 9]):
        binomial = lambda p: count * np.log(p) + (N - count) * np.log1p(-p)  # noqa: B023, E731
        best = count / N
        np.testing.assert_allclose(
            found, [crossing(binomial, best, 1e-9), crossing(binomial, best, 1 - 1e-9)], rtol=1e-9
        )


@pytest.mark.slow
def test_ordered_numbers(constrained: Any) -> None:
    """The order does not bind here, so each is a mean of its own with a known error."""
    half = np.sqrt(2 * DROP / N)
    np.testing.assert_allclose(constrained["cuts"], U.mean(0)[:, None] + [-half, half], rtol=1e-9, atol=1e-12)


def variance_interval(x: np.ndarray) -> np.ndarray:
    variance = np.mean(x**2)
    profile = lambda v: -0.5 * N * (np.log(v) + variance / v)  # noqa: E731
    return np.array([crossing(profile, variance, 0.1 * variance), crossing(profile, variance, 10 * variance)])


@pytest.mark.slow
def test_entries_of_a_covariance(constrained: Any) -> None:
    """The profile of a variance is the likelihood of its column alone; that of the covariance, SciPy's."""
    for i in range(2):
        np.testing.assert_allclose(constrained["cov"][i, i], variance_interval(V[:, i]), rtol=1e-9)
    moments = V.T @ V / N

    def profile(c: float) -> float:
        def loss(logs: np.ndarray) -> float:
            cov = np.array([[np.exp(logs[0]), c], [c, np.exp(logs[1])]])
            sign, logdet = np.linalg.slogdet(cov)
            return 0.5 * N * (logdet + np.trace(np.linalg.solve(cov, moments))) if sign > 0 else np.inf

        start = np.log(np.diag(moments) + abs(c - moments[0, 1]))
        options = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 2000}
        return -optimize.minimize(loss, start, method="Nelder-Mead", options=options).fun

    for found in constrained["cov"][0, 1]:
        # The height that SciPy finds is good to 1e-10 nats.
        np.testing.assert_allclose(profile(moments[0, 1]) - profile(found), DROP, atol=1e-8)
    np.testing.assert_array_equal(constrained["cov"][0, 1], constrained["cov"][1, 0])


def test_entries_of_a_correlation(constrained: Any) -> None:
    r"""With the scales maximised over, $\ell_p(\rho) = n (\tfrac12 \log(1 - \rho^2) - \log(1 - \rho r))$."""
    r = float((W[:, 0] @ W[:, 1]) / np.sqrt((W[:, 0] @ W[:, 0]) * (W[:, 1] @ W[:, 1])))
    profile = lambda rho: N * (0.5 * np.log1p(-(rho**2)) - np.log1p(-rho * r))  # noqa: E731
    expected = [crossing(profile, r, -1 + 1e-12), crossing(profile, r, 1 - 1e-12)]
    np.testing.assert_allclose(constrained["corr"][0, 1], expected, rtol=1e-9)
    np.testing.assert_array_equal(constrained["corr"][[0, 1], [0, 1]], 1.0)


def test_fixed_and_tied() -> None:
    """A fixed parameter ends where it is; tied ones share their ends."""
    density = lambda p, x: norm.logpdf(x, p["a"] + p["b"], p["sd"])  # noqa: E731
    rules = {"b": mle.tied(to="a"), "sd": mle.fixed}
    fit = mle.fit(density, {"a": 0.0, "b": 0.0, "sd": 2.0}, X[0], constraints=rules)
    found = fit.intervals(method="profile")
    half = 2.0 * np.sqrt(2 * DROP / 15)
    np.testing.assert_allclose(found["a"], (X[0].mean() + np.array([-half, half])) / 2, rtol=1e-9)
    np.testing.assert_array_equal(found["a"], found["b"])
    np.testing.assert_array_equal(found["sd"], 2.0)
    with pytest.raises(ValueError, match="sd is fixed"):
        mle.profile(fit, "sd")
    curve = mle.profile(fit, "b", jnp.array(found["a"]))
    np.testing.assert_allclose(curve.drop, DROP, rtol=1e-9)
    np.testing.assert_array_equal(curve.params["a"], curve.params["b"])
    with pytest.raises(ValueError, match="tied"):
        mle.profile(fit, ("a", "b"))


# Ends against other programs ----------------------------------------------------------------------

X2 = RNG.normal(size=25)
TIME = np.exp(1.0 + 0.5 * X2) * RNG.weibull(1.3, size=25)


def weibull(params: Any, obs: Any) -> Any:
    z = params["shape"] * (jnp.log(obs["y"]) - params["coef"][0] - params["coef"][1] * obs["x"])
    return jnp.log(params["shape"]) - jnp.log(obs["y"]) + z - jnp.exp(z)


def loss(shape: float, *coef: float) -> float:
    """The same, written for NumPy, minus its sum."""
    z = shape * (np.log(TIME) - coef[0] - coef[1] * X2)
    return -float(np.sum(np.log(shape) - np.log(TIME) + z - np.exp(z)))


def scipy_profile(held: dict[int, float]) -> float:
    """The highest likelihood with these of shape, coef[0] and coef[1] held."""
    free = [i for i in range(3) if i not in held]

    def of(values: np.ndarray) -> float:
        full = {**held, **dict(zip(free, values))}
        return loss(full[0], full[1], full[2]) if full[0] > 0 else np.inf

    start = np.array([1.3, 1.0, 0.5])[free]
    for _ in range(2):  # begun again at its own end, the simplex forgets that it has collapsed
        found = optimize.minimize(of, start, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13})
        start = found.x
    return -found.fun


@pytest.fixture(scope="module")
def skewed() -> mle.Fit:
    init = {"coef": np.zeros(2), "shape": 1.0}
    return mle.fit(weibull, init, {"x": X2, "y": TIME}, constraints={"shape": mle.positive})


def test_ends_against_minos(skewed: mle.Fit) -> None:
    found = skewed.intervals(method="profile")
    minuit = iminuit.Minuit(loss, 1.0, 0.0, 0.0, name=("shape", "c0", "c1"))
    minuit.errordef, minuit.strategy, minuit.tol = 0.5, 2, 1e-6
    minuit.limits["shape"] = (1e-3, None)
    minuit.migrad().minos(cl=0.95)
    assert minuit.valid
    pairs = [found["shape"], *zip(*found["coef"])]
    for name, pair in zip(("shape", "c0", "c1"), pairs):
        merror = minuit.merrors[name]
        assert merror.is_valid
        ends_there = [minuit.values[name] + merror.lower, minuit.values[name] + merror.upper]
        # MINOS stops 1 % of its tolerance from the level, and its derivatives are finite differences.
        np.testing.assert_allclose(pair, ends_there, atol=1e-3 * float(pair[1] - pair[0]))


def test_ends_lie_on_scipys_level(skewed: mle.Fit) -> None:
    """Far more digits than MINOS has: the profile that SciPy finds at each end lies half a quantile below."""
    low, high = skewed.intervals(method="profile")["coef"], skewed.intervals(method="profile")["shape"]
    top = scipy_profile({})
    np.testing.assert_allclose(top, skewed.log_likelihood, rtol=1e-12)
    for i, pair in enumerate([high, *zip(*low)]):
        for end in pair:
            np.testing.assert_allclose(top - scipy_profile({i: float(end)}), DROP, atol=1e-9)


def test_curve_of_one_element(skewed: mle.Fit) -> None:
    values = np.array([0.0, 0.3, 0.5, 0.9])
    curve = mle.profile(skewed, "coef[1]", values)
    np.testing.assert_array_equal(curve.values[0], values)
    np.testing.assert_array_equal(curve.params["coef"][:, 1], values)
    assert np.all(curve.status == "converged")
    assert not curve.better
    np.testing.assert_allclose(curve.log_likelihood, [scipy_profile({2: v}) for v in values], rtol=0, atol=1e-9)
    for i in range(len(values)):
        point = {k: v[i] for k, v in curve.params.items()}
        at = mle.log_likelihood(weibull, point, {"x": X2, "y": TIME})
        np.testing.assert_allclose(at, curve.log_likelihood[i], rtol=1e-12)
    assert "Profile of coef[1]: 4 points" in repr(curve)


def test_lists_of_values(skewed: mle.Fit) -> None:
    curve = mle.profile(skewed, "coef[1]", [0.0, 0.3, 0.5, 0.9])
    expected = mle.profile(skewed, "coef[1]", np.array([0.0, 0.3, 0.5, 0.9]))
    np.testing.assert_array_equal(curve.log_likelihood, expected.log_likelihood)
    with pytest.raises(ValueError, match="array of the values"):
        mle.profile(skewed, "coef[1]", 0.5)


def test_grid_of_two(skewed: mle.Fit) -> None:
    shapes, slopes = np.array([0.9, 1.5, 2.0]), np.array([0.2, 0.6])
    grid = mle.profile(skewed, ("shape", "coef[1]"), (shapes, slopes))
    assert grid.log_likelihood.shape == grid.drop.shape == (3, 2)
    expected = [[scipy_profile({0: a, 2: b}) for b in slopes] for a in shapes]
    np.testing.assert_allclose(grid.log_likelihood, expected, rtol=0, atol=1e-9)
    assert grid.params["coef"].shape == (3, 2, 2)
    np.testing.assert_array_equal(grid.params["shape"], np.tile(shapes[:, None], 2))


def test_what_cannot_be_held(skewed: mle.Fit) -> None:
    with pytest.raises(ValueError, match=r"no parameter 'slope'; there are coef\[0\], coef\[1\], shape"):
        mle.profile(skewed, "slope")
    with pytest.raises(ValueError, match="two different"):
        mle.profile(skewed, ("shape", "shape"))
    with pytest.raises(ValueError, match="two different"):
        mle.profile(skewed, ("shape", "coef[0]", "coef[1]"))
    with pytest.raises(ValueError, match="one array for each"):
        mle.profile(skewed, ("shape", "coef[0]"), (np.ones(3),))
    with pytest.raises(ValueError, match="points must be"):
        mle.profile(skewed, "shape", points=1)
    with pytest.raises(ValueError, match="level"):
        skewed.intervals(1.0, "profile")
    # What belongs to the other intervals is no argument of these.
    with pytest.raises((ValueError, TypeError), match="kind"):
        skewed.intervals(method="profile", kind="sandwich")
    density = lambda share, kind: jnp.log(share[kind])  # noqa: E731
    shares = mle.fit(density, np.full(3, 1 / 3), KIND, constraints=mle.simplex)
    with pytest.raises(ValueError, match="shares a constraint"):
        mle.profile(shares, "params[0]")


def test_values_outside_the_constraint(skewed: mle.Fit) -> None:
    """They have no likelihood, and spoil nothing beside them."""
    curve = mle.profile(skewed, "shape", np.array([-1.0, 0.0, 1.2]))
    np.testing.assert_array_equal(np.isnan(curve.log_likelihood), [True, True, False])
    np.testing.assert_allclose(curve.log_likelihood[2], scipy_profile({0: 1.2}), rtol=0, atol=1e-9)
    assert "2 nonfinite_start" in repr(curve)


# Ends that are hard to reach, or are not there -----------------------------------------------------


@pytest.mark.slow
def test_a_variance_that_may_be_none() -> None:
    """The lower end of a variance between is zero where the data would do without it, and only there."""
    density = lambda between, x: norm.logpdf(x, 0.0, jnp.sqrt(1.0 + between))  # noqa: E731
    x = RNG.normal(size=(3, 20))
    x *= np.sqrt(np.array([1.15, 1.6, 3.0]) / np.mean(x**2, axis=1))[:, None]
    fits = mle.fit_batch(density, 1.0, x, constraints=mle.positive)
    assert fits.status.counts() == {"converged": 3}
    _, found = ends(fits, 0.95)
    for i, total in enumerate([1.15, 1.6, 3.0]):
        profile = lambda v: -10 * (np.log1p(v) + total / (1 + v))  # noqa: B023, E731
        there = profile(0.0) < profile(total - 1) - DROP
        low = crossing(profile, total - 1, 0.0) if there else 0.0
        np.testing.assert_allclose(found.lower[i, 0], low, rtol=1e-9)
        assert int(found.status[i, 0, 0]) == (mle.Status.converged if there else mle.Status.unbounded)
        np.testing.assert_allclose(found.upper[i, 0], crossing(profile, total - 1, 100.0), rtol=1e-9)
    assert found.lower[0, 0] == 0 < found.lower[2, 0]


@pytest.mark.slow
def test_degrees_of_freedom_up_to_infinity() -> None:
    """Where normal noise fits nearly as well the upper end is infinite; else far out in a flat tail."""
    y = np.random.default_rng(1).standard_t(4, size=(12, 60))[[0, 3, 4, 5, 7]]
    model = mle.regression(lambda params, obs: (0.0, params["scale"], params["df"]), mle.families.student_t)
    rules = {"scale": mle.positive, "df": mle.positive}
    fits = mle.fit_batch(model, {"scale": 1.0, "df": 5.0}, {"y": y}, constraints=rules)
    assert fits.status.counts() == {"converged": 5}
    low, high = fits.intervals(method="profile")["df"]

    def drop(i: int, df: float) -> float:
        noise = stats.norm if np.isinf(df) else stats.t(df)

        def loss(log_scale: float) -> float:
            return -float(np.sum(noise.logpdf(y[i] / np.exp(log_scale)) - log_scale))

        return float(fits.log_likelihood[i]) + optimize.minimize_scalar(loss, bounds=(-2.0, 2.0)).fun

    for i in range(5):
        np.testing.assert_allclose(drop(i, float(low[i])), DROP, atol=1e-8)
        if drop(i, np.inf) < DROP:
            assert np.isposinf(high[i])
        else:
            np.testing.assert_allclose(drop(i, float(high[i])), DROP, atol=1e-8)
    # Both kinds are there.
    assert 0 < np.sum(np.isposinf(high)) < 5


def test_all_but_separated() -> None:
    """One observation short of separation an end lies far out, but it is there."""
    x = np.linspace(-1, 1, 20)
    design = np.column_stack([np.ones(20), x])
    y = (x > 0).astype(float)
    y[[9, 10]] = 1, 0
    fit = mle.fit(logistic, np.zeros(2), {"x": design, "y": y})
    low, high = fit.intervals(method="profile")

    def profile(slope: float) -> float:
        # By symmetry the intercept is zero all along.
        return float(np.sum(y * slope * x - np.logaddexp(0, slope * x)))

    best = float(fit.params[1])
    np.testing.assert_allclose(
        [low[1], high[1]], [crossing(profile, best, 0), crossing(profile, best, 500)], rtol=1e-8
    )
    assert high[1] - best > 2 * (best - low[1])


#: Five numbers each: the likelihood of a Cauchy location has two maxima, one, and two far apart.
TROUBLE = np.array([[-2.0, -1.8, 2.0, 2.2, 1.9], [-1.6, -1.5, 1.5, 1.7, 1.6], [-4.0, -4.2, 4.0, 4.1, 4.3]])


def cauchy(location: Any, x: Any) -> Any:
    return -jnp.log1p((x - location) ** 2)


@pytest.fixture(scope="module")
def lower() -> mle.Fit:
    fits = mle.fit_batch(cauchy, -2.0, TROUBLE)
    assert fits.status.counts() == {"converged": 3}
    assert np.sign(fits.params).tolist() == [-1, 1, -1]
    return fits


def height(i: int) -> Callable[[float], float]:
    return lambda v: -float(np.sum(np.log1p((TROUBLE[i] - v) ** 2)))


def test_a_better_maximum_is_met(lower: mle.Fit) -> None:
    """The first began at the lower of two maxima, close to the other one; in the last they are far apart."""
    with pytest.warns(UserWarning, match="profiles of 1 of 3 data sets met higher maxima"):
        low, high = lower.intervals(method="profile")
    best = optimize.minimize_scalar(lambda v: -height(0)(v), (1.0, 1.9, 3.0)).x
    bests = [best, float(lower.params[1]), float(lower.params[2])]
    for i in range(3):
        top = height(i)(bests[i])
        for end in (low[i], high[i]):
            np.testing.assert_allclose(top - height(i)(float(end)), DROP, atol=1e-8)
        assert low[i] < bests[i] < high[i]
    with pytest.warns(UserWarning, match="profiles met higher maxima"):
        alone = lower[0].intervals(method="profile")
    np.testing.assert_allclose(alone, [low[0], high[0]], rtol=1e-12)


def test_a_curve_that_meets_a_better_maximum(lower: mle.Fit) -> None:
    curve = mle.profile(lower[0], "params", points=5)
    assert bool(curve.better)
    np.testing.assert_allclose(curve.fit.log_likelihood, height(0)(float(curve.fit.params)), rtol=1e-12)
    assert curve.fit.params > 0 > lower.params[0]
    # By default it reaches as far as an interval of 99.9 % would.
    np.testing.assert_allclose(curve.drop[jnp.array([0, -1])], stats.chi2.ppf(0.999, 1) / 2, rtol=1e-8)
    assert np.all(np.asarray(curve.drop) > -1e-9)
    assert "It met a higher maximum than the fit" in repr(curve)
    # The values are given, so no search goes out; one of them lies beside the other maximum.
    both = mle.profile(lower, "params", np.array([-2.0, 1.9, 4.1]))
    assert both.better.tolist() == [True, False, True]
    assert np.all(np.asarray(both.fit.params) > 0)
    np.testing.assert_allclose(both.log_likelihood, [[height(i)(v) for v in (-2.0, 1.9, 4.1)] for i in range(3)])


# Cost -----------------------------------------------------------------------------------------------


def test_one_trace_serves_all_calls() -> None:
    counted = Counted(lambda rate, x: jnp.log(rate) - rate * x)
    x = RNG.exponential(size=(2, 4, 20))
    first, again = (mle.fit_batch(counted, 1.0, one, constraints=mle.positive) for one in x)
    first.intervals(method="profile")
    mle.profile(first, "params", points=5)
    traces = counted.traces
    again.intervals(0.9, "profile")
    mle.profile(again, "params", points=5)
    mle.profile(again, "params", jnp.linspace(1.0, 3.0, 5))
    assert counted.traces == traces
