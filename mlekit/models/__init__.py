"""What a user writes: parameters, constraints, log-densities, families and compositions."""
