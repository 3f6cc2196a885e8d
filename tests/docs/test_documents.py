"""What is written beside the code is true: README, guide and notebooks run, and print what they show."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

import mlekit as mle
from tests.helpers.marks import mostly_slow
from tests.helpers.processes import STRICT, environment

ROOT = Path(__file__).parents[2]
README, DOCS = ROOT / "README.md", ROOT / "docs" / "pages"
PAGES = [README, ROOT / "benchmarks" / "README.md", *sorted(DOCS.rglob("*.md"))]
GUIDE = [path for path in sorted(DOCS.glob("guide/*.md")) if "```python" in path.read_text()]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> list[tuple[str, str]]:
    """The Python blocks of a page, each with the text below it, which is its output, to the letter."""
    pairs = re.findall(r"```python\n(.*?)```\n+(?:```text\n(.*?)```)?", path.read_text(), re.DOTALL)
    assert any(shown for _, shown in pairs)
    return pairs


def assert_shown(code: str, printed: str, shown: str) -> None:
    if shown:
        assert _unrounded(printed) == _unrounded(shown), code


def test_the_readme_prints_what_it_shows(tmp_path: Path) -> None:
    """In a process of its own, as users have it."""
    pairs = blocks(README)
    script = "".join(f"{code}\nprint('<<<end>>>')\n" for code, _ in pairs)
    command = [sys.executable, *STRICT, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert run.returncode == 0, run.stderr
    for (code, shown), printed in zip(pairs, run.stdout.split("<<<end>>>\n")):
        assert_shown(code, printed, shown)


@pytest.fixture
def single_precision() -> Iterator[None]:
    """JAX as users have it, until they ask for float64."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)


@pytest.mark.standard_promotion
@pytest.mark.usefixtures("single_precision")
@pytest.mark.parametrize("path", GUIDE, ids=named)
def test_the_guide_prints_what_it_shows(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In this process, which spares the imports; every block runs after those before it on its page."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for code, shown in blocks(path):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert_shown(code, printed.getvalue(), shown)


def _unrounded(text: str) -> str:
    """Text without the digits of what is zero but for rounding, which differ between machines."""
    return re.sub(r"\d\.\de-\d\d", "0", text.strip())


@pytest.mark.parametrize("path", PAGES, ids=named)
def test_pages_name_what_exists(path: Path) -> None:
    text = path.read_text()
    for name in set(re.findall(r"`mle\.(\w+)", text)):
        assert hasattr(mle, name), name
    for target in re.findall(r"\]\((?!http)([^)#\s]+)\)", text):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_as_they_ran(path: Path) -> None:
    """From start to end in a kernel of their own (`make notebooks`), with outputs and pictures."""
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [out for cell in cells for out in cell.outputs]
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 2
    assert notebook.cells[0].source.startswith("# ")
    assert "## Exercises" in notebook.cells[-1].source
    assert_quiet("".join(out.text for out in outputs if out.get("name") == "stderr"))


SHORT = [path for path in NOTEBOOKS if path.stem == "quick_start"]


@pytest.mark.standard_promotion
@pytest.mark.parametrize("path", mostly_slow(NOTEBOOKS, *SHORT), ids=lambda path: path.stem)
def test_notebooks_run(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From start to end with less data, in this process, which spares the imports; warnings are errors."""
    monkeypatch.setenv("MLEKIT_SMALL", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.chdir(path.parent)
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    pictures = 0
    with matplotlib.rc_context({"backend": "agg"}):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type != "code":
                continue
            with capture_output() as said:
                done = shell.run_cell(cell.source)
                for number in plt.get_fignums():
                    plt.figure(number).savefig(tmp_path / "picture.png")
                    pictures += 1
                plt.close("all")
            done.raise_error()
            assert_quiet(said.stderr)
    assert pictures >= 2


def assert_quiet(stderr: str) -> None:
    """Nothing was warned of; a progress bar may have been shown."""
    assert "Warning" not in stderr
    assert not [line for line in re.split(r"[\r\n]+", stderr) if line.strip() and "[" not in line]


def test_public_names_are_documented() -> None:
    for name in mle.__all__:
        thing = getattr(mle, name)
        if callable(thing):
            assert len(thing.__doc__ or "") > 40, name
