"""Gradient reports as HTML: a fragment for a notebook, and a page that stands by itself, without scripts or links."""

import io
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib import metadata
from typing import Any, NamedTuple

import jax

__all__ = ["Outcome", "fragment", "headed", "page"]


class Outcome(NamedTuple):
    """What checking one target gave."""

    name: str
    report: Any = None  #: a `GradientReport`; `None` where the check came to no comparison
    score: Any = None  #: a `Score`, where mutants were made
    problem: str = ""  #: why the check came to no comparison

    @property
    def ok(self) -> bool:
        """Whether the gradient is right and no mutant was missed."""
        return self.report is not None and self.report.ok and (self.score is None or self.score.ok)

    def cells(self) -> dict[str, str]:
        """The outcome in a line of words, heading -> text; mutants only where they were made."""
        rows = self.report.rows if self.report is not None else ()
        words = {
            "": self.verdict(),
            "target": self.name,
            "leaves": str(len({row.leaf for row in rows} - {"random directions"})),
            "autodiff": _worst(rows, ("backprop", "autodiff")),
            "numeric": _worst(rows, ("backprop", "numeric")),
            "kinks": str(sum(row.kinks for row in rows if row.engines == ("backprop", "numeric")) or ""),
        }
        if self.score is not None:
            words |= {
                "caught": str(self.score.caught),
                "made": str(self.score.made),
                "equivalent": str(len(self.score.equivalent)),
            }
        return words

    def verdict(self) -> str:
        """In a word."""
        if self.report is None or not self.report.ok:
            return "WRONG"
        return "ok" if self.ok else "MISSED"


def _worst(rows, engines):
    return max((f"{row.error:.1e}" for row in rows if row.engines == engines), key=float, default="")


STYLE = """
.gradients { --bad: #b3261e; --good: #1a6b3c; --line: #dcdcdc; color: #1d1d1f; background: #fff;
  font: 15px/1.5 system-ui, sans-serif; }
.gradients table { border-collapse: collapse; margin: .5rem 0 1rem; font-size: 13px;
  font-variant-numeric: tabular-nums; }
.gradients th, .gradients td { padding: .3rem .8rem; text-align: left; white-space: nowrap; background: none;
  border-bottom: 1px solid var(--line); }
.gradients th { font-weight: 600; color: #5f6368; }
.gradients tr.wrong td { background: #fdecea; }
.gradients .wrong > td:first-child, .gradients b.wrong { color: var(--bad); font-weight: 700; }
.gradients .ok > td:first-child, .gradients b.ok { color: var(--good); font-weight: 700; }
.gradients .place { padding: .6rem 1rem; border-left: 4px solid var(--bad); background: #fdecea; }
.gradients .scroll { overflow-x: auto; }
.gradients .quiet { color: #5f6368; font-size: 13px; }
"""

PAGE_STYLE = """
body { margin: 0; background: #fff; }
.gradients { max-width: 1180px; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
.gradients h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
.gradients h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
.gradients summary { cursor: pointer; padding: .35rem 0; }
.gradients details { border-top: 1px solid var(--line); }
.gradients figure { margin: 1.2rem 0; }
.gradients svg { max-width: 100%; height: auto; }
"""


def fragment(outcome: Outcome) -> str:
    """One outcome for a notebook."""
    return f'<div class="gradients"><style>{STYLE}</style>{_details(outcome)}</div>'


def page(outcomes: Sequence[Outcome], figure: Any = None) -> str:
    """A page of outcomes, failing ones first.

    Args:
        outcomes: at least one.
        figure: a picture of them: anything with matplotlib's `savefig`.
    """
    wrong = sum(not outcome.ok for outcome in outcomes)
    if len(outcomes) == 1:
        title, body = f"Gradients of {outcomes[0].name}", _details(outcomes[0])
        failure = "a mutant was missed" if outcomes[0].verdict() == "MISSED" else "the hand-derived gradient is wrong"
    else:
        title, body = f"Gradients of {len(outcomes)} targets", _overview(outcomes)
        failure = f"{wrong} of {len(outcomes)} failed"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{PAGE_STYLE}</style></head>\n"
        f'<body><main class="gradients"><h1>{escape(title)}</h1>\n'
        f"<p>{_marked(failure if wrong else 'all gradients agree', ok=not wrong)}</p>\n"
        f'<p class="quiet">{escape(_environment())}</p>\n'
        f"{_picture(figure)}{body}</main></body></html>\n"
    )


def _overview(outcomes):
    """A table with a line for each outcome, then each in full; failing ones first, and unfolded."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.ok)
    folded = "\n".join(
        f"<details{'' if outcome.ok else ' open'}><summary>{_marked(outcome.verdict(), ok=outcome.ok)} "
        f"{escape(outcome.name)}</summary>{_details(outcome)}</details>"
        for outcome in ordered
    )
    return f"{_table(ordered)}\n<h2>Leaf by leaf</h2>\n{folded}\n"


def _details(outcome):
    """Everything about one outcome."""
    parts = []
    if outcome.problem:
        parts.append(f'<p class="place">{escape(outcome.problem)}</p>')
    if outcome.report is not None:
        report = outcome.report
        parts += [f'<p class="place">{escape(line)}</p>' for line in report.place()]
        parts.append(_table(sorted(report.rows, key=lambda row: row.ok)))
        parts.append(f'<p class="quiet">{escape(report.sampling)}</p>')
    if outcome.score is not None:
        parts.append(f"<p>{escape(str(outcome.score))}</p>")
        parts += [f'<p class="place">missed: {escape(mistake)}</p>' for mistake in outcome.score.missed]
    return "\n".join(parts)


def headed(rows: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    """The headings and the lines of words of what has `cells()`; the longest has all headings."""
    cells = [row.cells() for row in rows]
    headings = list(max(cells, key=len))
    return headings, [[words.get(heading, "") for heading in headings] for words in cells]


def _table(rows):
    """A table of what has `ok` and `cells()`."""
    headings, lines = headed(rows)
    head = "".join(f"<th>{escape(word)}</th>" for word in headings)
    body = "".join(
        f'<tr class="{"ok" if row.ok else "wrong"}">{"".join(f"<td>{escape(word)}</td>" for word in line)}</tr>\n'
        for row, line in zip(rows, lines, strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _marked(words, ok):
    return f'<b class="{"ok" if ok else "wrong"}">{escape(words)}</b>'


def _picture(figure):
    """The figure as SVG within the page."""
    if figure is None:
        return ""
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = file.getvalue()
    return f"<figure>{text[text.index('<svg') :]}</figure>\n"


def _environment():
    words = [f"{name} {_version(name)}" for name in ("funcnet", "jax", "numpy")]
    words += [f"Python {platform.python_version()}", jax.default_backend()]
    return " · ".join([*words, datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")])


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from its sources
        return "(not installed)"
