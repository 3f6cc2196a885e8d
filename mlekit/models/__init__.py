"""Models: parameters, constraints, log-densities, families and compositions."""
