"""Hand-written loops in numba, `prange` over the data sets: the strongest peers there are."""
