"""Files of the repository as pages: README, change log, benchmarks, notebooks and worked uses.

They keep their paths, and the pages in docs/pages lie beside them on the site. Links are written as they hold in
the repository; those between docs/pages and the rest are rewritten for the site. MkDocs checks them all, and its
strict mode fails the build on one that leads nowhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from notebook_page import Notebook, converted

ROOT = Path(__file__).parents[2]
#: Notebooks in the order in which they are best read; others follow by name.
ORDER = (
    *("quick_start", "likelihood", "regression_and_classification", "sequences", "unsupervised"),
    *("batch_fitting", "uncertainty", "differentiable_pipelines", "gpu_batch_fitting"),
)
NOTEBOOKS = sorted(
    (ROOT / "notebooks").glob("*.ipynb"),
    key=lambda path: (ORDER.index(path.stem) if path.stem in ORDER else len(ORDER), path.stem),
)
SCRIPTS = sorted((ROOT / "notebooks").glob("*/*.py"))
PICTURES = sorted([*ROOT.glob("mlekit/demo/*.png"), *ROOT.glob("benchmarks/results/*.png")])


class SourcePage(File):
    """A page whose source is no Markdown file."""

    notebook: Notebook | None = None

    def is_documentation_page(self) -> bool:
        """It is one, whatever its suffix."""
        return True


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the notebooks and worked uses into the navigation."""
    config.theme.static_templates.clear()  # a page for what is not found, a map of the site: they want its address
    notebooks: list[Any] = [within(path) for path in NOTEBOOKS]
    notebooks.append({"Worked uses": [within(path) for path in SCRIPTS]})
    place = {"Notebooks": "notebooks"}
    config.nav = [{"Notebooks": notebooks} if entry == place else entry for entry in config.nav or ()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the pictures in them."""
    texts = {"README.md": "", "CHANGELOG.md": "", "benchmarks/README.md": "\n\n".join(results())}
    for name, more in texts.items():
        text = f"{(ROOT / name).read_text()}\n\n{more}"
        files.append(File.generated(config, name, content=text))
    for path in PICTURES:
        files.append(File.generated(config, within(path), abs_src_path=str(path)))
    for path in SCRIPTS:
        files.append(SourcePage.generated(config, within(path), content=script(path)))
    for path in NOTEBOOKS:
        notebook = converted(path)
        page = SourcePage.generated(config, within(path), content=notebook.markdown)
        assert isinstance(page, SourcePage)
        page.notebook = notebook
        files.append(page)
        for name, picture in notebook.pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
        files.append(File.generated(config, f"notebooks/{notebook.download}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **kwargs: Any) -> str:
    """Rewrite the links, and leave the left side empty where there is no section to show."""
    if page.parent is None:
        page.meta["hide"] = ["navigation"]
    depth = page.file.src_uri.count("/")
    if page.file.generated_by is None:  # one of docs/pages, two levels deeper in the repository
        return markdown.replace("](" + "../" * (depth + 2), "](" + "../" * depth)
    return markdown.replace("](" + "../" * depth + "docs/pages/", "](" + "../" * depth)


def on_page_content(html: str, page: Page, **kwargs: Any) -> str:
    """Put what notebooks show as HTML in its place, untouched by Markdown."""
    notebook = getattr(page.file, "notebook", None)
    return notebook.with_outputs(html) if notebook else html


def results() -> Iterator[str]:
    """The pictures of the benchmarks, one section a device."""
    for path in PICTURES:
        if path.parent.name == "results":
            yield f"## Results, {path.stem.upper()}\n\n![Bars: times as fast as each peer](results/{path.name})"


def script(path: Path) -> str:
    """A page of a script: what its docstring says, then its code."""
    source = path.read_text()
    module = ast.parse(source)
    first, _, rest = (ast.get_docstring(module) or "").partition("\n")
    title = re.split("[:,.]", first)[0]
    code = "\n".join(source.splitlines()[module.body[0].end_lineno :]).strip()
    return f"# {title}\n\n{first}\n\n{rest}\n\n## `{path.name}`\n\n```python\n{code}\n```\n"


def within(path: Path) -> str:
    """The path within the repository, and on the site."""
    return path.relative_to(ROOT).as_posix()
