"""Fits as a table: one row a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.status import Status
from ..inference.record import FitRecord

if TYPE_CHECKING:
    import pyarrow


def to_arrow(fit: FitRecord) -> pyarrow.Table:
    """One row a data set, made without a loop over them.

    Columns, in this order: the keys, or `set` with the number of the data set in its batch (not for a fit
    that never was in one); for every scalar parameter `<name>` and `<name>_se`; then `log_likelihood`,
    `status` (text), `steps` and `n_obs`. Names are never doubled: results keep theirs, then estimates, then
    errors, then keys. What comes later adds `_estimate`, `_se` or `_key` until its name is new, so a key
    `steps` becomes `steps_key`.

    Args:
        fit: a fit, or a batch of them.

    Returns:
        The table. Errors of a fit that did not converge are NaN, not null.

    Example:
        >>> import jax.numpy as jnp, mlekit as mle
        >>> density = lambda params, x: jnp.log(params["rate"]) - params["rate"] * x
        >>> waits = {"line": ["a", "a", "b", "b"], "wait": [1.0, 3.0, 2.0, 8.0]}
        >>> fits = mle.fit_batch(lambda params, obs: density(params, obs["wait"]), {"rate": 1.0},
        ...                      mle.group_by(waits, by="line"), constraints={"rate": mle.positive})
        >>> table = to_arrow(fits)
        >>> table.column_names
        ['line', 'rate', 'rate_se', 'log_likelihood', 'status', 'steps', 'n_obs']
        >>> [round(rate, 4) for rate in table["rate"].to_pylist()]
        [0.5, 0.2]
    """
    import pyarrow as pa

    codes = np.ravel(fit._solution.status)
    names = fit.parameter_names
    results = {
        "log_likelihood": pa.array(np.ravel(fit.log_likelihood)),
        "status": pa.array([status.name for status in Status]).take(pa.array(codes)),
        "steps": pa.array(np.ravel(fit.steps)),
        "n_obs": pa.array(np.ravel(fit.n_obs)),
    }
    taken = set(results)
    of_estimate = [_new(name, "_estimate", taken) for name in names]
    of_error = [_new(f"{name}_se", "_se", taken) for name in names]
    estimates = _columns(fit._solution.estimates, len(codes), len(names))
    errors = _columns(fit._solution.standard_errors, len(codes), len(names))

    columns: dict[str, Any] = {_new(name, "_key", taken): key for name, key in _keys(fit, len(codes))}
    for i in range(len(names)):
        columns[of_estimate[i]] = pa.array(estimates[i])
        columns[of_error[i]] = pa.array(errors[i])
    return pa.table(columns | results)


def _keys(fit: FitRecord, n_sets: int) -> list[tuple[str, Any]]:
    import pyarrow as pa

    keys = fit.keys
    if keys is not None:
        return list(zip(keys.column_names, keys.columns))
    if fit._dataset.index is None and not fit.batched:
        return []
    index = np.arange(n_sets) if fit._dataset.index is None else np.ravel(fit._dataset.index)
    return [("set", pa.array(index.astype(np.int64)))]


def _columns(values: Any, n_sets: int, k: int) -> np.ndarray:
    """The columns of a matrix, each in one piece, as Arrow takes them without a copy."""
    return np.ascontiguousarray(np.asarray(values).reshape(n_sets, k).T)


def _new(name: str, suffix: str, taken: set[str]) -> str:
    while name in taken:
        name += suffix
    taken.add(name)
    return name
