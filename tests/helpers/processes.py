"""Processes of their own, for tests that need one."""

from __future__ import annotations

import os
from pathlib import Path

import jax

ROOT = Path(__file__).parents[2]
#: JAX's settings that say which compiled programs are kept, and where; `tests/conftest.py` chooses them.
KEEPING = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)
#: Options of Python: warnings are errors, but for that of a program that another process is just writing.
STRICT = ("-W", "error", "-W", "ignore:Error reading persistent compilation cache entry")


def environment(programs: Path | None = None, devices: int | None = None) -> dict[str, str]:
    """For a process with this mlekit, and with JAX as users have it, but for compiled programs that are kept.

    Args:
        programs: where to, if not beside those of all tests: a process that is killed may leave half a program.
        devices: number of devices that the processor passes for.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    kept |= {name.upper(): str(getattr(jax.config, name)) for name in KEEPING}
    kept["PYTHONPATH"] = str(ROOT)
    if programs is not None:
        kept["JAX_COMPILATION_CACHE_DIR"] = str(programs)
    if devices is not None:
        kept["XLA_FLAGS"] = f"{kept.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return kept
