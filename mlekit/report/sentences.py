"""What inference says, in words and small tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .numbers import NOTHING, count, counted, likelihood, number, probability, share, uncertain
from .pens import HtmlPen, Pen, TextPen

if TYPE_CHECKING:
    from ..certificate import Certificate
    from ..inference.bootstrap import Bootstrap
    from ..inference.comparison import Comparison
    from ..inference.diagnosis import Diagnosis
    from ..inference.hypothesis import HypothesisTest
    from ..inference.identifiability import Identifiability
    from ..inference.profile import Profile

LEVEL = 0.05
#: Weights that differ by less than this are called equal.
EQUAL = 1e-3
#: Condition number beyond which the least certain direction is worth a word.
WEAK = 1e3
#: Decrement beyond which there is no maximum nearby.
SETTLED = 1e-5


def test_text(test: HypothesisTest) -> str:
    """A test in one sentence; of a batch how often it rejects."""
    p = np.asarray(test.p_value)
    if p.ndim:
        known = p[np.isfinite(p)]
        text = (
            f"{test.name} of {counted(p.size, 'data set')}: the hypothesis that {test.hypothesis} is rejected at "
        )
        text += "5 % in "
        text += f"{count(int(np.sum(known < LEVEL)))} of {count(known.size)}"
        return text + (f"; {count(p.size - known.size)} have no p-value" if known.size < p.size else "")
    if np.isnan(p):
        return f"{test.name}: no verdict; the fits did not converge, or the statistic has no covariance"
    verdict = "is rejected" if p < LEVEL else "is not rejected"
    df = float(test.degrees_of_freedom)
    shown = number(test.statistic, 3)
    if test.distribution == "chi-square":
        shown = f"chi-square({count(df)}) = {shown}"
    elif test.distribution == "normal":
        shown = f"z = {shown}"
    text = f"{test.name}: the hypothesis that {test.hypothesis} {verdict} at 5 %: {shown}, p {_equals(float(p))}"
    return text if test.distribution in ("chi-square", "normal") else f"{text} ({test.distribution})"


def _equals(p: float) -> str:
    shown = probability(p)
    return f"< {shown[1:]}" if shown.startswith("<") else f"= {shown}"


def certificate_text(proof: Certificate) -> str:
    """The numbers of a certificate; of a batch the median and the worst of each."""
    pen = TextPen()
    numbers = {
        "decrement": (proof.decrement, 2, np.max),
        "gradient norm": (proof.gradient_norm, 2, np.max),
        "least eigenvalue": (proof.min_eigenvalue, 3, np.min),
        "condition number": (proof.condition_number, 3, np.max),
    }
    if not np.ndim(proof.decrement):
        pen.title("Certificate")
        pen.table([[name, number(value, digits)] for name, (value, digits, _) in numbers.items()])
        if not (float(proof.condition_number) < WEAK and float(proof.decrement) < SETTLED):
            pen.paragraph(f"{proof.words}.")
        return pen.done()
    pen.title(f"Certificates of {counted(np.size(proof.decrement), 'data set')}")
    rows = []
    for name, (values, digits, worst) in numbers.items():
        known = np.asarray(values)[~np.isnan(values)]
        rows.append([name, *(number(of(known), digits) if known.size else NOTHING for of in (np.median, worst))])
    pen.table(rows, ["", "median", "worst"], ("left", "right", "right"))
    return pen.done()


def bootstrap_text(draws: Bootstrap) -> str:
    """The bootstrap as a table: estimate, bias and standard error of each parameter, and the failures."""
    pen = TextPen()
    many = draws.vector.ndim > 2
    failed, replicates = np.asarray(draws.failed), draws.replicates
    pen.title(f"Bootstrap ({draws.kind}): {count(replicates)} replicates" + " a data set" * many)
    if many:
        whole = count(replicates * failed.size)
        pen.paragraph(f"{counted(failed.size, 'data set')}; {count(failed.sum())} of {whole} refits failed")
        return pen.done()
    reasons = {name: n for name, n in draws.status.counts().items() if name != "converged"}
    text = f"{count(int(failed))} refits failed" + (
        f" ({', '.join(f'{n} {name}' for name, n in reasons.items())})" * bool(reasons)
    )
    pen.paragraph(f"{text}, {count(replicates - int(failed))} count")
    vector = np.asarray(draws.vector)
    fine = ~np.any(np.isnan(vector), axis=1)
    best = np.asarray(draws.fit.solution.vector)
    rows = []
    for i, name in enumerate(draws.fit.parameter_names):
        if draws.fit.fixed[i] or fine.sum() < 2:
            rows.append([name, number(best[i]), "", "fixed" if draws.fit.fixed[i] else ""])
            continue
        error = vector[fine, i].std(ddof=1)
        bias = vector[fine, i].mean() - best[i]
        rows.append([name, uncertain(best[i], error), number(bias, 2), number(error, 4)])
    pen.table(rows, ["", "estimate", "bias", "std. error"], ["left", "decimal", "decimal", "decimal"])
    return pen.done()


def profile_text(curve: Profile) -> str:
    """What a profile holds, and whether it found a better maximum."""
    better, status = np.asarray(curve.better), curve.status.counts()
    where = " x ".join(count(v.shape[-1]) for v in curve.values)
    text = f"Profile of {' and '.join(curve.names)}: {where} points"
    if better.ndim:
        text += f" for each of {counted(better.size, 'data set')}"
    bad = {name: n for name, n in status.items() if name != "converged"}
    if bad:
        text += "; without a proven maximum: " + ", ".join(f"{count(n)} {name}" for name, n in bad.items())
    if np.any(better):
        many = f" of {counted(int(better.sum()), 'data set')}" if better.ndim else ""
        text += f". It met a higher maximum than the fit{many}, which was fitted again from there: see .fit"
    return text


def identifiability_text(found: Identifiability) -> str:
    """Whether parameters are identified, and which are not."""
    if found.identified:
        text = f"Identified: the data tell all {count(found.n_free)} directions apart"
        return f"{text} (condition number {number(found.condition_number, 2)})."
    lines = [f"Not identified: the data tell {count(found.rank)} of {count(found.n_free)} directions apart."]
    return "\n".join([*lines, *(direction_text(one) for one in found.directions)])


def direction_text(direction: dict[str, float]) -> str:
    """A flat direction in words."""
    names = list(direction)
    weights = np.array(list(direction.values()))
    if len(names) == 0:
        return "A direction without any parameter."
    if len(names) == 1:
        return f"{names[0]}: the data tell nothing of it."
    if len(names) == 2 and abs(abs(weights[0]) - abs(weights[1])) < EQUAL:
        kept, lost = ("sum", "difference") if weights[0] * weights[1] < 0 else ("difference", "sum")
        return f"{names[0]} and {names[1]}: only their {kept} matters, not their {lost}."
    moves = ", ".join(f"{name} by {number(w, 3)}" for name, w in direction.items())
    return f"{_and(names)} can move together without any effect: {moves}."


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def comparison_text(table: Comparison) -> str:
    """The comparison for a terminal."""
    return _draw_comparison(TextPen(), table)


def comparison_html(table: Comparison) -> str:
    """The same for a notebook."""
    return _draw_comparison(HtmlPen(), table)


def _draw_comparison(pen: Pen, table: Comparison) -> str:
    criterion = {"aic": "AIC", "aicc": "AICc", "bic": "BIC"}[table.criterion]
    if table.aic.ndim > 1:
        best = list(table.best)
        pen.title(f"Comparison of {counted(len(table.names), 'fit')} over {counted(len(best), 'data set')}")
        rows = [[name, count(best.count(name)), share(best.count(name), len(best))] for name in table.names]
        missing = best.count(None)
        rows += [["none converged", count(missing), share(missing, len(best))]] if missing else []
        pen.table(rows, ["", f"lowest {criterion}", ""], ["left", "right", "right"])
        return pen.done()
    values = np.asarray(getattr(table, table.criterion))
    order = np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")
    states: Any = table.status.names()
    rows = [
        [
            table.names[i],
            likelihood(table.log_likelihood[i]),
            count(table.n_free[i]),
            *(likelihood(one[i]) for one in (table.aic, table.aicc, table.bic)),
            f"{float(table.weight[i]):.3f}" if states[i] == "converged" else states[i],
        ]
        for i in order
    ]
    pen.title(f"Comparison by {criterion}")
    headers = ["", "log-likelihood", "parameters", "AIC", "AICc", "BIC", "weight"]
    pen.table(rows, headers, ["left", *["right"] * 6])
    return pen.done()


def diagnosis_remarks(found: Diagnosis) -> tuple[str, ...]:
    """A sentence for each thing that is worth one."""
    if np.ndim(found.least):
        return _remarks_on_batch(found)
    remarks = []
    proof = found.certificate
    if float(proof.condition_number) > WEAK:
        remarks.append(
            f"{proof.words}: the data say little of this direction (condition number "
            f"{number(proof.condition_number, 2)})."
        )
    if bool(found.disagree):
        factor = np.asarray(found.factor)
        off = np.abs(np.log(np.where(factor > 0, factor, 1.0)))
        i = int(np.argmax(off))
        worst = f"of {proof.names[i]} {number(factor[i], 2)} times as large"
        remarks.append(
            "The observed information and the outer product of the scores disagree strongly, so the model is in "
            f'doubt: kind="sandwich" makes the standard error {worst}.'
        )
    return tuple(remarks)


def _remarks_on_batch(found: Diagnosis) -> tuple[str, ...]:
    doubtful, weak = np.asarray(found.disagree), np.asarray(found.certificate.condition_number) > WEAK
    whole, remarks = doubtful.size, []
    if np.any(weak):
        n = int(weak.sum())
        remarks.append(
            f"{counted(n, 'data set')} ({share(n, whole)}): some parameters move together; fits[i].diagnose()."
        )
    if np.any(doubtful):
        n = int(doubtful.sum())
        remarks.append(
            f"{counted(n, 'data set')} ({share(n, whole)}): the observed information and the outer product of the "
            'scores disagree strongly, so the model is in doubt; kind="sandwich" holds anyway.'
        )
    return tuple(remarks)
