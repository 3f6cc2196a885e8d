"""What is written beside the code is true: README snippets and notebooks run, and print what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

import mlekit as mle

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_readme_snippets_print_what_they_show(tmp_path: Path) -> None:
    """Every Python block runs after those before it; a text block below one is what it prints, to the letter."""
    pairs = re.findall(r"```python\n(.*?)```\n+(?:```text\n(.*?)```)?", README, re.DOTALL)
    assert len(pairs) >= 4
    assert sum(bool(shown) for _, shown in pairs) >= 3
    script = "".join(f"{code}\nprint('<<<end>>>')\n" for code, _ in pairs)
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("JAX_")},
    )
    assert run.returncode == 0, run.stderr
    printed = run.stdout.split("<<<end>>>\n")
    for (code, shown), out in zip(pairs, printed):
        if shown:
            assert _unrounded(out) == _unrounded(shown), code


def _unrounded(text: str) -> str:
    """Text without the digits of what is zero but for rounding, which differ between machines."""
    return re.sub(r"\d\.\de-\d\d", "0", text.strip())


def test_readme_names_what_exists() -> None:
    for name in set(re.findall(r"`mle\.(\w+)", README)):
        assert hasattr(mle, name), name
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are stored, with outputs and pictures; and from start to end, with less data."""
    notebook = nbformat.read(path, as_version=4)
    assert outputs(notebook), "stored with its outputs"
    assert sum("image/png" in out.get("data", {}) for out in outputs(notebook)) >= 2
    assert notebook.cells[0].source.startswith("# ")
    assert "## Exercises" in notebook.cells[-1].source
    assert_quiet(notebook)
    monkeypatch.setenv("MLEKIT_SMALL", "1")
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(path.parent))
    assert_quiet(notebook)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def assert_quiet(notebook: nbformat.NotebookNode) -> None:
    """Nothing was warned of; a progress bar may have been shown."""
    said = "".join(out.text for out in outputs(notebook) if out.get("name") == "stderr")
    assert "Warning" not in said
    assert not [line for line in re.split(r"[\r\n]+", said) if line.strip() and "[" not in line]


def test_public_names_are_documented() -> None:
    for name in mle.__all__:
        thing = getattr(mle, name)
        if callable(thing):
            assert len(thing.__doc__ or "") > 40, name
