"""Columns of tables and frames as arrays of numbers."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.dtypes import widened

ACCEPTED = "an xarray Dataset, a pyarrow Table or RecordBatch, a polars or pandas DataFrame, or a dict of columns"


class NotNumericError(ValueError, TypeError):
    """A column that holds something else: a table of the wrong value, and a column of the wrong type.

    Args:
        message: the message.
        name: name of the column.
        kind: type of its values.
    """

    def __init__(self, message: str, name: str, kind: Any) -> None:
        super().__init__(message)
        self.name, self.kind = name, kind


def table_columns(
    table: Any, columns: str | Sequence[str] | None = None, *, drop: str | Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The numeric columns of a table as arrays, copied only where they must be.

    Integers, floats and booleans keep their dtype. Nulls become NaN, which makes integers and booleans
    float64. Decimals become float64, and lists of fixed length `k` an array of shape `(n_rows, k)`.

    Args:
        table: as in `group_by`.
        columns: names to convert; all unless given.
        drop: names to leave out.

    Returns:
        Name to array of shape `(n_rows, ...)`, in the order asked for.

    Raises:
        TypeError: `table` is none of the above.
        ValueError: an unknown or repeated name; an empty table; a column that is not numeric; columns of
            different lengths.

    Example:
        >>> table_columns({"name": ["a", "b"], "x": [1, None]}, drop="name")
        {'x': array([ 1., nan])}
    """
    source = _open(table)
    return {n: as_numbers(n, source[n]) for n in _chosen(columns, source, chosen_names(drop, source, "drop"))}


def is_table(obj: Any) -> bool:
    """True if `obj` is a pyarrow, polars or pandas table; a dict is a PyTree of arrays already.

    Example:
        >>> import pyarrow as pa
        >>> is_table(pa.table({"x": [1]})), is_table({"x": [1]})
        (True, False)
    """
    # Single columns have an Arrow stream as well; only tables have a schema or columns. Looking at the type runs
    # no property of the object, and needs none of the table packages.
    kind = type(obj)
    return hasattr(kind, "__arrow_c_stream__") and (hasattr(kind, "schema") or hasattr(kind, "columns"))


def is_dataset(obj: Any) -> bool:
    """True if `obj` is an xarray Dataset; there is none where xarray is not imported.

    Example:
        >>> import xarray
        >>> is_dataset(xarray.Dataset()), is_dataset({"x": [1]})
        (True, False)
    """
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(obj, xarray.Dataset)


def _open(table: Any) -> dict[str, Any]:
    """Name to column, as the table holds it: no column is converted yet."""
    if is_dataset(table):  # which is a mapping as well
        pairs = _variables(table)
    elif isinstance(table, Mapping):
        pairs = [(str(name), column) for name, column in table.items()]
    elif is_table(table) and hasattr(table, "iloc"):  # pandas
        pairs = [(str(name), table.iloc[:, i]) for i, name in enumerate(table.columns)]
    elif is_table(table) and hasattr(table, "get_columns"):  # polars
        pairs = [(column.name, column) for column in table.get_columns()]
    elif is_table(table):
        import pyarrow as pa

        arrow = pa.table(table)
        pairs = list(zip(arrow.column_names, arrow.columns))
    else:
        kind = f"{type(table).__module__}.{type(table).__qualname__}"
        cure = "; call .collect() first" if hasattr(table, "collect") else ""
        raise TypeError(f"table: got {kind}, want {ACCEPTED}{cure}.")
    source: dict[str, Any] = {}
    for name, column in pairs:
        if name in source:
            raise ValueError(f"table: several columns are called {name!r}, want a name of its own for each.")
        if isinstance(column, str) or getattr(column, "ndim", 1) == 0 or not hasattr(column, "__len__"):
            raise ValueError(f"table: column {name!r} is {column!r}, want one entry a row.")
        source[name] = column
    rows = [len(column) for column in source.values()]
    if not any(rows):
        raise ValueError(f"table: got no {'rows' if rows else 'columns'}, want at least one.")
    odd = next((i for i, n in enumerate(rows) if n != rows[0]), 0)
    if odd:
        a, b = pairs[0][0], pairs[odd][0]
        raise ValueError(f"table: {a!r} has {rows[0]:,} rows and {b!r} {rows[odd]:,}, want the same of both.")
    return source


def _variables(dataset: Any) -> list[tuple[str, Any]]:
    """Variables and coordinates of a Dataset as columns, one entry a row."""
    dims = {name: frozenset(variable.dims) for name, variable in dataset.data_vars.items()}
    if len(set(dims.values())) == 1:
        frame = dataset.to_dataframe().reset_index()
        return [(str(name), frame[name]) for name in frame]
    shared = frozenset.intersection(*dims.values()) if dims else frozenset()
    if len(shared) != 1:
        shown = ", ".join(f"{name!r} has {dataset[name].dims}" for name in dims) or "it has no variables"
        raise ValueError(
            f"table: variables of an xarray Dataset want the same dimensions, or one that all share; {shown}."
        )
    (rows,) = shared
    columns = {**dataset.data_vars, **{k: c for k, c in dataset.coords.items() if c.dims == (rows,)}}
    return [(str(name), column.transpose(rows, ...).to_numpy()) for name, column in columns.items()]


