"""The rules of JAX's primitives, a family a file; to import this room is to have them all."""

from . import control_flow, elementwise, indexing, matrices, moves, reductions

__all__ = ["control_flow", "elementwise", "indexing", "matrices", "moves", "reductions"]
