"""The public name of `models/families/`."""

from ..models.families import *  # noqa: F403
from ..models.families import __all__ as __all__
