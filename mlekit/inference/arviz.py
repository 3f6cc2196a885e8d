"""Draws as ArviZ reads them: parameters, log-densities of the observations, and the observations."""

from __future__ import annotations

import importlib.metadata
import warnings
from typing import TYPE_CHECKING, Any

import jax
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..core.trees import leaf_name
from ..likelihood.objective import Objective
from ..models.parameters import Parameters
from ..version import __version__
from .draws import vectors
from .evaluate import evaluate, has_contributions
from .record import FitRecord, objective

if TYPE_CHECKING:
    import xarray


#: Up to so many numbers, half a gigabyte, contributions are computed without being asked for.
MANY = 1 << 26
#: Names of the axes of draws, and of that of observations unless a column has this name.
DRAWS, ROWS = ("chain", "draw"), "obs_id"


def of_fit(
    fit: FitRecord,
    key: Any,
    n_draws: int = 1000,
    kind: str = "observed",
    *,
    log_likelihood: bool | None = None,
    **options: Any,
) -> Any:
    """`Fit.to_arviz`, which says what the arguments are."""
    check_one_data_set(fit.batched)
    about = (
        "draws from the asymptotic normal distribution of a maximum-likelihood estimate, made on the free scale: "
        "no prior, and no posterior distribution"
    )
    return draws_tree(fit, vectors(fit, key, n_draws, kind, **options), log_likelihood, about, covariance=kind)


def check_one_data_set(batched: bool) -> None:
    """A `ValueError` for a batch."""
    if batched:
        raise ValueError("to_arviz: ArviZ describes one data set at a time; pick one of the batch: fits[i]")


def draws_tree(fit: FitRecord, drawn: Any, log_likelihood: bool | None, about: str, **more: Any) -> Any:
    """The groups with their attributes."""
    import xarray

    parameters = fit.parameters
    likelihood = objective(fit).likelihood
    data, weights = likelihood.aligned()
    count = int(likelihood.n_unpadded)
    rows, whole = _repeated_rows(count, weights)
    observed = {name: np.asarray(column)[rows] for name, column in _named(data)}
    axis = ROWS
    while axis in observed:
        axis += "_"
    groups = {"posterior": _dataset(parameters, drawn)}

    known = has_contributions(fit)
    if log_likelihood is None:
        log_likelihood = known and whole and len(drawn) * len(rows) <= MANY
    if log_likelihood:
        if not known:
            raise ValueError(
                "log_likelihood=True wants contributions, and this joint model returns a scalar: return the "
                "vector of log p(x_t | x_<t), or leave log_likelihood out"
            )
        if not whole:
            raise ValueError(
                "log_likelihood=True wants whole numbers for weights, for ArviZ sums contributions without any; "
                "leave it out"
            )
        found = np.asarray(evaluate(fit, _contributions, drawn))[:, rows]
        groups["log_likelihood"] = xarray.Dataset({"log_density": ((*DRAWS, axis), found[None])})
    groups["observed_data"] = xarray.Dataset(
        {name: ((axis, *_axes(name, column.shape[1:])), column) for name, column in observed.items()}
    )

    attributes = {
        "sampling": about,
        **more,
        "status": str(fit.status),
        "inference_library": "mlekit",
        "inference_library_version": __version__,
    }
    for dataset in groups.values():
        dataset.attrs.update(attributes)
        for name, size in dataset.sizes.items():
            dataset.coords[name] = np.arange(size)
    return _as_installed(groups, attributes)


def _dataset(parameters: Parameters, drawn: Any) -> xarray.Dataset:
    """One variable a leaf of `params`."""
    import xarray

    leaves = zip(parameters.leaves, parameters.split(parameters.tree(drawn)))
    if taken := {leaf.name for leaf in parameters.leaves} & set(DRAWS):
        raise ValueError(
            f"to_arviz: ArviZ calls its own axes {' and '.join(DRAWS)}; give another name to the parameter "
            f"{taken.pop()!r}"
        )
    return xarray.Dataset(
        {leaf.name: ((*DRAWS, *_axes(leaf.name, leaf.shape)), np.asarray(values)[None]) for leaf, values in leaves}
    )


def _as_installed(groups: dict[str, xarray.Dataset], attributes: dict[str, Any]) -> Any:
    """The groups in one object, of the type that the installed ArviZ reads."""
    import xarray

    if not _before_trees():
        tree = xarray.DataTree.from_dict(groups)
        tree.attrs.update(attributes)
        return tree
    with warnings.catch_warnings():
        # ArviZ warns once a day that its version 1.0 will differ (https://github.com/arviz-devs/arviz/pull/2485);
        # to be deleted with this whole branch when ArviZ 1.0 is the oldest supported version.
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    datasets: dict[str, Any] = dict(groups)
    return arviz.InferenceData(attrs=attributes, **datasets)


def _before_trees() -> bool:
    """True if the installed ArviZ does not yet use the trees of xarray."""
    try:
        return importlib.metadata.version("arviz").startswith("0.")
    except importlib.metadata.PackageNotFoundError:
        return False


def _repeated_rows(count: int, weights: Any) -> tuple[np.ndarray, bool]:
    """The rows as often as their frequency weights say; all once, and `False`, if these are no whole numbers."""
    rows = np.arange(count)
    if weights is None:
        return rows, True
    weights = np.asarray(weights)[:count]
    times = weights.astype(int)
    whole = bool(np.all(times == weights))
    return (np.repeat(rows, times) if whole else rows), whole


def _named(data: PyTree) -> list[tuple[str, Any]]:
    """The columns of the data by name; one without a name is `data`."""
    found = []
    for path, column in jtu.tree_flatten_with_path(data)[0]:
        name = leaf_name(path)
        named = bool(path) and isinstance(path[0], jtu.DictKey | jtu.GetAttrKey)
        found.append((name if named else f"data{name.removeprefix('params')}", column))
    return found


def _axes(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{name}_dim_{i}" for i in range(len(shape)))


def _contributions(objective: Objective, drawn: Float[Array, "n k"]) -> Float[Array, "n rows"]:
    """The log-densities of all rows, a draw at a time."""
    likelihood, parameters = objective.likelihood, objective.parameters
    return jax.lax.map(lambda vector: likelihood.contributions(parameters.tree(vector)), drawn)
