"""Nothing is printed where all is well. The option `--quiet` would hide warnings from the strict mode, too."""

from __future__ import annotations

import logging

from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave warnings and errors."""
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    return config
