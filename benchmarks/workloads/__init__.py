"""The workloads, one a module: `workloads(size)` makes them, with `size` "quick", "full" or "gpu"."""
