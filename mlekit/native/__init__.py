"""Native kernels: log-densities, their derivatives and solver steps, compiled from their jaxprs."""
