"""The documentation site is whole: it builds without a warning, forgets no name, and no link leads nowhere."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import griffe

import mlekit as mle

ROOT = Path(__file__).parents[2]
#: Elements that fetch what they name.
FETCHING = ("script", "link", "img", "iframe", "source", "object", "embed", "video", "audio")


class Page(HTMLParser):
    """What the tests want to know of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.text: list[str] = []
        self._inside: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        urls = [given[name] for name in ("href", "src", "data") if name in given]
        if tag in FETCHING:
            self.fetched += urls
            self.fetched += [part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()]
        elif tag == "a":
            self.links += urls
        if tag in ("script", "style", "pre", "code"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text.append(data)


def test_site(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", "docs/mkdocs.yml", "-d", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "JAX_PLATFORMS": "cpu"},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout + run.stderr == ""  # quiet where all is well
    site = tmp_path.resolve()
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert sorted(forgotten(site, pages)) == []
    assert sorted(dead_links(site, pages)) == []
    assert sorted(from_other_hosts(site, pages)) == []
    assert sorted(unconverted(pages)) == []


def forgotten(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Public names without a place in the reference, and notebooks without a page."""
    reference = set().union(*(page.anchors for path, page in pages.items() if path.parent.name == "reference"))
    functions = {name for name, thing in public_things().items() if inspect.isroutine(thing)}
    yield from (f"mle.{name}" for name in {*mle.__all__, *functions} if f"mle.{name}" not in reference)
    yield from (f"mle.Fit.{name}" for name in members(mle.Fit) if f"mle.Fit.{name}" not in reference)
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        page = site / "notebooks" / f"{notebook.stem}.html"
        if page not in pages or page.name not in pages[page].path.read_text():
            yield notebook.name


def dead_links(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Links and pictures that lead nowhere, within a page, to another one, or to a file."""
    for path, page in pages.items():
        for url in (*page.links, *page.fetched):
            scheme, host, target, _, anchor = urlsplit(url)
            if scheme or host:
                continue
            file = (path.parent / unquote(target)).resolve() if target else path
            there = file.is_file() and site in file.parents
            if not there or (anchor and file in pages and unquote(anchor) not in pages[file].anchors):
                yield f"{path.relative_to(site)}: {url}"


def from_other_hosts(site: Path, pages: dict[Path, Page]) -> Iterator[str]:
    """Scripts, styles, fonts and pictures that a page would fetch from elsewhere."""
    for path, page in pages.items():
        yield from (f"{path.name}: {url}" for url in page.fetched if urlsplit(url).netloc)
        styles = re.findall(r"<style.*?</style>", path.read_text(), re.DOTALL)
        yield from (f"{path.name}: {url}" for style in styles for url in fetched_by_style(style))
    for path in site.rglob("*.css"):
        yield from (f"{path.name}: {url}" for url in fetched_by_style(path.read_text()))


def fetched_by_style(style: str) -> Iterator[str]:
    """What a style sheet fetches from other hosts."""
    for url in re.findall(r"""(?:url\(|@import)\s*["']?([^"')]+)""", style):
        if urlsplit(url).netloc:
            yield url


def unconverted(pages: dict[Path, Page]) -> Iterator[str]:
    """Formulas and marks that stayed as they were written."""
    for path, page in pages.items():
        for mark in (r"\$\$", r"\\\(", r"\\\[", r"\\[a-z]{2,}", r"^::: ", r"^>>> "):
            for line in "".join(page.text).splitlines():
                if re.search(mark, line):
                    yield f"{path.name}: {line.strip()}"


# Docstrings.


def test_docstrings_are_complete() -> None:
    """Every argument by its name, what is returned, and an example that runs."""
    things = public_things()
    methods = {f"{name}.{method}": member for name, kind in things.items() for method, member in promised(kind)}
    assert len(methods) > len(things) > 50
    everything = {**things, **methods}.items()
    assert [f"{name}: {trouble}" for name, thing in everything for trouble in lacking(thing, name in things)] == []


def public_things() -> dict[str, Any]:
    """What every public name stands for: of modules what is in them, of instances their classes."""
    things: dict[str, Any] = {}
    for name in mle.__all__:
        thing = getattr(mle, name)
        if isinstance(thing, types.ModuleType):
            inside = getattr(thing, "__all__", vars(thing))
            things |= {f"{name}.{inner}": getattr(thing, inner) for inner in inside if not inner.startswith("_")}
        else:
            things[name] = thing
    things = {name: as_described(thing) for name, thing in things.items()}
    return {name: thing for name, thing in things.items() if thing.__module__.startswith("mlekit")}


def as_described(thing: Any) -> Any:
    """What holds the docstring: of an instance its class."""
    return thing if inspect.isclass(thing) or inspect.isroutine(thing) else type(thing)


def members(kind: type) -> dict[str, Any]:
    """The public methods and properties of a class, inherited ones too, as they were written."""
    ours = [vars(base) for base in reversed(kind.__mro__) if base.__module__.startswith("mlekit")]
    every = {name: member for base in ours for name, member in base.items() if not name.startswith("_")}
    return {name: member for name, member in every.items() if isinstance(member, types.FunctionType | property)}


def promised(thing: Any) -> Iterable[tuple[str, Any]]:
    """The members that users call: those of solvers and constraints are described in their bases, for authors."""
    ours = inspect.isclass(thing) and not thing.__module__.startswith(
        ("mlekit.solvers", "mlekit.models.constraints")
    )
    return members(thing).items() if ours else ()


def lacking(thing: Any, has_name: bool) -> Iterator[str]:
    """What is missing in a docstring.

    Args:
        thing: a function, class, method or property.
        has_name: whether it has a public name of its own; then it wants an example, and a section on what it
            returns. Methods and properties say that in their first line.
    """
    text = inspect.getdoc(thing) or ""
    if len(text) < 10:
        yield "a docstring"
    if has_name:
        # What a function makes, its example shows.
        maker = re.search(r"made by\s+`(?:mle\.)?(\w+)`", text)
        if ">>> " not in ((inspect.getdoc(getattr(mle, maker[1])) or "") if maker else text):
            yield "an example"
    if isinstance(thing, property) or thing in (mle.Fit, mle.Status):
        return
    signature = inspect.signature(thing)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)  # as griffe calls it
    sections = {part.kind.value: part.value for part in griffe.Docstring(text).parse("google", warnings=False)}
    told = {argument.name.lstrip("*") for argument in sections.get("parameters", ())}
    wanted = set(signature.parameters) - {"self"}
    if told != wanted and not re.search(r"arguments as in `\w+`", text):
        yield f"arguments: {', '.join(sorted(told ^ wanted))}"
    if (
        has_name
        and inspect.isroutine(thing)
        and "returns" not in sections
        and signature.return_annotation != "None"
    ):
        yield "what it returns"
