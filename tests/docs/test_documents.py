"""What is written beside the code is true: README, guide and notebooks run, and print what they show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
RUNNING = [path for path in (README, *sorted(DOCS.glob("guide/*.md"))) if "```python" in path.read_text()]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", RUNNING, ids=named)
def test_snippets_print_what_they_show(path: Path, tmp_path: Path) -> None:
    """Every Python block of a page runs after those before it; the text below one is its output, to the letter."""
    pairs = re.findall(r"```python\n(.*?)```\n+(?:```text\n(.*?)```)?", path.read_text(), re.DOTALL)
    assert any(shown for _, shown in pairs)
    script = "".join(f"{code}\nprint('<<<end>>>')\n" for code, _ in pairs)
    run = subprocess.run(
        [sys.executable, *STRICT, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert run.returncode == 0, run.stderr
    printed = run.stdout.split("<<<end>>>\n")
    for (code, shown), out in zip(pairs, printed):
        if shown:
            assert _unrounded(out) == _unrounded(shown), code


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


LONG = {"batch_fitting", "regression_and_classification", "uncertainty", "unsupervised"}
SHORT = [path for path in NOTEBOOKS if path.stem not in LONG]


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
