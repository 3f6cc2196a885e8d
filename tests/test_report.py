"""Reports: they say the Fit's own numbers, escape what users named, and do not hide what failed."""

import html as html_library
import re
import sys
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from jax.scipy.stats import norm

import mlekit as mle
from mlekit.core.format import numbers, progress, renderers
from mlekit.results import card
from mlekit.results.frames import to_arrow
from mlekit.results.summary import Summary


def line(params, obs):
    mean = params["intercept"] + params["coef"] @ obs["x"]
    return norm.logpdf(obs["y"], mean, params["sigma_y"])


def logistic(params, obs):
    z = params["a"] + params["b"] * obs["x"]
    return obs["y"] * z - jnp.logaddexp(0.0, z)


def rate(params, obs):
    return jnp.log(params["rate"]) - params["rate"] * obs["wait"]


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    data = {"x": x, "y": 2013.4 + x @ np.array([1.0, -2e-3]) + 0.05 * rng.normal(size=200)}
    init = {"intercept": 2000.0, "coef": np.zeros(2), "sigma_y": 1.0}
    return mle.fit(line, init, data, constraints={"sigma_y": mle.positive})


@pytest.fixture(scope="module")
def odd():
    """One parameter fixed, one tied, and one whose name is HTML."""

    def pair(params, x):
        return norm.logpdf(x, params["<b>_a"], params["s"]) + norm.logpdf(x, params["b"], params["t"][0])

    rules = {"s": mle.positive, "t": [mle.tied(to="s")], "b": mle.fixed}
    return mle.fit(
        pair,
        {"<b>_a": 0.0, "b": 1.0, "s": 1.0, "t": [1.0]},
        np.random.default_rng(1).normal(size=30),
        constraints=rules,
    )


@pytest.fixture(scope="module")
def separated():
    x = np.linspace(-1, 1, 20)
    return mle.fit(logistic, {"a": 0.0, "b": 0.0}, {"x": x, "y": (x > 0) * 1.0})


@pytest.fixture(scope="module")
def fits():
    x = np.tile(np.linspace(-1, 1, 20), (60, 1))
    y = (np.random.default_rng(2).uniform(size=x.shape) < 1 / (1 + np.exp(-3 * x))) * 1.0
    y[7] = y[20] = x[0] > 0  # no finite maximum
    return mle.fit_batch(logistic, {"a": 0.0, "b": 0.0}, {"x": x, "y": y})


@pytest.fixture(scope="module")
def grouped():
    waits = {"line": ["b", "a", "b", "a", "c", "c"], "rate": [2, 1, 2, 1, 1, 1], "wait": [2.0, 1, 8, 3, 1, 1]}
    groups = mle.group_by(waits, by=["line", "rate"])
    return mle.fit_batch(rate, {"rate": 1.0}, groups, constraints={"rate": mle.positive})


def changed(fit, **values):
    for name, value in values.items():
        old = getattr(fit._solution, name)
        fit = eqx.tree_at(lambda f: getattr(f._solution, name), fit, jnp.full_like(old, value))  # noqa: B023
    return fit


def cells(summary_text):
    """The rows of the main table of a printed summary, by name."""
    body = summary_text.split("\n--", 1)[1].split("\n\n")[0]
    return {row.split()[0]: row.split()[1:] for row in body.splitlines()[1:]}


# Summary ------------------------------------------------------------------------------------------


def test_summary_numbers_are_the_fits(fit):
    frame = fit.summary(level=0.9).to_pandas()
    assert list(frame.index) == list(fit.parameter_names) == ["coef[0]", "coef[1]", "intercept", "sigma_y"]
    np.testing.assert_array_equal(frame["estimate"], fit._solution.estimates)
    np.testing.assert_array_equal(frame["standard_error"], fit._solution.standard_errors)
    lower, upper = fit.intervals(0.9)["sigma_y"]
    assert frame.loc["sigma_y", ["lower", "upper"]].tolist() == [float(lower), float(upper)]
    z = frame["estimate"] / frame["standard_error"]
    np.testing.assert_allclose(frame["z"], z, rtol=1e-15)
    np.testing.assert_allclose(frame["p_value"], 2 * scipy.stats.norm.sf(np.abs(z)), rtol=1e-12, atol=0)


def test_summary_prints_those_numbers(fit):
    text = str(fit.summary())
    rows, frame = cells(text), fit.summary().to_pandas()
    assert list(rows) == list(frame.index)
    for name, row in rows.items():
        expected = frame.loc[name]
        for shown, column in zip(row, frame.columns):
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
    assert float(facts["condition number"]) == pytest.approx(float(fit.certificate.condition_number), rel=5e-3)
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
    assert " ".join(text.split("\n\n")[-1].split()) == separated.message
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


# Cards --------------------------------------------------------------------------------------------


