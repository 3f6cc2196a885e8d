"""What all tests of hypotheses have in common: batches, jit, fits that did not converge, errors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from tests.helpers.models import RULES, START, line, line_data
from tests.inference.hypotheses import (
    COUNTS,
    COUNTS_START,
    DATA,
    FIRST,
    HELD,
    NORMAL,
    PAIR_RULES,
    PLACE,
    N,
    rival_fits,
)


@pytest.fixture(scope="module")
def many() -> mle.Fit:
    return mle.fit_batch(COUNTS, COUNTS_START, DATA)


@pytest.fixture(scope="module")
def many_null() -> mle.Fit:
    return mle.fit_batch(COUNTS, COUNTS_START, DATA, constraints=HELD)


@pytest.fixture(scope="module")
def pair() -> tuple[mle.Fit, mle.Fit]:
    return rival_fits()


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
