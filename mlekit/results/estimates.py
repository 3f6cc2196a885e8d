"""The table of estimates: of one fit with their errors, of a batch with their spread."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.format.numbers import NOTHING, exponent, held_digits, number, probability, uncertain
from ..inference.covariance import errors
from ..inference.record import FitRecord
from ..inference.wald import wald

HEADINGS = {
    "estimate": "estimate",
    "standard_error": "std. error",
    "z": "z",
    "p_value": "p-value",
    "lower": "lower",
    "upper": "upper",
    "median": "median",
    "quantile_05": "5%",
    "quantile_95": "95%",
    "median_standard_error": "median std. error",
}
_ERRORS = ("standard_error", "median_standard_error")
_TESTS = ("z", "p_value")
_BLANK_IF_FIXED = (*_TESTS, "lower", "upper")


@dataclasses.dataclass(frozen=True)
class Estimates:
    """One row a scalar parameter.

    Args:
        names: flat names of the parameters.
        columns: the numbers as they are, each of shape `(k,)`.
        fixed: True for each that kept the value it started with.
        tied_to: the twin of each, or nothing.
        never_zero: True for each that its constraint keeps away from zero, so that a test of zero says nothing.
        at_bound: the share of the data sets in which each lies on a bound that holds it there.
        outside: True for each whose interval is wider than its range.
        hidden: how many more parameters there are.
    """

    names: Sequence[str]
    columns: dict[str, np.ndarray]
    fixed: Sequence[bool]
    tied_to: Sequence[str]
    never_zero: Sequence[bool]
    at_bound: Sequence[float]
    outside: Sequence[bool]
    hidden: int = 0

    @property
    def error(self) -> np.ndarray:
        """The column of standard errors."""
        return next(self.columns[name] for name in _ERRORS if name in self.columns)

    @functools.cached_property
    def notes(self) -> list[str]:
        """A remark on each parameter, mostly empty."""
        often = [f"at its bound in {100 * at:.3g}%" if 0 < at < 1 else "" for at in self.at_bound]
        tied = [f"tied to {twin}" if twin else "" for twin in self.tied_to]
        wide = ["interval leaves its range" if outside else "" for outside in self.outside]
        return [", ".join(filter(None, all_of_one)) for all_of_one in zip(tied, often, wide)]

    @functools.cached_property
    def decimals(self) -> list[int | None]:
        """Decimals of the numbers of each row, so that its error shows three digits.

        `None` where there is no error, or magnitudes or the precision do not allow it; then each number of the
        row has its own.
        """
        columns = [column for name, column in self.columns.items() if name not in _TESTS]
        return [_decimals(error, [column[i] for column in columns]) for i, error in enumerate(self.error)]

    def cells(self, columns: Sequence[str] | None = None) -> tuple[list[list[str]], list[str], list[str]]:
        """The table as text.

        Args:
            columns: the columns to show; all by default.

        Returns:
            rows, headers and alignments.
        """
        shown = list(columns or self.columns)
        rows = [
            [self.names[i], *(self._cell(name, i) for name in shown), self.notes[i]]
            for i in range(len(self.names))
        ]
        if self.hidden:
            rows.append([f"... and {self.hidden:,} more", *[""] * (len(shown) + 1)])
        headers = ["", *(HEADINGS[name] for name in shown), ""]
        align = ["left", *("right" if name in _TESTS else "decimal" for name in shown), "left"]
        if any(self.notes):
            return rows, headers, align
        return [row[:-1] for row in rows], headers[:-1], align[:-1]

    def _cell(self, column: str, i: int) -> str:
        value = self.columns[column][i]
        if self.fixed[i] and column in (*_ERRORS, *_BLANK_IF_FIXED):
            return "fixed" if column in _ERRORS else ""
        if self.at_bound[i] == 1 and column in (*_ERRORS, *_BLANK_IF_FIXED):
            return "at bound" if column in _ERRORS else ""
        if self.never_zero[i] and column in _TESTS:
            return ""
        if math.isnan(value):
            return NOTHING
        if column == "p_value":
            return probability(value)
        if column == "z":
            return f"{value:.2f}" if abs(value) < 1e7 else number(value)
        if self.decimals[i] is not None:
            return f"{value:.{self.decimals[i]}f}"
        return number(value) if column in _ERRORS else uncertain(value, self.error[i])


def _decimals(error: Any, numbers: Sequence[Any]) -> int | None:
    if not np.isfinite(error) or error <= 0 or np.any(np.isinf(numbers)):
        return None
    wanted = max(0, 2 - exponent(error, 3))
    room = held_digits(error) - 1 - exponent(np.nanmax(np.abs(numbers)))
    shown = min(wanted, room)
    return shown if wanted <= 8 and shown >= max(0, wanted - 2) else None


def single(fit: FitRecord, level: float, kind: str = "observed", **options: Any) -> Estimates:
    """The estimates of a single fit, with errors, two-sided tests against zero and Wald intervals."""
    standard_errors = errors(fit, kind, **options)
    lower, upper = wald(fit._solution.estimates, standard_errors, level)
    estimate, error = np.asarray(fit._solution.estimates), np.asarray(standard_errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where((error > 0) & ~_never_zero(fit), estimate / error, np.nan)
    p_value = np.array([math.erfc(abs(one) / math.sqrt(2)) for one in z.tolist()])
    low, high = (np.asarray(end) for end in fit.parameters.ranges(fit._solution.estimates))
    table = _ordered(
        fit,
        {
            "estimate": estimate,
            "standard_error": error,
            "z": z,
            "p_value": p_value,
            "lower": np.asarray(lower),
            "upper": np.asarray(upper),
        },
        outside=(np.asarray(lower) < low) | (np.asarray(upper) > high),
    )
    if any(
        not (never or at == 1 or fixed) for never, at, fixed in zip(table.never_zero, table.at_bound, table.fixed)
    ):
        return table
    columns = {name: column for name, column in table.columns.items() if name not in _TESTS}
    return dataclasses.replace(table, columns=columns)


def at_hand(fit: FitRecord, limit: int) -> Estimates:
    """The estimates of a single fit, with those errors that nothing has to be computed for."""
    columns = {
        "estimate": np.asarray(fit._solution.estimates),
        "standard_error": np.asarray(fit._solution.standard_errors),
    }
    return _ordered(fit, columns, limit)


def spread(fit: FitRecord, limit: int | None = None) -> Estimates:
    """The spread of the estimates over the converged data sets of a batch."""
    k = len(fit.parameter_names)
    proven = np.flatnonzero(np.asarray(fit.converged))
    rows = _rows(fit, limit)
    estimate, error = (
        np.asarray(of_all).reshape(-1, k)[proven][:, rows]
        for of_all in (fit._solution.estimates, fit._solution.standard_errors)
    )
    none = np.full(estimate.shape[1], np.nan, estimate.dtype)
    columns = {
        "median": _quantile(estimate, 0.5, none),
        "quantile_05": _quantile(estimate, 0.05, none),
        "quantile_95": _quantile(estimate, 0.95, none),
        "median_standard_error": _quantile(error, 0.5, none),  # where it is not at its bound
    }
    return _of(fit, columns, rows)


def _quantile(values: np.ndarray, q: float, none: np.ndarray) -> np.ndarray:
    if not len(values):
        return none
    known = ~np.all(np.isnan(values), axis=0)
    with np.errstate(invalid="ignore"):
        found = np.nanquantile(np.where(known[None], values, 0.0), q, axis=0)
    return np.where(known, found, np.nan).astype(values.dtype)


def _ordered(
    fit: FitRecord, columns: dict[str, Any], limit: int | None = None, outside: np.ndarray | None = None
) -> Estimates:
    """The table of a single fit, of columns in the order of `parameter_names`."""
    rows = _rows(fit, limit)
    return _of(fit, {name: column[rows] for name, column in columns.items()}, rows, outside)


def _rows(fit: FitRecord, limit: int | None) -> list[int]:
    """The places of the parameters in the order in which `init` was written."""
    return fit._written.entries(fit.parameters.leaves)[:limit]


def _never_zero(fit: FitRecord) -> np.ndarray:
    """For each of `parameter_names`, whether zero is at or beyond the ends of its range, of a single fit."""
    if fit.batched:
        return np.zeros(len(fit.parameter_names), bool)
    low, high = (np.asarray(end) for end in fit.parameters.ranges(fit._solution.estimates))
    return (low >= 0) | (high <= 0)


def _share_at_bound(fit: FitRecord) -> np.ndarray:
    """For each of `parameter_names`, the share of the converged data sets in which it lies on its bound."""
    at_bound = np.asarray(fit._at_bound).reshape(-1, len(fit.parameter_names))
    proven = np.asarray(fit.converged).ravel()
    return at_bound[proven].mean(axis=0) if proven.any() else np.zeros(at_bound.shape[1])


def _of(fit: FitRecord, columns: dict[str, Any], rows: list[int], outside: np.ndarray | None = None) -> Estimates:
    """The table of these parameters; the columns have them in this order."""
    tied: list[str] = []
    for leaf in fit.parameters.leaves:
        # A tied leaf has its twin's shape, so their entries match one by one.
        tied += [f"{leaf.tied_to or ''}{name[len(leaf.name) :] if leaf.tied_to else ''}" for name in leaf.names()]
    names, never_zero, at_bound = fit.parameter_names, _never_zero(fit), _share_at_bound(fit)
    return Estimates(
        names=[names[i] for i in rows],
        columns=columns,
        fixed=[fit.fixed[i] for i in rows],
        tied_to=[tied[i] for i in rows],
        never_zero=[bool(never_zero[i]) for i in rows],
        at_bound=[float(at_bound[i]) for i in rows],
        outside=[outside is not None and bool(outside[i]) for i in rows],
        hidden=len(names) - len(rows),
    )
