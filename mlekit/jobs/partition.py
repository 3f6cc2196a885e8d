"""The partition of a table: by row numbers where the rows of each group lie together, by keys elsewhere."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64, UInt64

from .table_files import TableFiles

if TYPE_CHECKING:
    import pyarrow


#: Codes kept at most to see if one comes back; with more groups the rows never count as lying together.
MOST_GROUPS = 1 << 26
SAMPLE = 1 << 17  #: codes kept at most to estimate the number of groups, once one came back
ROWS_AT_ONCE = 1 << 20  #: rows that are read together
PLACES = 64  #: row numbers kept of each part, at one of which the next part may begin


@dataclasses.dataclass(frozen=True, eq=False)
class Partition:
    """The part that each row belongs to.

    Args:
        groups: number of groups; an estimate where there are very many that do not lie together.
        n_parts: number of parts.
        first: first row of each part, and last the number of rows, where the rows of every group lie together;
            `None` elsewhere: there the number of a row's part is its key code modulo `n_parts`.
    """

    groups: int
    n_parts: int
    first: Int64[np.ndarray, " n_parts_and_one"] | None


def partition_rows(source: TableFiles, by: tuple[str, ...], part_sets: int) -> Partition:
    """The partition of a table, from one pass over its key columns.

    Args:
        source: the table.
        by: the key columns.
        part_sets: groups of a part.

    Returns:
        The partition. Two keys with the same code can make it less even, never wrong: as one key they are in the
        same part, and where the code comes back, their rows do not count as lying together.

    Raises:
        ValueError: a file that cannot be read, or keys that cannot be sorted.
    """
    first: list[np.ndarray] = []
    runs, last = KeyRuns(), None
    stride = max(1, part_sets // PLACES)
    for begin, end in source.ranges(ROWS_AT_ONCE):
        codes = key_codes(source.read(by, begin, end))
        if len(codes):
            rows = np.flatnonzero(np.concatenate([[codes[0] != last], codes[1:] != codes[:-1]]))
            last = codes[-1]
            first.append(begin + rows[-runs.number % stride :: stride])
            runs.add(codes[rows])
    groups, together = runs.distinct()
    n_parts = -(-groups // part_sets)
    if not together:
        return Partition(groups, n_parts, None)
    places = np.concatenate([*first, [source.n_rows]])
    return Partition(groups, n_parts, places[split_evenly(len(places) - 1, n_parts)])


def split_evenly(n: int, n_parts: int) -> Int64[np.ndarray, " n_parts_and_one"]:
    """First index of each of `n_parts` shares of `n` things, and last `n`. Shares of one size share a program."""
    return np.arange(n_parts + 1) * n // max(n_parts, 1)


class KeyRuns:
    """Counts runs of rows with the same key, and the different keys among them, in bounded memory.

    All codes are kept until one of them comes back, or there are too many. From then on those below a limit are a
    sample, and the limit is halved whenever the sample is too large.
    """

    def __init__(self) -> None:
        self.number = 0
        self._kept = np.empty(0, np.uint64)
        self._new: list[np.ndarray] = []
        self._most = MOST_GROUPS
        self._halvings = 0

    def add(self, codes: UInt64[np.ndarray, " n"]) -> None:
        """Add the codes of the next runs."""
        self.number += len(codes)
        self._new.append(codes[codes <= self._limit])
        if sum(map(len, self._new)) > len(self._kept):
            self._merge()

    def distinct(self) -> tuple[int, bool]:
        """The number of different codes, and a boolean: true if each made a single run."""
        self._merge()
        return len(self._kept) << self._halvings, self._most == MOST_GROUPS

    @property
    def _limit(self) -> np.uint64:
        return np.uint64((1 << 64 - self._halvings) - 1)

    def _merge(self) -> None:
        self._kept, self._new = np.unique(np.concatenate([self._kept, *self._new])), []
        if len(self._kept) < self.number or len(self._kept) > MOST_GROUPS:
            self._most = SAMPLE
        while len(self._kept) > self._most:
            self._halvings += 1
            self._kept = self._kept[self._kept <= self._limit]


def key_codes(keys: pyarrow.Table) -> UInt64[np.ndarray, " n_rows"]:
    """A code of 64 bits for each row's key, the same wherever and whenever it is computed.

    Keys that are one group for `mle.group_by` have one code: NaN is null, and -0 is 0.

    Args:
        keys: the key columns.

    Raises:
        ValueError: a key that is no text, number, boolean or date.
    """
    codes = np.zeros(keys.num_rows, np.uint64)
    for name, column in zip(keys.column_names, keys.columns):
        codes = _mixed(codes * np.uint64(0x9E3779B97F4A7C15) + _column_codes(name, column.combine_chunks()))
    return codes


def _column_codes(name: str, column: Any) -> np.ndarray:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column), np.uint64)
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.string()), pa.string()
    if any(is_text(kind) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
        codes = _text_codes(column.cast(pa.large_string()))
    elif any(is_bytes(kind) for is_bytes in (pa.types.is_binary, pa.types.is_fixed_size_binary)):
        codes = _text_codes(column.cast(pa.large_binary()))
    elif pa.types.is_floating(kind):
        values = column.cast(pa.float64()).fill_null(np.nan).to_numpy() + 0.0
        return np.where(np.isnan(values), np.uint64(0), _mixed(values.view(np.uint64)))
    elif pa.types.is_primitive(kind):  # booleans, integers, dates and times
        if not pa.types.is_boolean(kind) and not pa.types.is_integer(kind):
            column = column.view(pa.int64() if kind.bit_width == 64 else pa.int32())
        values = column.fill_null(False if pa.types.is_boolean(kind) else 0).to_numpy(zero_copy_only=False)
        codes = _mixed(values.astype(np.int64 if values.dtype != np.uint64 else np.uint64).view(np.uint64))
    else:
        raise ValueError(
            f"by: {name!r} holds {kind}, want a key that can be sorted: text, numbers, booleans or dates."
        )
    return np.where(column.is_null().to_numpy(zero_copy_only=False), np.uint64(0), codes)


def _text_codes(column: Any) -> np.ndarray:
    """FNV-1a of every text's bytes, for all texts at once."""
    encoded = column.dictionary_encode()
    _, places, content = encoded.dictionary.buffers()
    offset, n = encoded.dictionary.offset, len(encoded.dictionary)
    if not n:
        return np.zeros(len(column), np.uint64)
    ends = np.frombuffer(places, np.int64)[offset : offset + n + 1]
    letters = np.frombuffer(content, np.uint8) if content is not None else np.empty(0, np.uint8)
    codes = np.full(n, 0xCBF29CE484222325, np.uint64)
    begin, lengths = ends[:-1], np.diff(ends)
    longer, position = np.flatnonzero(lengths > 0), 0
    while len(longer):
        codes[longer] = (codes[longer] ^ letters[begin[longer] + position]) * np.uint64(0x100000001B3)
        position += 1
        longer = longer[lengths[longer] > position]
    return _mixed(codes)[encoded.indices.fill_null(0).to_numpy()]


def _mixed(codes: np.ndarray) -> np.ndarray:
    """Codes of which every bit depends on all bits before: the last step of SplitMix64, which is one-to-one."""
    codes = codes + np.uint64(0x9E3779B97F4A7C15)
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return codes ^ (codes >> np.uint64(31))
