"""Profile likelihoods: curves, grids and intervals."""
