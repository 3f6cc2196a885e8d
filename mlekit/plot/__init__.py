"""Pictures of fits, each drawn on a matplotlib Axes and handed back as that."""

from .batch import batch
from .coefficients import coefficients
from .density import density
from .history import history
from .likelihood import likelihood
from .pairs import pairs
from .profile import profile
from .residuals import pit, qq, residuals

__all__ = [
    "batch",
    "coefficients",
    "density",
    "history",
    "likelihood",
    "pairs",
    "pit",
    "profile",
    "qq",
    "residuals",
]
