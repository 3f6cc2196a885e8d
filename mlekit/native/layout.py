"""Where the numbers of many data sets lie side by side: a vector for each number, one element a data set."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from .loops import SIZES


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the numbers of an array lie.

    Args:
        shape: of the array, for one data set.
        type: of its numbers.
        offset: in bytes, of the vector of its first number.
        stride: in bytes, from one number to the next.
    """

    shape: tuple[int, ...]
    type: str
    offset: int
    stride: int

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


class Layout:
    """The places of arrays, one behind the other.

    Args:
        arrays: shape and dtype of each, for one data set.
        width: number of data sets.
    """

    def __init__(self, arrays: Sequence[Any], width: int) -> None:
        self.width = width
        self.places: list[Place] = []
        self.size = 0
        for one in arrays:
            type = np.dtype(one.dtype).name
            stride = width * SIZES[type]
            self.places.append(Place(tuple(one.shape), type, self.size, stride))
            self.size += -(-self.places[-1].size * stride // 64) * 64

    def __iter__(self) -> Iterator[Place]:
        return iter(self.places)

    def __getitem__(self, i: int) -> Place:
        return self.places[i]

    def __len__(self) -> int:
        return len(self.places)


def shapes(tree: Any) -> list[jax.ShapeDtypeStruct]:
    """Shape and dtype of each leaf."""
    return [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]


def workspace(size: int) -> np.ndarray:
    """Bytes that begin where a vector may."""
    raw = np.zeros(size + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + size]
