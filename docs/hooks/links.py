"""Links from every mention of a public name, `mle.fit` or `fit.covariance(...)`, to its place in the reference."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

import mlekit

#: Where no link belongs: in code blocks, links and headings.
ELSEWHERE = re.compile(r"(<(pre|a|h[1-6])\b.*?</\2>)", re.DOTALL)
MENTION = re.compile(r"<code>((\w+)(?:\.(\w+))?(?:\.(\w+))?\b[^<]*)</code>")
#: What examples call a fit.
FITS = ("Fit", "fit", "fits")


def on_page_content(html: str, page: Page, **kwargs: Any) -> str:
    """Link the mentions on a page.

    Raises:
        PluginError: a name that mlekit does not have.
    """

    def linked(mention: re.Match[str]) -> str:
        target = place(*mention.groups()[1:])
        if target is None:
            return mention[0]
        if not target:
            raise PluginError(f"{page.file.src_uri}: there is no {mention[1]}")
        return f'<autoref identifier="{target}" optional>{mention[0]}</autoref>'

    pieces = ELSEWHERE.split(html)  # text, what is kept, its tag, text, ...
    pieces[::3] = (MENTION.sub(linked, text) for text in pieces[::3])
    del pieces[2::3]
    return "".join(pieces)


def place(first: str, second: str | None, third: str | None) -> str | None:
    """The anchor of a mention; `None` if it is none of a public name, empty if it is one of a name that is not."""
    if first == "mle":
        thing = getattr(mlekit, second or "", None)
        if thing is None or (third is not None and not hasattr(thing, third)):
            return ""
        return ".".join(filter(None, (first, second, third)))
    if first in FITS and second and hasattr(mlekit.Fit, second):
        return f"mle.Fit.{second}"
    if second is None and first[0].isupper() and first in mlekit.__all__:
        return f"mle.{first}"
    return None
