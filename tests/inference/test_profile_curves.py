"""Profiles as curves, beside MINOS and SciPy."""

from __future__ import annotations

from typing import Any

import iminuit
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import mlekit as mle
from tests.inference.profiles import DROP, KIND, TIME, X2, loss


def weibull(params: Any, obs: Any) -> Any:
    z = params["shape"] * (jnp.log(obs["y"]) - params["coef"][0] - params["coef"][1] * obs["x"])
    return jnp.log(params["shape"]) - jnp.log(obs["y"]) + z - jnp.exp(z)


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
