"""What all tests share: float64 is on, as it is for the command line."""

import jax

jax.config.update("jax_enable_x64", True)
