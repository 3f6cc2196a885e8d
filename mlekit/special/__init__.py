"""The public name of `core/special/`."""

from ..core.special import *  # noqa: F403
from ..core.special import __all__ as __all__
