"""Which rows make which part: by place where the rows of each group lie together, by their keys elsewhere."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64, UInt64

from .table_files import TableFiles

if TYPE_CHECKING:
    import pyarrow


#: Codes that are remembered to see whether one comes back; of more groups the rows never count as lying together.
MOST_GROUPS = 1 << 26
#: Codes that are remembered to tell how many groups there are, once one came back.
SAMPLE = 1 << 17

#: Rows that are read together.
ROWS_AT_ONCE = 1 << 20
#: Rows that are remembered of each part, one of which the next part may begin with.
PLACES = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Partition:
    """Which rows make which part.

    Args:
        groups: number of groups; about that number where there are very many that do not lie together.
        n_parts: number of parts.
        first: first row of each part, and last the number of rows, where the rows of every group lie together;
            `None` elsewhere: there a part has the rows whose key code leaves its number when divided by `n_parts`.
    """

    groups: int
    n_parts: int
    first: Int64[np.ndarray, " n_parts_and_one"] | None


def partition_rows(source: TableFiles, by: tuple[str, ...], part_sets: int) -> Partition:
    """One look at the key columns.

    Args:
        source: the table.
        by: its key columns.
        part_sets: groups a part.

    Returns:
        The arrangement. Two keys of one code may make it a worse one, never a wrong one: taken for one key, they
        end up in the same part, and seen twice, their rows do not count as lying together.

    Raises:
        ValueError: a file that cannot be read, or keys that cannot be sorted.
    """
    first: list[np.ndarray] = []
    runs, last = Runs(), None
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
    return Partition(groups, n_parts, places[shares(len(places) - 1, n_parts)])


def shares(n: int, n_parts: int) -> Int64[np.ndarray, " n_parts_and_one"]:
    """Where each of so many shares of `n` things begins, and last the end. Equal ones compile to one program."""
    return np.arange(n_parts + 1) * n // max(n_parts, 1)


class Runs:
    """Counts runs of rows that share a key, and different keys among them, in bounded memory.

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
        """The codes of the next runs."""
        self.number += len(codes)
        self._new.append(codes[codes <= self._limit])
        if sum(map(len, self._new)) > len(self._kept):
            self._merge()

    def distinct(self) -> tuple[int, bool]:
        """How many different codes there were, and whether each made a single run."""
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

    Keys that `mle.group_by` takes for one have one code: NaN is null, and -0 is 0.

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
    """Bits that depend on all of the code's bits: the last step of SplitMix64, which takes no two codes to one."""
    codes = codes + np.uint64(0x9E3779B97F4A7C15)
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return codes ^ (codes >> np.uint64(31))
