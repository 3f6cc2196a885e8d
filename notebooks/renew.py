"""Run notebooks from start to end and store them with their outputs: `python notebooks/renew.py [NAME ...]`."""

from __future__ import annotations

import sys
from pathlib import Path

import nbclient
import nbformat

HERE = Path(__file__).parent


def renewed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with outputs of its own, and nothing that changes from run to run but what it prints."""
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"
    nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3").execute(cwd=str(HERE))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook["metadata"] = {"kernelspec": kernel}
    for cell in notebook.cells:
        cell["metadata"] = {}
    return notebook


def main(names: list[str]) -> None:
    """Renew those of these names, or all."""
    for path in sorted(HERE.glob("*.ipynb")):
        if not names or path.stem in names:
            print(path.name, flush=True)
            nbformat.write(renewed(nbformat.read(path, as_version=4)), path)


if __name__ == "__main__":
    main(sys.argv[1:])