def test_card_says_what_and_why(fit):
    text = repr(fit)
    assert text.startswith("Fit: converged\nThe maximum is proven")
    assert f"log-likelihood {float(fit.log_likelihood):.4f}, 200 observations, 4 free parameters" in text
    assert text.count(" ok") == 4
    assert "not ok" not in text
    error = float(fit._solution.standard_errors[3])
    assert float(cells(text)["sigma_y"][1]) == pytest.approx(error, rel=1e-3)


def test_card_of_an_unproven_fit(separated):
    text = repr(separated)
    assert text.startswith("Fit: unbounded")
    assert re.search(r"decrement \S+ not ok", text)
    assert re.search(r"condition number \S+ ok", text)
    assert re.search(r"(?m)^b +\S+ +–$", text)


@pytest.mark.parametrize(
    ("name", "value", "mark"),
    [("decrement", jnp.inf, "decrement"), ("min_eigenvalue", -0.1, "least eigenvalue"),
     ("condition_number", 1e12, "condition number"), ("gradient_norm", 1.0, "gradient")],
)  # fmt: skip
def test_each_mark_fails_by_itself(separated, name, value, mark):
    proven = {"decrement": 0.0, "gradient_norm": 0.0, "min_eigenvalue": 0.5, "condition_number": 3.0}
    verdicts = {label: verdict for label, _, verdict, _ in card.certificate_rows(changed(separated, **proven))}
    assert set(verdicts.values()) == {"ok"}
    verdicts = {
        label: verdict
        for label, _, verdict, _ in card.certificate_rows(changed(separated, **proven | {name: value}))
    }
    assert verdicts[mark] == "not ok"


def test_unknown_certificate(fit):
    blind = changed(fit, decrement=jnp.nan, gradient_norm=jnp.nan, min_eigenvalue=jnp.nan, status=2)
    blind = changed(blind, condition_number=jnp.nan, errors=jnp.nan)
    assert repr(blind).count("– unknown") == 4
    assert card.html(blind).count("! unknown") == 4
    assert str(blind.summary())


def test_certificates_show_their_numbers(fit, separated, fits):
    shown = repr(fit.certificate)
    for value, digits in ((fit.certificate.decrement, 2), (fit.certificate.condition_number, 3)):
        assert numbers.number(value, digits) in shown
    assert "least certain" not in shown  # nothing is uncertain enough to be named
    assert fit.certificate.condition_number < 1e3
    assert f"{separated.certificate.words}." in repr(separated.certificate)
    worst = np.nanmax(fits.certificate.condition_number)
    assert re.search(rf"condition number .* {re.escape(numbers.number(worst, 3))}$", repr(fits.certificate))


def test_html_card_is_escaped_and_coloured(odd, separated):
    for drawn in (odd._repr_html_(), odd.summary()._repr_html_()):
        assert "&lt;b&gt;_a" in drawn
        assert "<b>_a" not in drawn
        assert "http" not in drawn
        assert drawn.isascii()
    good, bad = (html_library.unescape(fit._repr_html_()) for fit in (odd, separated))
    assert re.search(r"#1a7f37[^>]*>✓ converged<", good)
    assert re.search(r"#cf222e[^>]*>✗ unbounded<", bad)
    assert re.search(r"#cf222e[^>]*>✗ not ok<", bad)
    assert re.search(r"#9a6700[^>]*>! max_steps<", html_library.unescape(card.html(changed(odd, status=1))))


def test_every_status_has_a_tone():
    tones = {status.name: renderers.status_tone(status.name) for status in mle.Status}
    assert [name for name, tone in tones.items() if tone == renderers.GOOD] == ["converged"]
    assert [name for name, tone in tones.items() if tone == renderers.DOUBTFUL] == ["max_steps", "stalled"]


def test_wide_and_long_models():
    name = "a_very_long_name_of_a_parameter_" * 3
    density = lambda params, x: -0.5 * jnp.sum((x - params[name]) ** 2)  # noqa: E731
    fit = mle.fit(density, {name: jnp.zeros((6, 7))}, np.ones((50, 6, 7)))
    assert "... and 30 more" in repr(fit)
    assert repr(fit).count(name) == 12
    assert str(fit.summary()).count(name) == 42
    assert "... and 30 more" in card.html(fit)


def test_batch_card(fits):
    text = repr(fits)
    good = int(np.sum(np.asarray(fits.converged)))
    assert text.startswith("Fit: 60 data sets\nconverged")
    assert f"Estimates over the {good} converged data sets" in text
    shown = float(cells(text)["b"][0])
    assert shown == pytest.approx(np.median(np.asarray(fits.params["b"])[np.asarray(fits.converged)]), abs=1e-3)
    drawn = html_library.unescape(card.html(fits))
    assert "✓ converged</span>" in drawn
    assert "✗ unbounded</span>" in drawn


def test_batches_at_the_edge(fits):
    none = np.asarray(fits.status != mle.Status.converged)
    for batch in (fits[none], fits[:1], fits[:0], fits[7:8]):
        assert repr(batch)
        assert card.html(batch)
        assert str(batch.summary())
        assert batch.summary().to_latex()
        assert len(batch.to_pandas()) == len(batch)
    assert "No data set converged" in repr(fits[none])
    assert repr(fits[:1]).startswith("Fit: 1 data set\n")
    assert repr(fits[7]).startswith("Fit of data set 7: unbounded")


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


