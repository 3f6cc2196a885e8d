"""The summary shows the fit's own numbers."""

import html as html_library
import re

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

import mlekit as mle
from mlekit.results import card
from mlekit.results.frames import to_arrow
from mlekit.results.summary import Summary
from tests.results.reported import cells, rate


def test_summary_numbers_are_the_fits(fit):
    frame = fit.summary(level=0.9).to_pandas()
    assert list(frame.index) == ["intercept", "coef[0]", "coef[1]", "sigma_y"], "as init was written"
    assert fit.parameter_names == ("coef[0]", "coef[1]", "intercept", "sigma_y")
    frame = frame.loc[list(fit.parameter_names)]
    np.testing.assert_array_equal(frame["estimate"], fit._solution.estimates)
    np.testing.assert_array_equal(frame["standard_error"], fit._solution.standard_errors)
    lower, upper = fit.intervals(0.9)["sigma_y"]
    assert frame.loc["sigma_y", ["lower", "upper"]].tolist() == [float(lower), float(upper)]
    z = frame["estimate"] / frame["standard_error"]
    assert frame.loc["sigma_y", ["z", "p_value"]].isna().all(), "it is positive, so zero is no hypothesis"
    z["sigma_y"] = np.nan
    np.testing.assert_allclose(frame["z"], z, rtol=1e-15)
    np.testing.assert_allclose(frame["p_value"], 2 * scipy.stats.norm.sf(np.abs(z)), rtol=1e-12, atol=0)


def test_summary_prints_those_numbers(fit):
    text = str(fit.summary())
    rows, frame = cells(text), fit.summary().to_pandas()
    assert list(rows) == list(frame.index)
    for name, row in rows.items():
        expected = frame.loc[name]
        shown_columns = [column for column in frame.columns[:-1] if not np.isnan(expected[column])]
        assert len(row) == len(shown_columns)
        for shown, column in zip(row, shown_columns):
            if shown == "<0.0001":
                assert expected[column] < 1e-4
            else:
                assert float(shown) == pytest.approx(expected[column], abs=0.5001 * _unit(shown)), (
                    name,
                    column,
                )
    words = re.split(r"\s{2,}|\n", text.split("\n\n")[0])
    facts = dict(zip(words[::2], words[1::2]))
    assert float(facts["log-likelihood"]) == pytest.approx(float(fit.log_likelihood), abs=5.1e-5)
    assert float(facts["AIC"]) == pytest.approx(float(fit.aic), abs=5.1e-5)
    assert float(facts["BIC"]) == pytest.approx(float(fit.bic), abs=5.1e-5)
    expected = ("converged", "200", "4", "Newton", str(int(fit.steps)))
    assert tuple(facts[name] for name in ("status", "n_obs", "n_free", "solver", "steps")) == expected
    shown = re.search(r"certificate: decrement \S+, condition number (\S+)", text)
    assert shown is not None
    assert shown.start() > text.index("sigma_y"), "the estimates come first"
    assert float(shown[1]) == pytest.approx(float(fit.certificate.condition_number), rel=5e-3)
    assert "lower 95%" in text
    assert repr(fit.summary()) == text
    lines = text.splitlines()
    points = {
        row.index(".", row.index(name) + len(name)) for name in rows for row in lines if row.startswith(name)
    }
    assert len(points) == 1, "the decimal points of the estimates stand below one another"


def _unit(shown):
    mantissa, _, power = shown.partition("e")
    return 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))


def test_rows_are_in_the_order_of_init():
    def density(params, x):
        z = (x - params["mean"]["b"] - params["mean"]["a"]) / params["scale"]
        return -0.5 * z**2 - jnp.log(params["scale"]) - (params["mean"]["a"] - 1) ** 2

    start = {"scale": 1.0, "mean": {"b": 0.0, "a": 0.0}}
    names = ["scale", "mean.b", "mean.a"]
    x = np.random.default_rng(0).normal(size=(3, 20))
    fit = mle.fit(density, start, x[0], constraints={"scale": mle.positive})
    fits = mle.fit_batch(density, start, x, constraints={"scale": mle.positive})
    computed = mle.fit(density, lambda x: start, x[0], constraints={"scale": mle.positive})
    assert fit.parameter_names == tuple(sorted(names))
    for text in (repr(fit), str(fit.summary()), repr(fits), repr(fits[1]), repr(computed)):
        assert [line.split()[0] for line in text.splitlines() if line.startswith(tuple(names))] == names
    other = mle.fit(density, {"mean": start["mean"], "scale": 1.0}, x[0], constraints={"scale": mle.positive})
    assert fit._written == other._written, "no other structure to JAX"
    jax.tree.map(np.testing.assert_array_equal, fit.params, other.params)


def test_each_row_is_rounded_to_its_own_error(fit):
    for row in cells(str(fit.summary())).values():
        assert len(row[1].strip("0.")) <= 3
        assert row[0].partition(".")[2] == "" or len(row[0].partition(".")[2]) == len(row[1].partition(".")[2])


