"""Pages of HTML that need no other file: no scripts, no links to elsewhere, a light and a dark form, ready to print."""

import base64
import io
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib import metadata
from typing import Any

import jax

__all__ = ["STYLE", "document", "environment", "fragment", "marked", "picture", "svg", "table"]

# Notebooks have rules of their own for the cells of all tables, which count for more than those without `!important`.
STYLE = """
.funcnet { --ink: #1d1d1f; --paper: #fff; --quiet: #5f6368; --line: #dcdcdc; --bad: #b3261e; --good: #1a6b3c;
  --pale: #fdecea; --card: #f5f6f7; color: var(--ink); background: var(--paper); font: 15px/1.5 system-ui, sans-serif; }
@media screen and (prefers-color-scheme: dark) { .funcnet { --ink: #e6e6e6; --paper: #16181c; --quiet: #9aa0a6;
  --line: #3a3d42; --bad: #ff8a80; --good: #7bd49b; --pale: #3d1f1d; --card: #202328; color-scheme: dark; } }
.funcnet table { border-collapse: collapse; margin: .5rem 0 1rem; font-size: 13px;
  font-variant-numeric: tabular-nums; color: inherit; }
.funcnet th, .funcnet td { padding: .3rem .8rem; text-align: left !important; white-space: nowrap; background: none;
  border-bottom: 1px solid var(--line); }
.funcnet th { font-weight: 600; color: var(--quiet); }
.funcnet .number { text-align: right !important; }
.funcnet tr.wrong td { background: var(--pale); }
.funcnet tr.wrong > td:first-child, .funcnet b.wrong { color: var(--bad); font-weight: 700; }
.funcnet tr.ok > td:first-child, .funcnet b.ok { color: var(--good); font-weight: 700; }
.funcnet .place { padding: .6rem 1rem; border-left: 4px solid var(--bad); background: var(--pale); }
.funcnet .missing { padding: .6rem 1rem; border-left: 4px solid var(--line); background: var(--card); }
.funcnet .scroll { overflow-x: auto; }
.funcnet .quiet { color: var(--quiet); font-size: 13px; }
"""

# Charts have no background. On a dark page their lightness is inverted, and their hues stay.
PAGE_STYLE = """
html { background: #fff; }
body { margin: 0; }
main.funcnet { max-width: 1180px; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
.funcnet h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
.funcnet h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
.funcnet summary { cursor: pointer; padding: .35rem 0; }
.funcnet details { border-top: 1px solid var(--line); }
.funcnet figure { margin: 1.2rem 0; }
.funcnet svg, .funcnet img { max-width: 100%; height: auto; }
.funcnet .photo { background: #fff; border-radius: 4px; }
@media screen and (prefers-color-scheme: dark) {
  html { background: #16181c; }
  .funcnet .chart { filter: invert(.92) hue-rotate(180deg); }
}
@media print {
  main.funcnet { max-width: none; padding: 0; font-size: 12px; }
  .funcnet figure, .funcnet tr { break-inside: avoid; }
  .funcnet h2 { break-after: avoid; }
  .funcnet .scroll { overflow: visible; }
  .funcnet table { font-size: 9px; }
  .funcnet th, .funcnet td { padding: .15rem .35rem; white-space: normal; }
  .funcnet details::details-content { content-visibility: visible; block-size: auto; }
}
"""


def document(title: str, body: str, style: str = "") -> str:
    """A whole page; the title is text, the body HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{PAGE_STYLE}{style}</style></head>\n"
        f'<body><main class="funcnet"><h1>{escape(title)}</h1>\n{body}</main></body></html>\n'
    )


def fragment(body: str) -> str:
    """HTML for a notebook, with its style."""
    return f'<div class="funcnet"><style>{STYLE}</style>{body}</div>'


def table(headings: Sequence[str], lines: Sequence[Sequence[str]], classes: Sequence[str] = (), right: int = 0) -> str:
    """A table of words.

    Args:
        headings: one per column; all empty for a table without a head.
        lines: the words of each row, as many as headings.
        classes: one per row, such as "ok" and "wrong"; none by default.
        right: how many of the last columns hold numbers.
    """
    left = len(headings) - right

    def cells(tag: str, words: Sequence[str]) -> str:
        numbers = [' class="number"' if i >= left else "" for i in range(len(words))]
        return "".join(f"<{tag}{n}>{escape(word)}</{tag}>" for n, word in zip(numbers, words, strict=True))

    head = f"<thead><tr>{cells('th', headings)}</tr></thead>\n" if any(headings) else ""
    marks = [f' class="{name}"' for name in classes] or [""] * len(lines)
    rows = "".join(f"<tr{mark}>{cells('td', line)}</tr>\n" for mark, line in zip(marks, lines, strict=True))
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'


def marked(words: str, ok: bool) -> str:
    """A verdict, coloured."""
    return f'<b class="{"ok" if ok else "wrong"}">{escape(words)}</b>'


def svg(figure: Any) -> str:
    """A figure as SVG within the page. It can be anything with matplotlib's `savefig`."""
    return f'<figure class="chart">{_drawn(figure, transparent=True)}</figure>\n'


def picture(figure: Any, alt: str, photo: bool = False) -> str:
    """A figure as an image. `alt` is for readers who cannot see it; a `photo` keeps its colours and background."""
    data = base64.b64encode(_drawn(figure, transparent=not photo).encode()).decode()
    kind = "photo" if photo else "chart"
    return f'<figure><img class="{kind}" alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}"></figure>\n'


def _drawn(figure: Any, transparent: bool) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None}, transparent=transparent)
    text = file.getvalue()
    return text[text.index("<svg") :]


def environment() -> str:
    """Versions, the device and the time, in one line."""
    words = [f"{name} {_version(name)}" for name in ("funcnet", "jax", "numpy")]
    words += [f"Python {platform.python_version()}", jax.default_backend()]
    return " · ".join([*words, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from its sources
        return "(not installed)"