# Frames -------------------------------------------------------------------------------------------


def test_arrow_is_the_fits_arrays(fits):
    table = fits.to_arrow()
    names = ["set", "a", "a_se", "b", "b_se", "log_likelihood", "status", "steps", "n_obs"]
    assert table.column_names == names
    assert table.schema.field("set").type == pa.int64()
    assert table.schema.field("status").type == pa.string()
    assert pa.types.is_integer(table.schema.field("n_obs").type)
    np.testing.assert_array_equal(table["a"], fits.params["a"])
    np.testing.assert_array_equal(table["b_se"], fits.standard_errors()["b"])
    np.testing.assert_array_equal(table["log_likelihood"], fits.log_likelihood)
    np.testing.assert_array_equal(table["steps"], fits.steps)
    assert table["status"].to_pylist() == fits.status.names()
    assert table["b_se"].null_count == 0, "errors of unproven fits are NaN, not null"
    assert fits.to_pandas().equals(table.to_pandas())


def test_arrow_of_a_selection(fits):
    mask = np.asarray(fits.params["b"]) > 3
    assert fits[mask].to_arrow()["set"].to_pylist() == np.flatnonzero(mask).tolist()
    assert fits[mask].to_pandas().equals(fits.to_pandas()[mask].reset_index(drop=True))
    assert fits[7].to_arrow()["set"].to_pylist() == [7]
    assert fits[7].to_pandas().equals(fits.to_arrow().slice(7, 1).to_pandas())


def test_arrow_with_keys(grouped):
    table = grouped.to_arrow()
    names = ["line", "rate_key", "rate", "rate_se", "log_likelihood", "status", "steps", "n_obs"]
    assert table.column_names == names, "the key `rate` gives way to the parameter"
    assert table["line"].to_pylist() == ["a", "b", "c"]
    np.testing.assert_allclose(table["rate"], [0.5, 0.2, 1.0], rtol=1e-9)
    assert grouped[1:].to_arrow().equals(table.slice(1))
    assert repr(grouped[1]).startswith("Fit of line=b, rate=2: converged")


def test_arrow_of_a_single_fit(fit):
    table = fit.to_arrow()
    assert table.num_rows == 1
    assert table.column_names[:2] == ["coef[0]", "coef[0]_se"]
    assert table["log_likelihood"][0].as_py() == float(fit.log_likelihood)


def test_difficult_names():
    def density(params, x):
        return norm.logpdf(x, params["[x]"]) - params["a"] ** 2 - params["a_se"] ** 2 - params["steps"] ** 2

    fit = mle.fit(density, {"[x]": 0.0, "a": 0.0, "a_se": 0.0, "steps": 0.0}, np.zeros(4))
    names = fit.to_arrow().column_names
    assert names[:6] == ["[x]", "[x]_se", "a", "a_se_se", "a_se", "a_se_se_se"]
    assert names[6:] == ["steps_estimate", "steps_se", "log_likelihood", "status", "steps", "n_obs"]
    assert "\n {[}x]" in fit.summary().to_latex(), "after a line end a bracket would open an argument"


# Progress -----------------------------------------------------------------------------------------


def test_fit_progress(capsys):
    with progress.FitProgress("Newton") as bar:
        bar(3, -12.3456, 1e-3)
        bar(7, -11.5, 1e-12)
    shown = capsys.readouterr()
    assert shown.out == ""
    last = shown.err.strip().split("\r")[-1]
    assert re.fullmatch(r"Newton: 7 steps \[\d\d:\d\d, log-likelihood -11.5, decrement 1e-12\]", last.strip())


def test_batch_progress(capsys):
    with progress.BatchProgress(5) as bar:
        bar.update(np.array([0, 0, 3]))
        bar.update(np.array([0]))
        bar.update(np.array([], int))
    assert bar.counts == {"converged": 3, "unbounded": 1}
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert "80%" in last
    assert "4/5" in last
    assert "fits/s" in last
    assert "3 converged, 1 unbounded" in last


def test_notebook_without_widgets_is_no_warning(monkeypatch):
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with progress.BatchProgress(1) as bar:
        assert type(bar._bar).__module__ == "tqdm.std"


# Numbers ------------------------------------------------------------------------------------------


def test_numbers():
    assert numbers.number(9.999999) == "10.000"
    assert numbers.number(float("-inf")) == "-inf"
    assert numbers.number(0.0) == "0"
    assert numbers.count(1234567) == "1,234,567"
    assert numbers.count(np.float32(1234.3)) == "1,234.3"
    assert numbers.likelihood(np.float32(-123456.78)) == "-123456.8"
    assert numbers.likelihood(-1234567.89012) == "-1234567.8901"
    assert numbers.probability(0.04) == "0.0400"
