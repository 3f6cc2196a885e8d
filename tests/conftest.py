"""Tests run in float64 unless they ask for something else, and nothing is promoted that was not asked for."""

import contextlib
import ctypes
import gc
import importlib.metadata
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Most of the time goes into compiling, and most of that for speed that tests do not need; every worker has a core
# to itself. Later versions of JAX stop at flags that they do not know. Workers inherit the flags of the process
# that starts them, and programs are kept by their flags: none is given twice.
os.environ["XLA_FLAGS"] = " ".join(
    dict.fromkeys(
        [
            *os.environ.get("XLA_FLAGS", "").split(),
            "--xla_backend_optimization_level=0",
            *(
                ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
                if importlib.metadata.version("jaxlib").startswith("0.10.")
                else []
            ),
        ]
    )
)

import jax
import jax.monitoring
import jaxtyping
import pytest

import tests.helpers.shape_checks

# Before anything of the package is imported: shapes and dtypes are checked at run time.
jaxtyping.install_import_hook("mlekit", f"{tests.helpers.shape_checks.__name__}.checked")

# Every worker would rewrite the asserts of all test files again where Python is to leave no bytecode beside them.
CACHE = Path(__file__).parents[1] / ".pytest_cache"
if sys.dont_write_bytecode:
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(CACHE / "bytecode")

# Programs of earlier runs on this kind of processor are read, which spares half of a run. Workers share them, and
# so do processes of their own (`tests.helpers.processes`).
processor = Path("/proc/cpuinfo").read_text().split("\n\n")[0] if Path("/proc/cpuinfo").exists() else ""
flags = [line for line in processor.splitlines() if line.startswith(("model name", "flags", "Features"))]
kept = CACHE / f"programs-{zlib.crc32(''.join(flags).encode()):08x}"
jax.config.update("jax_compilation_cache_dir", str(kept))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# So is the object code of native kernels, which a user has in a directory of their own.
os.environ["MLEKIT_NATIVE_CACHE"] = str(CACHE / "native")

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
#: time, that of compiling shared ones again included, and so does counting maps: once in so many programs.
MANY_MAPS, MANY_PROGRAMS = 20_000, 60
COMPILED = "/jax/core/compile/backend_compile_duration"
events = Counter[str]()


def _count(event: str, duration_secs: float, **rest: str | int) -> None:
    events[event] += 1


jax.monitoring.register_event_duration_secs_listener(_count)


@pytest.fixture(autouse=True)
def _room_for_compiled_programs() -> Iterator[None]:
    yield
    if events[COMPILED] >= MANY_PROGRAMS and MAPS.exists():
        events.clear()
        if MAPS.read_bytes().count(b"\n") > MANY_MAPS:
            jax.clear_caches()
            with contextlib.suppress(AttributeError):  # a C library without it
                ctypes.CDLL(None).malloc_trim(0)  # gigabytes, which it would keep otherwise


@pytest.fixture(autouse=True)
def _promotion(request: pytest.FixtureRequest) -> Iterator[None]:
    """Marked tests run as most users do."""
    if request.node.get_closest_marker("standard_promotion") is None:
        yield
        return
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
