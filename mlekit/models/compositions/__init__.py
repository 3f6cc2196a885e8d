"""Densities made of others: of responses censored, truncated, mixed, or with more zeros than a model allows."""

from .censored import censored
from .mixture import mixture
from .truncated import truncated
from .zero_inflated import zero_inflated

__all__ = ["censored", "mixture", "truncated", "zero_inflated"]
