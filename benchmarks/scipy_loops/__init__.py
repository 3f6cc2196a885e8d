"""One fit with SciPy or what builds on it, for loops over all cores; nothing here imports JAX."""
