"""The public name of `models/constraints/`."""

from ..models.constraints import *  # noqa: F403
from ..models.constraints import __all__ as __all__