def chosen_names(names: str | Sequence[str], source: Iterable[str], argument: str) -> tuple[str, ...]:
    """The names as a tuple; a `ValueError` for one that is unknown or named twice, a `TypeError` for no names."""
    if not isinstance(names, Iterable):
        near = f": columns are called by text, {argument}='{names}'" if str(names) in source else ""
        kind = type(names).__name__
        raise TypeError(f"{argument}: got a {kind}, want a column name or a sequence of names{near}.")
    chosen = (names,) if isinstance(names, str) else tuple(names)
    if not chosen and argument != "drop":
        raise ValueError(f"{argument}: got no name, want at least one of {_listed(source)}.")
    for name in chosen:
        _check_known(name, source, argument)
        if chosen.count(name) > 1:
            raise ValueError(f"{argument}: {name!r} is named twice, want each column once.")
    return chosen


def _chosen(
    columns: str | Sequence[str] | None, source: Mapping[str, Any], left_out: Sequence[str]
) -> Sequence[str]:
    if columns is not None:
        return chosen_names(columns, source, "columns")
    chosen = [name for name in source if name not in left_out]
    if not chosen:
        raise ValueError(f"columns: nothing is left beside {_listed(left_out)}, want at least one column.")
    return chosen


def _check_known(name: Any, known: Iterable[str], argument: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(str(name), list(known))
        nearest = f"; nearest: {_listed(near)}" if near else ""
        raise ValueError(f"{argument}: there is no {name!r}{nearest}; want one of {_listed(known)}.")


def _listed(names: Iterable[str], most: int = 20) -> str:
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:most]) + (f" and {len(quoted) - most} more" if len(quoted) > most else "")


def _arrow(name: str, column: Any, argument: str) -> Any:
    """The column as a pyarrow ChunkedArray of plain (not dictionary-encoded) values."""
    import pyarrow as pa

    try:
        if hasattr(column, "__arrow_c_stream__"):  # pyarrow, polars, pandas
            arrow = pa.chunked_array(column)
        else:
            if not isinstance(column, list | tuple | pa.Array | np.ma.MaskedArray):
                column = np.asarray(column)
                column = column.astype(column.dtype.newbyteorder("="), copy=False)
            arrow = pa.chunked_array([pa.array(column, from_pandas=True)])
        if not pa.types.is_dictionary(arrow.type):
            return arrow
        chunks = []
        # By hand: pyarrow (26 still) has no `take` of string views, and so decodes no dictionary of them:
        # https://github.com/apache/arrow/issues/43010. Once it does: arrow.cast(arrow.type.value_type).
        for chunk in arrow.chunks:
            values = chunk.dictionary
            values = values.cast(pa.large_string()) if pa.types.is_string_view(values.type) else values
            chunks.append(values.take(chunk.indices))
        return pa.chunked_array(chunks)
    except (pa.ArrowException, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"{argument}: {name!r} is no column of one type: {error}.") from None


def as_numbers(name: str, column: Any) -> np.ndarray:
    """The column as an array of integers, floats or booleans, NaN where it was null."""
    dtype = getattr(column, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind == "V":  # bfloat16 and its like, which Arrow does not know
        column = widened(column)
        dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf" and not np.ma.isMaskedArray(column):
        return np.asarray(column).astype(dtype.newbyteorder("="), copy=False)  # JAX refuses swapped bytes
    import pyarrow as pa

    arrow = _arrow(name, column, "columns")
    shape: tuple[int, ...] = (len(arrow),)
    while pa.types.is_fixed_size_list(arrow.type) and arrow.null_count == 0:
        shape += (arrow.type.list_size,)
        arrow = pa.chunked_array([chunk.flatten() for chunk in arrow.chunks], type=arrow.type.value_type)
    kind = arrow.type
    if pa.types.is_decimal(kind) or pa.types.is_null(kind):
        arrow = arrow.cast(pa.float64())
    elif pa.types.is_boolean(kind) and arrow.null_count:
        arrow = arrow.cast(pa.int8())  # pyarrow would make objects of booleans with nulls
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        held = f"{kind} with nulls" if pa.types.is_fixed_size_list(kind) else kind
        cure = f"{encoding(f'table[{name!r}]', kind)}, or leave it out with columns=[...]"
        raise NotNumericError(f"columns: {name!r} holds {held}, want numbers; {cure}.", name, held)
    return arrow.to_numpy().reshape(shape)


def encoding(column: str, kind: Any) -> str:
    """What to do with a column that holds no numbers, with the code that does it.

    Args:
        column: an expression that gives the column.
        kind: what it holds, in words.
    """
    held = str(kind)
    if held == "dates" or held.startswith(("date", "timestamp")):
        code = f"numpy.asarray({column}, 'datetime64[D]').astype(float) gives days"
    elif held == "objects" or "text" in held or "string" in held:
        code = f"levels, codes = numpy.unique({column}, return_inverse=True) gives a whole number a row"
    else:
        return "encode it as numbers"
    return f"encode it as numbers ({code})"
