"""The card of a fit says what was found, and why to believe it."""

import html as html_library
import re

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import mlekit as mle
from mlekit.core.format import numbers, renderers
from mlekit.results import card
from tests.results.reported import cells


def changed(fit, **values):
    for name, value in values.items():
        old = getattr(fit._solution, name)
        fit = eqx.tree_at(lambda f: getattr(f._solution, name), fit, jnp.full_like(old, value))  # noqa: B023
    return fit


def test_card_says_what_and_why(fit):
    text = repr(fit)
    assert text.startswith("Fit: converged\nThe maximum is proven")
    assert f"log-likelihood {float(fit.log_likelihood):.4f}, 200 observations, 4 free parameters" in text
    assert text.count(" ok") == 4
    assert "not ok" not in text
    error = float(fit._solution.standard_errors[3])
    assert float(cells(text)["sigma_y"][1]) == pytest.approx(error, rel=5e-3)


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
    blind = changed(blind, condition_number=jnp.nan, standard_errors=jnp.nan)
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


def test_batch_card(fits):
    text = repr(fits)
    good = int(np.sum(np.asarray(fits.converged)))
    assert text.startswith("Fit: 60 data sets\nconverged")
    assert f"Estimates over the {good} converged data sets" in text
    shown = float(cells(text)["b"][0])
    assert shown == pytest.approx(np.median(np.asarray(fits.params["b"])[np.asarray(fits.converged)]), abs=5e-3)
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
