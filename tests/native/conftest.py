"""Object code of earlier runs is kept beside the other caches of tests, not in the user's directory."""

import os
from pathlib import Path

os.environ["MLEKIT_NATIVE_CACHE"] = str(Path(__file__).parents[2] / ".pytest_cache" / "native")
