"""A model and data together: sums over rows, and their derivatives."""
