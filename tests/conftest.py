"""What all tests share: float64, and a compilation cache that works across workers."""

import jax

jax.config.update("jax_enable_x64", True)
