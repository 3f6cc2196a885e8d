"""Mathematical functions of vectors, by the names of JAX's primitives."""

from .power import integer_pow
from .table import FUNCTIONS

__all__ = ["FUNCTIONS", "integer_pow"]