@pytest.mark.parametrize(
    ("rule", "tested"), [(mle.positive, 0), (mle.less_than(-0.0), 0), (mle.interval(-9.0, 9.0), 1), (None, 1)]
)
def test_no_test_of_zero_where_a_constraint_excludes_it(rule, tested):
    density = lambda p, x: -0.5 * (x - p["m"]) ** 2  # noqa: E731
    sign = -1.0 if isinstance(rule, type(mle.less_than(0.0))) else 1.0
    fit = mle.fit(density, {"m": sign}, sign * np.array([1.0, 2.0, 3.0]), constraints={"m": rule})
    row = cells(str(fit.summary()))["m"]
    assert len(row) == (6 if tested else 4)
    assert ("z" in fit.summary().to_pandas()) == bool(tested)


def test_fixed_and_tied(odd):
    rows = cells(str(odd.summary()))
    assert rows["b"][1:] == ["fixed"]
    assert rows["t[0]"] == [*rows["s"], "tied", "to", "s"]
    frame = odd.summary().to_pandas()
    assert frame["note"].tolist() == ["", "fixed", "", "tied to s"]
    assert np.isnan(frame.loc["b", "p_value"])


def test_unproven_fit_says_so(separated):
    text = str(separated.summary())
    assert cells(text)["b"][1:] == ["–"] * 5
    below = re.fullmatch(
        r"certificate: decrement \S+, condition number \S+ (.*)", " ".join(text.split("\n\n")[-1].split())
    )
    assert below is not None
    assert below[1] == separated.message
    assert "unbounded" in separated.summary().to_latex()
    assert html_library.escape("unbounded: the log-likelihood keeps rising") in separated.summary()._repr_html_()


def test_latex_is_escaped(odd, fit):
    latex = odd.summary().to_latex()
    assert latex.startswith("\\begin{tabular}{lrrrrrrl}\n\\toprule")
    assert "\\ensuremath{<}b\\ensuremath{>}\\_a" in latex
    assert "lower 95\\%" in latex
    assert "n\\_obs" in latex
    assert "sigma\\_y" in fit.summary().to_latex()
    assert "$-$" in latex
    assert not re.search(r"& +-\d", latex)


def test_level_is_checked(fit, fits):
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        Summary(fit, 95)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        Summary(fits, 95)


def test_batch_summary(fits):
    good = np.asarray(fits.converged)
    frame = fits.summary().to_pandas()
    values = np.asarray(fits.params["b"])[good]
    found = frame.loc["b", ["median", "quantile_05", "quantile_95"]].to_list()
    np.testing.assert_allclose(found, np.quantile(values, [0.5, 0.05, 0.95]), rtol=1e-14)
    errors = np.asarray(fits.standard_errors()["b"])[good]
    assert frame.loc["b", "median_standard_error"] == pytest.approx(np.median(errors), rel=1e-14)
    text = str(fits.summary())
    for status, number in fits.status.counts().items():
        assert re.search(rf"{status} +{number} +{100 * number / 60:.1f}%", text)
        assert f"{status} " in fits.summary().to_latex()
    assert "unbounded: the log-likelihood keeps rising" in text


def test_wide_and_long_models():
    name = "a_very_long_name_of_a_parameter_" * 3
    density = lambda params, x: -0.5 * jnp.sum((x - params[name]) ** 2)  # noqa: E731
    fit = mle.fit(density, {name: jnp.zeros((6, 7))}, np.ones((50, 6, 7)))
    assert "... and 30 more" in repr(fit)
    assert repr(fit).count(name) == 12
    assert str(fit.summary()).count(name) == 42
    assert "... and 30 more" in card.html(fit)


def test_nothing_free():
    fit = mle.fit(rate, {"rate": 2.0}, {"wait": np.ones(5)}, constraints={"rate": mle.fixed})
    assert "0 free parameters" in repr(fit)
    assert cells(str(fit.summary()))["rate"] == ["2.0000", "fixed"]
    assert "fixed" in card.html(fit)
    assert fit.to_pandas()["rate_se"].tolist() == [0.0]


def test_float32():
    data = {"wait": jnp.asarray(np.random.default_rng(3).exponential(size=500), jnp.float32)}
    fit = mle.fit(rate, {"rate": jnp.float32(1.0)}, data, constraints={"rate": mle.positive})
    assert repr(fit).startswith("Fit: converged")
    assert "not ok" not in repr(fit)
    assert to_arrow(fit).schema.field("rate").type == pa.float32()
    assert float(cells(str(fit.summary()))["rate"][0]) == pytest.approx(float(fit.params["rate"]), rel=1e-4)


def test_traced_and_mapped(fits):
    seen = []
    jax.jit(lambda f: seen.append(repr(f)))(fits)
    assert "traced" in seen[0]

    def one(x):
        return mle.fit(rate, {"rate": 1.0}, {"wait": x}, constraints={"rate": mle.positive})

    nested = jax.vmap(jax.vmap(one))(jnp.asarray(np.random.default_rng(4).exponential(size=(2, 3, 50))))
    assert repr(nested).startswith("Fit: 6 data sets")
