"""Tests run in float64 unless they ask for something else, and nothing is promoted that was not asked for."""

import gc
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

# Most of the time goes into compiling, and most of that for speed that tests do not need; every worker has a core
# to itself. Later versions of JAX stop at flags that they do not know.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        if importlib.metadata.version("jaxlib").startswith("0.10.")
        else "",
    ]
).strip()

import jax
import jaxtyping
import pytest

import tests.helpers.shape_checks

# Before anything of the package is imported: shapes and dtypes are checked at run time.
jaxtyping.install_import_hook("mlekit", f"{tests.helpers.shape_checks.__name__}.checked")

jax.config.update("jax_enable_x64", True)
# Numbers of unlike types and arrays of unlike ranks meet only where somebody wrote how.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Where an operation was written is noted with every frame below it, and a test stands on many.
jax.config.update("jax_traceback_in_locations_limit", 1)
# Traces make millions of objects that live for long, and looking through all of them for garbage finds little.
gc.set_threshold(100_000, 20, 50)

MAPS = Path("/proc/self/maps")
#: A compiled program takes hundreds of memory maps, and Linux grants a process 65,530. Forgetting programs takes
#: time that grows with the square of their number, so it happens at the end of every file that has made some.
SOME_MAPS, MANY_MAPS = 3_000, 30_000


def forget_compiled_programs(beyond: int) -> None:
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > beyond:
        jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def _fresh_file() -> Iterator[None]:
    yield
    forget_compiled_programs(SOME_MAPS)


@pytest.fixture(autouse=True)
def _room_for_compiled_programs() -> Iterator[None]:
    yield
    forget_compiled_programs(MANY_MAPS)
