"""Profiles as a curve and as contours."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import mlekit as mle
from tests.plot.figures import (
    MEAN,
    SD,
    X,
    corners,
    crossings,
    labels,
    line,
    new_axes,
    normal_fit,
    plot,
    profile,
    said,
    sd_drop,
)


def profile_of_mean(v: Any) -> Any:
    return len(X) / 2 * np.log1p((v - MEAN) ** 2 / SD**2)


def test_profile_of_one() -> None:
    ax = new_axes()
    assert plot.profile(profile(), ax=ax) is ax
    v, fall = line(ax, "profile").T
    np.testing.assert_allclose(fall, profile_of_mean(v), atol=1e-8)
    wanted = crossings(profile_of_mean, MEAN, v[0], v[-1])
    ends = [corners(ax)[:, 0].min(), corners(ax)[:, 0].max()]
    np.testing.assert_allclose(ends, wanted, atol=1e-3 * SD / 5)  # a thousandth of a standard error
    v, parabola = line(ax, "Wald").T
    np.testing.assert_allclose(parabola, len(X) * (v - MEAN) ** 2 / (2 * SD**2), atol=1e-9)
    wald = ax.get_lines()[-1].get_xdata()
    np.testing.assert_allclose(wald, [float(end) for end in normal_fit().intervals()["mean"]])
    assert ax.get_xlabel() == "mean"
    assert said(ax) == ""


def test_profile_of_a_fit_names_its_first_parameter_and_leaves_out_what_is_not_proven() -> None:
    ax = plot.profile(normal_fit(), level=0.9)
    assert ax.get_xlabel() == "mean"
    heights = profile().log_likelihood
    holed = dataclasses.replace(profile(), log_likelihood=heights.at[22].set(jnp.nan))
    ax = plot.profile(holed)
    assert np.isnan(line(ax, "profile")[41 - 1 - 22, 1])
    assert np.isnan(line(ax, "profile")).sum() == 1
    assert len([one for one in ax.collections if len(one.get_paths())]) == 2  # a region on either side of the hole
    assert said(ax) == "1 of 41 points not proven, left out"
    nothing = dataclasses.replace(profile(), log_likelihood=jnp.full_like(heights, jnp.nan))
    with pytest.raises(ValueError, match="no point of this profile has a proven maximum"):
        plot.profile(nothing)


def test_contours_far_from_the_maximum_are_empty() -> None:
    ax = plot.likelihood(normal_fit(), ("mean", "sd"), values=([90.0, 91.0], [1.0, 2.0]), level=0.5)
    assert not any(len(path.vertices) for area in ax.collections for path in area.get_paths())
    assert labels(ax) == ["50% region", "estimate"]


def test_profile_of_two() -> None:
    ax = plot.profile(mle.profile(normal_fit(), ("mean", "sd"), points=9))
    for border, level in zip(ax.collections[1].get_paths(), (0.5, 0.95)):
        v, s = border.vertices.T
        fall = sd_drop(s) + len(X) * (v - MEAN) ** 2 / (2 * s**2)
        np.testing.assert_allclose(fall, stats.chi2.ppf(level, 2) / 2, rtol=0.02)
    off = (line(ax, "Wald") - [MEAN, SD]) * np.sqrt(len(X)) / SD
    np.testing.assert_allclose(off[:, 0] ** 2 + 2 * off[:, 1] ** 2, stats.chi2.ppf(0.95, 2), rtol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean", "sd")
