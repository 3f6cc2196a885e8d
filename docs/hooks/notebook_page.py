"""A notebook as a Markdown page: its stored outputs with it, nothing is run."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

#: What a cell shows, the best first; text is always there.
KINDS = ("text/html", "image/svg+xml", "image/png", "text/markdown", "text/latex", "text/plain")
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
#: In a notebook a list or a formula may follow a line of text at once; Python's Markdown wants a line between.
LIST = re.compile(r"^((?!\s*(?:[-*+>|#]|\d+\.) )\s*\S.*)\n(?=(?:[-*+]|\d+\.) )", re.MULTILINE)
FORMULA = re.compile(r"^\$\$.+?\$\$[ ]*$", re.MULTILINE | re.DOTALL)
#: What a line that draws returns, and nobody wants to read.
DRAWN = re.compile(r"\[?<matplotlib\.|Text\(")
STYLE = re.compile(r"<style.*?</style>", re.DOTALL)


@dataclasses.dataclass
class Notebook:
    """The page of a notebook, and what goes with it."""

    stem: str
    markdown: str = ""
    pictures: dict[str, bytes] = dataclasses.field(default_factory=dict)
    outputs: list[str] = dataclasses.field(default_factory=list)

    @property
    def download(self) -> str:
        """Where the notebook itself lies, beside its page."""
        return f"{self.stem}/{self.stem}.ipynb"

    def picture(self, content: bytes, suffix: str) -> str:
        """A picture in Markdown."""
        name = f"{self.stem}/{len(self.pictures) + 1}.{suffix}"
        self.pictures[name] = content
        return f"![Picture: what the code above draws]({name})"

    def raw(self, content: str) -> str:
        """A place for HTML that Markdown must not touch."""
        self.outputs.append(content)
        return f'<div data-output="{len(self.outputs) - 1}"></div>'

    def with_outputs(self, page: str) -> str:
        """The HTML of the page with all outputs in their places."""
        return re.sub(r'<div data-output="(\d+)"></div>', lambda match: self.outputs[int(match[1])], page)


def converted(path: Path) -> Notebook:
    """The page of a notebook.

    Args:
        path: where the notebook lies.

    Raises:
        ValueError: a cell ended with an error, or shows what no page can.
    """
    notebook = Notebook(path.stem)
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(FORMULA.sub(r"\n\g<0>\n", LIST.sub(r"\1\n\n", source)))
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(f"```python\n{source}\n```")
            parts += (shown(output, notebook) for output in merged(cell["outputs"]))
    title, _, rest = "\n\n".join(parts).partition("\n")
    link = f"[Download this notebook]({notebook.download}){{ .download }}"
    notebook.markdown = f"{title}\n\n{link}\n{rest}\n"
    return notebook


def merged(outputs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Outputs, with the pieces of one stream in one."""
    for stream, several in groupby(outputs, key=lambda output: output.get("name")):
        if stream is None:
            yield from several
        else:
            yield {"output_type": "stream", "text": ["".join(piece["text"]) for piece in several]}


def shown(output: dict[str, Any], notebook: Notebook) -> str:
    """One output in Markdown."""
    kind = output["output_type"]
    if kind == "error":
        raise ValueError(f"{notebook.stem}: a cell ended with {output['ename']}: {output['evalue']}")
    data = {"text/plain": output["text"]} if kind == "stream" else output["data"]
    page = "".join(data.get("text/html", ""))
    if STYLE.search(page) and 'class="dataframe"' not in page:
        # What brings its own style does not go with that of the site; it has a text, too.
        data = {name: content for name, content in data.items() if name != "text/html"}
    best = next((name for name in KINDS if name in data), None)
    if best is None:
        raise ValueError(f"{notebook.stem}: a cell shows {', '.join(data)}, want one of {', '.join(KINDS)}")
    content = "".join(data[best])
    match best:
        case "text/html":  # tables of pandas and polars bring a style, too: the site's is used
            return notebook.raw(f'<div class="output" data-search-exclude>{STYLE.sub("", content)}</div>')
        case "image/svg+xml":
            return notebook.picture(content.encode(), "svg")
        case "image/png":
            return notebook.picture(base64.b64decode(content), "png")
        case "text/markdown" | "text/latex":
            return content
    if kind == "execute_result" and DRAWN.match(content):
        return ""
    text = html.escape(COLOURS.sub("", content).strip("\n"))
    return notebook.raw(f'<div class="output" data-search-exclude><pre>{text}</pre></div>')
