"""Formulas as MathML, made when the site is built: pages need no script for them, and nothing from elsewhere."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

import ziamath
from math_core import LatexError, LatexToMathML
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
#: For readers whose system has no mathematical font.
FONT = Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"
CONVERTER = LatexToMathML(fancy_error=False)


def on_page_content(html: str, page: Page, **kwargs: Any) -> str:
    """Convert the formulas of a page.

    Raises:
        PluginError: a formula that is no LaTeX.
    """

    def converted(formula: re.Match[str]) -> str:
        try:
            return mathml(formula[2], block=formula[1] == "div")
        except LatexError as error:
            raise PluginError(f"{page.file.src_uri}: {formula[2]}: {error}") from error

    return FORMULA.sub(converted, html)


def on_post_build(config: MkDocsConfig) -> None:
    """Put the font beside the style."""
    shutil.copy(FONT, Path(config.site_dir, "assets", "formulas.ttf"))


def mathml(latex: str, block: bool) -> str:
    """One formula; one on lines of its own may be wider than a phone, so it scrolls by itself."""
    found = CONVERTER.convert_with_local_state(html.unescape(latex), displaystyle=block)
    return f'<div class="formula" tabindex="0">{found}</div>' if block else found
