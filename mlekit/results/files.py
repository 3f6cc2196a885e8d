"""Fits in files: plain arrays and a header of text in a zip archive, which no program is hidden in.

A file holds what a fit found and from which data, under names, and no code. The log-density is code, so it comes
from the program that reads the file: from a fit that is like the one in it.

    header.json         the version of this format, what the parameters are called, what there is
    arrays/<number>.npy the arrays, in the order of the names in the header, in NumPy's own format
    keys.arrow          of groups, the table of their keys
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ..core.archive import Archive, ArchiveKind, decode_array, encode_array, read_archive, write_archive
from ..core.compilation import Static
from ..core.status import Status, StatusArray
from ..core.trees import is_array, tracing
from ..data.groups import Groups
from ..engine.backend import SearchedBy
from ..engine.history import History
from ..engine.modes import Modes
from ..inference.evaluate import evaluate
from ..inference.record import FitRecord
from ..likelihood.dataset import AbstractDataset, GroupsDataset, InMemoryDataset
from ..likelihood.objective import Objective

AnyFit = TypeVar("AnyFit", bound=FitRecord)

KIND = ArchiveKind("path", "holds no fit, or one that is damaged", format=1)
#: What there may be or not, whatever there is in the fit that a file is like.
OPTIONAL = ("weights", "lengths", "index")
#: Fields of a fit, and what files call them.
NAMES = {
    "._solution.estimates": ".solution.vector",
    "._solution.standard_errors": ".solution.errors",
    "._solution.weak_direction": ".solution.weak",
    "._solution": ".solution",
    "._arrays": ".arrays",
    "._dataset": "",
    "._modes": ".optima",
    "._history": ".path",
}
#: Log-likelihoods of one model at one point differ by rounding, and by no more than this share.
SAME = {64: 1e-9, 32: 1e-4}


def save(fit: FitRecord, path: str | os.PathLike[str], data: bool = True) -> None:
    """`Fit.save`."""
    if tracing(fit):
        raise ValueError("save: this fit is known only to a trace; save what the jitted function returns")
    dataset = fit._dataset
    data = data and dataset.at_hand
    leaves = {name: encode_array(leaf) for name, leaf in _named(fit) if data or not name.startswith(".data")}
    header: dict[str, Any] = {
        **_described(fit),
        "solver": fit.solver,
        "weight_column": dataset.weight_column,
        "optima": fit._modes is not None,
        "path": fit._history is not None,
        "raised": fit._raised,
        "backend": [fit._searched_by.backend, fit._searched_by.refusal],
        "data": data,
        "fingerprint": dataset.fingerprint,
        "groups": None,
        "arrays": [{"name": name, **kind} for name, (_, kind) in leaves.items()],
    }
    arrays = [array for array, _ in leaves.values()]
    groups = dataset.source if data and isinstance(dataset, GroupsDataset) else None
    if groups is not None:
        header["groups"] = {"by": list(groups.by), "columns": list(groups.columns)}
        arrays += [groups.offsets, groups.lengths, *groups.columns.values()]
    _write(Path(path), header, arrays, None if groups is None else groups.keys)


def load(path: str | os.PathLike[str], like: AnyFit) -> AnyFit:
    r"""A fit from a file that `Fit.save` wrote, in whichever version of mlekit.

    A file holds numbers and names, and no code: reading it runs none. So the log-density and the constraints come
    from `like`, and it is checked that they are those of the file: by the names of the parameters, by their
    natural values at the free vector, and by the log-likelihood there.

    Args:
        path: the file.
        like: a fit of the same model to any data, single or in a batch; one step on a few rows will do,
            `mle.fit(log_density, init, rows, constraints=..., max_steps=1)`. Where the file was written with
            `data=False`, a fit to the same data.

    Returns:
        The `Fit`, with all its methods.

    Raises:
        ValueError: no file of a fit, one that is damaged or of a later format, a model or data that are not those
            of the file, or numbers of float64 without `jax_enable_x64`.
        TypeError: `like` is no fit.
        OSError: the file cannot be opened.

    Example:
        >>> import os, tempfile, jax.numpy as jnp, mlekit as mle
        >>> density = lambda rate, x: jnp.log(rate) - rate * x
        >>> fit = mle.fit(density, 1.0, jnp.array([1.0, 2.0, 3.0]), constraints=mle.positive)
        >>> path = os.path.join(tempfile.mkdtemp(), "waits.fit")
        >>> fit.save(path)
        >>> like = mle.fit(density, 1.0, jnp.ones(1), constraints=mle.positive, max_steps=1)
        >>> again = mle.load(path, like=like)
        >>> print(again.params.round(4), again.standard_errors().round(4))
        0.5 0.2887
    """
    if not isinstance(like, FitRecord):
        raise TypeError(f"like must be a Fit of the same model, got {type(like).__name__}")
    found = _rebuilt(_read(Path(path)), like, path)
    _check_model(found, path)
    return found


# Arrays.


def _named(fit: FitRecord) -> Iterator[tuple[str, Any]]:
    """Every array of a fit, and every number, with its place in the tree."""
    for path, leaf in jtu.tree_flatten_with_path(fit)[0]:
        if is_array(leaf) or isinstance(leaf, int | float | complex):
            yield _name(path), leaf


def _name(path: Any) -> str:
    """The name of an array in a file: its place in the tree, in the words of the first version."""
    text = jtu.keystr(path)
    for here, there in NAMES.items():
        if text.startswith(here):
            return there + text.removeprefix(here)
    return text


# Files.


def _write(path: Path, header: dict[str, Any], arrays: list[np.ndarray], keys: Any) -> None:
    members = {}
    if keys is not None:
        import pyarrow as pa

        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, keys.schema) as stream:
            stream.write_table(keys)
        members["keys.arrow"] = sink.getvalue()
    write_archive(path, KIND, Archive(header, arrays, members))


class Content(NamedTuple):
    """The content of a file."""

    header: dict[str, Any]
    leaves: dict[str, Any]  # arrays by their place in the tree
    groups: Groups | None


def _read(path: Path) -> Content:
    with path.open("rb") as file:
        content, dtype = read_archive(path, file, KIND, _content)
    if jax.dtypes.canonicalize_dtype(dtype) != jnp.dtype(dtype):
        raise ValueError(
            f"path: the estimates in {path} are {dtype}: call jax.config.update('jax_enable_x64', True) before "
            "reading it"
        )
    return content


def _content(archive: Archive) -> tuple[Content, str]:
    """What a file holds, and the dtype of the estimates."""
    header = dict(archive.header)
    kinds, groups = header["arrays"], header["groups"]
    named, others = archive.arrays[: len(kinds)], archive.arrays[len(kinds) :]
    leaves = {kind["name"]: decode_array(array, kind) for kind, array in zip(kinds, named, strict=True)}
    keys = None if groups is None else archive.members["keys.arrow"]
    dtype = next(kind["dtype"] for kind in kinds if kind["name"] == ".solution.vector")
    return Content(header, leaves, _groups(groups, list(others), keys)), dtype


def _groups(named: Any, arrays: list[np.ndarray], keys: bytes | None) -> Groups | None:
    if keys is None:
        return None
    import pyarrow as pa

    table = pa.ipc.open_stream(keys).read_all()
    offsets, lengths, *columns = arrays
    rows = {len(column) for column in columns}
    if not len(table) == len(offsets) == len(lengths) or rows != {int(lengths.sum())}:
        raise ValueError("groups of different sizes")
    return Groups(table, dict(zip(named["columns"], columns, strict=True)), offsets, lengths, tuple(named["by"]))


def _rebuilt(content: Content, like: AnyFit, path: Any) -> AnyFit:
    """The fit, with code from `like` and numbers from the file."""
    header, leaves, groups = content
    for what, here in _described(like).items():
        if header.get(what) != here:
            raise ValueError(
                f"like: it is no fit of the model in {path}, where {what} is {header.get(what)}; here it is {here}"
            )
    precision, wanted = like._solution.estimates.dtype, leaves[".solution.vector"].dtype
    if precision != wanted:
        raise ValueError(
            f"like: its estimates are {precision}, and those in {path} {wanted}: fit the same model in {wanted}"
        )
    optional: Any = {name: 0.0 if f".{name}" in leaves else None for name in OPTIONAL}
    dataset: AbstractDataset
    if groups is not None:
        dataset = GroupsDataset(optional["index"], Static(groups), header["weight_column"])
    elif header["data"]:
        dataset = InMemoryDataset(data=jax.tree.map(lambda _: 0.0, like._dataset.template), **optional)
    else:
        dataset = like._dataset
        if dataset.fingerprint != header["fingerprint"]:
            raise ValueError(
                f"like: {path} was written without its data, and those of like are others: fit the same model to "
                "the same data"
            )
        leaves = leaves | {name: leaf for name, leaf in _named(like) if name.startswith(".data")}
        known = {field.name for field in dataclasses.fields(dataset)}
        others = optional | {"weight_column": header["weight_column"]}
        dataset = dataclasses.replace(dataset, **{name: others[name] for name in known & set(others)})
    row, whole = jnp.zeros((1, 1)), jnp.zeros(1, int)
    modes = Modes(row[0], whole, row, row, whole, row[0], StatusArray(whole), like.parameter_names)
    parts: dict[str, Any] = {
        "_dataset": dataset,
        "_modes": modes if header["optima"] else None,
        "_history": History(whole, row[0], row[0], row) if header["path"] else None,
        "_raised": tuple((int(number), str(said)) for number, said in header.get("raised", ())),
        "_searched_by": SearchedBy(*map(str, header.get("backend", ()))),
    }
    frame = dataclasses.replace(like, solver=header["solver"], **parts)
    if lacking := sorted({name for name, _ in _named(frame)} ^ set(leaves)):
        raise ValueError(
            f"like: it is no fit of the model in {path}, for only one of them has {', '.join(lacking)}"
        )
    return jtu.tree_map_with_path(lambda path, leaf: leaves.get(_name(path), leaf), frame)


def _described(fit: FitRecord) -> dict[str, Any]:
    """The entries of a header that describe the model."""
    return {
        "parameter_names": list(fit.parameter_names),
        "fixed": [bool(fixed) for fixed in fit.fixed],
        "n_free": fit.n_free,
    }


def _check_model(fit: FitRecord, path: Any) -> None:
    """A `ValueError` where the log-density or the constraints are not those that the file was written with."""
    solution = fit._solution
    vector, log_likelihood = evaluate(fit, _at_maximum, solution.free)
    tolerance = SAME[jnp.finfo(solution.estimates.dtype).bits]
    status = np.asarray(solution.status)
    # What raised would raise again; and where nothing is proven, rounding may decide of the log-likelihood.
    checks = (
        ("estimates are others", vector, solution.estimates, status != Status.raised),
        ("log-likelihood is another", log_likelihood, solution.log_likelihood, status == Status.converged),
    )
    for what, here, there, alike in checks:
        same = np.isclose(here, there, rtol=tolerance, atol=tolerance, equal_nan=True)
        if not np.all(same | ~alike.reshape(alike.shape + (1,) * (same.ndim - alike.ndim))):
            shown = "" if fit.batched else f": it makes it {here}, the file {there}"
            raise ValueError(f"like: its model is not that of {path}, for at the same point the {what}{shown}")


def _at_maximum(objective: Objective, free: Array) -> tuple[Array, Array]:
    loss = objective(free)
    log_likelihood = jnp.where(jnp.isfinite(loss), -loss * objective.n_obs, jnp.nan)
    return objective.parameters.natural_vector(free), log_likelihood
