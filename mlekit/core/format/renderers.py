"""Two renderers of the same report: one for a terminal, one for a notebook.

A report calls the methods of either, so that both show the same. The HTML needs no style sheet: tags carry
their own colours as white text on a dark ground, readable in light and dark notebooks, and each also says
in words and by a sign what its colour means.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from tabulate import tabulate

from ..status import Status
from .numbers import count, share

WIDTH = 88
GOOD, DOUBTFUL, BAD = "good", "doubtful", "bad"
_SIGNS = {GOOD: "✓", DOUBTFUL: "!", BAD: "✗"}
_GROUNDS = {GOOD: "#1a7f37", DOUBTFUL: "#9a6700", BAD: "#cf222e"}

Rows = Sequence[Sequence[str]]


@runtime_checkable
class Renderer(Protocol):
    """The parts of a report."""

    def title(self, text: str, status: str | None = None) -> None:
        """The first line, with the status of a single fit."""

    def paragraph(self, text: str) -> None:
        """A sentence or more, wrapped."""

    def marks(self, label: str, marks: Sequence[tuple[str, str, str, str]]) -> None:
        """Quantities with a verdict on each: `(name, value, verdict, tone)`."""

    def statuses(self, counts: dict[str, int]) -> None:
        """The number of data sets of each status."""

    def table(self, rows: Rows, headers: Sequence[str] = (), align: Sequence[str] = ()) -> None:
        """A table of text."""

    def render(self) -> str:
        """All that was drawn."""


class TextRenderer:
    """Draws for a terminal."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def title(self, text: str, status: str | None = None) -> None:  # noqa: D102
        self._parts.append(f"{text}: {status}" if status else text)

    def paragraph(self, text: str) -> None:  # noqa: D102
        self._parts.append(textwrap.fill(text, WIDTH, break_on_hyphens=False))

    def marks(self, label: str, marks: Sequence[tuple[str, str, str, str]]) -> None:  # noqa: D102
        # No break inside a mark: a verdict must stay beside its number.
        glued = [f"{name} {value} {verdict}".replace(" ", "\0") for name, value, verdict, _ in marks]
        self._parts.append(textwrap.fill(f"{label}: {', '.join(glued)}", WIDTH).replace("\0", " "))

    def statuses(self, counts: dict[str, int]) -> None:  # noqa: D102
        whole = sum(counts.values())
        if counts:
            rows = [[name, count(n), share(n, whole)] for name, n in counts.items()]
            self._parts.append(draw_table(rows, (), ("left", "right", "right"), "plain"))

    def table(self, rows: Rows, headers: Sequence[str] = (), align: Sequence[str] = ()) -> None:  # noqa: D102
        style = "simple" if headers else "plain"
        self._parts += ["", draw_table(rows, headers, align, style), ""]

    def render(self) -> str:  # noqa: D102
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self._parts)).strip("\n")


class HtmlRenderer:
    """Draws for a notebook."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def title(self, text: str, status: str | None = None) -> None:  # noqa: D102
        tag = f" {_tag(status, status_tone(status))}" if status else ""
        self._parts.append(f"<div><b>{html.escape(text)}</b>{tag}</div>")

    def paragraph(self, text: str) -> None:  # noqa: D102
        self._parts.append(f'<div style="max-width: 50em">{html.escape(text)}</div>')

    def marks(self, label: str, marks: Sequence[tuple[str, str, str, str]]) -> None:  # noqa: D102
        shown = " &ensp; ".join(
            f'<span style="white-space: nowrap">{html.escape(f"{name} {value}")} {_tag(verdict, tone)}</span>'
            for name, value, verdict, tone in marks
        )
        self._parts.append(f"<div>{html.escape(label)}: {shown}</div>")

    def statuses(self, counts: dict[str, int]) -> None:  # noqa: D102
        whole = sum(counts.values())
        shown = " &ensp; ".join(
            f'<span style="white-space: nowrap">{_tag(name, status_tone(name))} '
            f"{count(n)} ({html.escape(share(n, whole))})</span>"
            for name, n in counts.items()
        )
        self._parts.append(f"<div>{shown}</div>")

    def table(self, rows: Rows, headers: Sequence[str] = (), align: Sequence[str] = ()) -> None:  # noqa: D102
        # Spaces are kept in a font of one width: so the decimal points stay below one another. Notebooks
        # style the cells themselves, so every cell has to say it.
        drawn = re.sub(r"<(t[dh])>", r'<\1 style="text-align: left;">', draw_table(rows, headers, align, "html"))
        drawn = drawn.replace(' style="text-align', ' style="white-space: pre; padding: 0.1em 0.6em; text-align')
        style = 'style="font-family: monospace; margin: 0.5em 0"'
        self._parts.append(drawn.replace("<table>", f"<table {style}>", 1))

    def render(self) -> str:  # noqa: D102
        text = f'<div style="line-height: 1.6">{"".join(self._parts)}</div>'
        return text.encode("ascii", "xmlcharrefreplace").decode()  # whatever the page's encoding is


def status_tone(name: str) -> str:
    """The tone of a status: good, doubtful or bad."""
    tones = {"converged": GOOD, "max_steps": DOUBTFUL, "stalled": DOUBTFUL}
    return tones.get(Status[name].name, BAD)


def draw_table(rows: Rows, headers: Sequence[str], align: Sequence[str], style: str) -> str:
    """A table whose cells are text already, by the tabulate library, which also escapes them."""
    options: dict[str, Any] = {"colalign": list(align)} if align else {}
    return tabulate(rows, headers=list(headers), tablefmt=style, disable_numparse=True, **options)


def _tag(text: str, tone: str) -> str:
    style = f"background: {_GROUNDS[tone]}; color: #fff; border-radius: 3px; padding: 0 0.4em"
    return f'<span style="{style}">{_SIGNS[tone]} {html.escape(text)}</span>'
