"""A notebook with its outputs as HTML, for the page that shows it."""

import html
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from markdown_it import MarkdownIt

__all__ = ["as_html", "title_of"]


def as_html(path: Path, highlighted: Callable[[str], str]) -> str:
    """The cells of the notebook.

    Args:
        highlighted: makes HTML of Python.
    """
    parts = []
    for cell in cells_of(path):
        source = "".join(cell["source"])
        parts.append(prose(source) if cell["cell_type"] == "markdown" else highlighted(source))
        parts += [f'<div class="output">{one}</div>' for one in map(output, cell.get("outputs", ()))]
    return "\n".join(parts)


def title_of(path: Path) -> str:
    """The heading of the first cell."""
    return re.match(r"# (.*)", "".join(next(cells_of(path))["source"]))[1]


def cells_of(path: Path) -> Iterator[dict]:
    return iter(json.loads(path.read_text("utf-8"))["cells"])


def prose(source: str) -> str:
    """A cell of Markdown. Its links lead to pages of the site, where that of a notebook is in `files/examples`."""
    page = re.sub(r'href="\.\./docs/([^"#]+)\.md', r'href="../../\1.html', MarkdownIt().render(source))
    return re.sub(r'href="(\w+\.ipynb)"', r'href="\1.html"', page)


def output(one: dict) -> str:
    """A picture, a table or text: the richest form that there is."""
    forms = one.get("data", {})
    if "image/png" in forms:
        about, data = html.escape("".join(forms["text/plain"])), "".join(forms["image/png"]).strip()
        return f'<img alt="{about}" src="data:image/png;base64,{data}">'
    if "text/html" in forms:
        return "".join(forms["text/html"])
    return f"<pre>{html.escape(''.join(one.get('text') or forms['text/plain']))}</pre>"
