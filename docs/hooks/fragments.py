"""The parts of reference pages that the package itself writes: `<!-- name -->` on a line of its own."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from public_names import PublicNames

import mlekit
from mlekit.cli import main
from mlekit.core.status import ADVICE, Status

DOCS = Path(__file__).parents[1]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write the parts."""
    if not page.file.src_uri.startswith("reference/"):
        return markdown
    return filled(markdown, {**PARTS, "every name": functools.partial(every_name, config, files)})


def filled(markdown: str, parts: dict[str, Callable[[], Iterator[str]]]) -> str:
    """The page with its parts.

    Raises:
        PluginError: a part that is none.
    """

    def part(mark: re.Match[str]) -> str:
        if mark[1] not in parts:
            raise PluginError(f"there is no part {mark[1]!r}, want one of {', '.join(parts)}")
        return "\n".join(parts[mark[1]]())

    return re.sub(r"^<!-- (.+) -->$", part, markdown, flags=re.MULTILINE)


def command_line() -> Iterator[str]:
    """What every command says of itself when asked for `--help`."""
    context = click.Context(main, info_name="mlekit", max_content_width=88, terminal_width=88)
    for name, command in main.commands.items():
        inner = click.Context(command, parent=context, info_name=name)
        yield f"## `mlekit {name}` {{ #mlekit-{name} }}\n\n```text\n{command.get_help(inner)}\n```\n"


def families() -> Iterator[str]:
    """Every noise family."""
    for family in mlekit.families.NAMES:
        name, _, _ = family.partition("(")
        yield f"::: mle.families.{name}\n    options: {{members: false, inherited_members: false}}\n"


def plots() -> Iterator[str]:
    """Every kind of picture."""
    for name in mlekit.plot.__all__:
        yield f"::: mle.plot.{name}\n"


def statuses() -> Iterator[str]:
    """Every status with its sentence."""
    yield "| status | code | meaning, and what to try next |"
    yield "|---|---|---|"
    for status in Status:
        yield f"| `{status.name}` | {int(status)} | {ADVICE[status]} |"


def every_name(config: MkDocsConfig, files: Files) -> Iterator[str]:
    """Every public name by page, with the first line of what there is to say of it."""
    section = next(entry["Reference"] for entry in config.nav or () if "Reference" in entry)
    for uri in section[1:]:
        markdown = filled(files.src_uris[uri].content_string, PARTS)
        title = re.findall(r"^# (.+)$", markdown, re.MULTILINE)[0]
        yield f"## [{title}]({uri.removeprefix('reference/')})\n"
        for name in re.findall(r"^#* ?::: (mle\..+)$", markdown, re.MULTILINE):
            yield f"- `{name}`: {first_line(name)}"
        yield ""


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "command line": command_line,
    "families": families,
    "plots": plots,
    "statuses": statuses,
}


def first_line(name: str) -> str:
    """The first line of what the reference says of a public name, without the full stop."""
    docstring = public_names()[name.removeprefix("mle.")].docstring
    return docstring.value.partition("\n")[0].rstrip(".") if docstring else ""


@functools.cache
def public_names() -> griffe.Object | griffe.Alias:
    """The module `mle` as griffe sees it."""
    loader = griffe.GriffeLoader(
        search_paths=[DOCS / "names", DOCS.parent], extensions=griffe.Extensions(PublicNames())
    )
    loader.load("mlekit")
    return loader.load("mle")
