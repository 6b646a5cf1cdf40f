"""Gradient reports as HTML: the details for a notebook, and a page that needs no other file."""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from funcnet.rendering import headed, pages

__all__ = ["Outcome", "details", "page", "summary"]


class Outcome(NamedTuple):
    """The result of checking one target."""

    name: str
    report: Any = None  #: a `GradientReport`; `None` if nothing was compared
    score: Any = None  #: a `Score`, if mutants were made
    problem: str = ""  #: why nothing was compared

    @property
    def ok(self) -> bool:
        """Whether the gradient is right and no mutant was missed."""
        return self.report is not None and self.report.ok and (self.score is None or self.score.ok)

    def cells(self) -> dict[str, str]:
        """The outcome as one line of a table, heading -> text. It has numbers of mutants only if mutants were made."""
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
        """The outcome in a word or two."""
        if self.report is None:
            return "WRONG"
        if not self.report.ok:
            return self.report.mark
        return "ok" if self.ok else "MISSED"


def _worst(rows, engines):
    return max((f"{row.error:.1e}" for row in rows if row.engines == engines), key=float, default="")


def page(outcomes: Sequence[Outcome], figure: Any = None) -> str:
    """A page of outcomes, failing ones first.

    Args:
        outcomes: at least one.
        figure: a picture of them, anything with matplotlib's `savefig`.
    """
    if len(outcomes) == 1:
        title, body = f"Gradients of {outcomes[0].name}", details(outcomes[0])
    else:
        title, body = f"Gradients of {len(outcomes)} targets", _overview(outcomes)
    verdict = pages.marked(summary(outcomes), ok=all(outcome.ok for outcome in outcomes))
    drawn = "" if figure is None else pages.svg(figure)
    return pages.document(title, f'<p>{verdict}</p>\n<p class="quiet">{escape(pages.environment())}</p>\n{drawn}{body}')


WORDS = {
    "WRONG": "the hand-derived gradient is wrong",
    "NOT DECIDED": "it is not decided whether the hand-derived gradient is right",
    "MISSED": "a mutant was missed",
    "ok": "all gradients agree",
}


def summary(outcomes: Sequence[Outcome]) -> str:
    """What came out, in words."""
    verdicts = [outcome.verdict() for outcome in outcomes]
    if len(outcomes) == 1:
        return WORDS[verdicts[0]]
    failures = [word for word in WORDS if word != "ok" and word in verdicts]
    counts = [f"{verdicts.count(word)} of {len(outcomes)} {word.lower()}" for word in failures]
    return ", ".join(counts) or WORDS["ok"]


def _overview(outcomes):
    """A table with a line for each outcome, then each outcome in full. Failing ones come first, and are unfolded."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.ok)
    folded = "\n".join(
        f"<details{'' if outcome.ok else ' open'}><summary>{pages.marked(outcome.verdict(), ok=outcome.ok)} "
        f"{escape(outcome.name)}</summary>{details(outcome)}</details>"
        for outcome in ordered
    )
    return f"{_table(ordered)}\n<h2>Leaf by leaf</h2>\n{folded}\n"


def details(outcome: Outcome) -> str:
    """Everything about one outcome."""
    parts = []
    if outcome.problem:
        parts.append(f'<p class="place">{escape(outcome.problem)}</p>')
    if outcome.report is not None:
        report = outcome.report
        parts += [f'<p class="place">{escape(line)}</p>' for line in [*report.place(), *report.reasons]]
        parts.append(_table(sorted(report.rows, key=lambda row: row.ok)))
        parts.append(f'<p class="quiet">{escape(report.sampling)}</p>')
    if outcome.score is not None:
        parts.append(f"<p>{escape(str(outcome.score))}</p>")
        parts += [f'<p class="place">missed: {escape(mistake)}</p>' for mistake in outcome.score.missed]
    return "\n".join(parts)


def _table(rows):
    """A table of what has `ok` and `cells()`."""
    return pages.table(*headed(rows), classes=["ok" if row.ok else "wrong" for row in rows])
